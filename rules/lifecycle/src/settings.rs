//! What a rule is told beside the order, held against the JSON schema that its module brings.

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;

/// Bytes of a schema, at most: it stands in an event of the registry.
pub const SCHEMA_BYTES_MAX: usize = 16 << 10;
/// Misfits that are told at once, at most.
const MISFITS_MAX: usize = 100;
/// Words that lead elsewhere: with them a small schema can ask for work without end.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// Why a text is no schema for settings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaRefusal {
    /// Size.
    #[error("it has {0} bytes, at most {SCHEMA_BYTES_MAX} are taken")]
    TooLarge(usize),
    /// JSON.
    #[error("it is no JSON object: {0}")]
    Json(String),
    /// A reference.
    #[error("it has a {0}; write the schema out without references")]
    Reference(&'static str),
    /// No JSON schema.
    #[error("it is no JSON schema: {0}")]
    Schema(String),
}

/// A value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsMisfit {
    /// Where, such as `.tiers[0].percent`; empty: the settings as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// A schema for settings.
#[derive(Debug)]
pub struct SettingsSchema(Validator);

impl SettingsSchema {
    /// Reads a schema (JSON Schema 2020-12, or what its `$schema` names).
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, SchemaRefusal> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaRefusal::TooLarge(text.len()));
        }
        let schema: Value = serde_json::from_str(text).map_err(|it| SchemaRefusal::Json(it.to_string()))?;
        if !schema.is_object() {
            return Err(SchemaRefusal::Json("something else stands there".to_owned()));
        }
        if let Some(word) = reference(&schema) {
            return Err(SchemaRefusal::Reference(word));
        }
        // Patterns are matched in linear time.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let built = options.build(&schema);
        built
            .map(Self)
            .map_err(|it| SchemaRefusal::Schema(format!("{it} (at {:?})", it.instance_path.as_str())))
    }

    /// Everything about the settings that does not fit.
    pub fn misfits(&self, settings: &Value) -> Vec<SettingsMisfit> {
        self.0.iter_errors(settings).take(MISFITS_MAX).map(|it| misfit(&it)).collect()
    }
}

fn reference(schema: &Value) -> Option<&'static str> {
    match schema {
        Value::Object(fields) => {
            let word = REFERENCES.into_iter().find(|it| fields.contains_key(*it));
            word.or_else(|| fields.values().find_map(reference))
        }
        Value::Array(items) => items.iter().find_map(reference),
        _ => None,
    }
}

fn misfit(error: &ValidationError<'_>) -> SettingsMisfit {
    let mut path = String::new();
    for step in error.instance_path.as_str().split('/').skip(1) {
        if step.bytes().all(|it| it.is_ascii_digit()) {
            path.push_str(&format!("[{step}]"));
        } else {
            path.push('.');
            path.push_str(&step.replace("~1", "/").replace("~0", "~"));
        }
    }
    SettingsMisfit { path, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(schema: &Value) -> SchemaRefusal {
        SettingsSchema::parse(&schema.to_string()).unwrap_err()
    }

    #[test]
    fn every_value_that_does_not_fit_is_named_by_its_place() {
        let tier = json!({"type": "object", "properties": {"percent": {"type": "integer", "maximum": 50}}});
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["from"],
            "properties": {"from": {"type": "integer"}, "tiers": {"type": "array", "items": tier},
                           "code": {"pattern": "^[A-Z]+$"}}});
        let schema = SettingsSchema::parse(&schema.to_string()).unwrap();
        assert_eq!(schema.misfits(&json!({"from": 5, "tiers": [{"percent": 50}], "code": "A"})), []);
        let wrong = json!({"tiers": [{"percent": 1}, {"percent": 51}], "code": "a", "more": 1});
        let mut places: Vec<_> = schema.misfits(&wrong).into_iter().map(|it| it.path).collect();
        places.sort();
        assert_eq!(places, ["", "", ".code", ".tiers[1].percent"], "one is missing, one is too much");
    }

    #[test]
    fn what_is_no_schema_or_would_work_without_end_is_refused() {
        assert!(matches!(refusal(&json!(true)), SchemaRefusal::Json(_)));
        assert!(matches!(refusal(&json!({"type": "number or so"})), SchemaRefusal::Schema(_)));
        assert!(matches!(refusal(&json!({"pattern": "(a"})), SchemaRefusal::Schema(_)));
        assert!(matches!(SettingsSchema::parse("{"), Err(SchemaRefusal::Json(_))));
        let large = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
        assert!(matches!(refusal(&large), SchemaRefusal::TooLarge(_)));
        let twice = json!({"$ref": "#/$defs/b"});
        let deep =
            json!({"$defs": {"a": {"allOf": [twice, twice]}}, "properties": {"x": {"$ref": "#/$defs/a"}}});
        assert_eq!(refusal(&deep), SchemaRefusal::Reference("$ref"));
        assert_eq!(refusal(&json!({"not": [{"$dynamicRef": "#"}]})), SchemaRefusal::Reference("$dynamicRef"));
    }
}
