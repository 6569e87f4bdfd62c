//! Idempotency-Key, fingerprints of bodies, `Prefer: wait`.

use crate::problem::{Code, FieldError, Problem};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tillstream_schemas::Text;
use tillstream_schemas::codec::{self, CodecError, Wire};

/// The longest a call waits on `Prefer: wait`.
pub(crate) const WAIT_SECONDS_MAX: u64 = 30;
/// The longest Idempotency-Key.
pub(crate) const KEY_CHARACTERS_MAX: usize = 255;

/// Whether a text can be an Idempotency-Key: 1 to 255 visible ASCII characters.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=KEY_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic())
}

/// The Idempotency-Key of a call that must have one.
///
/// # Errors
/// 400 when it is missing, given twice, or cannot be one.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<&str, Problem> {
    let refuse = |message: &str| {
        let fix = "send an Idempotency-Key header of 1 to 255 visible ASCII characters, one per command";
        let errors = vec![FieldError::new("Idempotency-Key", message, fix)];
        Problem { errors, ..Problem::new(Code::IdempotencyKey, format!("Idempotency-Key: {message}")) }
    };
    let mut values = headers.get_all("idempotency-key").iter();
    let value = values.next().ok_or_else(|| refuse("is missing"))?;
    if values.next().is_some() {
        return Err(refuse("is given twice"));
    }
    let key = value.to_str().map_err(|_| refuse("has other characters than visible ASCII"))?;
    if is_key(key) {
        Ok(key)
    } else {
        Err(refuse("is empty, too long or has other characters than visible ASCII"))
    }
}

/// The problem of a key that was used with another body.
pub(crate) fn conflict() -> Problem {
    let fix = "send the same body as the first time, or a new Idempotency-Key";
    let errors = vec![FieldError::new("Idempotency-Key", "was used with another body", fix)];
    Problem {
        errors,
        ..Problem::new(Code::IdempotencyConflict, "this Idempotency-Key was used with another body")
    }
}

/// The fingerprint of a parsed body: 96 bits of SHA-256 over its datum, as 24 hex digits.
///
/// # Errors
/// The codec's.
pub(crate) fn fingerprint<T: Wire>(value: &T, scratch: &mut Vec<u8>) -> Result<Text, CodecError> {
    scratch.clear();
    codec::encode_into(value, scratch)?;
    // The schema id in front may differ between deployments and versions; the datum of one body does not.
    let digest = Sha256::digest(scratch.get(5..).unwrap_or_default());
    let mut text = Text::with_capacity(24);
    for byte in &digest[..12] {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    Ok(text)
}

/// How long the client wants the call to wait for an outcome (RFC 7240); at most 30 s. What cannot be read is ignored.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| {
            let (name, value) = it.split(';').next()?.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("wait")
                .then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
        })
        .next()
        .map(|seconds| Duration::from_secs(seconds.min(WAIT_SECONDS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn keys_are_1_to_255_visible_ascii_characters() {
        let long = "k".repeat(255);
        for good in ["k", "9b2f-1", long.as_str()] {
            assert_eq!(key_of(&headers("idempotency-key", &[good])).unwrap(), good);
        }
        let longer = "k".repeat(5_000);
        for bad in [&[][..], &[""], &["a b"], &["ä"], &[longer.as_str()], &["a", "b"]] {
            assert_eq!(
                key_of(&headers("idempotency-key", bad)).unwrap_err().code,
                Code::IdempotencyKey,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn wait_is_read_from_prefer_and_bounded() {
        let cases: [(&[&str], Option<u64>); 7] = [
            (&[], None),
            (&["wait=5"], Some(5)),
            (&["respond-async, wait=10"], Some(10)),
            (&["return=minimal", "Wait = \"3\""], Some(3)),
            (&["wait=99999999"], Some(30)),
            (&["wait=-1"], None),
            (&["wait"], None),
        ];
        for (values, seconds) in cases {
            assert_eq!(wait_of(&headers("prefer", values)), seconds.map(Duration::from_secs), "{values:?}");
        }
    }
}
