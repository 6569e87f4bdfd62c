//! Opaque cursors: a list's kind and a place in it, as hex, so that a cursor of one list cannot be used on another.

use crate::problem::Problem;
use std::fmt::Write;

/// A place in a list, as clients carry it about.
pub(crate) fn encode(kind: char, place: &str) -> String {
    encode_bytes(kind, place.as_bytes())
}

/// As [`encode`], of a place that is no text.
pub(crate) fn encode_bytes(kind: char, place: &[u8]) -> String {
    let mut text = String::with_capacity(2 + place.len() * 2);
    text.push(kind);
    for byte in place {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The longest place, bytes.
const PLACE_BYTES_MAX: usize = 1_000;

/// What a cursor of this kind looks like, as a regular expression.
pub(crate) fn pattern(kind: char) -> String {
    format!("^{kind}([0-9a-f]{{2}}){{1,{PLACE_BYTES_MAX}}}$")
}

/// Reads a cursor back.
///
/// # Errors
/// A parameter problem for anything this list did not give out.
pub(crate) fn decode(kind: char, text: &str) -> Result<String, Problem> {
    String::from_utf8(decode_bytes(kind, text)?).map_err(|_| refused())
}

fn refused() -> Problem {
    Problem::parameter(
        "cursor",
        "is not a cursor of this list",
        "send next_cursor of the page before, unchanged",
    )
}

/// As [`decode`], of a place that is no text.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_bytes(kind: char, text: &str) -> Result<Vec<u8>, Problem> {
    let refuse = refused;
    let hex = text.strip_prefix(kind).ok_or_else(refuse)?.as_bytes();
    if hex.is_empty() || hex.len() > 2 * PLACE_BYTES_MAX || !hex.len().is_multiple_of(2) {
        return Err(refuse());
    }
    let digit = |it: u8| match it {
        b'0'..=b'9' => Some(it - b'0'),
        b'a'..=b'f' => Some(it - b'a' + 10),
        _ => None,
    };
    let bytes: Option<Vec<u8>> =
        hex.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    bytes.ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_to_its_own_list_only() {
        let cursor = encode('o', "7fff/ord_ä");
        assert_eq!(decode('o', &cursor).unwrap(), "7fff/ord_ä");
        assert!(decode('p', &cursor).is_err());
        for garbage in ["", "o", "ozz", "o0", "../../etc/passwd", "off", "oFF", &"o00".repeat(9_999)] {
            assert!(decode('o', garbage).is_err(), "{garbage}");
        }
    }
}
