//! What a command says to the person who typed it: to standard output, and quiet when nobody reads.

use std::io::{self, Write};

/// Writes a line. A closed pipe (`… | head`) ends the program quietly.
pub fn line(text: impl std::fmt::Display) {
    if let Err(error) = writeln!(io::stdout().lock(), "{text}")
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// Writes a line to standard error.
pub fn error(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
