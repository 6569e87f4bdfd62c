//! Webhooks: what merchants say of an endpoint, what stands in a delivery's path, and the bodies that are sent.

use serde_json::Value;
use tillstream_ingest_api::moment::from_rfc3339;
use tillstream_webhooks::rows::{lane_key, parse_lane_key};
use tillstream_webhooks::{
    EventFilter, MessageId, PublicEvent, SigningSecret, Source, TargetError, TargetPolicy,
};

/// What is read, by the first byte of an input.
const READERS: [fn(&[u8]); 6] = [url, patterns, message_id, secret, lane, |it| event(Source::Orders, it)];

/// The number of a reader, then what it reads.
pub fn webhook(input: &[u8]) {
    let Some((reader, rest)) = input.split_first() else { return };
    let reader = usize::from(*reader) % (READERS.len() + 1);
    READERS.get(reader).map_or_else(|| event(Source::Items, rest), |read| read(rest));
}

/// A URL that is taken is one of https, without credentials, at a name or address that is not known to be private.
fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let policy = TargetPolicy::default();
    match policy.check(text) {
        Ok(url) => {
            assert_eq!(url.scheme(), "https", "{text}");
            assert!(
                url.username().is_empty() && url.password().is_none() && url.fragment().is_none(),
                "{text}"
            );
            let host = url.host_str().expect("a URL that is taken has a host");
            if let Ok(address) = host.trim_matches(['[', ']']).parse() {
                policy.check_address(address).expect("an address that no delivery may go to");
            }
            match policy.check(url.as_str()) {
                // Written out, some of it may have become longer.
                Err(TargetError::TooLong(_)) => {}
                again => assert_eq!(again.as_ref(), Ok(&url), "what was taken is taken again"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Patterns, one a line: each that is taken lets something through.
fn patterns(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let patterns: Vec<&str> = text.lines().collect();
    match EventFilter::parse(patterns.iter().copied()) {
        Ok(_) => {
            for pattern in patterns {
                let alone = EventFilter::parse([pattern]).unwrap();
                let mut kinds = tillstream_webhooks::filter::kinds();
                assert!(kinds.any(|it| alone.matches(it)), "{pattern:?} is taken and matches nothing");
            }
        }
        Err((index, _)) => {
            assert!(EventFilter::parse([patterns[index]]).is_err(), "the named pattern is the bad one");
            assert!(
                EventFilter::parse(patterns[..index].iter().copied()).is_ok(),
                "those before it are good"
            );
        }
    }
}

fn message_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(id) = MessageId::parse(text) {
        assert_eq!(id.to_text(), text, "two texts for one message");
    }
}

fn secret(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(secret) = SigningSecret::parse(text) {
        let again = SigningSecret::parse(&secret.reveal()).expect("what is shown can be read");
        let signed = |it: &SigningSecret| it.sign("msg_1", 1_700_000_000, b"{}");
        assert_eq!(signed(&again), signed(&secret), "a secret that was shown signs otherwise");
    }
}

fn lane(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some((tenant, subject, endpoint)) = parse_lane_key(text) {
        assert_eq!(lane_key(tenant, subject, endpoint), text, "two keys for one lane");
    }
}

/// A record of the log: what is sent of it is an object that says what, when and about what.
fn event(source: Source, value: &[u8]) {
    let Ok(event) = PublicEvent::read(source, value) else { return };
    let payload: Value = serde_json::from_slice(&event.payload()).expect("a body is JSON");
    assert_eq!(payload["type"], event.kind.as_str());
    assert!(payload["data"].is_object());
    let told = payload["timestamp"].as_str().expect("a time");
    assert!(from_rfc3339(told).is_some() || !(0..253_402_300_800_000).contains(&event.at_ms), "{told}");
}
