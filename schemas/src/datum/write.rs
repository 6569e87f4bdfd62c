//! A value as its datum.

use super::Refused;
use serde::ser::{Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

/// Appends a value's datum to `out`.
pub(crate) fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), Refused> {
    value.serialize(Writer { out })
}

#[inline]
fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    if zigzag < 0x80 {
        out.push(zigzag as u8);
        return;
    }
    let mut bytes = [0; 10];
    let mut length = 0;
    while zigzag >= 0x80 {
        bytes[length] = zigzag as u8 | 0x80;
        zigzag >>= 7;
        length += 1;
    }
    bytes[length] = zigzag as u8;
    out.extend_from_slice(&bytes[..=length]);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_long(out, count as i64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

fn unsupported<T>(what: &str) -> Result<T, Refused> {
    Err(Refused::unsupported(what))
}

/// An array or a map: one block, then the empty block that ends it.
struct Items<'a> {
    out: &'a mut Vec<u8>,
}

/// A record: its fields, and nothing between them.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Items<'a> {
    fn begin(out: &'a mut Vec<u8>, length: Option<usize>) -> Result<Self, Refused> {
        match length {
            None => unsupported("a sequence of unknown length"),
            Some(length) => {
                if length > 0 {
                    put_count(out, length);
                }
                Ok(Items { out })
            }
        }
    }
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Refused> {
        self.out.push(0);
        Ok(())
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        key.serialize(Writer { out: self.out })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Refused> {
        self.out.push(0);
        Ok(())
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(Writer { out: self.out })
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), Refused> {
        Err(Refused::new(format!("the field {name} may not be left out")))
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

macro_rules! unsupported {
    ($($method:ident($ty:ty) $what:literal,)*) => {$(
        fn $method(self, _value: $ty) -> Result<(), Refused> {
            unsupported($what)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeTuple = Impossible<(), Refused>;
    type SerializeTupleStruct = Impossible<(), Refused>;
    type SerializeTupleVariant = Impossible<(), Refused>;
    type SerializeStructVariant = Impossible<(), Refused>;

    unsupported! {
        serialize_i8(i8) "a byte",
        serialize_i16(i16) "a short integer",
        serialize_u8(u8) "an unsigned integer",
        serialize_u16(u16) "an unsigned integer",
        serialize_u32(u32) "an unsigned integer",
        serialize_u64(u64) "an unsigned integer",
        serialize_f32(f32) "a floating number",
        serialize_f64(f64) "a floating number",
        serialize_char(char) "a character",
    }

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.out.push(u8::from(value));
        Ok(())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Refused> {
        put_long(self.out, i64::from(value));
        Ok(())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Refused> {
        put_long(self.out, value);
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        put_bytes(self.out, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        put_bytes(self.out, value);
        Ok(())
    }

    // The only unions besides the payloads are `["null", T]`.
    fn serialize_none(self) -> Result<(), Refused> {
        self.out.push(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        put_long(self.out, 1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        unsupported("a unit")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Refused> {
        unsupported("a unit")
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), Refused> {
        put_long(self.out, i64::from(index));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        put_long(self.out, i64::from(index));
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'a>, Refused> {
        Items::begin(self.out, length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Items<'a>, Refused> {
        Items::begin(self.out, length)
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Fields<'a>, Refused> {
        Ok(Fields { out: self.out })
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple, Refused> {
        unsupported("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, Refused> {
        unsupported("a tuple")
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, Refused> {
        unsupported("a tuple")
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, Refused> {
        unsupported("a variant with fields")
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
