//! Compressed bodies, decoded as they come: a few kilobytes at a time, within bounds on what comes out of them.

use super::Encoding;
use super::frames::Frames;
use crate::body::too_large;
use crate::problem::{Code, Problem};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http::HeaderMap;
use std::io::{self, Write};

/// The pieces of a body, decoded.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, Problem>>;

/// A body may grow to so many times its size. Orders as JSON come to some 30 times with the best of settings.
const GROWTH_MAX: u64 = 200;
/// So much may come out whatever came in: a short body is no attack.
const GROWTH_FREE_BYTES: u64 = 1 << 20;
/// Decoded at a time. gzip grows at most 1,032 times: this makes a megabyte.
const GZIP_STEP_BYTES: usize = 1 << 10;
/// Handed to the zstd decoder at a time: it keeps what is not a whole block.
const ZSTD_STEP_BYTES: usize = 64 << 10;
/// Decoded pieces are about this large.
const PIECE_BYTES: usize = 64 << 10;

/// A request's body, piece by piece, at most `bytes_max` encoded as well as decoded. The stream ends after an error.
///
/// # Errors
/// 415 for an encoding that is not taken.
pub(crate) fn pieces(headers: &HeaderMap, body: Body, bytes_max: u64) -> Result<Pieces, Problem> {
    let encoding = Encoding::of_body(headers)?;
    let mut read_bytes = 0;
    let raw = body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(|error| Problem::new(Code::BodyIncomplete, error.to_string()))?;
        read_bytes += piece.len() as u64;
        if read_bytes > bytes_max { Err(too_large(bytes_max)) } else { Ok(piece) }
    });
    if encoding == Encoding::Identity {
        return Ok(raw.boxed());
    }
    let inflater = Inflater::new(encoding, bytes_max);
    let pieces = stream::try_unfold((raw.boxed(), inflater), |(mut raw, mut inflater)| async move {
        loop {
            if let Some(piece) = inflater.piece()? {
                return Ok(Some((piece, (raw, inflater))));
            }
            match raw.try_next().await? {
                Some(bytes) => inflater.feed(bytes),
                None if inflater.finish()? => return Ok(None),
                None => {}
            }
        }
    });
    Ok(pieces.boxed())
}

/// Why nothing more may come out.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Excess {
    #[error("the decoded body is larger than it may be")]
    Size,
    #[error("the body grows by more than {GROWTH_MAX} times when it is decoded")]
    Growth,
}

/// What has come out, and what may.
struct Out {
    bytes: BytesMut,
    encoded_bytes: u64,
    decoded_bytes: u64,
    bytes_max: u64,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        self.decoded_bytes += bytes.len() as u64;
        if self.decoded_bytes > self.bytes_max {
            return Err(Excess::Size);
        }
        if self.decoded_bytes > GROWTH_FREE_BYTES + self.encoded_bytes * GROWTH_MAX {
            return Err(Excess::Growth);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoding {
    Gzip(Box<MultiGzDecoder<Out>>),
    Zstd { frames: Box<Frames>, out: Out },
}

/// A body on its way out of its encoding.
struct Inflater {
    decoding: Decoding,
    input: Bytes,
    bytes_max: u64,
    finished: bool,
}

impl Inflater {
    fn new(encoding: Encoding, bytes_max: u64) -> Self {
        let out = Out { bytes: BytesMut::new(), encoded_bytes: 0, decoded_bytes: 0, bytes_max };
        let decoding = match encoding {
            Encoding::Gzip | Encoding::Identity => Decoding::Gzip(Box::new(MultiGzDecoder::new(out))),
            Encoding::Zstd => Decoding::Zstd { frames: Box::new(Frames::new()), out },
        };
        Self { decoding, input: Bytes::new(), bytes_max, finished: false }
    }

    /// More input; the last one has been used up.
    fn feed(&mut self, bytes: Bytes) {
        self.input = bytes;
    }

    fn out(&mut self) -> &mut Out {
        match &mut self.decoding {
            Decoding::Gzip(decoder) => decoder.get_mut(),
            Decoding::Zstd { out, .. } => out,
        }
    }

    /// The next decoded piece; `None` when more input is needed.
    fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        while self.out().bytes.len() < PIECE_BYTES {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(self.problem(&error)),
            }
        }
        let piece = self.out().bytes.split().freeze();
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Decodes a little; `false` when there is nothing to decode.
    fn step(&mut self) -> io::Result<bool> {
        match &mut self.decoding {
            Decoding::Gzip(decoder) => {
                if self.input.is_empty() {
                    return Ok(false);
                }
                let slice = self.input.split_to(self.input.len().min(GZIP_STEP_BYTES));
                decoder.get_mut().encoded_bytes += slice.len() as u64;
                decoder.write_all(&slice)?;
                Ok(true)
            }
            Decoding::Zstd { frames, out } => {
                if frames.step(&mut |bytes| out.put(bytes).map_err(io::Error::other))? {
                    return Ok(true);
                }
                if self.input.is_empty() {
                    return Ok(false);
                }
                let slice = self.input.split_to(self.input.len().min(ZSTD_STEP_BYTES));
                out.encoded_bytes += slice.len() as u64;
                frames.feed(&slice);
                Ok(true)
            }
        }
    }

    /// All input is in. `false`: it left something to be taken first.
    fn finish(&mut self) -> Result<bool, Problem> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(true);
        }
        let ended = match &mut self.decoding {
            Decoding::Gzip(decoder) if decoder.get_ref().encoded_bytes == 0 => Ok(()),
            Decoding::Gzip(decoder) => decoder.try_finish(),
            Decoding::Zstd { frames, .. } if frames.is_whole() => Ok(()),
            Decoding::Zstd { .. } => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last frame is not whole"))
            }
        };
        match ended {
            Ok(()) => Ok(self.out().bytes.is_empty()),
            Err(error) => Err(self.problem(&error)),
        }
    }

    fn problem(&self, error: &io::Error) -> Problem {
        match error.get_ref().and_then(|it| it.downcast_ref::<Excess>()) {
            Some(Excess::Size) => too_large(self.bytes_max),
            Some(Excess::Growth) => Problem::new(Code::BadCompression, Excess::Growth.to_string()),
            None => Problem::new(
                Code::BadCompression,
                format!("the body is not what its Content-Encoding says: {error}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn decode(encoding: &'static str, body: &[u8], bytes_max: u64, cut: usize) -> Result<Vec<u8>, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding.parse().unwrap())]);
        let parts: Vec<_> =
            body.chunks(cut).map(|it| Ok::<_, io::Error>(Bytes::copy_from_slice(it))).collect();
        let pieces = pieces(&headers, Body::from_stream(stream::iter(parts)), bytes_max)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = runtime.block_on(pieces.try_collect::<Vec<Bytes>>())?;
        // A piece may be a step of gzip larger than asked for.
        assert!(all.iter().all(|it| it.len() <= PIECE_BYTES + (2 << 20)));
        Ok(all.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_was_encoded_comes_back_however_it_is_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..2_000),
            repeats in 1..8_usize,
            cut in 1..3_000_usize,
        ) {
            let body = bytes.repeat(repeats);
            prop_assert_eq!(&decode("gzip", &gzip(&body), 1 << 20, cut).unwrap(), &body);
            prop_assert_eq!(&decode("zstd", &zstd(&body), 1 << 20, cut).unwrap(), &body);
            prop_assert_eq!(&decode("identity", &body, 1 << 20, cut).unwrap(), &body);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(body in prop::collection::vec(any::<u8>(), 1..500)) {
            prop_assert_eq!(decode("gzip", &body, 1 << 20, 100).unwrap_err().code, Code::BadCompression);
            if let Err(problem) = decode("zstd", &body, 1 << 20, 100) {
                prop_assert_eq!(problem.code, Code::BadCompression);
            }
        }
    }

    #[test]
    fn several_members_are_one_body_and_a_cut_one_is_none() {
        for (name, encode) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
            let (first, second) = (encode(b"one\n"), encode(b"two\n"));
            assert_eq!(
                decode(name, &[first.clone(), second.clone()].concat(), 100, 7).unwrap(),
                b"one\ntwo\n"
            );
            let cut = &first[..first.len() - 3];
            assert_eq!(decode(name, cut, 100, 7).unwrap_err().code, Code::BadCompression, "{name}");
            assert_eq!(decode(name, b"", 100, 7).unwrap(), b"", "{name}");
        }
    }

    #[test]
    fn bombs_are_refused_by_size_or_growth_before_they_are_whole() {
        let zeros = vec![0; 64 << 20];
        for (name, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
            assert_eq!(decode(name, &bomb, 1 << 19, 4_096).unwrap_err().code, Code::BodyTooLarge, "{name}");
            assert_eq!(
                decode(name, &bomb, 100 << 20, 4_096).unwrap_err().code,
                Code::BadCompression,
                "{name}"
            );
        }
    }

    #[test]
    fn a_window_larger_than_eight_mebibytes_is_refused() {
        // Magic, a descriptor without anything, a window of 2^(10 + 14): 16 MiB, and an empty last block.
        let window = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
        assert_eq!(decode("zstd", &window(13), 1 << 20, 2).unwrap(), b"");
        assert_eq!(decode("zstd", &window(14), 1 << 20, 2).unwrap_err().code, Code::BadCompression);
    }
}
