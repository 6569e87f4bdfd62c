//! What must not be shown.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A password, whose debug text is not the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The password that one of two options gives; a line break at the end of the file is none of it.
pub fn given_or_read(given: Option<&Secret>, file: Option<&PathBuf>) -> std::io::Result<Option<String>> {
    match (given, file) {
        (Some(secret), _) => Ok(Some(secret.reveal().to_owned())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (None, None) => Ok(None),
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
