//! Deterministic ids: the same cause gives the same id, so a consumer can dedupe.

use compact_str::CompactString;
use sha2::{Digest, Sha256};
use tillstream_schemas::Text;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A log key, such as `tenant/order_id`.
pub type Key = CompactString;

fn base32(prefix: &str, bits: u128) -> Text {
    let mut digits = [0; 20];
    for (place, digit) in digits.iter_mut().enumerate() {
        *digit = ALPHABET[((bits >> (123 - place * 5)) & 31) as usize];
    }
    let mut text = CompactString::new(prefix);
    text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    text
}

/// An id from a client's words: 100 bits of SHA-256 over length-prefixed parts, so that nobody can choose
/// an Idempotency-Key that collides with another's. `prefix` is 4 characters, such as `ord_`.
pub fn client_id(prefix: &str, parts: &[&str]) -> Text {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    base32(prefix, u128::from_be_bytes(bytes))
}

/// An id derived from another id: 100 bits of XXH3-128 over length-prefixed parts.
pub fn derived_id(prefix: &str, parts: &[&str]) -> Text {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    base32(prefix, hash.digest128())
}

/// The id of the `n`th output of an input: `evt_…`, `cmd_…`, `eff_…`.
pub fn output_id(prefix: &str, input_id: &str, n: u32) -> Text {
    // An input's id is as short as this one. Hashed at once it takes a fraction of what a hasher takes to set up.
    let mut short = [0; 64];
    let length = input_id.len();
    if let Some(end) = length.checked_add(4).filter(|end| *end <= short.len()) {
        short[..length].copy_from_slice(input_id.as_bytes());
        short[length..end].copy_from_slice(&n.to_le_bytes());
        return base32(prefix, xxh3_128(&short[..end]));
    }
    let mut hash = Xxh3::new();
    hash.update(input_id.as_bytes());
    hash.update(&n.to_le_bytes());
    base32(prefix, hash.digest128())
}

/// The trace id (32 hex digits) in a W3C trace context, if it is one: what ties a call's log lines and records together.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.get(3..35).filter(|_| traceparent.len() == 55)
}

/// `tenant/rest`: the key of an order (`rest` is its id) or an item (`rest` is the SKU).
pub fn key(tenant: &str, rest: &str) -> Key {
    let mut key = CompactString::with_capacity(tenant.len() + 1 + rest.len());
    key.push_str(tenant);
    key.push('/');
    key.push_str(rest);
    key
}

/// `tenant/rest/part`: the key of what belongs to an item, such as an order's hold on a SKU.
pub fn key_of_part(tenant: &str, rest: &str, part: &str) -> Key {
    let mut key = CompactString::with_capacity(tenant.len() + rest.len() + part.len() + 2);
    for (index, text) in [tenant, rest, part].into_iter().enumerate() {
        if index > 0 {
            key.push('/');
        }
        key.push_str(text);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_24_bytes_and_stable() {
        let id = client_id("ord_", &["demo", "POST /v1/orders", "k1"]);
        assert_eq!(id.len(), 24);
        assert_eq!(id, client_id("ord_", &["demo", "POST /v1/orders", "k1"]));
        assert_ne!(id, client_id("ord_", &["demo", "POST /v1/orders", "k2"]));
    }

    #[test]
    fn an_outputs_id_is_that_of_the_hasher_whatever_its_inputs_length() {
        for length in [0, 1, 24, 59, 60, 61, 200] {
            let input_id = "x".repeat(length);
            let mut hash = Xxh3::new();
            hash.update(input_id.as_bytes());
            hash.update(&7_u32.to_le_bytes());
            assert_eq!(output_id("evt_", &input_id, 7), base32("evt_", hash.digest128()), "{length}");
        }
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(client_id("ord_", &["a", "bc"]), client_id("ord_", &["ab", "c"]));
        assert_ne!(derived_id("evt_", &["a", "bc"]), derived_id("evt_", &["ab", "c"]));
    }
}
