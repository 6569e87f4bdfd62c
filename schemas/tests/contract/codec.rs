//! The codec's own promises: header, errors, appending, names, JSON.

use crate::avsc::Type;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tillstream_schemas::Topic;
use tillstream_schemas::analytics::WatermarkState;
use tillstream_schemas::codec::{self, CodecError, Compatibility, Schema, Version, Wire};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::item::{HoldPhase, HoldState, LocationStock, StockState};
use tillstream_schemas::order_event::OrderEventPayload;

fn stock() -> StockState {
    let location = LocationStock { location: "main".into(), on_hand: 7, reserved: 2 };
    StockState { tenant: "t".into(), sku: "s".into(), locations: vec![location], ..StockState::default() }
}

#[test]
fn a_value_is_a_zero_byte_the_schemas_id_and_the_datum() {
    let value = codec::encode(&stock()).unwrap();
    assert_eq!(value[0], 0);
    assert_eq!(value[1..5], (Schema::StockState as u32).to_be_bytes());
    assert!(value[5..].starts_with(&[2, b't', 2, b's', 2, 8, b'm', b'a', b'i', b'n', 14, 4, 0, 0, 0]));
    assert_eq!(codec::decode::<StockState>(&value).unwrap(), stock());
}

#[test]
fn encode_into_appends() {
    let mut out = b"before".to_vec();
    codec::encode_into(&stock(), &mut out).unwrap();
    assert_eq!(out, [b"before", &codec::encode(&stock()).unwrap()[..]].concat());
}

#[test]
fn a_value_that_does_not_fit_its_schema_is_refused_and_leaves_no_bytes() {
    #[derive(Serialize, Deserialize)]
    struct Misfit {
        tenant: String,
        sku: bool,
    }
    impl Wire for Misfit {
        const SCHEMA: Schema = Schema::StockState;
    }
    let mut out = b"before".to_vec();
    let refused = codec::encode_into(&Misfit { tenant: "t".into(), sku: true }, &mut out);
    assert!(matches!(refused, Err(CodecError::Encode { schema: Schema::StockState, .. })), "{refused:?}");
    assert_eq!(out, b"before");
}

#[test]
fn what_is_no_value_of_the_type_is_named_for_what_it_is() {
    let value = codec::encode(&stock()).unwrap();
    let code = |value: &[u8]| codec::decode::<StockState>(value).unwrap_err().to_string()[..6].to_owned();
    assert_eq!(code(b""), "TS0101");
    assert_eq!(code(&value[..4]), "TS0101");
    assert_eq!(code(&[&[1], &value[1..]].concat()), "TS0101");
    assert_eq!(code(&[0, 0, 0, 0, 0]), "TS0102");
    assert_eq!(code(&[&[0, 255, 255, 255, 255], &value[5..]].concat()), "TS0102");
    assert_eq!(code(&value[..5]), "TS0103");
    assert_eq!(code(&[&value[..], &[0]].concat()), "TS0103");
    assert_eq!(code(&[&wire::header(Schema::HoldState), &value[5..]].concat()), "TS0105");
}

#[test]
fn an_old_version_is_read_by_field_name() {
    static OLD: Version = Version::new(
        Schema::HoldState,
        999,
        r#"{"type": "record", "name": "HoldState", "namespace": "tillstream", "fields": [
            {"name": "phase", "type": {"type": "enum", "name": "HoldPhase", "symbols": ["refused", "open"]}},
            {"name": "expires_at_ms", "type": "int"},
            {"name": "forgotten", "type": "string"},
            {"name": "allocations", "type": {"type": "array", "items": "null"}},
            {"name": "quantity", "type": "long"}]}"#,
    );
    let hold: HoldState = OLD.read(&[2, 10, 2, b'x', 0, 6]).unwrap();
    let expected = HoldState { quantity: 3, phase: HoldPhase::Open, allocations: vec![], expires_at_ms: 5 };
    assert_eq!(hold, expected);
}

#[test]
fn a_count_of_elements_without_bytes_is_refused_at_once() {
    static OLD: Version = Version::new(
        Schema::WatermarkState,
        999,
        r#"{"type": "record", "name": "WatermarkState", "namespace": "tillstream", "fields": [
            {"name": "forgotten", "type": {"type": "array", "items": "null"}},
            {"name": "watermark_ms", "type": "long"},
            {"name": "sources", "type": {"type": "array", "items": "null"}}]}"#,
    );
    let honest: WatermarkState = OLD.read(&[2, 0, 4, 0]).unwrap();
    assert_eq!(honest.watermark_ms, 2);
    let lie = [0x80, 0x94, 0xeb, 0xdc, 0x03, 0, 4, 0]; // 500 million nulls
    assert!(matches!(OLD.read::<WatermarkState>(&lie), Err(CodecError::Decode { .. })));
}

#[test]
fn every_topic_has_its_subject() {
    for topic in Topic::ALL {
        let subject = format!("{}-value", topic.name());
        assert!(Schema::for_topic(topic).unwrap().subjects().contains(&subject.as_str()), "{subject}");
    }
    let topics: BTreeSet<_> = Topic::ALL.iter().map(|topic| format!("{}-value", topic.name())).collect();
    let mut seen = BTreeSet::new();
    for schema in Schema::ALL {
        assert_eq!(schema.subject(), schema.subjects()[0]);
        for subject in schema.subjects() {
            assert!(seen.insert(*subject), "{subject} has two schemas");
            assert!(topics.contains(*subject) || subject.ends_with(".state-value"), "{subject}");
        }
    }
}

#[test]
fn events_are_for_anybody_and_the_rest_for_tillstream_alone() {
    use Schema::{AnalyticsDelta, AnalyticsWindow, DeadLetter, ItemEvent, OrderEvent, Product};
    for &schema in Schema::ALL {
        let open = [OrderEvent, ItemEvent, Product, AnalyticsWindow, AnalyticsDelta, DeadLetter];
        let policy = if open.contains(&schema) { "FULL_TRANSITIVE" } else { "BACKWARD_TRANSITIVE" };
        assert_eq!(schema.compatibility().as_str(), policy, "{schema:?}");
    }
    assert_ne!(Compatibility::FullTransitive, Compatibility::BackwardTransitive);
}

#[test]
fn current_ids_are_the_discriminants() {
    for &schema in Schema::ALL {
        assert_eq!(schema.current().id, schema as u32);
        assert_eq!(Version::by_id(schema as u32).unwrap().schema, schema);
    }
    assert!(Version::by_id(0).is_none() && Version::by_id(u32::MAX).is_none());
}

#[test]
fn every_record_field_and_enum_is_described() {
    fn walk(json: &serde_json::Value, path: &str) {
        let doc_of = |json: &serde_json::Value, path: &str| {
            assert!(json["doc"].as_str().is_some_and(|doc| doc.len() >= 5), "{path} has no doc");
        };
        match json {
            serde_json::Value::Array(branches) => branches.iter().for_each(|it| walk(it, path)),
            serde_json::Value::Object(object) => {
                if object.contains_key("name") {
                    doc_of(json, path);
                }
                for part in ["items", "values"].iter().filter_map(|part| object.get(*part)) {
                    walk(part, path);
                }
                for field in object.get("fields").and_then(|it| it.as_array()).into_iter().flatten() {
                    let path = format!("{path}.{}", field["name"]);
                    doc_of(field, &path);
                    walk(&field["type"], &path);
                }
            }
            _ => {}
        }
    }
    for schema in Schema::ALL {
        walk(&serde_json::from_str(schema.avsc()).unwrap(), schema.name());
    }
}

#[test]
fn every_order_event_has_a_kind() {
    let branches = Type::parse(Schema::OrderEvent.avsc()).branches();
    assert_eq!(OrderEventPayload::KINDS.len(), branches);
    assert_eq!(OrderEventPayload::KINDS.iter().collect::<BTreeSet<_>>().len(), branches);
}

fn letter(key: &[u8], value: &[u8]) -> DeadLetter {
    DeadLetter {
        id: "evt_1".into(),
        topic: Topic::ItemCommands.name().into(),
        partition: 3,
        offset: 42,
        appended_at_ms: 1,
        failed_at_ms: 2,
        stage: "stock".into(),
        code: "TS0103".into(),
        reason: "decode".into(),
        message: "no".into(),
        attempts: 3,
        version: "0.1.0".into(),
        key: key.to_vec(),
        value: value.to_vec(),
    }
}

#[test]
fn a_dead_letter_shows_the_record_it_holds_else_its_bytes() {
    let shown = |letter: &DeadLetter| codec::to_json(&codec::encode(letter).unwrap()).unwrap();
    let readable = shown(&letter(b"t/s", &codec::encode(&stock()).unwrap()));
    assert_eq!(readable["offset"], 42);
    assert_eq!(readable["key"], "t/s");
    assert_eq!(readable["value"]["locations"][0]["on_hand"], 7);
    let unreadable = shown(&letter(&[0xff], &[0, 0, 0, 0, 1, 0x80]));
    assert_eq!(unreadable["key"]["hex"], "ff");
    assert_eq!(unreadable["value"]["hex"], "000000000180");
    let nested = codec::encode(&letter(b"k", b"v")).unwrap();
    assert!(shown(&letter(b"k", &nested))["value"]["hex"].is_string());
}

#[test]
fn every_topic_has_a_place_an_id_and_two_names_of_its_own() {
    let mut names = BTreeSet::new();
    for topic in Topic::every() {
        assert!(names.insert(topic.name()) && names.insert(topic.short_name()), "{topic}");
        assert_eq!(Topic::from_id(topic as u8), Some(topic));
        assert_eq!(
            (Topic::parse(topic.name()), Topic::parse(topic.short_name())),
            (Some(topic), Some(topic))
        );
        assert_eq!(topic.index().map(|it| Topic::ALL[it]), (!topic.is_changelog()).then_some(topic));
    }
}

#[test]
fn what_tenants_configured_is_never_dropped() {
    for topic in Topic::REGISTRIES {
        assert!(topic.compacted() && !topic.is_dlq() && topic.dlq().is_none(), "{topic}");
    }
}
