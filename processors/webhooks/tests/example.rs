//! The Rust example of `docs/WEBHOOKS.md`, word for word.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tillstream_webhooks::{SigningSecret, signatures};

/// Whether a message is ours; check as well that `timestamp` is at most 300 s away from now.
pub fn verify(secret: &str, id: &str, timestamp: &str, signatures: &str, body: &[u8]) -> bool {
    let Some(key) = secret.strip_prefix("whsec_").and_then(|it| STANDARD.decode(it).ok()) else {
        return false;
    };
    let given = signatures.split(' ').filter_map(|it| it.strip_prefix("v1,"));
    given.filter_map(|it| STANDARD.decode(it).ok()).any(|given| {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac.verify_slice(&given).is_ok()
    })
}

#[test]
fn the_page_shows_this_function() {
    let (page, code) = (include_str!("../../../docs/WEBHOOKS.md"), include_str!("example.rs"));
    let begin = code.find("/// Whether a message is ours").unwrap();
    let end = begin + code[begin..].find("\n}\n").unwrap() + 3;
    assert!(page.contains(&code[begin..end]), "docs/WEBHOOKS.md shows another function");
}

#[test]
fn it_verifies_what_is_sent_and_nothing_else() {
    let (old, new) = (SigningSecret::from_bytes(&[1; 32]), SigningSecret::from_bytes(&[2; 32]));
    let header = signatures([&new, &old], "msg_1", 1_796_000_000, b"{}");
    for secret in [&old, &new] {
        assert!(verify(&secret.reveal(), "msg_1", "1796000000", &header, b"{}"));
        assert!(!verify(&secret.reveal(), "msg_2", "1796000000", &header, b"{}"));
        assert!(!verify(&secret.reveal(), "msg_1", "1796000001", &header, b"{}"));
        assert!(!verify(&secret.reveal(), "msg_1", "1796000000", &header, b"{ }"));
    }
    let other = SigningSecret::from_bytes(&[3; 32]);
    assert!(!verify(&other.reveal(), "msg_1", "1796000000", &header, b"{}"));
}
