use super::*;
use crate::endpoint::OVERLAP_MAX_MS;
use crate::signature::SigningSecret;
use tillstream_schemas::webhook::{
    WebhookEndpointDeleted, WebhookEndpointDisabled, WebhookEndpointEnabled, WebhookEndpointUpdated,
    WebhookReplayRequested,
};

fn settings(url: &str) -> WebhookEndpointSettings {
    WebhookEndpointSettings {
        url: url.into(),
        description: Text::default(),
        events: vec!["order.*".into()],
        in_flight_max: 16,
        rate_per_second: None,
    }
}

fn secret(byte: u8) -> Text {
    SigningSecret::from_bytes(&[byte; 32]).reveal().into()
}

fn event(payload: Change) -> WebhookEndpointEvent {
    WebhookEndpointEvent {
        id: "whc_1".into(),
        tenant: "demo".into(),
        occurred_at_ms: 0,
        actor: "key_1".into(),
        endpoint_id: "whe_1".into(),
        payload,
    }
}

fn create(enabled: bool) -> Change {
    let settings = settings("https://a.example.com/");
    Change::Created(WebhookEndpointCreated { settings, secret: secret(1), enabled })
}

fn replay(from_ms: i64) -> Change {
    Change::ReplayRequested(WebhookReplayRequested { from_ms })
}

fn enable(replay_from_ms: Option<i64>) -> Change {
    Change::Enabled(WebhookEndpointEnabled { replay_from_ms })
}

fn made() -> EndpointBook {
    let mut book = EndpointBook::default();
    book.apply(&event(create(true)), 100).unwrap();
    book
}

fn endpoint(book: &EndpointBook) -> &Endpoint {
    book.get("demo", "whe_1").unwrap()
}

#[test]
fn an_endpoint_is_its_tenants_alone() {
    let book = made();
    assert_eq!(book.of("demo").count(), 1);
    assert_eq!(book.of("other").count(), 0);
    assert!(book.get("other", "whe_1").is_none());
    assert_eq!(endpoint(&book).active_since_ms, 100);
}

#[test]
fn a_change_for_another_version_changes_nothing() {
    let mut book = made();
    let update = |expected_version, url: &str| {
        Change::Updated(WebhookEndpointUpdated { expected_version, settings: settings(url) })
    };
    book.apply(&event(update(1, "https://b.example.com/")), 200).unwrap();
    let before = book.clone();
    let refused = book.apply(&event(update(1, "https://c.example.com/")), 300);
    assert_eq!(refused, Err(EndpointRefusal::Conflict { expected: 1, found: 2 }));
    assert_eq!(book, before);
    assert_eq!(endpoint(&book).settings.url, "https://b.example.com/");
}

#[test]
fn both_secrets_sign_while_they_overlap() {
    let mut book = made();
    let rotate = |byte, overlap_until_ms| {
        Change::SecretRotated(WebhookSecretRotated { secret: secret(byte), overlap_until_ms })
    };
    book.apply(&event(rotate(2, 1_000)), 200).unwrap();
    let old = SigningSecret::from_bytes(&[1; 32]);
    let new = SigningSecret::from_bytes(&[2; 32]);
    assert_eq!(endpoint(&book).signing(999), vec![new.clone(), old]);
    assert_eq!(endpoint(&book).signing(1_000), vec![new]);
    // A second rotation does not lengthen the first secret's life.
    book.apply(&event(rotate(3, OVERLAP_MAX_MS)), 300).unwrap();
    let lives: Vec<_> = endpoint(&book).secrets.iter().map(|it| it.until_ms).collect();
    assert_eq!(lives, [None, Some(OVERLAP_MAX_MS), Some(1_000)]);
}

#[test]
fn switched_on_again_it_begins_anew() {
    let mut book = made();
    let disable = |active_since_ms| {
        Change::Disabled(WebhookEndpointDisabled {
            active_since_ms,
            code: "failing".into(),
            message: "It has failed for five days.".into(),
        })
    };
    book.apply(&event(disable(Some(100))), 200).unwrap();
    assert_eq!(endpoint(&book).disabled.as_ref().unwrap().code, "failing");
    assert_eq!(book.apply(&event(replay(5)), 210), Err(EndpointRefusal::Off));
    book.apply(&event(enable(Some(150))), 300).unwrap();
    assert!(endpoint(&book).is_on());
    assert_eq!(endpoint(&book).active_since_ms, 300);
    assert_eq!(endpoint(&book).replay, Some(Replay { request: 1, from_ms: 150 }));
    // Decided on old news: it would end the new life.
    assert_eq!(book.apply(&event(disable(Some(100))), 310), Err(EndpointRefusal::Outdated));
    book.apply(&event(disable(Some(300))), 320).unwrap();
    assert!(!endpoint(&book).is_on());
}

#[test]
fn redeliveries_are_bounded_per_hour() {
    let mut book = made();
    let ask = |offset| {
        let subject = "ord_1".into();
        Change::RedeliveryRequested(WebhookRedeliveryRequested { item: false, partition: 0, offset, subject })
    };
    for n in 0..REDELIVERIES_MAX as i64 {
        book.apply(&event(ask(n)), 1_000).unwrap();
    }
    let one_more = book.apply(&event(ask(0)), 1_001);
    assert_eq!(one_more, Err(EndpointRefusal::TooManyRedeliveries));
    book.apply(&event(ask(0)), 1_000 + REDELIVERY_MS).unwrap();
    assert_eq!(endpoint(&book).redeliveries.len(), 1);
    assert_eq!(endpoint(&book).requests, REDELIVERIES_MAX as i64 + 1);
}

#[test]
fn a_tenant_has_so_many_endpoints_and_no_more() {
    let mut book = EndpointBook::default();
    let create =
        |n: usize| WebhookEndpointEvent { endpoint_id: format!("whe_{n}").into(), ..event(create(false)) };
    let of_first = |payload| WebhookEndpointEvent { endpoint_id: "whe_0".into(), ..event(payload) };
    for n in 0..ENDPOINTS_MAX {
        book.apply(&create(n), 1).unwrap();
    }
    assert_eq!(book.apply(&create(ENDPOINTS_MAX), 1), Err(EndpointRefusal::TooMany));
    assert_eq!(book.apply(&create(0), 1), Err(EndpointRefusal::Exists));
    book.apply(&of_first(Change::Deleted(WebhookEndpointDeleted { expected_version: Some(1) })), 2).unwrap();
    book.apply(&create(ENDPOINTS_MAX), 3).unwrap();
    assert_eq!(book.apply(&of_first(enable(None)), 4), Err(EndpointRefusal::Unknown));
}
