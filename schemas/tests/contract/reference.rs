//! The fast codec against apache-avro, the slow reference: same bytes, same values, same resolution of old schemas.

use crate::avsc::{Field, Type};
use crate::values::{any_value, has_unordered_map, samples};
use crate::wire;
use apache_avro::types::Value;
use apache_avro::{Schema as Reference, from_avro_datum, to_avro_datum};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use tillstream_schemas::codec::{HEADER_BYTES, Schema, Version};

pub fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

pub fn write(schema: Schema, reference: &Reference, value: Value) -> Vec<u8> {
    let mut out = wire::header(schema);
    out.extend(to_avro_datum(reference, value).expect("the reference encodes what the schema allows"));
    out
}

fn read(reference: &Reference, value: &[u8]) -> Value {
    from_avro_datum(reference, &mut &value[HEADER_BYTES..], None).expect("the reference decodes our bytes")
}

/// What must hold of every value of every schema.
fn agrees(schema: Schema, reference: &Reference, value: &Value) {
    let theirs = write(schema, reference, value.clone());
    let ours = wire::recode(schema, &theirs).expect("we decode the reference's bytes");
    assert_eq!(
        &read(reference, &ours),
        value,
        "{schema:?}: the reference reads another value from our bytes"
    );
    let again = write(schema, reference, read(reference, &ours));
    if has_unordered_map(value) {
        assert_eq!(theirs.len(), ours.len(), "{schema:?}: same entries, in any order");
    } else {
        assert_eq!(theirs, ours, "{schema:?}: same bytes");
        assert_eq!(again, ours, "{schema:?}: same bytes, encoded again");
    }
    assert!(wire::same(schema, &ours, &again) && wire::same(schema, &ours, &theirs));
}

#[test]
fn both_codecs_agree_on_samples_of_every_branch_and_symbol() {
    for &schema in Schema::ALL {
        let (ty, reference) = (Type::parse(schema.avsc()), Reference::parse_str(schema.avsc()).unwrap());
        for branch in 0..ty.branches() {
            for value in samples(&ty, branch) {
                agrees(schema, &reference, &value);
            }
        }
    }
}

#[test]
fn both_codecs_agree_on_arbitrary_values() {
    for &schema in Schema::ALL {
        let (ty, reference) = (Type::parse(schema.avsc()), Reference::parse_str(schema.avsc()).unwrap());
        for branch in 0..ty.branches() {
            runner(24)
                .run(&any_value(&ty, branch), |value| {
                    agrees(schema, &reference, &value);
                    Ok::<_, TestCaseError>(())
                })
                .unwrap();
        }
    }
}

/// A version as an older build would have left it in the history.
fn old_version(schema: Schema, ty: &Type) -> (Version, Reference) {
    let text = ty.to_avsc();
    let reference = Reference::parse_str(&text).unwrap();
    (Version::new(schema, u32::MAX, Box::leak(text.into_boxed_str())), reference)
}

/// What a reader with schema `ty` makes of an older value, by the rules of the Avro specification for schemas that
/// differ in fields only. (The reference resolves unions by shape, not by name, so it cannot be asked.)
fn resolve(ty: &Type, value: &Value) -> Value {
    match (ty, value) {
        (Type::Record { fields, .. }, Value::Record(old)) => {
            let now = fields.iter().map(|field| {
                let value = match old.iter().find(|(name, _)| *name == field.name) {
                    Some((_, value)) => resolve(&field.ty, value),
                    None => default_of(field),
                };
                (field.name.clone(), value)
            });
            Value::Record(now.collect())
        }
        (Type::Union(branches), Value::Union(at, inner)) => {
            Value::Union(*at, Box::new(resolve(&branches[*at as usize], inner)))
        }
        (Type::Array(item), Value::Array(items)) => {
            Value::Array(items.iter().map(|value| resolve(item, value)).collect())
        }
        (Type::Map(item), Value::Map(entries)) => {
            Value::Map(entries.iter().map(|(key, value)| (key.clone(), resolve(item, value))).collect())
        }
        (_, value) => value.clone(),
    }
}

fn default_of(field: &Field) -> Value {
    let default = field.default.as_ref().unwrap_or_else(|| panic!("{} has no default", field.name));
    match &field.ty {
        Type::Union(branches) if branches[0] == Type::Null && default.is_null() => {
            Value::Union(0, Box::new(Value::Null))
        }
        Type::Array(_) if *default == json!([]) => Value::Array(vec![]),
        Type::Map(_) if *default == json!({}) => Value::Map([].into()),
        Type::Text => Value::String(default.as_str().unwrap().to_owned()),
        Type::Boolean => Value::Boolean(default.as_bool().unwrap()),
        Type::Long { timestamp: false } => Value::Long(default.as_i64().unwrap()),
        other => panic!("{}: {default} is no default for {other:?}", field.name),
    }
}

#[test]
fn fields_an_old_writer_did_not_know_take_the_schemas_defaults() {
    for &schema in Schema::ALL {
        let ty = Type::parse(schema.avsc());
        let old = ty.map(&|ty| match ty {
            Type::Record { name, fields } => {
                Type::Record { name, fields: fields.into_iter().filter(|it| it.default.is_none()).collect() }
            }
            other => other,
        });
        let reference = Reference::parse_str(schema.avsc()).unwrap();
        let (version, old_reference) = old_version(schema, &old);
        for branch in 0..ty.branches() {
            for value in samples(&old, branch) {
                let datum = to_avro_datum(&old_reference, value.clone()).unwrap();
                let ours = wire::upgrade(&version, &datum).unwrap();
                assert_eq!(read(&reference, &ours), resolve(&ty, &value), "{schema:?}");
            }
        }
    }
}

#[test]
fn fields_an_old_writer_knew_and_we_do_not_are_skipped() {
    let gone = Type::Record {
        name: "Gone".into(),
        fields: vec![
            Field { name: "text".into(), ty: Type::Text, default: None },
            Field { name: "list".into(), ty: Type::Array(Box::new(Type::Text)), default: None },
            Field { name: "map".into(), ty: Type::Map(Box::new(Type::Bytes)), default: None },
            Field {
                name: "choice".into(),
                ty: Type::Union(vec![
                    Type::Null,
                    Type::Enum { name: "Old".into(), symbols: vec!["a".into()] },
                ]),
                default: Some(json!(null)),
            },
            Field { name: "number".into(), ty: Type::Int, default: None },
        ],
    };
    for &schema in Schema::ALL {
        let ty = Type::parse(schema.avsc());
        let old = ty.map(&|ty| match ty {
            Type::Record { name, mut fields } => {
                fields.insert(0, Field { name: "gone".into(), ty: gone.clone(), default: None });
                Type::Record { name, fields }
            }
            other => other,
        });
        let reference = Reference::parse_str(schema.avsc()).unwrap();
        let (version, old_reference) = old_version(schema, &old);
        for branch in 0..ty.branches() {
            for value in samples(&old, branch) {
                let datum = to_avro_datum(&old_reference, value.clone()).unwrap();
                let ours = wire::upgrade(&version, &datum).unwrap();
                assert_eq!(read(&reference, &ours), resolve(&ty, &value), "{schema:?}");
            }
        }
    }
}
