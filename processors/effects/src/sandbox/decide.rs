//! What the sandbox decides about one request: pure, over the payment's row.

use super::row::{SandboxMove, SandboxPayment, SandboxStatus};
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome};

/// Declined, code `card_declined`.
pub const METHOD_DECLINED: &str = "pm_card_chargeDeclined";
/// Asks the customer to act.
pub const METHOD_ACTION: &str = "pm_card_authenticationRequired";
/// Its first reply is lost though the charge happened.
pub const METHOD_TIMEOUT: &str = "pm_sandbox_timeout";

/// The answer to a request, and the payment's new row if it changed.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub outcome: PaymentOutcome,
    pub amount_minor: i64,
    pub code: Option<Text>,
    pub payment: Option<SandboxPayment>,
}

impl Verdict {
    /// `amount_minor`: what was asked for.
    fn declined(code: &'static str, amount_minor: i64) -> Self {
        Self {
            outcome: PaymentOutcome::Declined,
            amount_minor,
            code: Some(Text::const_new(code)),
            payment: None,
        }
    }

    /// The one decline that names another amount than it was asked for: what was captured, so that whoever did not
    /// know of the capture can book it.
    fn already_captured(payment: &SandboxPayment) -> Self {
        Self::declined("already_captured", payment.captured_minor)
    }

    fn done(outcome: PaymentOutcome, amount_minor: i64, payment: SandboxPayment) -> Self {
        Self { outcome, amount_minor, code: None, payment: Some(payment) }
    }
}

/// Decides a request whose key was never seen. `unlucky`: the configured share of cards that are declined.
pub(super) fn decide(
    tenant: &str,
    order_id: &str,
    request: &PaymentRequest,
    payment: Option<SandboxPayment>,
    unlucky: bool,
) -> Verdict {
    if request.amount_minor < 0
        || (request.amount_minor == 0 && request.operation != PaymentOperation::Cancel)
    {
        return Verdict::declined("amount_too_small", request.amount_minor);
    }
    if request.operation == PaymentOperation::Authorize {
        return authorize(tenant, order_id, request, payment, unlucky);
    }
    let Some(payment) = payment else {
        return Verdict::declined("resource_missing", request.amount_minor);
    };
    if payment.tenant != tenant || payment.order_id != order_id {
        return Verdict::declined("resource_missing", request.amount_minor);
    }
    if payment.currency != request.currency {
        return Verdict::declined("currency_mismatch", request.amount_minor);
    }
    match request.operation {
        PaymentOperation::Capture => capture(request, payment),
        PaymentOperation::Cancel => cancel(payment),
        PaymentOperation::Refund | PaymentOperation::Authorize => refund(request, payment),
    }
}

fn authorize(
    tenant: &str,
    order_id: &str,
    request: &PaymentRequest,
    before: Option<SandboxPayment>,
    unlucky: bool,
) -> Verdict {
    // A declined payment may be tried again; anything else under a fresh key would be a second charge.
    if before.is_some_and(|it| it.status != SandboxStatus::Declined) {
        return Verdict::declined("payment_exists", request.amount_minor);
    }
    let method = request.method.as_str();
    let declined = if !method.starts_with("pm_card") && !method.starts_with("pm_sandbox") {
        Some("unknown_payment_method")
    } else if method == METHOD_DECLINED || unlucky {
        Some("card_declined")
    } else {
        None
    };
    let mut payment = SandboxPayment {
        tenant: Text::new(tenant),
        order_id: Text::new(order_id),
        currency: request.currency.clone(),
        method: request.method.clone(),
        request_key: request.request_key.clone(),
        status: SandboxStatus::Declined,
        capture: request.capture,
        asked_action: false,
        amount_minor: request.amount_minor,
        authorized_minor: 0,
        captured_minor: 0,
        refunded_minor: 0,
        charges: Vec::new(),
        refunds: Vec::new(),
    };
    if let Some(code) = declined {
        return Verdict { payment: Some(payment), ..Verdict::declined(code, request.amount_minor) };
    }
    if method == METHOD_ACTION {
        payment.status = SandboxStatus::RequiresAction;
        payment.asked_action = true;
        return Verdict::done(PaymentOutcome::RequiresAction, request.amount_minor, payment);
    }
    let outcome = charge(&mut payment);
    Verdict::done(outcome, request.amount_minor, payment)
}

/// Takes (or only authorizes) what was asked for.
fn charge(payment: &mut SandboxPayment) -> PaymentOutcome {
    match payment.capture {
        CaptureMode::Automatic => {
            take(payment, payment.request_key.clone(), payment.amount_minor);
            PaymentOutcome::Captured
        }
        CaptureMode::Manual => {
            payment.status = SandboxStatus::Authorized;
            payment.authorized_minor = payment.amount_minor;
            PaymentOutcome::Authorized
        }
    }
}

/// Money moves from the customer.
fn take(payment: &mut SandboxPayment, request_key: Text, amount_minor: i64) {
    payment.status = SandboxStatus::Captured;
    payment.captured_minor = amount_minor;
    payment.charges.push(SandboxMove { request_key, amount_minor });
}

fn capture(request: &PaymentRequest, mut payment: SandboxPayment) -> Verdict {
    match payment.status {
        SandboxStatus::Authorized if request.amount_minor > payment.authorized_minor => {
            Verdict::declined("amount_too_large", request.amount_minor)
        }
        SandboxStatus::Authorized => {
            take(&mut payment, request.request_key.clone(), request.amount_minor);
            // As with Stripe, a capture of less gives the rest of the authorization up.
            payment.authorized_minor = 0;
            Verdict::done(PaymentOutcome::Captured, request.amount_minor, payment)
        }
        SandboxStatus::Captured => Verdict::already_captured(&payment),
        SandboxStatus::RequiresAction | SandboxStatus::Cancelled | SandboxStatus::Declined => {
            Verdict::declined("payment_unexpected_state", request.amount_minor)
        }
    }
}

fn cancel(mut payment: SandboxPayment) -> Verdict {
    match payment.status {
        SandboxStatus::Captured => Verdict::already_captured(&payment),
        SandboxStatus::Authorized | SandboxStatus::RequiresAction => {
            let amount_minor = payment.authorized_minor;
            payment.status = SandboxStatus::Cancelled;
            payment.authorized_minor = 0;
            Verdict::done(PaymentOutcome::Cancelled, amount_minor, payment)
        }
        // What is asked for is already so.
        SandboxStatus::Cancelled | SandboxStatus::Declined => {
            Verdict::done(PaymentOutcome::Cancelled, 0, payment)
        }
    }
}

fn refund(request: &PaymentRequest, mut payment: SandboxPayment) -> Verdict {
    if payment.captured_minor == 0 {
        return Verdict::declined("nothing_captured", request.amount_minor);
    }
    if request.amount_minor > payment.captured_minor - payment.refunded_minor {
        return Verdict::declined("amount_exceeds_captured", request.amount_minor);
    }
    payment.refunded_minor += request.amount_minor;
    payment
        .refunds
        .push(SandboxMove { request_key: request.request_key.clone(), amount_minor: request.amount_minor });
    Verdict::done(PaymentOutcome::Refunded, request.amount_minor, payment)
}

/// The customer acted (or failed to) on a payment that asked for it. `None`: it never asked, or was cancelled since.
/// Asking again gives the same answer, so that a lost one can be fetched.
pub(super) fn authenticate(mut payment: SandboxPayment, succeed: bool) -> Option<Verdict> {
    if !payment.asked_action {
        return None;
    }
    match payment.status {
        SandboxStatus::RequiresAction if succeed => {
            let outcome = charge(&mut payment);
            Some(Verdict::done(outcome, payment.amount_minor, payment))
        }
        SandboxStatus::RequiresAction => {
            payment.status = SandboxStatus::Declined;
            let declined = Verdict::declined("authentication_failed", payment.amount_minor);
            Some(Verdict { payment: Some(payment), ..declined })
        }
        SandboxStatus::Declined => Some(Verdict::declined("authentication_failed", payment.amount_minor)),
        SandboxStatus::Captured if payment.capture == CaptureMode::Automatic => {
            Some(Verdict::done(PaymentOutcome::Captured, payment.amount_minor, payment))
        }
        SandboxStatus::Captured | SandboxStatus::Authorized => {
            Some(Verdict::done(PaymentOutcome::Authorized, payment.amount_minor, payment))
        }
        SandboxStatus::Cancelled => None,
    }
}

/// A sentence for a code.
pub(super) fn message(code: &str) -> &'static str {
    match code {
        "card_declined" => "The card was declined.",
        "unknown_payment_method" => {
            "The sandbox does not know this payment method; use one that starts with pm_card."
        }
        "authentication_failed" => "The customer did not authenticate the payment.",
        "amount_too_small" => "The amount must be above zero.",
        "amount_too_large" => "More was asked for than is authorized.",
        "amount_exceeds_captured" => "More was asked back than is left of what was captured.",
        "nothing_captured" => "Nothing was captured.",
        "already_captured" => "The payment is captured; refund it.",
        "currency_mismatch" => "The payment has another currency.",
        "resource_missing" => "There is no such payment.",
        "payment_exists" => "The payment exists; it is never charged a second time.",
        "payment_unexpected_state" => "The payment's state does not allow this.",
        "idempotency_error" => "The idempotency key was used before with other parameters.",
        _ => "The provider said no.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;
    use proptest::prelude::*;

    fn any_request() -> impl Strategy<Value = PaymentRequest> {
        (0usize..4, 0i64..300, any::<bool>(), 0usize..4).prop_map(
            |(operation, amount_minor, manual, method)| {
                let operation = [
                    PaymentOperation::Authorize,
                    PaymentOperation::Capture,
                    PaymentOperation::Cancel,
                    PaymentOperation::Refund,
                ][operation];
                let mut request = request("k", operation, amount_minor);
                request.method = ["pm_card_visa", METHOD_ACTION, METHOD_DECLINED, "cash"][method].into();
                request.capture = if manual { CaptureMode::Manual } else { CaptureMode::Automatic };
                request
            },
        )
    }

    proptest! {
        /// Whatever is asked in whatever order: never more captured than asked for, never more refunded than captured,
        /// an authorization is never left beside its capture, and the sums are those of the charges and refunds.
        #[test]
        fn money_never_exceeds_its_bounds(steps in prop::collection::vec((any_request(), prop::option::of(any::<bool>())), 1..40)) {
            let mut payment: Option<SandboxPayment> = None;
            for (request, acted) in steps {
                let verdict = match (acted, &payment) {
                    (Some(succeed), Some(row)) => authenticate(row.clone(), succeed),
                    _ => Some(decide("demo", "ord_1", &request, payment.clone(), false)),
                };
                if let Some(row) = verdict.and_then(|it| it.payment) {
                    prop_assert!(row.authorized_minor + row.captured_minor <= row.amount_minor);
                    prop_assert!(row.refunded_minor >= 0 && row.refunded_minor <= row.captured_minor);
                    prop_assert!(row.authorized_minor == 0 || row.status == SandboxStatus::Authorized);
                    prop_assert_eq!(row.captured_minor > 0, row.status == SandboxStatus::Captured);
                    let sum = |moves: &[SandboxMove]| moves.iter().map(|it| it.amount_minor).sum::<i64>();
                    prop_assert_eq!((sum(&row.charges), sum(&row.refunds)), (row.captured_minor, row.refunded_minor));
                    prop_assert!(row.charges.len() <= 1, "charged once at most");
                    payment = Some(row);
                }
            }
        }
    }
}
