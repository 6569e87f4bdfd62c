//! When two schemas are one. A registry may keep a text normalised, so texts are parsed before they are compared.

use crate::RegistryError;
use apache_avro::Schema as Avro;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tillstream_schemas::codec::Version;

/// A schema without what does not matter.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    /// Avro's parsing canonical form: what decides how bytes are read.
    layout: String,
    /// All but the docs: also what decides which schema may follow.
    whole: Value,
}

impl Shape {
    /// The shape of a text; `Err` holds the parser's words.
    pub fn of(text: &str) -> Result<Self, String> {
        let parsed = Avro::parse_str(text).map_err(|error| error.to_string())?;
        let mut whole = serde_json::to_value(&parsed).map_err(|error| error.to_string())?;
        drop_docs(&mut whole);
        Ok(Self { layout: parsed.canonical_form(), whole })
    }

    /// The shape of a version of ours.
    pub fn of_ours(version: &Version) -> Result<Self, RegistryError> {
        Self::of(version.text).map_err(|detail| RegistryError::OwnSchema {
            schema: version.schema.name(),
            local: version.id,
            detail,
        })
    }

    /// Whether values written with the one can be read as values of the other, byte by byte.
    pub fn reads_as(&self, other: &Self) -> bool {
        self.layout == other.layout
    }

    /// SHA-256 of the layout, in hex.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(self.layout.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Takes the docs out of a schema, and leaves the defaults of fields alone, whatever they hold.
fn drop_docs(schema: &mut Value) {
    match schema {
        Value::Array(branches) => branches.iter_mut().for_each(drop_docs),
        Value::Object(parts) => {
            if parts.get("doc").is_some_and(Value::is_string) {
                parts.remove("doc");
            }
            parts
                .iter_mut()
                .filter(|(key, _)| key.as_str() != "default")
                .for_each(|(_, part)| drop_docs(part));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::of(text).unwrap()
    }

    #[test]
    fn docs_order_and_spelling_do_not_matter_defaults_do() {
        let ours = shape(
            r#"{"type":"record","name":"A","namespace":"n","doc":"x","fields":[
                {"name":"doc","type":"string","doc":"y"},
                {"name":"b","type":{"type":"enum","name":"B","symbols":["s"]},"default":"s"}]}"#,
        );
        let normalised = shape(
            r#"{"fields":[{"type":{"type":"string"},"name":"doc"},
                {"default":"s","name":"b","type":{"name":"n.B","symbols":["s"],"type":"enum"}}],"name":"n.A","type":"record"}"#,
        );
        assert_eq!(ours, normalised);
        let without_default = shape(
            r#"{"type":"record","name":"n.A","fields":[{"name":"doc","type":"string"},
                {"name":"b","type":{"type":"enum","name":"B","symbols":["s"]}}]}"#,
        );
        assert!(ours != without_default && ours.reads_as(&without_default));
        assert_eq!(ours.fingerprint(), without_default.fingerprint());
        let other = shape(r#"{"type":"record","name":"n.A","fields":[{"name":"doc","type":"string"}]}"#);
        assert!(!ours.reads_as(&other));
    }

    #[test]
    fn every_version_of_ours_has_a_shape_of_its_own() {
        let shapes: Vec<Shape> = Version::all().map(|it| Shape::of_ours(it).unwrap()).collect();
        for (at, shape) in shapes.iter().enumerate() {
            assert!(shapes[at + 1..].iter().all(|other| !shape.reads_as(other)), "{at}");
        }
    }
}
