//! Request bodies: media type, size and time limits.

use crate::problem::{Code, Problem};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;

/// The largest JSON body.
pub(crate) const JSON_BYTES_MAX: usize = 1 << 20;
/// The largest bulk body.
pub(crate) const BULK_BYTES_MAX: u64 = 100 << 20;
/// A body must be here by then.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a JSON body of at most 1 MiB; no body is an empty object.
///
/// # Errors
/// 415 for another media type or an encoding, 413 for too much, 400 when it does not arrive whole.
pub(crate) async fn json(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let bytes = whole(headers, body, JSON_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    media_type(headers, &["application/json"])?;
    Ok(bytes)
}

async fn whole(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    if content_length(headers).is_some_and(|it| it > bytes_max as u64) {
        return Err(too_large(bytes_max as u64));
    }
    match tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(too_large(bytes_max as u64))
        }
        Ok(Err(error)) => Err(Problem::new(Code::BodyIncomplete, error.to_string())),
        Err(_) => Err(Problem::new(Code::BodyIncomplete, "the body took longer than 30 s")),
    }
}

/// Reads a body that is no JSON.
///
/// # Errors
/// As [`json`].
pub(crate) async fn bytes(
    headers: &HeaderMap,
    body: Body,
    taken: &[&str],
    bytes_max: usize,
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
    Problem::new(Code::BodyTooLarge, format!("the limit is {limit_bytes} bytes"))
}

/// Refuses other media types; none at all is taken as the right one.
pub(crate) fn media_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let refuse = |what: String| {
        Err(Problem::new(Code::UnsupportedMediaType, format!("{what}; send Content-Type: {}", taken[0])))
    };
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("a Content-Encoding is not taken here".to_owned());
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or("(unreadable)");
    let essence = value.split(';').next().unwrap_or_default().trim();
    if taken.iter().any(|it| essence.eq_ignore_ascii_case(it)) {
        return Ok(());
    }
    refuse(format!("{essence:?} is not taken here"))
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
        let gzip = (header::CONTENT_ENCODING, "gzip");
        let huge = (header::CONTENT_LENGTH, "12582912");
        let cases: [(HeaderMap, usize, Option<Code>); 6] = [
            (headers(std::slice::from_ref(&json_type)), 2, None),
            (headers(&[]), 2, None),
            (headers(&[form]), 2, Some(Code::UnsupportedMediaType)),
            (headers(&[json_type.clone(), gzip]), 2, Some(Code::UnsupportedMediaType)),
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
