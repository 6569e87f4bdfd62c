//! Query parameters and path segments, with errors that name the parameter and the fix.

use crate::moment;
use crate::problem::{FieldError, Problem};
use crate::shape::quoted;
use axum::extract::{self, FromRequestParts, Path};
use http::Uri;
use http::request::Parts;
use serde::de::DeserializeOwned;

/// What a query parameter must be.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// Any text.
    Text,
    /// A whole number.
    Whole { min: u64, max: u64 },
    /// How many rows a page has: from 1 on.
    Rows { default: usize, max: usize },
    /// RFC 3339, or a date.
    Time,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A place in a list of this kind.
    Cursor(char),
}

/// A query parameter: name, what it must be, and a sentence for the contract.
#[derive(Clone, Copy)]
pub(crate) struct Query {
    pub name: &'static str,
    pub wanted: Wanted,
    pub about: &'static str,
}

/// A parameter of a query; all may be left out.
pub(crate) const fn query(name: &'static str, wanted: Wanted, about: &'static str) -> Query {
    Query { name, wanted, about }
}

/// How many rows a page has.
pub(crate) const fn rows(default: usize, max: usize) -> Query {
    query("limit", Wanted::Rows { default, max }, "Rows of a page")
}

/// Where a page begins.
pub(crate) const fn cursor(kind: char) -> Query {
    query("cursor", Wanted::Cursor(kind), "`next_cursor` of the page before, unchanged")
}

/// The words of choices, for a [`Wanted::Choice`].
pub(crate) const fn words<T: Copy, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = choices[index].0;
        index += 1;
    }
    words
}

/// The parameters of one call. Getters note errors; `finish` reports all of them.
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
    table: &'static [Query],
}

impl Params {
    /// Reads the query of a URI by the table that also stands in the contract.
    ///
    /// # Errors
    /// When it is no query at all; what is wrong with single parameters is told by [`Params::finish`].
    pub(crate) fn read(uri: &Uri, table: &'static [Query]) -> Result<Self, Problem> {
        let names: Vec<&str> = table.iter().map(|it| it.name).collect();
        Ok(Self { table, ..Self::of(uri, &names)? })
    }

    /// A whole number, within the table's bounds.
    pub(crate) fn whole(&mut self, name: &str) -> Option<u64> {
        match self.table.iter().find(|it| it.name == name)?.wanted {
            Wanted::Whole { min, max } => self.number(name, min, max),
            _ => None,
        }
    }

    /// How many rows a page has, within the table's bounds.
    pub(crate) fn rows(&mut self) -> usize {
        let rows = self.table.iter().find_map(|it| match it.wanted {
            Wanted::Rows { default, max } => Some((default, max)),
            _ => None,
        });
        rows.map_or(1, |(default, max)| self.limit(default, max))
    }

    /// Reads the query of a URI; names other than `known`, and a name given twice, are errors.
    pub(crate) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let refuse =
            || Problem::parameter("(query)", "cannot be read", "send name=value&…, percent-encoded UTF-8");
        // The extractor would put U+FFFD where there is no UTF-8, and then look for that.
        if !is_utf8(uri.query().unwrap_or_default()) {
            return Err(refuse());
        }
        let extract::Query(pairs) =
            extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| refuse())?;
        let mut errors = Vec::new();
        for (index, (name, _)) in pairs.iter().enumerate().take(50) {
            if !known.contains(&name.as_str()) {
                let fix = if known.is_empty() {
                    "leave it out".to_owned()
                } else {
                    format!("leave it out, or send one of: {}", known.join(", "))
                };
                errors.push(FieldError::new(quoted(name), "is not a known parameter", fix));
            } else if pairs[..index].iter().any(|(it, _)| it == name) {
                errors.push(FieldError::new(name, "is given twice", "send it once"));
            }
        }
        Ok(Self { pairs, errors, table: &[] })
    }

    /// Notes what is wrong with a parameter, and the fix.
    pub(crate) fn refuse(&mut self, name: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.errors.push(FieldError::new(name, message, fix));
    }

    /// The text of a parameter; absent or empty: `None`.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.pairs.iter().find(|(it, value)| it == name && !value.is_empty()).map(|(_, value)| value.clone())
    }

    /// A whole number in a range.
    pub(crate) fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|it| (min..=max).contains(it));
        if number.is_none() {
            self.refuse(
                name,
                format!("{} cannot be taken", quoted(&text)),
                format!("send a whole number from {min} to {max}"),
            );
        }
        number
    }

    /// How many rows a page has.
    pub(crate) fn limit(&mut self, default: usize, max: usize) -> usize {
        let number = self.number("limit", 1, max as u64);
        number.and_then(|it| usize::try_from(it).ok()).unwrap_or(default)
    }

    /// A time or a date.
    pub(crate) fn time(&mut self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        let time = moment::from_date_or_time(&text);
        if time.is_none() {
            self.refuse(
                name,
                format!("{} is not a time", quoted(&text)),
                "send RFC 3339 (a + as %2B), such as 2010-12-01T08:26:00Z, or a date",
            );
        }
        time
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, it)| *it);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(
                name,
                format!("{} is not one of the choices", quoted(&text)),
                format!("send one of: {}", words.join(", ")),
            );
        }
        found
    }

    /// Reports what was noted.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::parameters(self.errors)) }
    }
}

/// Whether a query is UTF-8 once it is percent-decoded.
fn is_utf8(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match digits.filter(|_| *first == b'%').and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// Path segments, with a problem instead of plain text when they cannot be read.
pub(crate) struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(it)) => Ok(Self(it)),
            Err(error) => {
                Err(Problem::parameter("(path)", error.body_text(), "percent-encode UTF-8 in path segments"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_parameter_is_named() {
        let uri: Uri = "/x?limit=-1&from=soon&by=week&limit=3&what=1".parse().unwrap();
        let mut params = Params::of(&uri, &["limit", "from", "by"]).unwrap();
        assert_eq!(params.limit(20, 100), 20);
        assert_eq!(params.time("from"), None);
        assert_eq!(params.choice("by", &[("day", 1)]), None);
        let problem = params.finish().unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, ["limit", "\"what\"", "limit", "from", "by"]);
    }

    #[test]
    fn a_query_that_is_no_utf_8_is_refused_whole() {
        for (query, good) in [("a=%c3%a4", true), ("a=%zz%", true), ("a=%ff", false), ("%C3=a", false)] {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            assert_eq!(Params::of(&uri, &["a", "ä"]).is_ok(), good, "{query}");
        }
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let mut params = Params::of(&"/x?status=".parse().unwrap(), &["status", "limit"]).unwrap();
        assert_eq!(params.text("status"), None);
        assert_eq!(params.limit(20, 100), 20);
        assert!(params.finish().is_ok());
    }
}
