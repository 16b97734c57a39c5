use serde::de::{self, Error as _, Unexpected, Visitor};

use super::elements::{Elements, Entries, Nothing, U8s, Variant};
use super::format::Error;
use super::reader::{Deserializer, Head};

impl<'de> Deserializer<'de> {
    fn visit<V: Visitor<'de>>(&mut self, head: Head<'de>, visitor: V) -> Result<V::Value, Error> {
        match head {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Unsigned(value) => visitor.visit_u64(value),
            // For visitors that keep the width, such as that of BSON.
            Head::Negative(value) => match i32::try_from(value) {
                Ok(value) => visitor.visit_i32(value),
                Err(_) => visitor.visit_i64(value),
            },
            Head::F32(value) => visitor.visit_f32(value),
            Head::F64(value) => visitor.visit_f64(value),
            Head::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => Err(Error::invalid_value(Unexpected::Bytes(text), &visitor)),
            },
            Head::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Head::Array(length) => self.nested(|from| {
                let mut elements = Elements::new(from, length);
                let value = visitor.visit_seq(&mut elements)?;
                elements.finish(length)?;
                Ok(value)
            }),
            Head::Map(length) => self.nested(|from| {
                let mut entries = Entries::new(from, length);
                let value = visitor.visit_map(&mut entries)?;
                entries.finish(length)?;
                Ok(value)
            }),
            Head::Some(depth) => visitor.visit_some(Nothing { depth: depth - 1 }),
            Head::U8s(bytes) => U8s::visit(bytes, visitor),
            Head::U128(value) => visitor.visit_u128(value),
            Head::I128(value) => visitor.visit_i128(value),
        }
    }

    fn visit_next<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let head = self.head()?;
        self.visit(head, visitor)
    }

    /// Types that take elements also take a byte string.
    fn visit_elements<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Bytes(bytes) => U8s::visit(bytes, visitor),
            head => self.visit(head, visitor),
        }
    }

    fn visit_bytes<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::U8s(bytes) => visitor.visit_borrowed_bytes(bytes),
            head => self.visit(head, visitor),
        }
    }
}

macro_rules! integers {
    ($($deserialize:ident $visit:ident $type:ty;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.head()? {
                Head::Unsigned(value) => match <$type>::try_from(value) {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => visitor.visit_u64(value),
                },
                Head::Negative(value) => match <$type>::try_from(value) {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => visitor.visit_i64(value),
                },
                head => self.visit(head, visitor),
            }
        })*
    };
}

/// The bytes must have the form that the type asks for.
macro_rules! visited {
    ($($deserialize:ident)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.visit_next(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.guessed = true;
        self.visit_next(visitor)
    }

    integers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.integer(u128::from_be_bytes)? {
            Some(value) => visitor.visit_u128(value),
            None => self.visit_next(visitor),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.integer(i128::from_be_bytes)? {
            Some(value) => visitor.visit_i128(value),
            None => self.visit_next(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let before = self.rest;
        match self.head()? {
            Head::Nil => visitor.visit_none(),
            Head::Some(depth) => visitor.visit_some(Nothing { depth: depth - 1 }),
            _ => {
                self.rest = before;
                self.wrapped(|from| visitor.visit_some(from))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.wrapped(|from| visitor.visit_newtype_struct(from))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Nil | Head::Array(0) => visitor.visit_unit(),
            head => self.visit(head, visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit_bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit_elements(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.visit_elements(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit_elements(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit_elements(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let before = self.rest;
        match self.head()? {
            Head::Map(1) => self.nested(|from| visitor.visit_enum(Variant { from, has_data: true })),
            Head::Text(_) | Head::Unsigned(_) => {
                self.rest = before;
                visitor.visit_enum(Variant { from: self, has_data: false })
            }
            Head::Map(length) => Err(Error(format!("an enum is a map of one entry, and this one has {length}"))),
            // Only for the error message: no enum can be made of these.
            head => self.visit(head, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            // Written back it would be a different number.
            Head::F64(value) if f64::from(value as f32) != value && !value.is_nan() => {
                Err(Error::invalid_value(Unexpected::Float(value), &"a number that an f32 holds"))
            }
            head => self.visit(head, visitor),
        }
    }

    visited! {
        deserialize_bool deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_unit deserialize_map
        deserialize_identifier
    }
}
