//! `Content-Encoding`: bodies in gzip (RFC 1952) and zstd (RFC 8878) are taken, answers go out in gzip.

mod deflate;
mod frames;
mod inflate;

pub(crate) use deflate::compress;
pub(crate) use inflate::{Pieces, pieces};

use crate::problem::{Code, Problem};
use http::{HeaderMap, header};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Encoding {
    /// How the body of a request is encoded.
    ///
    /// # Errors
    /// 415 for an encoding that is not taken, and for more than one.
    pub(crate) fn of_body(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(Self::Identity) };
        let name = value.to_str().unwrap_or("(unreadable)").trim();
        let known = [
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
        ];
        let found = known.into_iter().find(|(word, _)| name.eq_ignore_ascii_case(word)).map(|it| it.1);
        found.filter(|_| values.next().is_none()).ok_or_else(|| {
            let detail = format!("Content-Encoding {name:?} is not taken here; send gzip, zstd or none");
            Problem::new(Code::UnsupportedMediaType, detail)
        })
    }

    /// Whether the client takes answers in gzip.
    pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
        accepted.flat_map(|it| it.split(',')).any(|part| {
            let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
            let quality = match parameters.trim().strip_prefix("q=") {
                Some(text) => text.trim().parse::<f32>().unwrap_or(0.0),
                None => 1.0,
            };
            name.trim().eq_ignore_ascii_case("gzip") && quality > 0.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_compressed_only_where_that_is_welcome() {
        let cases = [
            ("", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.1, br", true),
            ("gzip;q=0", false),
            ("gzip;q=nonsense", false),
            ("br, *", false),
        ];
        for (accepted, expected) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(Encoding::takes_gzip(&headers), expected, "{accepted}");
        }
    }

    #[test]
    fn a_body_has_one_known_encoding_or_none() {
        let of = |values: &[&'static str]| {
            let values =
                values.iter().map(|it| (header::CONTENT_ENCODING, http::HeaderValue::from_static(it)));
            let mut headers = HeaderMap::new();
            values.for_each(|(name, value)| {
                headers.append(name, value);
            });
            Encoding::of_body(&headers).map_err(|it| it.code)
        };
        assert_eq!(of(&[]), Ok(Encoding::Identity));
        assert_eq!(of(&["GZip"]), Ok(Encoding::Gzip));
        assert_eq!(of(&["zstd"]), Ok(Encoding::Zstd));
        for bad in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["deflate"]] {
            assert_eq!(of(bad), Err(Code::UnsupportedMediaType), "{bad:?}");
        }
    }
}
