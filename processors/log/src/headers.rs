//! Well-known headers: CloudEvents binary mode, W3C trace context, dead letters.

use crate::{Header, Headers};
use bytes::Bytes;

/// CloudEvents id.
pub const CE_ID: &str = "ce_id";
/// CloudEvents type.
pub const CE_TYPE: &str = "ce_type";
/// CloudEvents source.
pub const CE_SOURCE: &str = "ce_source";
/// CloudEvents spec version.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// CloudEvents content type.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// How often a dead letter was redriven.
pub const REDRIVE_COUNT: &str = "tillstream_redrive_count";
/// `topic/partition/offset` of a dead letter's source.
pub const ORIGIN: &str = "tillstream_origin";
/// Stable code of a dead letter's reason.
pub const ERROR_CODE: &str = "tillstream_error_code";
/// Reason label of a dead letter.
pub const ERROR_REASON: &str = "tillstream_error_reason";
/// The stage that gave a dead letter up.
pub const STAGE: &str = "tillstream_stage";
/// The version of tillstream that gave a dead letter up.
pub const VERSION: &str = "tillstream_version";

/// Where a redriven record first stood, `topic/partition/offset`: it stays the same however often it fails.
pub const FIRST_ORIGIN: &str = "tillstream_first_origin";
/// The dead letter that a redriven record was sent back from, `topic/partition/offset`.
pub const REDRIVEN_FROM: &str = "tillstream_redriven_from";

/// Names that the embedded format writes as one byte; the index is part of the format: append only.
pub const DICTIONARY: [&str; 14] = [
    CE_ID,
    CE_TYPE,
    CE_SOURCE,
    CE_SPECVERSION,
    CONTENT_TYPE,
    TRACEPARENT,
    REDRIVE_COUNT,
    ORIGIN,
    ERROR_CODE,
    ERROR_REASON,
    STAGE,
    VERSION,
    FIRST_ORIGIN,
    REDRIVEN_FROM,
];

/// Whether a record's dead letter keeps this header of it: its trace, and how it was redriven.
pub fn is_history(name: &[u8]) -> bool {
    [TRACEPARENT, REDRIVE_COUNT, FIRST_ORIGIN, REDRIVEN_FROM].iter().any(|it| it.as_bytes() == name)
}

/// A header with a static name.
pub fn header(name: &'static str, value: impl Into<Bytes>) -> Header {
    Header { name: Bytes::from_static(name.as_bytes()), value: value.into() }
}

/// The first header of that name, as text.
pub fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|it| it.name == name.as_bytes()).and_then(|it| std::str::from_utf8(&it.value).ok())
}
