//! The parts of a value that a visitor reads: elements, entries, variants, bytes, and the inside of a `Some` whose
//! content is nil.

use serde::de::{self, Deserialize, DeserializeSeed, Error as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::format::Error;
use super::reader::Deserializer;

/// The most elements there can be: each takes a byte at least.
fn hint(from: &Deserializer<'_>, claimed: u32) -> Option<usize> {
    Some(from.left().min(claimed as usize))
}

fn finish(left: u32, of: u32) -> Result<(), Error> {
    match left {
        0 => Ok(()),
        left => Err(Error(format!("there are {of} elements, and {} were expected", of - left))),
    }
}

/// The elements of an array.
pub(super) struct Elements<'a, 'de> {
    from: &'a mut Deserializer<'de>,
    left: u32,
}

impl<'a, 'de> Elements<'a, 'de> {
    pub(super) fn new(from: &'a mut Deserializer<'de>, length: u32) -> Self {
        Self { from, left: length }
    }

    pub(super) fn finish(self, of: u32) -> Result<(), Error> {
        finish(self.left, of)
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.from.seed(seed).map(Some)
    }

    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.from.take().map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        hint(self.from, self.left)
    }
}

/// The entries of a map.
pub(super) struct Entries<'a, 'de> {
    from: &'a mut Deserializer<'de>,
    left: u32,
}

impl<'a, 'de> Entries<'a, 'de> {
    pub(super) fn new(from: &'a mut Deserializer<'de>, length: u32) -> Self {
        Self { from, left: length }
    }

    pub(super) fn finish(self, of: u32) -> Result<(), Error> {
        finish(self.left, of)
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.from.seed(seed).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.from.seed(seed)
    }

    fn next_value<T: Deserialize<'de>>(&mut self) -> Result<T, Error> {
        self.from.take()
    }

    fn next_entry<K: Deserialize<'de>, T: Deserialize<'de>>(&mut self) -> Result<Option<(K, T)>, Error> {
        match self.next_key()? {
            Some(key) => Ok(Some((key, self.next_value()?))),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        hint(self.from, self.left)
    }
}

/// A variant of an enum, with its data if it has any.
pub(super) struct Variant<'a, 'de> {
    pub(super) from: &'a mut Deserializer<'de>,
    pub(super) has_data: bool,
}

impl<'a, 'de> Variant<'a, 'de> {
    fn data(self, expected: &'static str) -> Result<&'a mut Deserializer<'de>, Error> {
        match self.has_data {
            true => Ok(self.from),
            false => Err(Error::invalid_type(Unexpected::UnitVariant, &expected)),
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        Ok((self.from.seed(seed)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        if self.has_data { self.from.take_nil() } else { Ok(()) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.data("newtype variant")?.seed(seed)
    }

    fn newtype_variant<T: Deserialize<'de>>(self) -> Result<T, Error> {
        self.data("newtype variant")?.take()
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.data("tuple variant")?, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.data("struct variant")?, fields.len(), visitor)
    }
}

/// The elements of a sequence of `u8`.
pub(super) struct U8s<'de>(&'de [u8]);

impl<'de> U8s<'de> {
    pub(super) fn visit<V: Visitor<'de>>(bytes: &'de [u8], visitor: V) -> Result<V::Value, Error> {
        let mut elements = Self(bytes);
        let value = visitor.visit_seq(&mut elements)?;
        finish(elements.0.len() as u32, bytes.len() as u32)?;
        Ok(value)
    }
}

impl<'de> de::SeqAccess<'de> for U8s<'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        self.0 = rest;
        seed.deserialize(U8(*first)).map(Some)
    }

    #[inline]
    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        self.0 = rest;
        T::deserialize(U8(*first)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// One element of a sequence of `u8`.
struct U8(u8);

impl<'de> de::Deserializer<'de> for U8 {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// A nil inside a number of `Some`s.
pub(super) struct Nothing {
    pub(super) depth: u8,
}

impl<'de> de::Deserializer<'de> for Nothing {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.depth {
            0 => visitor.visit_unit(),
            depth => visitor.visit_some(Self { depth: depth - 1 }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.depth {
            0 => visitor.visit_none(),
            depth => visitor.visit_some(Self { depth: depth - 1 }),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
