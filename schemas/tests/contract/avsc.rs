//! A schema as a tree: named types are written out where they are used, docs are dropped.

use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Null,
    Boolean,
    Int,
    Long { timestamp: bool },
    Text,
    Bytes,
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    Enum { name: String, symbols: Vec<String> },
    Record { name: String, fields: Vec<Field> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub default: Option<Json>,
}

impl Type {
    pub fn parse(text: &str) -> Self {
        parse(&serde_json::from_str(text).expect("a schema is JSON"), &mut BTreeMap::new())
    }

    pub fn to_avsc(&self) -> String {
        write(self, &mut BTreeSet::new()).to_string()
    }

    /// How many payloads there are to choose from: the branches of its union of records, or one.
    pub fn branches(&self) -> usize {
        self.payload().map_or(1, |branches| branches.len())
    }

    /// The full names of the payload's branches.
    pub fn branch_names(&self) -> Vec<String> {
        match self.payload() {
            Some(branches) => branches.iter().map(Self::full_name).collect(),
            None => vec!["tillstream.record".into()],
        }
    }

    fn payload(&self) -> Option<&[Self]> {
        let Self::Record { fields, .. } = self else { return None };
        fields.iter().find_map(|field| match &field.ty {
            Self::Union(branches) if branches[0] != Self::Null => Some(branches.as_slice()),
            _ => None,
        })
    }

    pub fn full_name(&self) -> String {
        match self {
            Self::Record { name, .. } | Self::Enum { name, .. } => format!("tillstream.{name}"),
            other => format!("{other:?}"),
        }
    }

    /// Every type one level down.
    pub fn children(&self) -> Vec<&Self> {
        match self {
            Self::Array(item) | Self::Map(item) => vec![item],
            Self::Union(branches) => branches.iter().collect(),
            Self::Record { fields, .. } => fields.iter().map(|field| &field.ty).collect(),
            _ => vec![],
        }
    }

    /// The names of all fields, at any depth, each behind that of its record.
    pub fn field_names(&self) -> BTreeSet<(String, String)> {
        let mut names: BTreeSet<_> = self.children().into_iter().flat_map(Self::field_names).collect();
        if let Self::Record { name, fields } = self {
            names.extend(fields.iter().map(|field| (name.clone(), field.name.clone())));
        }
        names
    }

    /// The same tree with `change` applied to every node, leaves first.
    pub fn map(&self, change: &dyn Fn(Self) -> Self) -> Self {
        change(match self.clone() {
            Self::Array(item) => Self::Array(Box::new(item.map(change))),
            Self::Map(item) => Self::Map(Box::new(item.map(change))),
            Self::Union(branches) => Self::Union(branches.iter().map(|it| it.map(change)).collect()),
            Self::Record { name, fields } => Self::Record {
                name,
                fields: fields.into_iter().map(|it| Field { ty: it.ty.map(change), ..it }).collect(),
            },
            leaf => leaf,
        })
    }

    /// Every tree with exactly one node replaced by one of the node's `mutations`.
    pub fn mutants(&self, mutations: &dyn Fn(&Self) -> Vec<Self>) -> Vec<Self> {
        let mut mutants = mutations(self);
        match self {
            Self::Array(item) => {
                mutants.extend(item.mutants(mutations).into_iter().map(|it| Self::Array(Box::new(it))));
            }
            Self::Map(item) => {
                mutants.extend(item.mutants(mutations).into_iter().map(|it| Self::Map(Box::new(it))));
            }
            Self::Union(branches) => {
                for (at, branch) in branches.iter().enumerate() {
                    for mutant in branch.mutants(mutations) {
                        let mut branches = branches.clone();
                        branches[at] = mutant;
                        mutants.push(Self::Union(branches));
                    }
                }
            }
            Self::Record { name, fields } => {
                for (at, field) in fields.iter().enumerate() {
                    for mutant in field.ty.mutants(mutations) {
                        let mut fields = fields.clone();
                        fields[at].ty = mutant;
                        mutants.push(Self::Record { name: name.clone(), fields });
                    }
                }
            }
            _ => {}
        }
        mutants
    }
}

fn parse(json: &Json, named: &mut BTreeMap<String, Type>) -> Type {
    match json {
        Json::Array(branches) => Type::Union(branches.iter().map(|it| parse(it, named)).collect()),
        Json::String(name) => match name.as_str() {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "long" => Type::Long { timestamp: false },
            "string" => Type::Text,
            "bytes" => Type::Bytes,
            name => named.get(name).unwrap_or_else(|| panic!("{name} is used before it is defined")).clone(),
        },
        Json::Object(object) => match object["type"].as_str().expect("a type has a name") {
            "long" => Type::Long { timestamp: object["logicalType"] == "timestamp-millis" },
            "array" => Type::Array(Box::new(parse(&object["items"], named))),
            "map" => Type::Map(Box::new(parse(&object["values"], named))),
            "enum" => define(object, named, |name, _| Type::Enum {
                name,
                symbols: serde_json::from_value(object["symbols"].clone()).unwrap(),
            }),
            "record" => define(object, named, |name, named| Type::Record {
                name,
                fields: object["fields"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| parse_field(it, named))
                    .collect(),
            }),
            other => panic!("{other} is not used here"),
        },
        other => panic!("{other} is no schema"),
    }
}

fn parse_field(field: &Json, named: &mut BTreeMap<String, Type>) -> Field {
    Field {
        name: field["name"].as_str().unwrap().to_owned(),
        ty: parse(&field["type"], named),
        default: field.get("default").cloned(),
    }
}

fn define(
    object: &serde_json::Map<String, Json>,
    named: &mut BTreeMap<String, Type>,
    build: impl FnOnce(String, &mut BTreeMap<String, Type>) -> Type,
) -> Type {
    assert_eq!(object["namespace"], "tillstream");
    let ty = build(object["name"].as_str().unwrap().to_owned(), named);
    let before = named.insert(ty.full_name(), ty.clone());
    assert!(before.is_none(), "{} is defined twice", ty.full_name());
    ty
}

fn write(ty: &Type, defined: &mut BTreeSet<String>) -> Json {
    match ty {
        Type::Null => json!("null"),
        Type::Boolean => json!("boolean"),
        Type::Int => json!("int"),
        Type::Long { timestamp: false } => json!("long"),
        Type::Long { timestamp: true } => json!({"type": "long", "logicalType": "timestamp-millis"}),
        Type::Text => json!("string"),
        Type::Bytes => json!("bytes"),
        Type::Array(item) => json!({"type": "array", "items": write(item, defined)}),
        Type::Map(item) => json!({"type": "map", "values": write(item, defined)}),
        Type::Union(branches) => Json::Array(branches.iter().map(|it| write(it, defined)).collect()),
        Type::Enum { .. } | Type::Record { .. } if !defined.insert(ty.full_name()) => json!(ty.full_name()),
        Type::Enum { name, symbols } => {
            json!({"type": "enum", "name": name, "namespace": "tillstream", "symbols": symbols})
        }
        Type::Record { name, fields } => {
            let fields: Vec<_> = fields.iter().map(|field| write_field(field, defined)).collect();
            json!({"type": "record", "name": name, "namespace": "tillstream", "fields": fields})
        }
    }
}

fn write_field(field: &Field, defined: &mut BTreeSet<String>) -> Json {
    let mut json = json!({"name": field.name, "type": write(&field.ty, defined)});
    if let Some(default) = &field.default {
        json["default"] = default.clone();
    }
    json
}
