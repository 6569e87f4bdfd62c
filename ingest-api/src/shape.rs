//! What a JSON body must look like, as data: one walk over a body finds every error at once and names field and fix.

mod unambiguous;

use crate::countries::is_country;
use crate::moment;
use crate::problem::{Code, FieldError, Problem};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt::Write;
use tillstream_stage::money::{AMOUNT_MINOR_MAX, currency_digits};
use unambiguous::Unambiguous;

/// A walk gives up after so many errors: a hostile body must not make a large answer.
pub(crate) const ERRORS_MAX: usize = 100;

/// What a value must be.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// One line of text without control characters; the limits are characters.
    Text { min: usize, max: usize },
    /// A name that can stand in a path, a file and a key as it is: a to z, 0 to 9 and -, not beginning with -.
    Slug { max: usize },
    /// So many hex digits, in lower case.
    Hex { digits: usize },
    /// Text that may have line breaks and tabs.
    Prose { max: usize },
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// Minor units of a currency.
    Amount { min: i64 },
    /// True or false.
    Flag,
    /// RFC 3339.
    Time,
    /// ISO 4217.
    Currency,
    /// ISO 3166-1 alpha-2.
    Country,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An array.
    List { of: &'static Kind, min: usize, max: usize },
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// Up to `pairs` of text to text.
    Pairs { pairs: usize, key_max: usize, value_max: usize },
    /// ISO 4217 to minor units.
    Prices,
    /// Any object, of at most so many bytes as text.
    Json { bytes: usize },
}

/// A field of an object.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub name: &'static str,
    pub required: bool,
    pub kind: Kind,
    /// A sentence for the contract; empty: the kind says enough.
    pub about: &'static str,
}

impl Field {
    /// Says in the contract what the field is for, and what holds when it is left out.
    pub(crate) const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

/// A field that must be there.
pub(crate) const fn needed(name: &'static str, kind: Kind) -> Field {
    Field { name, required: true, kind, about: "" }
}

/// A field that may be left out (or null).
pub(crate) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, required: false, kind, about: "" }
}

/// A SKU.
pub(crate) const SKU: Kind = Kind::Text { min: 1, max: 64 };
/// The merchant's metadata.
pub(crate) const METADATA: Kind = Kind::Pairs { pairs: 50, key_max: 40, value_max: 500 };
/// The merchant's customer id.
pub(crate) const CUSTOMER: Kind = Kind::Text { min: 1, max: 255 };
/// Units of one line.
pub(crate) const QUANTITY: Kind = Kind::Integer { min: 1, max: QUANTITY_MAX };
/// The most units of one line.
pub(crate) const QUANTITY_MAX: i64 = 1_000_000;

/// One line of text: so many characters, none of them a control character.
pub(crate) fn is_text(text: &str, min: usize, max: usize) -> bool {
    text.len() >= min
        && (text.len() <= max || (text.len() <= 4 * max && text.chars().count() <= max))
        && !has_control(text)
}

/// See [`Kind::Slug`].
pub(crate) fn is_slug(text: &str, max: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=max).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
}

/// See [`Kind::Hex`].
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// Text that may have line breaks and tabs.
pub(crate) fn is_prose(text: &str, max: usize) -> bool {
    (text.len() <= max || text.chars().count() <= max)
        && !text.chars().any(|it| it.is_control() && !matches!(it, '\n' | '\r' | '\t'))
}

fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().any(|it| it.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// Reads a body: all errors of shape and value at once, or the typed value.
///
/// # Errors
/// A problem that names line and column when it is no JSON, else every field that cannot be taken.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], fields: &'static [Field]) -> Result<T, Problem> {
    let value = parse(bytes)?;
    let errors = Walk::over(&value, &Kind::Object(fields));
    if !errors.is_empty() {
        return Err(Problem::invalid_fields(errors));
    }
    serde_json::from_value(value).map_err(|error| malformed(&error))
}

/// Parses JSON. A name that stands twice in an object is refused: which of the two was meant is anyone's guess.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(bytes).map(|Unambiguous(value)| value).map_err(|error| malformed(&error))
}

/// The problem of a body that is no JSON.
pub(crate) fn malformed(error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    let fix = "send one JSON value in UTF-8: no NaN, nothing behind it, no name twice in an object";
    Problem::about(Code::MalformedJson, "(body)", format!("{what}, at {place}"), fix)
}

/// A walk over one body.
pub(crate) struct Walk {
    path: String,
    errors: Vec<FieldError>,
}

impl Walk {
    /// Every error of a value, at most [`ERRORS_MAX`].
    pub(crate) fn over(value: &Value, kind: &Kind) -> Vec<FieldError> {
        let mut walk = Self { path: String::new(), errors: Vec::new() };
        walk.check(value, kind);
        walk.errors
    }

    fn refuse(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            let field = if self.path.is_empty() { "(body)" } else { &self.path };
            self.errors.push(FieldError::new(field, message, fix));
        }
    }

    fn within(&mut self, step: impl FnOnce(&mut String), then: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        step(&mut self.path);
        then(self);
        self.path.truncate(length);
    }

    fn check(&mut self, value: &Value, kind: &Kind) {
        match kind {
            Kind::Text { .. }
            | Kind::Prose { .. }
            | Kind::Slug { .. }
            | Kind::Hex { .. }
            | Kind::Time
            | Kind::Currency
            | Kind::Country
            | Kind::Choice(_) => match value.as_str() {
                Some(text) => self.check_text(text, kind),
                None => self.refuse(format!("is {}, not text", name_of(value)), "send a string in quotes"),
            },
            Kind::Integer { min, max } => self.check_integer(value, *min, *max, ""),
            Kind::Amount { min } => {
                self.check_integer(value, *min, AMOUNT_MINOR_MAX, " of minor units (2.55 is 255)")
            }
            Kind::Flag => {
                if !value.is_boolean() {
                    self.refuse(format!("is {}, not a flag", name_of(value)), "send true or false");
                }
            }
            Kind::List { of, min, max } => self.check_list(value, of, *min, *max),
            Kind::Object(fields) => self.check_object(value, fields),
            Kind::Pairs { pairs, key_max, value_max } => {
                self.check_pairs(value, *pairs, *key_max, *value_max)
            }
            Kind::Prices => self.check_prices(value),
            Kind::Json { bytes } => self.check_json(value, *bytes),
        }
    }

    fn check_text(&mut self, text: &str, kind: &Kind) {
        match kind {
            Kind::Text { min, max } if !is_text(text, *min, *max) => self.refuse_text(text, *min, *max),
            Kind::Prose { max } if !is_prose(text, *max) => self.refuse_text(text, 0, *max),
            Kind::Slug { max } if !is_slug(text, *max) => self.refuse(
                format!("{} is no name", quoted(text)),
                format!("send 1 to {max} of a to z, 0 to 9 and -, not beginning with -"),
            ),
            Kind::Hex { digits } if !is_hex(text, *digits) => self.refuse(
                format!("{} is not {digits} hex digits", quoted(text)),
                format!("send {digits} of 0 to 9 and a to f"),
            ),
            Kind::Time if moment::from_rfc3339(text).is_none() => self.refuse(
                format!("{} is not a time from 1970 to 9999", quoted(text)),
                "send RFC 3339 with an offset, such as 2010-12-01T08:26:00Z",
            ),
            Kind::Currency if currency_digits(text).is_none() => self.refuse(
                format!("{} is not a currency in use", quoted(text)),
                "send an ISO 4217 code in capitals, such as GBP",
            ),
            Kind::Country if !is_country(text) => self.refuse(
                format!("{} is not a country", quoted(text)),
                "send an ISO 3166-1 alpha-2 code in capitals, such as GB",
            ),
            Kind::Choice(words) if !words.contains(&text) => {
                self.refuse(
                    format!("{} is not one of the choices", quoted(text)),
                    format!("send one of: {}", words.join(", ")),
                );
            }
            _ => {}
        }
    }

    fn refuse_text(&mut self, text: &str, min: usize, max: usize) {
        let characters = text.chars().count();
        if characters > max {
            self.refuse(format!("has {characters} characters"), format!("send at most {max}"));
        } else if characters < min {
            self.refuse("is empty", format!("send {min} to {max} characters"));
        } else {
            self.refuse("has a control character", "leave out NUL, line breaks and other control characters");
        }
    }

    fn check_integer(&mut self, value: &Value, min: i64, max: i64, unit: &str) {
        let Value::Number(number) = value else {
            return self.refuse(
                format!("is {}, not a whole number{unit}", name_of(value)),
                format!("send a whole number from {min} to {max}, without quotes"),
            );
        };
        let fix = || format!("send a whole number{unit} from {min} to {max}");
        match number.as_i64() {
            Some(it) if it < min || it > max => self.refuse(format!("{it} is out of range"), fix()),
            Some(_) => {}
            None if number.is_f64() => self.refuse(format!("{number} is not a whole number{unit}"), fix()),
            None => self.refuse(format!("{number} is out of range"), fix()),
        }
    }

    fn check_list(&mut self, value: &Value, of: &Kind, min: usize, max: usize) {
        let Value::Array(items) = value else {
            return self.refuse(format!("is {}, not an array", name_of(value)), "send an array in [ ]");
        };
        if items.len() < min || items.len() > max {
            return self.refuse(format!("has {} items", items.len()), format!("send {min} to {max}"));
        }
        for (index, item) in items.iter().enumerate() {
            let step = |path: &mut String| {
                let _ = write!(path, "[{index}]");
            };
            self.within(step, |walk| walk.check(item, of));
        }
    }

    fn check_object(&mut self, value: &Value, fields: &[Field]) {
        let Value::Object(object) = value else {
            return self.refuse(format!("is {}, not an object", name_of(value)), "send an object in { }");
        };
        for field in fields {
            match object.get(field.name) {
                None | Some(Value::Null) => {
                    if field.required {
                        self.within(
                            |path| push_name(path, field.name),
                            |walk| walk.refuse("is missing", "send it"),
                        );
                    }
                }
                Some(value) => {
                    self.within(|path| push_name(path, field.name), |walk| walk.check(value, &field.kind))
                }
            }
        }
        self.check_unknown(object, fields);
    }

    fn check_unknown(&mut self, object: &Map<String, Value>, fields: &[Field]) {
        for name in object.keys() {
            if !fields.iter().any(|it| it.name == name) {
                let names: Vec<&str> = fields.iter().map(|it| it.name).collect();
                let fix = if names.is_empty() {
                    "send an empty object, or no body".to_owned()
                } else {
                    format!("leave it out, or send one of: {}", names.join(", "))
                };
                let shown: String = name.chars().filter(|it| !it.is_control()).take(64).collect();
                // What begins with blanks, or is nothing but them, would be a field without a name.
                let shown = if shown.trim().is_empty() { quoted(name) } else { shown };
                self.within(|path| push_name(path, &shown), |walk| walk.refuse("is not a known field", fix));
            }
        }
    }

    fn check_json(&mut self, value: &Value, bytes: usize) {
        if !value.is_object() {
            return self.refuse(format!("is {}, not an object", name_of(value)), "send an object in { }");
        }
        let length = value.to_string().len();
        if length > bytes {
            self.refuse(format!("has {length} bytes"), format!("send at most {bytes}"));
        }
    }

    fn check_pairs(&mut self, value: &Value, pairs: usize, key_max: usize, value_max: usize) {
        let Value::Object(object) = value else {
            return self
                .refuse(format!("is {}, not an object", name_of(value)), "send an object of text to text");
        };
        if object.len() > pairs {
            return self.refuse(format!("has {} pairs", object.len()), format!("send at most {pairs}"));
        }
        for (name, value) in object {
            if !is_text(name, 1, key_max) {
                self.refuse(
                    format!("the name {} cannot be taken", quoted(name)),
                    format!("send names of 1 to {key_max} characters, without control characters"),
                );
                continue;
            }
            self.within(
                |path| push_name(path, name),
                |walk| walk.check(value, &Kind::Prose { max: value_max }),
            );
        }
    }

    fn check_prices(&mut self, value: &Value) {
        let Value::Object(object) = value else {
            return self.refuse(
                format!("is {}, not an object", name_of(value)),
                "send an object such as {\"GBP\": 255}",
            );
        };
        for (currency, price) in object {
            if currency_digits(currency).is_none() {
                self.refuse(
                    format!("{} is not a currency in use", quoted(currency)),
                    "send ISO 4217 codes in capitals, such as GBP",
                );
                continue;
            }
            self.within(|path| push_name(path, currency), |walk| walk.check(price, &Kind::Amount { min: 0 }));
        }
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// A value of the client's in a message: short, and without what could garble a terminal.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LINE: Kind = Kind::Object(&[needed("sku", SKU), needed("quantity", QUANTITY)]);
    const FIELDS: &[Field] = &[
        needed("currency", Kind::Currency),
        optional("country", Kind::Country),
        optional("at", Kind::Time),
        needed("lines", Kind::List { of: &LINE, min: 1, max: 3 }),
        optional("metadata", METADATA),
        optional("prices", Kind::Prices),
        optional("how", Kind::Choice(&["a", "b"])),
        optional("note", Kind::Prose { max: 5 }),
        optional("on", Kind::Flag),
    ];

    #[test]
    fn every_error_is_found_at_once_and_names_its_field() {
        let body = json!({
            "currency": "gbp", "country": "UK", "at": "yesterday", "how": "c", "note": "123456", "on": 1,
            "lines": [{"sku": "", "quantity": 0}, {"sku": "a\u{0}", "quantity": 1.5}, {"quantity": "2", "x": 1}],
            "metadata": {"a": 1}, "prices": {"GBP": -1, "XXX": 1}, "unknown": true,
        });
        let mut fields: Vec<String> =
            Walk::over(&body, &Kind::Object(FIELDS)).into_iter().map(|it| it.field).collect();
        fields.sort();
        let mut expected = vec![
            "currency",
            "country",
            "at",
            "how",
            "note",
            "on",
            "lines[0].sku",
            "lines[0].quantity",
            "lines[1].sku",
            "lines[1].quantity",
            "lines[2].sku",
            "lines[2].quantity",
            "lines[2].x",
            "metadata.a",
            "prices.GBP",
            "prices",
            "unknown",
        ];
        expected.sort_unstable();
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_hostile_body_gets_a_bounded_answer() {
        let names: Map<String, Value> = (0..5_000).map(|it| (format!("f{it}"), Value::Null)).collect();
        assert_eq!(Walk::over(&Value::Object(names), &Kind::Object(&[])).len(), ERRORS_MAX);
    }

    #[test]
    fn what_is_no_json_names_line_and_column() {
        for (body, place) in [
            (&b"{\"a\": NaN}"[..], "line 1, column 7"),
            (b"{\n \"a\": 1,\n}", "line 3"),
            (b"", "line 1, column 0"),
            (b"{\"a\": \"\xff\"}", "line 1"),
        ] {
            let problem = parse(body).unwrap_err();
            assert_eq!(problem.code, Code::MalformedJson);
            assert!(problem.detail.contains(place), "{}", problem.detail);
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().code, Code::MalformedJson);
    }

    #[test]
    fn limits_are_characters_not_bytes() {
        assert!(is_text(&"ä".repeat(64), 1, 64));
        assert!(!is_text(&"ä".repeat(65), 1, 64));
        assert!(!is_text("", 1, 64));
        assert!(!is_text("a\nb", 1, 64));
        assert!(is_prose("a\nb", 64));
        assert!(!is_prose("a\u{1b}[31m", 64));
    }
}
