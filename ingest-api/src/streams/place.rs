//! A place in a tenant's stream: per partition of `orders.events`, the next offset. Clients carry it about as one word.

use crate::cursor;
use crate::problem::Problem;

const KIND: char = 'e';

/// Writes a place: one variable-length number per partition, as hex.
pub(crate) fn encode(next: &[u64]) -> String {
    let mut bytes = Vec::with_capacity(next.len() * 4);
    for offset in next {
        let mut rest = *offset;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    cursor::encode_bytes(KIND, &bytes)
}

/// Reads a place of a stream over so many partitions.
///
/// # Errors
/// A parameter problem for anything no such stream gave out.
pub(crate) fn decode(text: &str, partitions: usize) -> Result<Vec<u64>, Problem> {
    let bytes = cursor::decode_bytes(KIND, text)?;
    read(&bytes).filter(|it| it.len() == partitions).ok_or_else(refused)
}

/// The problem of a place that no stream gave out.
pub(super) fn refused() -> Problem {
    let message = "is not a place of this stream";
    Problem::parameter("cursor", message, "send the id (or place) of the last message you got, unchanged")
}

fn read(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut next = Vec::new();
    let (mut offset, mut shift) = (0_u64, 0_u32);
    for byte in bytes {
        let part = u64::from(byte & 0x7f);
        // The tenth byte of a number has one bit left.
        if shift > 63 || (shift == 63 && part > 1) {
            return None;
        }
        offset |= part << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            next.push(offset);
            (offset, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_comes_back_as_it_was(next in prop::collection::vec(any::<u64>(), 1..64)) {
            prop_assert_eq!(decode(&encode(&next), next.len()).unwrap(), next);
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_panics(text in "e?[0-9a-f]{0,80}", partitions in 1..8_usize) {
            if let Ok(next) = decode(&text, partitions) {
                prop_assert_eq!(next.len(), partitions);
            }
        }
    }

    #[test]
    fn a_place_of_another_shape_is_refused() {
        let place = encode(&[1, 300]);
        assert!(decode(&place, 3).is_err());
        for garbage in ["", "e", "e80", "effffffffffffffffff7f", "o00", "../.."] {
            assert!(decode(garbage, 1).is_err(), "{garbage}");
        }
    }
}
