//! Avro's binary encoding straight from and to the Rust type, for types that mirror their schema.
//!
//! A test walks every wire type beside its schema: the same fields, symbols and branches, in the same order, under the
//! same names. So the type alone says which bytes follow each other, and no schema is looked at on the way. Others
//! hold every byte against apache-avro and against the library that reads by schema (decision 0015).

mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

use std::fmt;

/// Why bytes are no value, or a value has no bytes.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl Refused {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// A type that no schema here has.
    fn unsupported(what: &str) -> Self {
        Self(format!("no schema here has {what}"))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}
