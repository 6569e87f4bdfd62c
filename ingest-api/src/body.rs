//! Request bodies: media type, size and time limits.

use crate::encoding;
use crate::problem::{Code, Problem};
use crate::shape::quoted;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, header};
use std::time::Duration;

/// The largest JSON body.
pub(crate) const JSON_BYTES_MAX: usize = 1 << 20;
/// The largest bulk body.
pub(crate) const BULK_BYTES_MAX: u64 = 100 << 20;
/// A body must be here by then.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a JSON body of at most 1 MiB, decoded; no body is an empty object.
///
/// # Errors
/// 415 for another media type or encoding, 413 for too much, 408 when it comes too slowly, 400 when it does not arrive whole
/// or cannot be decoded.
pub(crate) async fn json(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let bytes = whole(headers, body, JSON_BYTES_MAX as u64).await?;
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    media_type(headers, &["application/json"])?;
    Ok(bytes)
}

/// Reads a body of at most `bytes_max` bytes, decoded.
async fn whole(headers: &HeaderMap, body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    if content_length(headers).is_some_and(|it| it > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let mut pieces = encoding::pieces(headers, body, bytes_max)?;
    let gathering = async {
        // Most bodies come in one piece, which need not be copied.
        let first = pieces.try_next().await?.unwrap_or_default();
        let Some(second) = pieces.try_next().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = pieces.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok::<_, Problem>(all.freeze())
    };
    tokio::time::timeout(BODY_TIME_MAX, gathering).await.map_err(|_| too_slow("took longer than 30 s"))?
}

/// Reads a body that is no JSON.
///
/// # Errors
/// As [`json`].
pub(crate) async fn bytes(
    headers: &HeaderMap,
    body: Body,
    taken: &[&str],
    bytes_max: u64,
) -> Result<Bytes, Problem> {
    media_type(headers, taken)?;
    whole(headers, body, bytes_max).await
}

/// What `Content-Length` says.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The problem of a body past its limit.
pub(crate) fn too_large(limit_bytes: u64) -> Problem {
    let (message, fix) = (format!("is larger than {limit_bytes} bytes"), "send less, in more calls");
    Problem::about(Code::BodyTooLarge, "(body)", message, fix)
}

/// The problem of a body that did not arrive in time.
pub(crate) fn too_slow(message: impl Into<String>) -> Problem {
    Problem::about(
        Code::BodyTooSlow,
        "(body)",
        message,
        "send the whole body again, with the same Idempotency-Key",
    )
}

/// Refuses other media types; none at all is taken as the right one.
pub(crate) fn media_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let refuse = |field: &str, message: String, fix: String| {
        Err(Problem::about(Code::UnsupportedMediaType, field, message, fix))
    };
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or("(unreadable)");
    let essence = value.split(';').next().unwrap_or_default().trim();
    if taken.iter().any(|it| essence.eq_ignore_ascii_case(it)) {
        return Ok(());
    }
    let message = format!("{} is not taken here", quoted(essence));
    refuse("Content-Type", message, format!("send Content-Type: {}", taken[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn media_types_and_sizes_are_judged() {
        let json_type = (header::CONTENT_TYPE, "application/json; charset=utf-8");
        let form = (header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let brotli = (header::CONTENT_ENCODING, "br");
        let gzip = (header::CONTENT_ENCODING, "gzip");
        let huge = (header::CONTENT_LENGTH, "12582912");
        let cases: [(HeaderMap, usize, Option<Code>); 7] = [
            (headers(std::slice::from_ref(&json_type)), 2, None),
            (headers(&[]), 2, None),
            (headers(&[form]), 2, Some(Code::UnsupportedMediaType)),
            (headers(&[json_type.clone(), brotli]), 2, Some(Code::UnsupportedMediaType)),
            (headers(&[json_type.clone(), gzip]), 2, Some(Code::BadCompression)),
            (headers(&[json_type.clone(), huge]), 2, Some(Code::BodyTooLarge)),
            (headers(&[json_type]), JSON_BYTES_MAX + 1, Some(Code::BodyTooLarge)),
        ];
        for (headers, length, expected) in cases {
            let result = json(&headers, Body::from(vec![b' '; length])).await;
            assert_eq!(result.err().map(|it| it.code), expected, "{headers:?}");
        }
        assert_eq!(json(&HeaderMap::new(), Body::empty()).await.unwrap(), "{}");
    }
}
