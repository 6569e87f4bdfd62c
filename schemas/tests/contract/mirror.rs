//! The Rust types mirror the `.avsc` files: every struct has exactly the record's fields, in its order, every
//! enum exactly the symbols or branches. A deserializer that reads no data walks both at once.

use crate::avsc::{Field, Type};
use crate::wire;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::slice::Iter;
use tillstream_schemas::codec::Schema;

/// Where the walk stands.
pub struct Walk<'a> {
    pub ty: &'a Type,
    /// Which branch of the payload to walk into.
    pub branch: usize,
}

#[test]
fn rust_types_have_the_fields_symbols_and_branches_of_their_schema() {
    for &schema in Schema::ALL {
        let ty = Type::parse(schema.avsc());
        for branch in 0..ty.branches() {
            wire::mirror(schema, Walk { ty: &ty, branch })
                .unwrap_or_else(|error| panic!("{schema:?}: {error}"));
        }
    }
}

#[test]
fn a_schema_that_misses_something_the_rust_type_has_is_noticed() {
    let ty = Type::parse(Schema::OrderState.avsc());
    let mutants = ty.mutants(&|ty| match ty {
        Type::Record { name, fields } => vec![
            Type::Record { name: name.clone(), fields: fields[1..].to_vec() },
            Type::Record { name: name.clone(), fields: fields.iter().rev().cloned().collect() },
        ],
        Type::Enum { name, symbols } => {
            vec![Type::Enum { name: name.clone(), symbols: symbols[1..].to_vec() }]
        }
        Type::Long { .. } => vec![Type::Int],
        _ => vec![],
    });
    assert!(mutants.len() > 100);
    for mutant in mutants {
        assert!(wire::mirror(Schema::OrderState, Walk { ty: &mutant, branch: 0 }).is_err());
    }
}

fn differs(what: &str, ty: &Type) -> Error {
    Error::custom(format!("{what} in Rust, {ty:?} in the schema"))
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(differs("a type that no schema here has", self.ty))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.ty {
            Type::Record { name: record, fields: ours }
                if record == name && ours.iter().map(|it| it.name.as_str()).eq(fields.iter().copied()) =>
            {
                visitor.visit_map(Fields { left: ours.iter(), value: None, branch: self.branch })
            }
            other => Err(differs(&format!("struct {name} {fields:?}"), other)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.ty {
            Type::Enum { name: ours, symbols } if ours == name && symbols == variants => {
                visitor.visit_enum(variants[0].into_deserializer())
            }
            Type::Union(branches) if branches.iter().map(Type::full_name).eq(variants.iter().copied()) => {
                visitor.visit_enum(Branch { name: variants[self.branch], ty: &branches[self.branch] })
            }
            other => Err(differs(&format!("enum {name} {variants:?}"), other)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.ty {
            Type::Union(branches) if branches.len() == 2 && branches[0] == Type::Null => {
                visitor.visit_some(Walk { ty: &branches[1], branch: self.branch })
            }
            other => Err(differs("an Option", other)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.ty {
            Type::Array(item) => visitor.visit_seq(Once(Some(item))),
            other => Err(differs("a Vec", other)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.ty {
            Type::Map(item) => visitor.visit_map(Once(Some(item))),
            other => Err(differs("a map", other)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if *self.ty == Type::Text { visitor.visit_str("") } else { Err(differs("a text", self.ty)) }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if *self.ty == Type::Bytes { visitor.visit_bytes(&[]) } else { Err(differs("bytes", self.ty)) }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if *self.ty == Type::Boolean { visitor.visit_bool(false) } else { Err(differs("a bool", self.ty)) }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if *self.ty == Type::Int { visitor.visit_i32(0) } else { Err(differs("an i32", self.ty)) }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.ty {
            Type::Long { .. } => visitor.visit_i64(0),
            other => Err(differs("an i64", other)),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes unit unit_struct newtype_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Fields<'a> {
    left: Iter<'a, Field>,
    value: Option<&'a Field>,
    branch: usize,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.value = self.left.next();
        self.value.map(|field| seed.deserialize(StrDeserializer::new(&field.name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let field = self.value.take().expect("a key came before");
        seed.deserialize(Walk { ty: &field.ty, branch: self.branch })
            .map_err(|error| Error::custom(format!("{}: {error}", field.name)))
    }
}

/// A sequence or map of one element.
struct Once<'a>(Option<&'a Type>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|ty| seed.deserialize(Walk { ty, branch: 0 })).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.0.map(|_| seed.deserialize(StrDeserializer::new("key"))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let ty = self.0.take().expect("a key came before");
        seed.deserialize(Walk { ty, branch: 0 })
    }
}

struct Branch<'a> {
    name: &'static str,
    ty: &'a Type,
}

impl<'de> EnumAccess<'de> for Branch<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(StrDeserializer::new(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Branch<'_> {
    type Error = Error;

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Walk { ty: self.ty, branch: 0 })
    }

    fn unit_variant(self) -> Result<(), Error> {
        Err(differs("a unit variant", self.ty))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(differs("a tuple variant", self.ty))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(differs("a struct variant", self.ty))
    }
}
