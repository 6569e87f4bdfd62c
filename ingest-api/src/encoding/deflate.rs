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
/// zstd's fast levels compress JSON nearly as well as the slow ones.
const ZSTD_LEVEL: i32 = 1;
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
    let wanted = if request.method() == Method::HEAD {
        Encoding::Identity
    } else {
        Encoding::wanted(request.headers())
    };
    let mut response = next.run(request).await;
    if !is_compressible(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let (Some(name), Some(encoder)) = (wanted.name(), Deflater::new(wanted)) else { return response };
    if response.body().size_hint().upper().is_some_and(|it| it < BYTES_MIN) {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(header::CONTENT_LENGTH);
    response.map(|body| deflated(body, encoder))
}

fn is_compressible(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let essence = content_type.and_then(|it| it.split(';').next()).unwrap_or_default().trim();
    TYPES.contains(&essence) && !response.headers().contains_key(header::CONTENT_ENCODING)
}

fn deflated(body: Body, encoder: Deflater) -> Body {
    let pieces = body.into_data_stream();
    Body::from_stream(stream::try_unfold((pieces, Some(encoder)), |(mut pieces, encoder)| async move {
        let Some(mut encoder) = encoder else { return Ok(None) };
        match pieces.try_next().await.map_err(io::Error::other)? {
            Some(piece) => {
                let compressed = encoder.piece(&piece)?;
                Ok::<_, io::Error>(Some((compressed, (pieces, Some(encoder)))))
            }
            None => Ok(Some((encoder.finish()?, (pieces, None)))),
        }
    }))
}

enum Deflater {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Deflater {
    /// `None` for an answer that stays as it is.
    fn new(encoding: Encoding) -> Option<Self> {
        match encoding {
            Encoding::Identity => None,
            Encoding::Gzip => Some(Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast()))),
            Encoding::Zstd => zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok().map(Self::Zstd),
        }
    }

    /// A piece, compressed and flushed: the client need not wait for the next one.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Zstd(encoder) => encoder.finish().map(Bytes::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_piece_can_be_decoded_as_soon_as_it_is_there() {
        let line = b"{\"line\":1,\"status\":202,\"id\":\"ord_1\"}\n";
        let mut gzip = Deflater::new(Encoding::Gzip).unwrap();
        let first = gzip.piece(line).unwrap();
        let mut read = vec![0; line.len()];
        flate2::read::GzDecoder::new(&first[..]).read_exact(&mut read).unwrap();
        assert_eq!(read, line);
        let mut zstd = Deflater::new(Encoding::Zstd).unwrap();
        let first = zstd.piece(line).unwrap();
        let mut read = vec![0; line.len()];
        zstd::stream::read::Decoder::new(&first[..]).unwrap().read_exact(&mut read).unwrap();
        assert_eq!(read, line);
    }

    #[tokio::test]
    async fn a_whole_body_comes_back_as_it_was() {
        let text = "two lines\nof text\n".repeat(1_000);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let body = deflated(Body::from(text.clone()), Deflater::new(encoding).unwrap());
            let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
            assert!(bytes.len() < text.len() / 10);
            let mut decoded = String::new();
            match encoding {
                Encoding::Gzip => {
                    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut decoded).unwrap()
                }
                _ => zstd::stream::read::Decoder::new(&bytes[..])
                    .unwrap()
                    .read_to_string(&mut decoded)
                    .unwrap(),
            };
            assert_eq!(decoded, text);
        }
    }
}
