//! What a benchmark prints: text for people, then one JSON line for programs.

use crate::BenchError;
use serde_json::{Map, Value};
use std::io::Write;

/// The figures of one run, in the order in which they were added.
#[derive(Debug)]
pub struct Report {
    title: String,
    lines: Vec<(String, String)>,
    json: Map<String, Value>,
}

impl Report {
    /// An empty report of one benchmark.
    pub fn new(bench: &str) -> Self {
        let json = Map::from_iter([("bench".to_owned(), Value::from(bench))]);
        Self { title: bench.to_owned(), lines: Vec::new(), json }
    }

    /// A figure: its name in the JSON line, and what people read.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>, text: impl Into<String>) {
        self.lines.push((name.to_owned(), text.into()));
        self.json.insert(name.to_owned(), value.into());
    }

    /// A figure with a unit, rounded for people to `digits`.
    pub fn number(&mut self, name: &str, value: f64, digits: usize, unit: &str) {
        self.figure(name, rounded(value), format!("{value:.digits$} {unit}"));
    }

    /// Writes both forms to standard output.
    pub fn print(&self) -> Result<(), BenchError> {
        let width = self.lines.iter().map(|it| it.0.len()).max().unwrap_or(0);
        let mut out = format!("{}\n", self.title);
        for (name, text) in &self.lines {
            out.push_str(&format!("  {name:width$}  {text}\n"));
        }
        out.push_str(&Value::Object(self.json.clone()).to_string());
        out.push('\n');
        std::io::stdout().write_all(out.as_bytes()).map_err(BenchError::io("standard output"))
    }
}

/// Six significant places behind the point are more than any figure here is good for.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Tells how far a run is, on standard error.
pub fn progress(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
