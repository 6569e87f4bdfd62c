//! What every payment provider must do; each implementation runs this suite.

use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use crate::testing::request;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome, PaymentResult};

use PaymentOperation::{Authorize, Cancel, Capture, Refund};

/// A provider under test, and its payment methods.
pub struct Subject<'a> {
    pub provider: &'a dyn PaymentProvider,
    pub good: &'static str,
    pub declined: &'static str,
    pub action: &'static str,
}

/// One step: what is asked, and what must come of it.
struct Step {
    key: &'static str,
    operation: PaymentOperation,
    amount_minor: i64,
    outcome: PaymentOutcome,
    code: Option<&'static str>,
    /// What the answer names, where that is not what was asked for.
    answered_minor: Option<i64>,
}

const fn step(
    key: &'static str,
    operation: PaymentOperation,
    amount_minor: i64,
    outcome: PaymentOutcome,
) -> Step {
    Step { key, operation, amount_minor, outcome, code: None, answered_minor: None }
}

const fn no(key: &'static str, operation: PaymentOperation, amount_minor: i64, code: &'static str) -> Step {
    Step { code: Some(code), ..step(key, operation, amount_minor, PaymentOutcome::Declined) }
}

/// Declined because `captured_minor` is taken: the answer names that, not what was asked for.
const fn taken(
    key: &'static str,
    operation: PaymentOperation,
    amount_minor: i64,
    captured_minor: i64,
) -> Step {
    Step { answered_minor: Some(captured_minor), ..no(key, operation, amount_minor, "already_captured") }
}

impl Subject<'_> {
    async fn ask(&self, request: &PaymentRequest) -> PaymentResult {
        let order_id = format!("ord_{}", request.payment_id);
        match self.provider.execute("demo", &order_id, request).await {
            ProviderReply::Answered(result) => result,
            other => panic!("{} was not answered: {other:?}", request.request_key),
        }
    }

    fn request(&self, payment: &str, step: &Step, method: &str, capture: CaptureMode) -> PaymentRequest {
        PaymentRequest {
            payment_id: format!("pay_{payment}").into(),
            method: method.into(),
            capture,
            ..request(&format!("{payment}-{}", step.key), step.operation, step.amount_minor)
        }
    }

    async fn run(&self, name: &str, method: &str, capture: CaptureMode, steps: &[Step]) {
        for step in steps {
            let request = self.request(name, step, method, capture);
            let result = self.ask(&request).await;
            let at = format!("{name}, {}", step.key);
            assert_eq!(result.outcome, step.outcome, "{at}: {result:?}");
            assert_eq!(result.amount_minor, step.answered_minor.unwrap_or(step.amount_minor), "{at}");
            assert_eq!(result.operation, step.operation, "{at}");
            assert_eq!(result.payment_id, request.payment_id, "{at}");
            assert_eq!(result.request_key, request.request_key, "{at}");
            if let Some(code) = step.code {
                assert_eq!(result.code.as_deref(), Some(code), "{at}");
            }
            assert_eq!(self.ask(&request).await, result, "{at}: the same key answers the same");
            let again = PaymentRequest { attempt: 2, ..request.clone() };
            assert_eq!(self.ask(&again).await, result, "{at}: and so does a later attempt");
            let found = self.provider.lookup(&request.request_key).await;
            assert_eq!(found, Lookup::Found(result), "{at}: a lookup finds it");
        }
    }
}

/// Runs the suite. Ids begin with `run`, so that it may run more than once over one ledger.
pub async fn check(subject: &Subject<'_>, run: &str) {
    use CaptureMode::{Automatic, Manual};
    use PaymentOutcome::{Authorized, Cancelled, Captured, Refunded, RequiresAction};
    let named = |name: &str| format!("{run}-{name}");

    let automatic = [
        step("a", Authorize, 500, Captured),
        taken("b", Cancel, 500, 500),
        step("c", Refund, 200, Refunded),
        no("d", Refund, 301, "amount_exceeds_captured"),
        step("e", Refund, 300, Refunded),
        no("f", Refund, 1, "amount_exceeds_captured"),
    ];
    subject.run(&named("automatic"), subject.good, Automatic, &automatic).await;

    let manual = [
        step("a", Authorize, 500, Authorized),
        no("b", Refund, 1, "nothing_captured"),
        no("c", Capture, 501, "amount_too_large"),
        step("d", Capture, 400, Captured),
        taken("e", Capture, 100, 400),
        taken("e2", Cancel, 500, 400),
        no("f", Refund, 401, "amount_exceeds_captured"),
        step("g", Refund, 400, Refunded),
    ];
    subject.run(&named("manual"), subject.good, Manual, &manual).await;

    let given_up = [
        step("a", Authorize, 500, Authorized),
        step("b", Cancel, 500, Cancelled),
        no("c", Capture, 500, "payment_unexpected_state"),
    ];
    subject.run(&named("given-up"), subject.good, Manual, &given_up).await;

    let declined = [no("a", Authorize, 500, "card_declined"), no("b", Refund, 500, "nothing_captured")];
    subject.run(&named("declined"), subject.declined, Automatic, &declined).await;

    let action = [step("a", Authorize, 500, RequiresAction), step("b", Cancel, 0, Cancelled)];
    subject.run(&named("action"), subject.action, Automatic, &action).await;

    let missing = [no("a", Capture, 500, "resource_missing"), no("b", Refund, 500, "resource_missing")];
    subject.run(&named("missing"), subject.good, Automatic, &missing).await;

    other_parameters_are_an_error(subject, &named("conflict")).await;
    let absent = subject.provider.lookup(&named("nobody-asked")).await;
    assert_eq!(absent, Lookup::Absent);
}

async fn other_parameters_are_an_error(subject: &Subject<'_>, name: &str) {
    let first = step("a", Authorize, 500, PaymentOutcome::Captured);
    let first = subject.request(name, &first, subject.good, CaptureMode::Automatic);
    assert_eq!(subject.ask(&first).await.outcome, PaymentOutcome::Captured);
    let others = [
        PaymentRequest { amount_minor: 501, ..first.clone() },
        PaymentRequest { currency: "EUR".into(), ..first.clone() },
        PaymentRequest { operation: Cancel, ..first.clone() },
        PaymentRequest { capture: CaptureMode::Manual, ..first.clone() },
    ];
    for other in &others {
        let result = subject.ask(other).await;
        assert_eq!(result.outcome, PaymentOutcome::Declined, "{other:?}");
        assert_eq!(result.code.as_deref(), Some("idempotency_error"), "{other:?}");
    }
    assert_eq!(subject.ask(&first).await.outcome, PaymentOutcome::Captured, "the first answer stands");
}
