//! The sandbox payment provider: behaves as a card processor would, with a durable ledger of its own.
//!
//! The ledger stands outside the pipeline's commit, as a real provider's does, so that tests can hold the two against
//! each other: every charge in it must be an order's, and be there once.

mod decide;
mod ledger;
pub mod remote;
mod row;

pub use decide::{METHOD_ACTION, METHOD_DECLINED, METHOD_TIMEOUT};
pub use ledger::LedgerError;
pub use row::{SandboxMove, SandboxPayment, SandboxStatus};

use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use futures::channel::oneshot;
use futures::future::BoxFuture;
use ledger::{Job, Ledger};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{PaymentOperation, PaymentOutcome, PaymentResult};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How the sandbox behaves. Rates are shares from 0 to 1, drawn by a hash of the request key (and attempt), so that a
/// run can be repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxSettings {
    /// Where the ledger is kept; made if it is not there.
    pub dir: PathBuf,
    /// How long a call takes, ms, from and to (inclusive).
    pub latency_ms: (u64, u64),
    /// Share of authorizations that are declined, per request key.
    pub decline_rate: f64,
    /// Share of attempts whose reply is lost after they were performed.
    pub lost_reply_rate: f64,
    /// Share of attempts that are refused before anything happens.
    pub unavailable_rate: f64,
}

impl SandboxSettings {
    /// A sandbox without latency and without faults.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            latency_ms: (0, 0),
            decline_rate: 0.0,
            lost_reply_rate: 0.0,
            unavailable_rate: 0.0,
        }
    }
}

/// What the ledger holds in one currency, minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxTotals {
    /// Payments of any status.
    pub payments: u64,
    /// Payments with something captured.
    pub captured_payments: u64,
    /// Authorized and not yet captured or given up.
    pub authorized_minor: i64,
    /// Captured.
    pub captured_minor: i64,
    /// Refunded.
    pub refunded_minor: i64,
}

/// A payment that the customer acted on: its tenant, its order, and the result for the order task.
pub type ActedPayment = (Text, Text, PaymentResult);

/// The sandbox beside what every provider has: its payments, and what a customer would do at the bank's page.
pub trait SandboxLedger: Send + Sync {
    /// A payment, as last committed.
    fn payment<'a>(
        &'a self,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<SandboxPayment>, LedgerError>>;

    /// The customer acts on a payment that asked for it. `None`: no such payment, it never asked, or it was
    /// cancelled. Asking again answers the same.
    fn authenticate<'a>(
        &'a self,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<Option<ActedPayment>, LedgerError>>;
}

/// The sandbox provider.
pub struct SandboxProvider {
    settings: SandboxSettings,
    ledger: Ledger,
}

/// What a draw is for; each has its own seed, so that draws are independent.
#[derive(Clone, Copy)]
enum Draw {
    Decline = 1,
    Lost = 2,
    Unavailable = 3,
    Latency = 4,
}

/// A number that the key, the attempt and the purpose decide.
fn draw(purpose: Draw, request_key: &str, attempt: i32) -> u64 {
    let seed = (purpose as u64) << 32 | u64::from(attempt.cast_unsigned());
    xxh3_64_with_seed(request_key.as_bytes(), seed)
}

fn happens(rate: f64, purpose: Draw, request_key: &str, attempt: i32) -> bool {
    // 53 bits are a double's precision.
    rate > 0.0 && (draw(purpose, request_key, attempt) >> 11) as f64 / (1u64 << 53) as f64 <= rate
}

impl SandboxProvider {
    /// Opens (or makes) the ledger.
    pub fn open(settings: SandboxSettings) -> Result<Self, LedgerError> {
        let ledger = Ledger::open(&settings.dir)?;
        Ok(Self { settings, ledger })
    }

    /// The customer acts on a payment that asked for it. `None`: no such payment, it never asked, or it was cancelled.
    /// Otherwise the tenant, the order, and the result for the order task; asking again answers the same.
    pub async fn authenticate(
        &self,
        payment_id: &str,
        succeed: bool,
    ) -> Result<Option<ActedPayment>, LedgerError> {
        let (to, acted) = oneshot::channel();
        self.ledger.send(Job::Authenticate { payment_id: Text::new(payment_id), succeed, to })?;
        acted.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// A payment, as last committed.
    pub fn payment(&self, payment_id: &str) -> Result<Option<SandboxPayment>, LedgerError> {
        self.ledger.payment(payment_id)
    }

    /// Every payment with its id, in id order: for audits.
    pub fn payments(&self) -> impl Iterator<Item = Result<(Text, SandboxPayment), LedgerError>> + use<> {
        self.payments_after("")
    }

    /// The payments whose ids come after `after`, in id order.
    pub fn payments_after(
        &self,
        after: &str,
    ) -> impl Iterator<Item = Result<(Text, SandboxPayment), LedgerError>> + use<> {
        self.ledger.payments(after)
    }

    /// Resolves once the ledger takes nothing more, with the reason: a write or fsync failed. What the disk holds then is
    /// unknown until it is opened again, so whoever opened it ends.
    pub fn stopped(&self) -> impl Future<Output = LedgerError> + Send + use<> {
        self.ledger.stopped()
    }

    /// Whether the ledger takes requests; it stops for good when a write or fsync fails.
    pub fn is_running(&self) -> bool {
        self.ledger.is_running()
    }

    /// Sums per currency, counted now over all payments.
    pub fn totals(&self) -> Result<BTreeMap<Text, SandboxTotals>, LedgerError> {
        let mut totals: BTreeMap<Text, SandboxTotals> = BTreeMap::new();
        for entry in self.payments() {
            let (_, payment) = entry?;
            let sums = totals.entry(payment.currency).or_default();
            sums.payments += 1;
            sums.captured_payments += u64::from(payment.captured_minor > 0);
            sums.authorized_minor += payment.authorized_minor;
            sums.captured_minor += payment.captured_minor;
            sums.refunded_minor += payment.refunded_minor;
        }
        Ok(totals)
    }

    /// How many groups were made durable since the ledger was opened: each cost one sync.
    pub fn groups_committed(&self) -> u64 {
        self.ledger.groups_committed()
    }

    fn latency(&self, request: &PaymentRequest) -> Option<Duration> {
        let (least, most) = self.settings.latency_ms;
        if most == 0 {
            return None;
        }
        let spread = most.saturating_sub(least).saturating_add(1);
        let drawn = draw(Draw::Latency, &request.request_key, request.attempt) % spread;
        Some(Duration::from_millis(least + drawn))
    }

    async fn perform(&self, tenant: &str, order_id: &str, request: &PaymentRequest) -> ProviderReply {
        let (key, attempt) = (request.request_key.as_str(), request.attempt);
        if let Some(latency) = self.latency(request) {
            tokio::time::sleep(latency).await;
        }
        if happens(self.settings.unavailable_rate, Draw::Unavailable, key, attempt) {
            return ProviderReply::unavailable(
                "sandbox_unavailable",
                "The sandbox was told to be unavailable.",
            );
        }
        // A declined card stays declined, whichever attempt asks.
        let unlucky = happens(self.settings.decline_rate, Draw::Decline, key, 0);
        let (to, answer) = oneshot::channel();
        let job = Job::Execute {
            tenant: Text::new(tenant),
            order_id: Text::new(order_id),
            request: Box::new(request.clone()),
            unlucky,
            to,
        };
        if self.ledger.send(job).is_err() {
            return ProviderReply::unavailable("sandbox_stopped", "The sandbox's ledger has stopped.");
        }
        let answer = match answer.await {
            Ok(Ok(answer)) => answer,
            // It may be on the disk all the same.
            Ok(Err(_)) | Err(_) => {
                return ProviderReply::unknown(
                    "sandbox_stopped",
                    "The sandbox's ledger failed during the call.",
                );
            }
        };
        let first_is_lost = answer.fresh
            && request.operation == PaymentOperation::Authorize
            && request.method == METHOD_TIMEOUT
            && answer.result.outcome != PaymentOutcome::Declined;
        if first_is_lost || happens(self.settings.lost_reply_rate, Draw::Lost, key, attempt) {
            return ProviderReply::unknown(
                "reply_lost",
                "The sandbox performed the request and lost its reply.",
            );
        }
        ProviderReply::Answered(answer.result)
    }
}

fn stopped() -> LedgerError {
    LedgerError::Stopped("its thread has ended".into())
}

impl PaymentProvider for SandboxProvider {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn execute<'a>(
        &'a self,
        tenant: &'a str,
        order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply> {
        Box::pin(self.perform(tenant, order_id, request))
    }

    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup> {
        let found = match self.ledger.answer(request_key) {
            Ok(Some(result)) => Lookup::Found(result),
            Ok(None) => Lookup::Absent,
            Err(_) => Lookup::Unavailable,
        };
        Box::pin(std::future::ready(found))
    }
}

impl SandboxLedger for SandboxProvider {
    fn payment<'a>(
        &'a self,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<SandboxPayment>, LedgerError>> {
        Box::pin(std::future::ready(self.payment(payment_id)))
    }

    fn authenticate<'a>(
        &'a self,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<Option<ActedPayment>, LedgerError>> {
        Box::pin(self.authenticate(payment_id, succeed))
    }
}

#[cfg(test)]
mod tests;
