//! `Content-Encoding`: compressed bodies in, compressed answers out; gzip (RFC 1952) and zstd (RFC 8878).

mod deflate;
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

    /// How the client wants its answer encoded.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
        let mut best = (Self::Identity, 0.0);
        for part in accepted.flat_map(|it| it.split(',')) {
            let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
            let quality = match parameters.trim().strip_prefix("q=") {
                Some(text) => text.trim().parse::<f32>().unwrap_or(0.0),
                None => 1.0,
            };
            let encoding = match name.trim() {
                it if it.eq_ignore_ascii_case("gzip") => Self::Gzip,
                it if it.eq_ignore_ascii_case("zstd") => Self::Zstd,
                _ => continue,
            };
            // Of two that are equally welcome, zstd costs less.
            if quality > best.1 || (quality > 0.0 && quality == best.1 && encoding == Self::Zstd) {
                best = (encoding, quality);
            }
        }
        best.0
    }

    /// As headers spell it; `None` where none is needed.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_encoded_as_the_client_likes_it_best() {
        let cases = [
            ("", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("zstd;q=0.5, gzip;q=0.8", Encoding::Gzip),
            ("gzip;q=0", Encoding::Identity),
            ("GZIP;q=nonsense", Encoding::Identity),
            ("br, *", Encoding::Identity),
        ];
        for (accepted, expected) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(Encoding::wanted(&headers), expected, "{accepted}");
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
