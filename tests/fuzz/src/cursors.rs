//! Cursors and times: text that clients carry about.

use tillstream_ingest_api::bare::{cursor_of, place_of};
use tillstream_ingest_api::moment::{from_rfc3339, to_rfc3339};
use tillstream_ingest_api::problem::Code;

const KINDS: [char; 4] = ['o', 'p', 't', 'd'];

/// The number of a list, then what may be a cursor of it, and what may be a place in it.
pub fn cursor(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let Ok(text) = std::str::from_utf8(text) else { return };
    match place_of(kind, text) {
        Ok(place) => assert_eq!(cursor_of(kind, &place), text, "two cursors for one place"),
        Err(problem) => {
            assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::InvalidParameters, "cursor"));
        }
    }
    if (1..=1_000).contains(&text.len()) {
        let cursor = cursor_of(kind, text);
        assert_eq!(place_of(kind, &cursor).unwrap(), text, "a place comes back");
        let others = KINDS.into_iter().filter(|it| *it != kind);
        others.for_each(|it| assert!(place_of(it, &cursor).is_err(), "a cursor of {kind} works on {it}"));
    }
}

/// A time.
pub fn moment(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(time_ms) = from_rfc3339(text) {
        let written = to_rfc3339(time_ms);
        assert_eq!(from_rfc3339(&written), Some(time_ms), "{text} is written as {written}");
        assert!(written.ends_with('Z'), "{written} is not UTC");
    }
    if let Some(number) = input.first_chunk::<8>() {
        let written = to_rfc3339(i64::from_le_bytes(*number));
        assert!(!written.is_empty(), "every time can be written");
    }
}
