//! The sandbox: the providers' suite, its special methods, and its ledger's durability.

use super::*;
use crate::conformance::{self, Subject};
use crate::testing::request;
use std::path::Path;
use tillstream_schemas::order_command::CaptureMode;

fn open(dir: &Path) -> SandboxProvider {
    SandboxProvider::open(SandboxSettings::new(dir)).unwrap()
}

fn subject(provider: &SandboxProvider) -> Subject<'_> {
    Subject { provider, good: "pm_card_visa", declined: METHOD_DECLINED, action: METHOD_ACTION }
}

/// An authorization of its own payment.
fn payment(name: &str, method: &str) -> PaymentRequest {
    PaymentRequest {
        payment_id: format!("pay_{name}").into(),
        method: method.into(),
        ..request(&format!("req_{name}"), PaymentOperation::Authorize, 250)
    }
}

async fn ask(provider: &SandboxProvider, request: &PaymentRequest) -> ProviderReply {
    provider.execute("demo", "ord_1", request).await
}

async fn outcome(provider: &SandboxProvider, request: &PaymentRequest) -> (PaymentOutcome, Option<Text>) {
    let result = ask(provider, request).await.into_result(request);
    (result.outcome, result.code)
}

#[tokio::test]
async fn a_ledger_whose_making_was_cut_off_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("keyspaces")).unwrap();
    std::fs::write(dir.path().join("0.jnl"), [0; 4_096]).unwrap();
    let first = payment("first", "pm_card_visa");
    let provider = open(dir.path());
    let told = outcome(&provider, &first).await;
    assert_ne!(told.0, PaymentOutcome::Declined);
    drop(provider);
    assert_eq!(outcome(&open(dir.path()), &first).await, told, "the same answer for the same key");
    assert_eq!(open(dir.path()).payments().count(), 1);
}

#[tokio::test]
async fn passes_the_providers_suite_also_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    conformance::check(&subject(&provider), "first").await;
    drop(provider);
    let provider = open(dir.path());
    conformance::check(&subject(&provider), "second").await;
}

#[tokio::test]
async fn methods_do_what_the_contract_says() {
    use PaymentOutcome::{Captured, Declined, RequiresAction, Unknown};
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    let cases = [
        ("pm_card_visa", Captured, None),
        ("pm_card", Captured, None),
        ("pm_card_chargeDeclined", Declined, Some("card_declined")),
        ("pm_card_authenticationRequired", RequiresAction, None),
        ("pm_sandbox_timeout", Unknown, Some("reply_lost")),
        ("pm_sandbox", Captured, None),
        ("cash", Declined, Some("unknown_payment_method")),
        ("", Declined, Some("unknown_payment_method")),
    ];
    for (method, expected, code) in cases {
        let got = outcome(&provider, &payment(&format!("m-{method}"), method)).await;
        assert_eq!(got, (expected, code.map(Text::from)), "{method:?}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_charged_once_and_the_retry_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    let first = payment("lost", METHOD_TIMEOUT);
    assert_eq!(outcome(&provider, &first).await.0, PaymentOutcome::Unknown);
    let charged = provider.payment("pay_lost").unwrap().unwrap();
    assert_eq!((charged.status, charged.captured_minor), (SandboxStatus::Captured, 250));

    drop(provider);
    let provider = open(dir.path());
    let retry = PaymentRequest { attempt: 2, ..first.clone() };
    assert_eq!(outcome(&provider, &retry).await.0, PaymentOutcome::Captured);
    let fresh_key = PaymentRequest { request_key: "req_other".into(), ..first };
    assert_eq!(
        outcome(&provider, &fresh_key).await,
        (PaymentOutcome::Declined, Some("payment_exists".into()))
    );
    let totals = provider.totals().unwrap();
    assert_eq!(totals["GBP"].captured_minor, 250);
    assert_eq!(totals["GBP"].captured_payments, 1);
}

#[tokio::test]
async fn authentication_completes_or_fails_a_payment_and_can_be_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    let manual = PaymentRequest { capture: CaptureMode::Manual, ..payment("manual", METHOD_ACTION) };
    for asked in [payment("auto", METHOD_ACTION), manual, payment("fails", METHOD_ACTION)] {
        assert_eq!(outcome(&provider, &asked).await.0, PaymentOutcome::RequiresAction);
        assert_eq!(outcome(&provider, &asked).await.0, PaymentOutcome::RequiresAction, "until somebody acts");
    }
    let cases = [
        ("pay_auto", true, PaymentOutcome::Captured),
        ("pay_auto", true, PaymentOutcome::Captured),
        ("pay_auto", false, PaymentOutcome::Captured),
        ("pay_manual", true, PaymentOutcome::Authorized),
        ("pay_fails", false, PaymentOutcome::Declined),
        ("pay_fails", true, PaymentOutcome::Declined),
    ];
    for (payment_id, succeed, expected) in cases {
        let (tenant, order_id, result) = provider.authenticate(payment_id, succeed).await.unwrap().unwrap();
        assert_eq!((tenant.as_str(), order_id.as_str()), ("demo", "ord_1"));
        assert_eq!((result.outcome, result.amount_minor), (expected, 250), "{payment_id} {succeed}");
    }
    assert_eq!(provider.payment("pay_auto").unwrap().unwrap().captured_minor, 250);
    assert_eq!(provider.payment("pay_manual").unwrap().unwrap().authorized_minor, 250);
    assert_eq!(provider.payment("pay_fails").unwrap().unwrap().status, SandboxStatus::Declined);
}

#[tokio::test]
async fn payments_that_never_asked_cannot_be_authenticated() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    assert_eq!(outcome(&provider, &payment("plain", "pm_card_visa")).await.0, PaymentOutcome::Captured);
    assert_eq!(provider.authenticate("pay_plain", true).await.unwrap(), None);
    assert_eq!(provider.authenticate("pay_nobody", true).await.unwrap(), None);
}

#[tokio::test]
async fn faults_are_drawn_the_same_in_every_run_and_lose_no_money() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let provider = SandboxProvider::open(SandboxSettings {
            decline_rate: 0.2,
            lost_reply_rate: 0.3,
            unavailable_rate: 0.3,
            latency_ms: (0, 1),
            ..SandboxSettings::new(dir.path())
        })
        .unwrap();
        let mut trace = Vec::new();
        let mut captured = 0;
        for order in 0..200 {
            let mut request = payment(&order.to_string(), "pm_card_visa");
            let settled = loop {
                let (outcome, code) = outcome(&provider, &request).await;
                trace.push((order, request.attempt, outcome, code));
                match outcome {
                    PaymentOutcome::Unavailable | PaymentOutcome::Unknown => request.attempt += 1,
                    settled => break settled,
                }
            };
            captured += u64::from(settled == PaymentOutcome::Captured);
        }
        assert_eq!(provider.totals().unwrap()["GBP"].captured_payments, captured);
        assert!((120..190).contains(&captured), "about a fifth is declined: {captured}");
        for fault in [PaymentOutcome::Unavailable, PaymentOutcome::Unknown] {
            let count = trace.iter().filter(|it| it.2 == fault).count();
            assert!((40..200).contains(&count), "{fault:?}: {count}");
        }
        seen.push(trace);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn the_same_key_asked_many_times_at_once_is_charged_once() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path());
    let request = payment("race", "pm_card_visa");
    let calls = (0..200).map(|_| ask(&provider, &request));
    let replies = futures::future::join_all(calls).await;
    let first = replies[0].clone();
    assert!(matches!(&first, ProviderReply::Answered(it) if it.outcome == PaymentOutcome::Captured));
    assert!(replies.iter().all(|it| *it == first));
    assert_eq!(provider.payments().count(), 1);
}

#[tokio::test]
async fn a_ledger_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = SandboxProvider::open(SandboxSettings::new(dir.path()));
    assert!(matches!(second.err(), Some(LedgerError::Open { .. })));
}
