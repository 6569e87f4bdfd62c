//! A datum as the value it was written from.

use super::Refused;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// A number of 64 bits takes so many bytes at most, and the last of them has one bit.
const LONG_BYTES_MAX: usize = 10;

/// Reads one datum. Nothing may follow it.
pub(crate) fn read<T: DeserializeOwned>(datum: &[u8]) -> Result<T, Refused> {
    let mut reader = Reader { rest: datum, elements_max: datum.len() };
    let value = T::deserialize(&mut reader)?;
    match reader.rest.len() {
        0 => Ok(value),
        left => Err(Refused::new(format!("{left} bytes follow the record"))),
    }
}

struct Reader<'de> {
    rest: &'de [u8],
    /// A larger count of elements is a lie, since most take a byte. The bytes end most lies early, but a count of
    /// elements without bytes (empty records) would go on for a billion turns.
    elements_max: usize,
}

fn ends() -> Refused {
    Refused::new("it ends before its last field")
}

impl<'de> Reader<'de> {
    #[inline]
    fn unsigned(&mut self) -> Result<u64, Refused> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_unsigned(),
        }
    }

    fn long_unsigned(&mut self) -> Result<u64, Refused> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(LONG_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if at + 1 == LONG_BYTES_MAX && *byte > 1 {
                return Err(Refused::new("a number has more than 64 bits"));
            }
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(ends())
    }

    #[inline]
    fn long(&mut self) -> Result<i64, Refused> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// The place of a symbol or a branch.
    #[inline]
    fn place(&mut self) -> Result<u32, Refused> {
        u32::try_from(self.long()?).map_err(|_| Refused::new("there is no such symbol or branch"))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], Refused> {
        let length = usize::try_from(self.long()?).map_err(|_| Refused::new("a length is negative"))?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(ends)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Refused> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Refused::new("a text is not UTF-8"))
    }
}

/// An array or a map: blocks of elements, then an empty block.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left_in_block: usize,
    seen: usize,
}

impl<'r, 'de> Items<'r, 'de> {
    fn new(reader: &'r mut Reader<'de>) -> Result<Self, Refused> {
        let mut items = Self { reader, left_in_block: 0, seen: 0 };
        items.next_block()?;
        Ok(items)
    }

    /// A negative count is followed by the size of its block, which is of no use here.
    fn next_block(&mut self) -> Result<(), Refused> {
        let count = self.reader.long()?;
        if count < 0 {
            self.reader.unsigned()?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        self.seen = self.seen.saturating_add(count);
        if self.seen > self.reader.elements_max {
            return Err(Refused::new("more elements than bytes"));
        }
        self.left_in_block = count;
        Ok(())
    }

    /// Whether there is another element. The block behind the last one is read with it, so that this can be known.
    #[inline]
    fn begin_element(&self) -> bool {
        self.left_in_block > 0
    }

    #[inline]
    fn end_element(&mut self) -> Result<(), Refused> {
        self.left_in_block -= 1;
        if self.left_in_block == 0 { self.next_block() } else { Ok(()) }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if !self.begin_element() {
            return Ok(None);
        }
        let value = seed.deserialize(&mut *self.reader)?;
        self.end_element()?;
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left_in_block)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        if !self.begin_element() {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let value = seed.deserialize(&mut *self.reader)?;
        self.end_element()?;
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left_in_block)
    }
}

/// A record: its fields, and nothing between them.
struct Fields<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Refused;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                seed.deserialize(&mut *self.reader).map(Some)
            }
        }
    }
}

/// A symbol, or a branch with its record behind it.
impl<'de> EnumAccess<'de> for &mut Reader<'de> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refused> {
        let place: U32Deserializer<Refused> = self.place()?.into_deserializer();
        Ok((seed.deserialize(place)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Reader<'de> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, _visitor: V) -> Result<V::Value, Refused> {
        Err(Refused::unsupported("a tuple"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Refused> {
        Err(Refused::unsupported("a variant with fields"))
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        struct Expected<V>(V);
        impl<'de, V: Visitor<'de>> std::fmt::Display for Expected<V> {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.expecting(out)
            }
        }
        Err(Refused::custom(format_args!("no schema here has {}", Expected(visitor))))
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let (byte, rest) = self.rest.split_first().ok_or_else(ends)?;
        self.rest = rest;
        match byte {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            other => Err(Refused::new(format!("a boolean is {other}"))),
        }
    }

    #[inline]
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let value = i32::try_from(self.long()?).map_err(|_| Refused::new("an int has more than 32 bits"))?;
        visitor.visit_i32(value)
    }

    #[inline]
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_i64(self.long()?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    // The only unions besides the payloads are `["null", T]`.
    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.place()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            other => Err(Refused::new(format!("there is no branch {other}"))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Items::new(self)?)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_map(Items::new(self)?)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Fields { reader: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char unit unit_struct tuple tuple_struct identifier ignored_any
    }
}
