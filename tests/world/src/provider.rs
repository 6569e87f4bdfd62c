//! A payment provider of another company: its books lie outside of every commit, and its network is as bad as asked.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tillstream_effects::{Lookup, PaymentProvider, ProviderReply};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome, PaymentResult};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing happens, and the provider says so.
    Unavailable,
    /// It happens, and the reply is lost.
    ReplyLost,
    /// Nothing happens, and nobody knows.
    RequestLost,
    /// It happens late, and is answered late.
    Slow,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The customer must act.
    Waiting,
    /// Money is promised.
    Authorized,
    /// Money was taken.
    Captured,
    /// Given up.
    Cancelled,
    /// Refused.
    Declined,
}

/// One payment.
#[derive(Clone, Debug)]
pub struct Account {
    /// The order it is of.
    pub order_id: Text,
    /// What was asked for, minor units.
    pub amount_minor: i64,
    /// When the money is taken.
    pub capture: CaptureMode,
    /// Where it stands.
    pub standing: Standing,
    /// Minor units taken.
    pub captured_minor: i64,
    /// Every refund: its key and minor units.
    pub refunds: Vec<(Text, i64)>,
    /// How often money was taken.
    pub charges: u32,
}

impl Account {
    /// Minor units given back.
    pub fn refunded_minor(&self) -> i64 {
        self.refunds.iter().map(|(_, it)| *it).sum()
    }

    fn succeed(&mut self) -> PaymentOutcome {
        if self.capture == CaptureMode::Manual {
            self.standing = Standing::Authorized;
            return PaymentOutcome::Authorized;
        }
        self.take(self.amount_minor);
        PaymentOutcome::Captured
    }

    fn take(&mut self, amount_minor: i64) {
        self.standing = Standing::Captured;
        self.captured_minor += amount_minor;
        self.charges += 1;
    }
}

#[derive(Default)]
struct Books {
    accounts: BTreeMap<Text, Account>,
    answers: BTreeMap<Text, PaymentResult>,
    troubles: VecDeque<Trouble>,
    calls: u64,
    struck: u64,
}

/// The provider.
pub struct SimProvider {
    books: Mutex<Books>,
    clock: Arc<dyn Clock>,
    latency: Duration,
}

fn result(
    request: &PaymentRequest,
    outcome: PaymentOutcome,
    amount_minor: i64,
    code: Option<&'static str>,
) -> PaymentResult {
    PaymentResult {
        payment_id: request.payment_id.clone(),
        request_key: request.request_key.clone(),
        operation: request.operation,
        outcome,
        amount_minor,
        provider_ref: Some(Text::const_new("pi_1")),
        code: code.map(Text::const_new),
        message: None,
    }
}

impl Books {
    /// The same key moves money once and gets the same answer.
    fn perform(&mut self, order_id: &str, request: &PaymentRequest) -> PaymentResult {
        if let Some(known) = self.answers.get(&request.request_key) {
            return known.clone();
        }
        let (outcome, amount_minor, code) = self.decide(order_id, request);
        let answer = result(request, outcome, amount_minor, code);
        self.answers.insert(request.request_key.clone(), answer.clone());
        answer
    }

    fn decide(
        &mut self,
        order_id: &str,
        request: &PaymentRequest,
    ) -> (PaymentOutcome, i64, Option<&'static str>) {
        let asked = request.amount_minor;
        let declined = |code| (PaymentOutcome::Declined, asked, Some(code));
        if request.operation == PaymentOperation::Authorize {
            return self.authorize(order_id, request);
        }
        let Some(account) = self.accounts.get_mut(&request.payment_id) else {
            return declined("resource_missing");
        };
        match (request.operation, account.standing) {
            (PaymentOperation::Capture, Standing::Authorized) if asked <= account.amount_minor => {
                account.take(asked);
                (PaymentOutcome::Captured, asked, None)
            }
            (PaymentOperation::Capture | PaymentOperation::Cancel, Standing::Captured) => {
                (PaymentOutcome::Declined, account.captured_minor, Some("already_captured"))
            }
            (PaymentOperation::Cancel, Standing::Authorized | Standing::Waiting) => {
                let held = if account.standing == Standing::Authorized { account.amount_minor } else { 0 };
                account.standing = Standing::Cancelled;
                (PaymentOutcome::Cancelled, held, None)
            }
            (PaymentOperation::Cancel, _) => (PaymentOutcome::Cancelled, 0, None),
            (PaymentOperation::Refund, Standing::Captured)
                if asked <= account.captured_minor - account.refunded_minor() =>
            {
                account.refunds.push((request.request_key.clone(), asked));
                (PaymentOutcome::Refunded, asked, None)
            }
            _ => declined("payment_unexpected_state"),
        }
    }

    fn authorize(
        &mut self,
        order_id: &str,
        request: &PaymentRequest,
    ) -> (PaymentOutcome, i64, Option<&'static str>) {
        let amount_minor = request.amount_minor;
        if self.accounts.contains_key(&request.payment_id) {
            return (PaymentOutcome::Declined, amount_minor, Some("payment_exists"));
        }
        let mut account = Account {
            order_id: order_id.into(),
            amount_minor,
            capture: request.capture,
            standing: Standing::Declined,
            captured_minor: 0,
            refunds: Vec::new(),
            charges: 0,
        };
        let (outcome, code) = match request.method.as_str() {
            "pm_card_chargeDeclined" => (PaymentOutcome::Declined, Some("card_declined")),
            "pm_card_authenticationRequired" => {
                account.standing = Standing::Waiting;
                (PaymentOutcome::RequiresAction, None)
            }
            _ => (account.succeed(), None),
        };
        self.accounts.insert(request.payment_id.clone(), account);
        (outcome, amount_minor, code)
    }
}

impl SimProvider {
    /// Without payments. A call takes `latency` to arrive, and its answer as long.
    pub fn new(clock: Arc<dyn Clock>, latency: Duration) -> Self {
        Self { books: Mutex::default(), clock, latency }
    }

    /// The next calls go wrong.
    pub fn trouble(&self, trouble: Trouble, calls: u8) {
        self.books.lock().troubles.extend((0..calls).map(|_| trouble));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.books.lock().troubles.clear();
    }

    /// Calls that went wrong, and calls.
    pub fn counts(&self) -> (u64, u64) {
        let books = self.books.lock();
        (books.struck, books.calls)
    }

    /// Every payment, by its id.
    pub fn accounts(&self) -> BTreeMap<Text, Account> {
        self.books.lock().accounts.clone()
    }

    /// The customer of an order acts: what the webhook says, if a payment waited for that.
    pub fn act(&self, order_id: &str, agrees: bool) -> Option<PaymentResult> {
        let mut books = self.books.lock();
        let (payment_id, account) = books.accounts.iter_mut().find(|(_, it)| it.order_id == order_id)?;
        if account.standing != Standing::Waiting {
            return None;
        }
        let (outcome, code) = if agrees {
            (account.succeed(), None)
        } else {
            account.standing = Standing::Declined;
            (PaymentOutcome::Declined, Some(Text::const_new("authentication_failed")))
        };
        Some(PaymentResult {
            payment_id: payment_id.clone(),
            request_key: Text::default(),
            operation: PaymentOperation::Authorize,
            outcome,
            amount_minor: account.amount_minor,
            provider_ref: Some(Text::const_new("pi_1")),
            code,
            message: None,
        })
    }

    async fn call(&self, order_id: &str, request: &PaymentRequest) -> ProviderReply {
        let trouble = {
            let mut books = self.books.lock();
            books.calls += 1;
            let trouble = books.troubles.pop_front();
            books.struck += u64::from(trouble.is_some());
            trouble
        };
        let latency = if trouble == Some(Trouble::Slow) { self.latency * 400 } else { self.latency };
        self.clock.sleep(latency).await;
        match trouble {
            Some(Trouble::Unavailable) => {
                return ProviderReply::unavailable("unavailable", "The provider is not to be had.");
            }
            Some(Trouble::RequestLost) => {
                return ProviderReply::unknown("timeout", "The provider did not answer.");
            }
            _ => {}
        }
        let answer = self.books.lock().perform(order_id, request);
        self.clock.sleep(latency).await;
        if trouble == Some(Trouble::ReplyLost) {
            return ProviderReply::unknown("timeout", "The provider did not answer.");
        }
        ProviderReply::Answered(answer)
    }
}

impl PaymentProvider for SimProvider {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn execute<'a>(
        &'a self,
        _tenant: &'a str,
        order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply> {
        Box::pin(self.call(order_id, request))
    }

    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup> {
        let found = self.books.lock().answers.get(request_key).cloned();
        Box::pin(std::future::ready(found.map_or(Lookup::Absent, Lookup::Found)))
    }
}
