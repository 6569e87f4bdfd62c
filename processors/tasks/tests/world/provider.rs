//! A payment provider in memory, with its own ledger: what it says happened is compared with what we think.

use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::effects::{EffectPayload, EffectRequest, PaymentRequest};
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome, PaymentResult};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing happens, and the provider says so.
    Unavailable,
    /// It happens, and the reply is lost.
    ReplyLost,
    /// Nothing happens, and nobody knows.
    RequestLost,
    /// The provider says no, and will say no again.
    Declined,
}

/// Where a charge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The customer must act.
    RequiresAction,
    /// Authorized.
    Authorized,
    /// Captured.
    Captured,
    /// Given up.
    Cancelled,
    /// Refused.
    Declined,
}

/// One payment, as the provider sees it.
#[derive(Clone, Debug)]
pub struct Account {
    pub order_id: Text,
    pub payment_id: Text,
    pub amount_minor: i64,
    pub capture: CaptureMode,
    pub charge: Charge,
    pub captured_minor: i64,
    pub refunded_minor: i64,
}

/// The provider.
#[derive(Default)]
pub struct Provider {
    pub accounts: BTreeMap<Text, Account>,
    pub faults: Vec<Fault>,
    pub calls: u64,
    answers: BTreeMap<Text, PaymentResult>,
}

impl Provider {
    /// Performs a request; the same key has the same effect once, and gets the same answer.
    pub fn perform(&mut self, effect: &EffectRequest) -> PaymentResult {
        let EffectPayload::Payment(request) = &effect.payload;
        self.calls += 1;
        let fault = self.faults.pop();
        match fault {
            Some(Fault::Unavailable) => return answer(request, PaymentOutcome::Unavailable, None),
            Some(Fault::RequestLost) => return answer(request, PaymentOutcome::Unknown, None),
            _ => {}
        }
        let known = self.answers.get(&request.request_key).cloned();
        let first = known.is_none();
        let result = known.unwrap_or_else(|| match fault {
            Some(Fault::Declined) => answer(request, PaymentOutcome::Declined, Some("provider_says_no")),
            _ => self.execute(effect, request),
        });
        self.answers.insert(request.request_key.clone(), result.clone());
        let loses_first = request.method == "pm_sandbox_timeout"
            && request.operation == PaymentOperation::Authorize
            && first;
        if fault == Some(Fault::ReplyLost) || loses_first {
            return answer(request, PaymentOutcome::Unknown, None);
        }
        result
    }

    fn execute(&mut self, effect: &EffectRequest, request: &PaymentRequest) -> PaymentResult {
        match request.operation {
            PaymentOperation::Authorize => self.authorize(effect, request),
            PaymentOperation::Capture => self.capture(request),
            PaymentOperation::Cancel => self.cancel(request),
            PaymentOperation::Refund => self.refund(request),
        }
    }

    fn authorize(&mut self, effect: &EffectRequest, request: &PaymentRequest) -> PaymentResult {
        assert!(!self.accounts.contains_key(&request.payment_id), "a second charge for one payment");
        let mut account = Account {
            order_id: effect.order_id.clone(),
            payment_id: request.payment_id.clone(),
            amount_minor: request.amount_minor,
            capture: request.capture,
            charge: Charge::Declined,
            captured_minor: 0,
            refunded_minor: 0,
        };
        let (outcome, code) = match request.method.as_str() {
            "pm_card_chargeDeclined" => (PaymentOutcome::Declined, Some("card_declined")),
            "pm_card_authenticationRequired" => {
                account.charge = Charge::RequiresAction;
                (PaymentOutcome::RequiresAction, None)
            }
            _ => (account.succeed(), None),
        };
        self.accounts.insert(request.payment_id.clone(), account);
        answer(request, outcome, code)
    }

    fn capture(&mut self, request: &PaymentRequest) -> PaymentResult {
        match self.accounts.get_mut(&request.payment_id) {
            Some(it) if it.charge == Charge::Authorized && request.amount_minor <= it.amount_minor => {
                it.charge = Charge::Captured;
                it.captured_minor = request.amount_minor;
                answer(request, PaymentOutcome::Captured, None)
            }
            _ => answer(request, PaymentOutcome::Declined, Some("not_capturable")),
        }
    }

    fn cancel(&mut self, request: &PaymentRequest) -> PaymentResult {
        match self.accounts.get_mut(&request.payment_id) {
            Some(it) if matches!(it.charge, Charge::Authorized | Charge::RequiresAction) => {
                it.charge = Charge::Cancelled;
                answer(request, PaymentOutcome::Cancelled, None)
            }
            Some(it) if it.charge == Charge::Captured => PaymentResult {
                // How much was taken: a capture may have been partial.
                amount_minor: it.captured_minor,
                ..answer(request, PaymentOutcome::Declined, Some("already_captured"))
            },
            Some(_) => answer(request, PaymentOutcome::Declined, Some("already_cancelled")),
            None => answer(request, PaymentOutcome::Declined, Some("not_found")),
        }
    }

    fn refund(&mut self, request: &PaymentRequest) -> PaymentResult {
        match self.accounts.get_mut(&request.payment_id) {
            Some(it) if request.amount_minor <= it.captured_minor - it.refunded_minor => {
                it.refunded_minor += request.amount_minor;
                answer(request, PaymentOutcome::Refunded, None)
            }
            _ => answer(request, PaymentOutcome::Declined, Some("amount_too_large")),
        }
    }

    /// The customer acts: what the provider's webhook says of it, if a payment of the order waited for that.
    pub fn authenticate(&mut self, order_id: &Text, succeeds: bool) -> Option<PaymentResult> {
        let account = self.accounts.values_mut().find(|it| it.order_id == *order_id)?;
        if account.charge != Charge::RequiresAction {
            return None;
        }
        let (outcome, code) = if succeeds {
            (account.succeed(), None)
        } else {
            account.charge = Charge::Declined;
            (PaymentOutcome::Declined, Some("authentication_failed"))
        };
        Some(PaymentResult {
            payment_id: account.payment_id.clone(),
            request_key: Text::default(),
            operation: PaymentOperation::Authorize,
            outcome,
            amount_minor: account.amount_minor,
            provider_ref: Some("pi_1".into()),
            code: code.map(Text::from),
            message: None,
        })
    }
}

impl Account {
    fn succeed(&mut self) -> PaymentOutcome {
        match self.capture {
            CaptureMode::Automatic => {
                self.charge = Charge::Captured;
                self.captured_minor = self.amount_minor;
                PaymentOutcome::Captured
            }
            CaptureMode::Manual => {
                self.charge = Charge::Authorized;
                PaymentOutcome::Authorized
            }
        }
    }
}

fn answer(request: &PaymentRequest, outcome: PaymentOutcome, code: Option<&str>) -> PaymentResult {
    PaymentResult {
        payment_id: request.payment_id.clone(),
        request_key: request.request_key.clone(),
        operation: request.operation,
        outcome,
        amount_minor: request.amount_minor,
        provider_ref: Some("pi_1".into()),
        code: code.map(Text::from),
        message: None,
    }
}
