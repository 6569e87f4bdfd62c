//! Secrets and signatures, as Standard Webhooks has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// What a secret begins with, as people see it.
const PREFIX: &str = "whsec_";
/// Bytes of a new secret.
pub const SECRET_BYTES: usize = 32;

/// A signing secret. It shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// From fresh random bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Reads `whsec_…`; `None` when it is no secret of 24 to 64 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// As the merchant keeps it: `whsec_…`.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// One signature of a message: `v1,…`. The timestamp is in seconds since the epoch.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, payload: &[u8]) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp_seconds.to_string().as_bytes());
        mac.update(b".");
        mac.update(payload);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// The `webhook-signature` header: one signature per secret, newest first.
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    timestamp_seconds: i64,
    payload: &[u8],
) -> String {
    let signed: Vec<String> = secrets.into_iter().map(|it| it.sign(id, timestamp_seconds, payload)).collect();
    signed.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the Standard Webhooks libraries test themselves with.
    #[test]
    fn agrees_with_the_specification() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_finds_back_and_hides() {
        let secret = SigningSecret::from_bytes(&[7; SECRET_BYTES]);
        assert_eq!(SigningSecret::parse(&secret.reveal()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!"] {
            assert_eq!(SigningSecret::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_secret_signs() {
        let secrets = [SigningSecret::from_bytes(&[1; 32]), SigningSecret::from_bytes(&[2; 32])];
        let header = signatures(&secrets, "msg_1", 5, b"{}");
        assert_eq!(
            header,
            format!("{} {}", secrets[0].sign("msg_1", 5, b"{}"), secrets[1].sign("msg_1", 5, b"{}"))
        );
    }
}
