//! Values made from a schema: fixed samples for golden records, arbitrary ones for properties.

use crate::avsc::Type;
use apache_avro::types::Value;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;

/// A fixed value with the given payload branch. `full` none: everything empty, absent or zero. `Some(k)`:
/// everything present, and every enum at its k-th symbol (modulo).
pub fn sample(ty: &Type, branch: usize, full: Option<usize>) -> Value {
    Sampler { branch, full, count: 0 }.value(ty, "")
}

/// How many full samples it takes to show every symbol.
pub fn symbols_max(ty: &Type) -> usize {
    let own = match ty {
        Type::Enum { symbols, .. } => symbols.len(),
        _ => 1,
    };
    ty.children().into_iter().map(symbols_max).chain([own]).max().unwrap_or(1)
}

/// The samples of one payload branch: the empty one, then the full ones.
pub fn samples(ty: &Type, branch: usize) -> Vec<Value> {
    let fulls = match &ty {
        Type::Record { fields, .. } => fields.iter().map(|field| match &field.ty {
            Type::Union(branches) if branches[0] != Type::Null => symbols_max(&branches[branch]),
            other => symbols_max(other),
        }),
        other => panic!("{other:?} is no record"),
    };
    let fulls = fulls.max().unwrap_or(1);
    std::iter::once(None).chain((0..fulls).map(Some)).map(|full| sample(ty, branch, full)).collect()
}

struct Sampler {
    branch: usize,
    full: Option<usize>,
    count: i64,
}

impl Sampler {
    fn value(&mut self, ty: &Type, field: &str) -> Value {
        self.count += 1;
        let Some(turn) = self.full else { return self.empty(ty, field) };
        let count = self.count;
        match ty {
            Type::Null => Value::Null,
            Type::Boolean => Value::Boolean(true),
            Type::Int => Value::Int(if count % 5 == 0 { i32::MIN } else { count as i32 }),
            Type::Long { timestamp: true } => Value::TimestampMillis(1_700_000_000_000 + count),
            Type::Long { .. } => Value::Long(match count % 7 {
                0 => i64::MIN,
                1 => i64::MAX,
                2 => -count,
                _ => count * 1001,
            }),
            Type::Text if count % 6 == 0 => {
                Value::String(format!("{field} longer than 24 bytes, ünïcode ✓ {count}"))
            }
            Type::Text => Value::String(format!("{field}-{count}")),
            Type::Bytes => Value::Bytes(vec![0, 255, 128, count as u8]),
            Type::Array(item) => Value::Array(vec![self.value(item, field), self.value(item, field)]),
            Type::Map(item) => Value::Map([(format!("key-{count}"), self.value(item, field))].into()),
            Type::Enum { symbols, .. } => {
                let at = turn % symbols.len();
                Value::Enum(at as u32, symbols[at].clone())
            }
            Type::Union(branches) if branches[0] == Type::Null => {
                Value::Union(1, Box::new(self.value(&branches[1], field)))
            }
            Type::Union(_) | Type::Record { .. } => self.compound(ty, field),
        }
    }

    fn empty(&mut self, ty: &Type, field: &str) -> Value {
        match ty {
            Type::Null => Value::Null,
            Type::Boolean => Value::Boolean(false),
            Type::Int => Value::Int(0),
            Type::Long { timestamp: true } => Value::TimestampMillis(0),
            Type::Long { .. } => Value::Long(0),
            Type::Text => Value::String(String::new()),
            Type::Bytes => Value::Bytes(vec![]),
            Type::Array(_) => Value::Array(vec![]),
            Type::Map(_) => Value::Map([].into()),
            Type::Enum { symbols, .. } => Value::Enum(0, symbols[0].clone()),
            Type::Union(branches) if branches[0] == Type::Null => Value::Union(0, Box::new(Value::Null)),
            Type::Union(_) | Type::Record { .. } => self.compound(ty, field),
        }
    }

    fn compound(&mut self, ty: &Type, field: &str) -> Value {
        match ty {
            Type::Union(branches) => {
                Value::Union(self.branch as u32, Box::new(self.value(&branches[self.branch], field)))
            }
            Type::Record { fields, .. } => Value::Record(
                fields.iter().map(|it| (it.name.clone(), self.value(&it.ty, &it.name))).collect(),
            ),
            other => panic!("{other:?} is not compound"),
        }
    }
}

/// Any value of the schema with the given payload branch.
pub fn any_value(ty: &Type, branch: usize) -> BoxedStrategy<Value> {
    match ty {
        Type::Null => Just(Value::Null).boxed(),
        Type::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Type::Int => any::<i32>().prop_map(Value::Int).boxed(),
        Type::Long { timestamp: true } => any_long().prop_map(Value::TimestampMillis).boxed(),
        Type::Long { .. } => any_long().prop_map(Value::Long).boxed(),
        Type::Text => any_text().prop_map(Value::String).boxed(),
        Type::Bytes => vec(any::<u8>(), 0..40).prop_map(Value::Bytes).boxed(),
        Type::Array(item) => vec(any_value(item, branch), 0..4).prop_map(Value::Array).boxed(),
        Type::Map(item) => hash_map(any_text(), any_value(item, branch), 0..3).prop_map(Value::Map).boxed(),
        Type::Enum { symbols, .. } => {
            let symbols = symbols.clone();
            (0..symbols.len()).prop_map(move |at| Value::Enum(at as u32, symbols[at].clone())).boxed()
        }
        Type::Union(branches) if branches[0] == Type::Null => prop_oneof![
            Just(Value::Union(0, Box::new(Value::Null))),
            any_value(&branches[1], branch).prop_map(|it| Value::Union(1, Box::new(it))),
        ]
        .boxed(),
        Type::Union(branches) => any_value(&branches[branch], branch)
            .prop_map(move |it| Value::Union(branch as u32, Box::new(it)))
            .boxed(),
        Type::Record { fields, .. } => {
            let names: Vec<_> = fields.iter().map(|field| field.name.clone()).collect();
            let values: Vec<_> = fields.iter().map(|field| any_value(&field.ty, branch)).collect();
            values.prop_map(move |values| Value::Record(names.iter().cloned().zip(values).collect())).boxed()
        }
    }
}

fn any_long() -> BoxedStrategy<i64> {
    prop_oneof![-200i64..200, any::<i64>()].boxed()
}

/// Lengths on both sides of the 24 bytes that live inline.
fn any_text() -> BoxedStrategy<String> {
    prop_oneof![
        vec(prop::char::range('a', 'z'), 0..30).prop_map(|it| it.into_iter().collect()),
        vec(any::<char>(), 0..12).prop_map(|it| it.into_iter().collect()),
    ]
    .boxed()
}

/// Whether a map with two or more entries is in it: then two encoders may write them in different orders.
pub fn has_unordered_map(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.len() > 1 || map.values().any(has_unordered_map),
        Value::Array(items) => items.iter().any(has_unordered_map),
        Value::Union(_, inner) => has_unordered_map(inner),
        Value::Record(fields) => fields.iter().any(|(_, value)| has_unordered_map(value)),
        _ => false,
    }
}
