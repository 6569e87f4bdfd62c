//! Cursors and times: text that clients carry about.

use tillstream_ingest_api::bare::{cursor_of, place_of, stream_cursor_of, stream_place_of};
use tillstream_ingest_api::moment::{from_rfc3339, to_rfc3339};
use tillstream_ingest_api::problem::Code;

const KINDS: [char; 8] = ['o', 'p', 't', 'd', 'k', 'r', 'w', 'e'];

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

/// The number of partitions, then what may be a cursor of a stream over them, and what may be a place in it.
pub fn stream_cursor(input: &[u8]) {
    let Some((partitions, rest)) = input.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(rest) {
        match stream_place_of(text, usize::from(*partitions)) {
            Ok(place) => {
                assert_eq!(place.len(), usize::from(*partitions));
                let again = stream_place_of(&stream_cursor_of(&place), place.len());
                assert_eq!(again.unwrap(), place, "a cursor that was taken comes back as another");
            }
            Err(problem) => {
                assert_eq!(
                    (problem.code, problem.errors[0].field.as_str()),
                    (Code::InvalidParameters, "cursor")
                );
            }
        }
    }
    let numbers = rest.as_chunks::<8>().0.iter().map(|it| u64::from_le_bytes(*it));
    // Ten bytes each at most, and a cursor has a thousand.
    let place: Vec<u64> = numbers.take(100).collect();
    if !place.is_empty() {
        let cursor = stream_cursor_of(&place);
        assert_eq!(stream_place_of(&cursor, place.len()).unwrap(), place, "a place comes back");
        assert!(stream_place_of(&cursor, place.len() + 1).is_err(), "a place of another stream is refused");
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
