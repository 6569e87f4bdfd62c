//! Answers, compressed as they are made: each piece can be decoded as soon as it is there.

use super::Encoding;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{TryStreamExt, stream};
use http::{HeaderValue, Method, header};
use std::io::{self, Write};

/// Shorter answers are not worth it.
const BYTES_MIN: u64 = 1_024;
/// What is compressed. An event stream is not: each event would be a block of its own.
const TYPES: [&str; 6] = [
    "application/json",
    "application/problem+json",
    "application/x-ndjson",
    "application/openapi+json",
    "text/html",
    "text/plain",
];

/// Compresses the answer if the client asks for it.
pub(crate) async fn compress(request: Request, next: Next) -> Response {
    let wanted = request.method() != Method::HEAD && Encoding::takes_gzip(request.headers());
    let mut response = next.run(request).await;
    if !is_compressible(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !wanted || response.body().size_hint().upper().is_some_and(|it| it < BYTES_MIN) {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
    response.map(deflated)
}

fn is_compressible(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let essence = content_type.and_then(|it| it.split(';').next()).unwrap_or_default().trim();
    TYPES.contains(&essence) && !response.headers().contains_key(header::CONTENT_ENCODING)
}

fn deflated(body: Body) -> Body {
    let pieces = body.into_data_stream();
    Body::from_stream(stream::try_unfold(
        (pieces, Some(Deflater::new())),
        |(mut pieces, encoder)| async move {
            let Some(mut encoder) = encoder else { return Ok(None) };
            match pieces.try_next().await.map_err(io::Error::other)? {
                Some(piece) => {
                    let compressed = encoder.piece(&piece)?;
                    Ok::<_, io::Error>(Some((compressed, (pieces, Some(encoder)))))
                }
                None => Ok(Some((encoder.finish()?, (pieces, None)))),
            }
        },
    ))
}

struct Deflater(GzEncoder<Vec<u8>>);

impl Deflater {
    fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    /// A piece, compressed and flushed: the client need not wait for the next one.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        self.0.write_all(bytes)?;
        self.0.flush()?;
        Ok(std::mem::take(self.0.get_mut()).into())
    }

    fn finish(self) -> io::Result<Bytes> {
        self.0.finish().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_piece_can_be_decoded_as_soon_as_it_is_there() {
        let line = b"{\"line\":1,\"status\":202,\"id\":\"ord_1\"}\n";
        let first = Deflater::new().piece(line).unwrap();
        let mut read = vec![0; line.len()];
        flate2::read::GzDecoder::new(&first[..]).read_exact(&mut read).unwrap();
        assert_eq!(read, line);
    }

    #[tokio::test]
    async fn a_whole_body_comes_back_as_it_was() {
        let text = "two lines\nof text\n".repeat(1_000);
        let bytes =
            http_body_util::BodyExt::collect(deflated(Body::from(text.clone()))).await.unwrap().to_bytes();
        assert!(bytes.len() < text.len() / 10);
        let mut decoded = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut decoded).unwrap();
        assert_eq!(decoded, text);
    }
}
