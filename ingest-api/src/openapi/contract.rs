//! The document against the routes, the parser, its own examples and the contract of before.

use super::breaking::breaks;
use super::calls;
use super::document::document;
use crate::routes::table;
use crate::shape::{Kind, Walk};
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REFRESH: &str = "TILLSTREAM_GOLDEN=refresh cargo test -p tillstream-ingest-api --lib contract";

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/openapi.json")
}

/// A schema of the document, with the components it refers to.
fn validator(schema: &Value, document: &Value) -> Validator {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    &document["paths"][path][method.to_lowercase()]
}

#[test]
fn the_contract_of_before_is_kept() {
    let document = document();
    let wish = std::env::var("TILLSTREAM_GOLDEN").unwrap_or_default();
    let golden: Value = match std::fs::read(golden_path()) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({}),
    };
    let broken = breaks(&golden, &document);
    assert!(
        broken.is_empty() || wish == "break",
        "clients would break: {broken:#?}\nWhere that is meant, say so in CHANGELOG.md and run it with TILLSTREAM_GOLDEN=break."
    );
    if wish == "refresh" || wish == "break" {
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        std::fs::write(golden_path(), text).unwrap();
    } else {
        assert!(golden == document, "the contract has changed, and no client breaks; take it in: {REFRESH}");
    }
}

#[test]
fn every_route_is_documented_and_every_documented_call_routed() {
    let mut documented = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for call in calls::all() {
        assert!(ids.insert(call.id), "{} twice", call.id);
        assert!(
            documented.insert((call.path, call.method.to_string())),
            "{} {} twice",
            call.method,
            call.path
        );
        assert!(!call.answers.is_empty(), "{} {} has no answer", call.method, call.path);
    }
    let routed: BTreeSet<_> = table().into_iter().map(|it| (it.path, it.method.to_string())).collect();
    assert_eq!(documented, routed);
}

#[test]
fn path_parameters_and_keys_are_as_the_routes_have_them() {
    let document = document();
    for route in table() {
        let call = operation(&document, route.method.as_str(), route.path);
        let needed = route.scope.map_or(json!([]), |it| json!([{ "apiKey": [it.as_str()] }]));
        assert_eq!(call["security"], needed, "{} {}", route.method, route.path);
        let named: BTreeSet<&str> = call["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| it["in"] == "path")
            .filter_map(|it| it["name"].as_str())
            .collect();
        let in_path: BTreeSet<&str> =
            route.path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, in_path, "{} {}", route.method, route.path);
    }
}

#[test]
fn every_reference_and_link_leads_somewhere() {
    fn walk(value: &Value, document: &Value, ids: &BTreeSet<&str>) {
        match value {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                for link in
                    object.get("links").and_then(Value::as_object).into_iter().flat_map(|it| it.values())
                {
                    if let Some(to) = link.get("operationId").and_then(Value::as_str) {
                        assert!(ids.contains(to), "{to}");
                    }
                }
                object.values().for_each(|it| walk(it, document, ids));
            }
            Value::Array(items) => items.iter().for_each(|it| walk(it, document, ids)),
            _ => {}
        }
    }
    let document = document();
    let calls = calls::all();
    assert_eq!(document["openapi"], "3.1.0");
    walk(&document, &document, &calls.iter().map(|it| it.id).collect());
}

#[test]
fn every_tag_is_explained() {
    let document = document();
    let explained: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    let used: BTreeSet<&str> = calls::all().iter().map(|it| it.tag).collect();
    assert_eq!(used, explained);
}

#[test]
fn examples_are_what_parser_and_schema_take() {
    let document = document();
    for call in calls::all() {
        let place = format!("{} {}", call.method, call.path);
        let shown = operation(&document, call.method.as_str(), call.path);
        if let Some(body) = call.body.as_ref().filter(|it| it.is_json()) {
            let errors = Walk::over(&body.example, &Kind::Object(body.fields));
            assert!(errors.is_empty(), "{place}: {errors:?}");
            let schema = &shown["requestBody"]["content"][body.media_type]["schema"];
            validator(schema, &document).validate(&body.example).unwrap_or_else(|it| panic!("{place}: {it}"));
        }
        for answer in &call.answers {
            let Some(example) = &answer.example else { continue };
            let schema =
                &shown["responses"][answer.status.to_string()]["content"][answer.media_type]["schema"];
            let found: Vec<String> = validator(schema, &document)
                .iter_errors(example)
                .map(|it| format!("{}: {it}", it.instance_path))
                .collect();
            assert!(found.is_empty(), "{place} {}: {found:?}", answer.status);
        }
        for (status, answer) in shown["responses"].as_object().unwrap() {
            let reference = answer["$ref"].as_str().unwrap_or_default().trim_start_matches('#');
            let Some(problem) = document.pointer(&format!("{reference}/content/application~1problem+json"))
            else {
                continue;
            };
            let validator = validator(&problem["schema"], &document);
            for (name, example) in problem["examples"].as_object().unwrap() {
                assert!(validator.is_valid(&example["value"]), "{place} {status} {name}");
                assert_eq!(example["value"]["status"].to_string(), *status, "{place} {name}");
            }
        }
    }
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(name, it)| places(it, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, it)| places(it, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let count = |count: usize| Value::from(vec![json!("x"); count]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2_i64..2_000_000).prop_map(Value::from),
        Just(json!(10_000_000_000_000_i64)),
        Just(json!(10_000_000_000_001_i64)),
        Just(json!(1.5)),
        ".{0,70}".prop_map(Value::from),
        "[a-z]{30,600}".prop_map(Value::from),
        "[\\x00-\\x20\\x7f-\\xa0]{1,2}".prop_map(Value::from),
        "[A-Z]{2,3}".prop_map(Value::from),
        prop::sample::select(vec![
            "GBP",
            "XXX",
            "GB",
            "UK",
            "",
            "automatic",
            "succeed",
            "2010-12-01T08:26:00Z",
            "1969-12-31T23:59:59Z"
        ])
        .prop_map(Value::from),
        prop::sample::select(vec![0_usize, 1, 20, 21, 50, 51, 1_000, 1_001]).prop_map(count),
        Just(json!({})),
        Just(json!({ "x": 1 })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The tables are what parses; this holds what the document says of them to the same verdict, body by body.
    #[test]
    fn the_schema_of_a_body_takes_exactly_what_the_parser_takes(
        call in 0..64_usize, place in any::<prop::sample::Index>(), value in any_value(), extra in prop::option::weighted(0.1, "[a-z]{1,5}"),
    ) {
        let bodies: &[(Kind, Validator, Value)] = BODIES.with(|it| *it);
        let (kind, validator, example) = &bodies[call % bodies.len()];
        let mut body = example.clone();
        let mut all = Vec::new();
        places(&body, "", &mut all);
        let target = body.pointer_mut(place.get(all.as_slice()).as_str()).unwrap();
        match (extra, target) {
            (Some(name), Value::Object(object)) => drop(object.insert(name, value)),
            (_, target) => *target = value,
        }
        let errors = Walk::over(&body, kind);
        prop_assert_eq!(validator.is_valid(&body), errors.is_empty(), "{}: {:?}", body, errors);
    }
}

thread_local! {
    static BODIES: &'static [(Kind, Validator, Value)] = bodies();
}

/// Every body the API takes: what parses it, what the document says of it, and a good one.
fn bodies() -> &'static [(Kind, Validator, Value)] {
    let document = document();
    let bodies: Vec<_> = calls::all()
        .into_iter()
        .filter_map(|call| {
            let body = call.body.filter(|it| it.is_json())?;
            let schema = json!({ "$ref": format!("#/components/schemas/{}", body.name) });
            Some((Kind::Object(body.fields), validator(&schema, &document), body.example))
        })
        .collect();
    assert!(bodies.len() >= 13, "{} bodies", bodies.len());
    Vec::leak(bodies)
}
