//! Values by the registry's schemas and apache-avro's generic decoding: none of the pipeline's own code.

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// A schema, and what the branches of its `payload` are called.
struct Known {
    schema: Schema,
    payloads: Vec<String>,
}

impl Known {
    fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).expect("a schema is JSON");
        let fields = json["fields"].as_array().into_iter().flatten();
        let payload = fields.into_iter().find(|it| it["name"] == "payload");
        let branches = payload.and_then(|it| it["type"].as_array()).into_iter().flatten();
        let payloads = branches.map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect();
        Self { schema: Schema::parse_str(text).expect("a schema parses"), payloads }
    }

    fn decode(&self, mut body: &[u8]) -> Value {
        let decoded = from_avro_datum(&self.schema, &mut body, None).expect("a value of this schema");
        assert!(body.is_empty(), "bytes are left behind a value");
        self.json(decoded)
    }

    /// JSON as the schema's record; a payload says its `kind`.
    fn json(&self, value: Avro) -> Value {
        let Avro::Record(fields) = value else { return plain(value) };
        let field = |(name, value): (String, Avro)| match value {
            Avro::Union(branch, inner) if name == "payload" => {
                let mut payload = plain(*inner);
                payload["kind"] = json!(self.payloads[branch as usize]);
                (name, payload)
            }
            other => (name, plain(other)),
        };
        Value::Object(fields.into_iter().map(field).collect())
    }
}

fn plain(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(it) => json!(it),
        Avro::Int(it) => json!(it),
        Avro::Long(it) | Avro::TimestampMillis(it) => json!(it),
        Avro::String(it) | Avro::Enum(_, it) => json!(it),
        Avro::Bytes(it) => json!(it),
        Avro::Union(_, inner) => plain(*inner),
        Avro::Array(items) => items.into_iter().map(plain).collect(),
        Avro::Map(items) => {
            Value::Object(items.into_iter().map(|(key, it)| (key, plain(it))).collect::<Map<_, _>>())
        }
        Avro::Record(fields) => {
            Value::Object(fields.into_iter().map(|(key, it)| (key, plain(it))).collect::<Map<_, _>>())
        }
        other => panic!("no schema of ours holds {other:?}"),
    }
}

/// Splits a value of the Confluent format into schema id and body.
pub fn split(value: &[u8]) -> (u32, &[u8]) {
    assert!(value.len() > 5 && value[0] == 0, "not the Confluent format: {value:02x?}");
    let (head, body) = value.split_at(5);
    (u32::from_be_bytes([head[1], head[2], head[3], head[4]]), body)
}

/// Decodes values of topics by their schema ids.
pub struct Decoder {
    registry: String,
    known: HashMap<u32, Known>,
}

impl Decoder {
    /// Asks this registry.
    pub fn new(registry: &str) -> Self {
        Self { registry: registry.to_owned(), known: HashMap::new() }
    }

    /// Fetches the schemas of these values that are not known yet.
    pub async fn learn<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) {
        for value in values {
            let (id, _) = split(value);
            if self.known.contains_key(&id) {
                continue;
            }
            let url = format!("{}/schemas/ids/{id}", self.registry);
            let answer = reqwest::get(&url).await.expect("the registry answers");
            let answer: Value = answer.json().await.expect("the registry answers JSON");
            let text = answer["schema"].as_str().unwrap_or_else(|| panic!("no schema has id {id}: {answer}"));
            self.known.insert(id, Known::parse(text));
        }
    }

    /// Decodes a value whose schema was learnt.
    pub fn decode(&self, value: &[u8]) -> Value {
        let (id, body) = split(value);
        self.known[&id].decode(body)
    }
}

/// Decodes rows of one table, whose ids are this build's own, by its schema's text.
pub struct RowDecoder(Known);

impl RowDecoder {
    /// By the file `schemas/avro/<name>.avsc`.
    pub fn of_file(name: &str) -> Self {
        let path = tillstream_e2e::root().join(format!("schemas/avro/{name}.avsc"));
        Self(Known::parse(&std::fs::read_to_string(path).expect("the schema is there")))
    }

    /// Decodes a row's value.
    pub fn decode(&self, value: &[u8]) -> Value {
        self.0.decode(split(value).1)
    }
}
