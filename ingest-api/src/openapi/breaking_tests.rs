//! The differ notices every kind of break, and none where there is none.

use super::breaking::breaks;
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "security": [{ "apiKey": [] }],
        "paths": {
            "/things/{id}": {
                "put": {
                    "operationId": "putThing",
                    "parameters": [
                        { "name": "id", "in": "path", "required": true, "schema": { "type": "string" } },
                        { "$ref": "#/components/parameters/Limit" },
                    ],
                    "requestBody": {
                        "required": false,
                        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Input" } } },
                    },
                    "responses": {
                        "200": {
                            "headers": { "Location": {} },
                            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Output" } } },
                        },
                        "202": {},
                        "400": { "$ref": "#/components/responses/Bad" },
                    },
                },
            },
            "/health": { "get": { "operationId": "health", "security": [], "responses": {} } },
        },
        "components": {
            "parameters": {
                "Limit": {
                    "name": "limit", "in": "query", "required": false,
                    "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 20 },
                },
            },
            "responses": {
                "Bad": { "content": { "application/problem+json": { "schema": {
                    "$ref": "#/components/schemas/Problem", "properties": { "code": { "enum": ["TS1"] } },
                } } } },
            },
            "schemas": {
                "Problem": { "type": "object", "properties": { "code": { "type": "string" } }, "required": ["code"] },
                "Input": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-z]*$" },
                        "how": { "type": ["string", "null"], "enum": ["a", "b", null] },
                        "of": { "anyOf": [{ "$ref": "#/components/schemas/Word" }, { "type": "null" }] },
                        "lines": { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1 },
                        "tags": {
                            "type": "object", "propertyNames": { "maxLength": 40 },
                            "additionalProperties": { "type": "string", "maxLength": 500 },
                        },
                    },
                    "required": ["name"],
                    "additionalProperties": false,
                },
                "Word": { "type": "string", "enum": ["x", "y"] },
                "Output": {
                    "type": "object",
                    "properties": {
                        "id": { "type": "string" },
                        "state": { "type": "string", "enum": ["new", "old"] },
                        "note": { "type": ["string", "null"] },
                        "rows": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] } },
                    },
                    "required": ["id", "state"],
                },
            },
        },
    })
}

const PUT: &str = "/paths/~1things~1{id}/put";
const INPUT: &str = "/components/schemas/Input";
const OUTPUT: &str = "/components/schemas/Output";

/// The document with one place set to a value, or (with `Null`) removed.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    match document.pointer_mut(parent).unwrap() {
        Value::Object(object) if value.is_null() => drop(object.remove(&name).unwrap()),
        Value::Object(object) => drop(object.insert(name, value)),
        Value::Array(array) if value.is_null() => drop(array.remove(name.parse().unwrap())),
        Value::Array(array) if name == "-" => array.push(value),
        other => panic!("{pointer} is in {other}"),
    }
    document
}

#[test]
fn every_kind_of_break_is_noticed_and_named() {
    let cases: Vec<(String, Value, &str)> = vec![
        ("/paths/~1health".into(), Value::Null, "GET /health: the call is gone"),
        (PUT.into(), Value::Null, "the call is gone"),
        (format!("{PUT}/operationId"), json!("setThing"), "another operationId"),
        ("/paths/~1health/get/security".into(), Value::Null, "more authority"),
        (format!("{PUT}/security"), json!([{ "apiKey": ["things:write"] }]), "more authority"),
        (format!("{PUT}/parameters/1"), Value::Null, "query parameter limit is gone"),
        (
            format!("{PUT}/parameters/-"),
            json!({ "name": "x", "in": "header", "required": true }),
            "new and required",
        ),
        ("/components/parameters/Limit/required".into(), json!(true), "limit is required now"),
        ("/components/parameters/Limit/schema/maximum".into(), json!(50), "limit has another maximum"),
        ("/components/parameters/Limit/schema/minimum".into(), json!(2), "limit has another minimum"),
        ("/components/parameters/Limit/schema/default".into(), json!(10), "limit has another default"),
        (format!("{PUT}/requestBody/required"), json!(true), "body is required now"),
        (format!("{PUT}/requestBody/content/application~1json"), Value::Null, "takes no application/json"),
        (format!("{INPUT}/required"), json!(["name", "how"]), "body.how is required now"),
        (format!("{INPUT}/properties/how"), Value::Null, "body.how is gone"),
        (format!("{INPUT}/properties/how/enum"), json!(["a", null]), "body.how has other words"),
        (format!("{INPUT}/properties/how/type"), json!("string"), "body.how has another type"),
        (format!("{INPUT}/properties/name/type"), json!("integer"), "body.name has another type"),
        (format!("{INPUT}/properties/name/enum"), json!(["a"]), "body.name has other words"),
        (format!("{INPUT}/properties/name/maxLength"), json!(63), "body.name has another maxLength"),
        (format!("{INPUT}/properties/name/minLength"), json!(2), "body.name has another minLength"),
        (format!("{INPUT}/properties/name/pattern"), json!("^[a-y]*$"), "body.name has another pattern"),
        (format!("{INPUT}/properties/name/format"), json!("uuid"), "body.name has another format"),
        (format!("{INPUT}/properties/lines/maxItems"), json!(9), "body.lines has another maxItems"),
        (format!("{INPUT}/properties/lines/items/minimum"), json!(1), "body.lines[] has another minimum"),
        (format!("{INPUT}/properties/of/anyOf/1"), Value::Null, "body.of has other alternatives"),
        ("/components/schemas/Word/enum".into(), json!(["x"]), "body.of has other alternatives"),
        (
            format!("{INPUT}/properties/tags/propertyNames/maxLength"),
            json!(39),
            "body.tags.(names) has another maxLength",
        ),
        (
            format!("{INPUT}/properties/tags/additionalProperties/maxLength"),
            json!(499),
            "body.tags.* has another maxLength",
        ),
        (
            format!("{INPUT}/properties/tags/additionalProperties"),
            json!(false),
            "body.tags takes fewer members",
        ),
        (format!("{PUT}/responses/202"), Value::Null, "does not answer 202"),
        (format!("{PUT}/responses/200/headers/Location"), Value::Null, "no header Location"),
        (format!("{PUT}/responses/200/content/application~1json"), Value::Null, "200 is no application/json"),
        (format!("{OUTPUT}/properties/note"), Value::Null, "200.note is gone"),
        (format!("{OUTPUT}/properties/rows/items/properties/n"), Value::Null, "200.rows[].n is gone"),
        (format!("{OUTPUT}/required"), json!(["id"]), "200.state may be missing now"),
        (
            format!("{OUTPUT}/properties/state/enum"),
            json!(["new", "old", "lost"]),
            "200.state has other words",
        ),
        (format!("{OUTPUT}/properties/id/type"), json!("integer"), "200.id has another type"),
        (format!("{OUTPUT}/properties/id/type"), json!(["string", "null"]), "200.id has another type"),
        ("/components/schemas/Problem/required".into(), Value::Null, "400.code may be missing now"),
    ];
    for (pointer, value, expected) in cases {
        let found = breaks(&document(), &with(&pointer, value.clone()));
        assert!(
            found.iter().any(|it| it.contains(expected)),
            "{pointer} = {value}: {found:?} lacks {expected:?}"
        );
    }
}

#[test]
fn additions_break_nothing() {
    let cases: Vec<(String, Value)> = vec![
        (format!("{PUT}/summary"), json!("Put a thing")),
        ("/paths/~1more".into(), json!({ "get": { "operationId": "more", "responses": {} } })),
        (
            format!("{PUT}/parameters/-"),
            json!({ "name": "x", "in": "query", "required": false, "schema": {} }),
        ),
        ("/components/parameters/Limit/schema/maximum".into(), json!(200)),
        (format!("{PUT}/requestBody/content/application~1cbor"), json!({ "schema": {} })),
        (format!("{INPUT}/required"), json!([])),
        (format!("{INPUT}/properties/more"), json!({ "type": "string" })),
        (format!("{INPUT}/properties/how/enum"), json!(["a", "b", "c", null])),
        (format!("{INPUT}/properties/name/maxLength"), json!(65)),
        (format!("{INPUT}/properties/name/pattern"), Value::Null),
        (format!("{INPUT}/properties/name/type"), json!(["string", "null"])),
        (format!("{INPUT}/properties/of/anyOf/-"), json!({ "type": "integer" })),
        (format!("{PUT}/responses/201"), json!({})),
        (format!("{PUT}/responses/400"), Value::Null),
        (format!("{OUTPUT}/properties/more"), json!({ "type": "string" })),
        (format!("{OUTPUT}/required"), json!(["id", "state", "note"])),
        (format!("{OUTPUT}/properties/note/type"), json!("string")),
        (
            "/components/responses/Bad/content/application~1problem+json/schema/properties/code/enum".into(),
            json!(["TS1", "TS2"]),
        ),
        ("/security".into(), json!([])),
    ];
    assert_eq!(breaks(&document(), &document()), Vec::<String>::new());
    for (pointer, value) in cases {
        let found = breaks(&document(), &with(&pointer, value.clone()));
        assert_eq!(found, Vec::<String>::new(), "{pointer} = {value}");
    }
}
