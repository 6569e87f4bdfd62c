//! Schemas of what is sent: from the tables that bodies, queries and paths are read by.

use super::call::{Segment, SegmentKind};
use crate::countries;
use crate::cursor;
use crate::moment;
use crate::orders::ID_CHARACTERS;
use crate::params::{Query, Wanted};
use crate::shape::{Field, Kind};
use serde_json::{Map, Value, json};
use tillstream_stage::money::{self, AMOUNT_MINOR_MAX};

/// One line of text, as [`crate::shape::is_text`] has it.
const NO_CONTROL: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Text with line breaks and tabs, as [`crate::shape::is_prose`] has it.
const SLUG: &str = "^[a-z0-9][a-z0-9-]*$";
const PROSE: &str = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$";

/// The schemas that others refer to.
pub(super) fn shared() -> Map<String, Value> {
    let mut shared = Map::new();
    let countries: Vec<&str> = countries::codes().collect();
    let countries =
        json!({ "type": "string", "enum": countries, "description": "ISO 3166-1 alpha-2, in capitals" });
    shared.insert("Country".to_owned(), countries);
    let currencies: Vec<&str> = money::currencies().collect();
    let currencies = json!({ "type": "string", "enum": currencies, "description": "ISO 4217, in capitals" });
    shared.insert("Currency".to_owned(), currencies);
    shared
}

/// The schema of an object with these fields and no others.
pub(super) fn object(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = of(&field.kind);
        if !field.required {
            schema = or_null(schema);
        }
        if !field.about.is_empty() {
            schema["description"] = field.about.into();
        }
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<&str> = fields.iter().filter(|it| it.required).map(|it| it.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn of(kind: &Kind) -> Value {
    match kind {
        Kind::Text { min, max } => {
            json!({ "type": "string", "minLength": min, "maxLength": max, "pattern": NO_CONTROL })
        }
        Kind::Slug { max } => json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": SLUG }),
        Kind::Hex { digits } => json!({ "type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$") }),
        Kind::Prose { max } => json!({ "type": "string", "maxLength": max, "pattern": PROSE }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Amount { min } => json!({
            "type": "integer", "minimum": min, "maximum": AMOUNT_MINOR_MAX, "description": "Minor units (2.55 is 255)",
        }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Time => json!({
            "type": "string", "format": "date-time", "pattern": moment::PATTERN,
            "description": "RFC 3339, from 1970 to 9999",
        }),
        Kind::Currency => json!({ "$ref": "#/components/schemas/Currency" }),
        Kind::Country => json!({ "$ref": "#/components/schemas/Country" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::List { of: kind, min, max } => {
            json!({ "type": "array", "items": of(kind), "minItems": min, "maxItems": max })
        }
        Kind::Object(fields) => object(fields),
        Kind::Pairs { pairs, key_max, value_max } => json!({
            "type": "object",
            "maxProperties": pairs,
            "propertyNames": of(&Kind::Text { min: 1, max: *key_max }),
            "additionalProperties": of(&Kind::Prose { max: *value_max }),
        }),
        Kind::Json { .. } => json!({ "type": "object", "additionalProperties": true }),
        Kind::Prices => json!({
            "type": "object",
            "propertyNames": of(&Kind::Currency),
            "additionalProperties": of(&Kind::Amount { min: 0 }),
            "description": "ISO 4217 code to minor units",
        }),
    }
}

/// What may be left out may also be null.
fn or_null(mut schema: Value) -> Value {
    if schema.get("$ref").is_some() {
        return json!({ "anyOf": [schema, { "type": "null" }] });
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    let only = schema["type"].take();
    schema["type"] = json!([only, "null"]);
    schema
}

/// A query parameter.
pub(super) fn query(query: &Query) -> Value {
    let schema = match query.wanted {
        Wanted::Text => json!({ "type": "string" }),
        Wanted::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Wanted::Rows { default, max } => {
            json!({ "type": "integer", "minimum": 1, "maximum": max, "default": default })
        }
        Wanted::Time => json!({
            "type": "string",
            "anyOf": [{ "format": "date-time", "pattern": moment::PATTERN }, { "format": "date", "pattern": moment::DATE_PATTERN }],
        }),
        Wanted::Choice(words) => json!({ "type": "string", "enum": words }),
        Wanted::Cursor(kind) => json!({ "type": "string", "pattern": cursor::pattern(kind) }),
    };
    json!({
        "name": query.name, "in": "query", "required": false, "description": query.about, "schema": schema,
        // As from a form: empty is left out.
        "allowEmptyValue": true,
    })
}

/// A path parameter.
pub(super) fn segment(segment: &Segment) -> Value {
    let schema = match &segment.kind {
        SegmentKind::Of(kind) => of(kind),
        SegmentKind::Id(prefix) => {
            let rest = ID_CHARACTERS - prefix.len();
            json!({ "type": "string", "pattern": format!("^{prefix}[A-Za-z0-9_]{{{rest}}}$") })
        }
        SegmentKind::Number => json!({ "type": "integer", "minimum": 0 }),
    };
    json!({
        "name": segment.name, "in": "path", "required": true, "description": segment.about,
        "schema": schema, "example": segment.example,
    })
}
