use super::*;
use crate::endpoint::OVERLAP_MAX_MS;
use crate::signature::SigningSecret;

fn settings(url: &str) -> EndpointSettings {
    EndpointSettings {
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

fn event(change: Change) -> EndpointEvent {
    EndpointEvent {
        id: "whc_1".into(),
        tenant: "demo".into(),
        endpoint: "whe_1".into(),
        by: "key_1".into(),
        change,
    }
}

fn made() -> EndpointBook {
    let mut book = EndpointBook::default();
    let change =
        Change::Created { settings: settings("https://a.example.com/"), secret: secret(1), off: false };
    book.apply(&event(change), 100).unwrap();
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
    let update = |expected_version, url: &str| Change::Updated { expected_version, settings: settings(url) };
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
    let rotate = |byte, until| Change::SecretRotated { secret: secret(byte), overlap_until_ms: until };
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
    let disable = |active_since_ms| Change::Disabled {
        active_since_ms,
        code: "failing".into(),
        message: "It has failed for five days.".into(),
    };
    book.apply(&event(disable(Some(100))), 200).unwrap();
    assert_eq!(endpoint(&book).disabled.as_ref().unwrap().code, "failing");
    let replay = Change::ReplayRequested { from_ms: 5 };
    assert_eq!(book.apply(&event(replay), 210), Err(EndpointRefusal::Off));
    book.apply(&event(Change::Enabled { replay_from_ms: Some(150) }), 300).unwrap();
    assert!(endpoint(&book).is_on());
    assert_eq!(endpoint(&book).active_since_ms, 300);
    assert_eq!(endpoint(&book).replay, Some(Replay { request: 1, from_ms: 150 }));
    // Decided on old news: it would end the new life.
    assert_eq!(book.apply(&event(disable(Some(100))), 310), Err(EndpointRefusal::Outdated));
    book.apply(&event(disable(None)), 320).unwrap();
    assert_eq!(endpoint(&book).disabled.as_ref().unwrap().code, "requested");
}

#[test]
fn redeliveries_are_bounded_per_hour() {
    let mut book = made();
    let ask = |offset| Change::RedeliveryRequested { item: false, partition: 0, offset, subject: "ord_1".into() };
    for n in 0..REDELIVERIES_MAX as u64 {
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
    let create = |n: usize| EndpointEvent {
        endpoint: format!("whe_{n}").into(),
        ..event(Change::Created { settings: settings("https://a.example.com/"), secret: secret(1), off: true })
    };
    for n in 0..ENDPOINTS_MAX {
        book.apply(&create(n), 1).unwrap();
    }
    assert_eq!(book.apply(&create(ENDPOINTS_MAX), 1), Err(EndpointRefusal::TooMany));
    assert_eq!(book.apply(&create(0), 1), Err(EndpointRefusal::Exists));
    book.apply(&EndpointEvent { endpoint: "whe_0".into(), ..event(Change::Deleted) }, 2).unwrap();
    book.apply(&create(ENDPOINTS_MAX), 3).unwrap();
    let gone = EndpointEvent { endpoint: "whe_0".into(), ..event(Change::Enabled { replay_from_ms: None }) };
    assert_eq!(book.apply(&gone, 4), Err(EndpointRefusal::Unknown));
}
