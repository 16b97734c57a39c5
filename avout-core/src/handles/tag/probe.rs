//! Serde's name of a type: its `Deserialize` is called with a deserializer that has no data, and remembers the request.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, Visitor};

/// The request of a type to its deserializer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// None was seen.
    Nothing,
    /// For whatever there is.
    Any,
    Scalar(&'static str),
    /// A struct or enum.
    Named {
        /// Serde's name of the type.
        serde: String,
        /// The Rust type with this name. It may differ from the one that was asked, which reads itself through it.
        rust: String,
    },
    Option(Box<Seen>),
    Seq(Box<Seen>),
    /// For a tuple of this length, and the request of its first element.
    Tuple(usize, Box<Seen>),
    Map(Box<Seen>, Box<Seen>),
}

/// How many questions are asked about one type, which may contain itself.
const MOST: usize = 64;

/// How deep the questions go.
const DEEPEST: usize = 16;

/// Asks a type. `readable`: as a text format.
pub(super) fn probe<T: DeserializeOwned>(readable: bool) -> Seen {
    let (mut seen, left) = (Seen::Nothing, Cell::new(MOST));
    // It always fails: there is no data.
    let _ = T::deserialize(Probe { readable, left: &left, depth: 0, seen: &mut seen });
    seen
}

/// A type with a name of its own that is read as `T`.
fn named<T>(serde: &str) -> Seen {
    Seen::Named { serde: serde.to_owned(), rust: std::any::type_name::<T>().to_owned() }
}

/// The error: there is no data.
#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is nothing to read")
    }
}

impl std::error::Error for Nothing {}

impl de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Probe<'a> {
    readable: bool,
    left: &'a Cell<usize>,
    depth: usize,
    seen: &'a mut Seen,
}

impl<'a> Probe<'a> {
    fn is(self, seen: Seen) -> Nothing {
        *self.seen = seen;
        Nothing
    }

    /// A question about the content; `None`: enough questions were asked.
    fn inside<'b>(&'b self, seen: &'b mut Seen) -> Option<Probe<'b>> {
        let left = self.left.get().checked_sub(1)?;
        self.left.set(left);
        let depth = self.depth + 1;
        (depth <= DEEPEST).then_some(Probe { readable: self.readable, left: self.left, depth, seen })
    }
}

/// The Rust name in the expectation of a visitor from serde's derive, which tells the name of buffered types nowhere
/// else.
fn expected(visitor: &dyn Expected) -> Option<Seen> {
    let text = visitor.to_string();
    let of_derive = ["struct ", "internally tagged enum "];
    let name = of_derive.iter().find_map(|what| text.strip_prefix(what))?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then(|| Seen::Named { serde: name.to_owned(), rust: name.to_owned() })
}

macro_rules! scalars {
    ($($deserialize:ident $name:literal;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
            Err(self.is(Seen::Scalar($name)))
        })*
    };
}

impl<'de> de::Deserializer<'de> for Probe<'_> {
    type Error = Nothing;

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    scalars! {
        deserialize_bool "bool";
        deserialize_i8 "i8";
        deserialize_i16 "i16";
        deserialize_i32 "i32";
        deserialize_i64 "i64";
        deserialize_i128 "i128";
        deserialize_u8 "u8";
        deserialize_u16 "u16";
        deserialize_u32 "u32";
        deserialize_u64 "u64";
        deserialize_u128 "u128";
        deserialize_f32 "f32";
        deserialize_f64 "f64";
        deserialize_char "char";
        deserialize_str "String";
        deserialize_string "String";
        deserialize_bytes "ByteBuf";
        deserialize_byte_buf "ByteBuf";
        deserialize_unit "()";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Nothing> {
        Err(self.is(expected(&visitor).unwrap_or(Seen::Any)))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Nothing> {
        let mut inner = Seen::Nothing;
        if let Some(inside) = self.inside(&mut inner) {
            let _ = visitor.visit_some(inside);
        }
        Err(self.is(Seen::Option(Box::new(inner))))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Nothing> {
        let mut element = Seen::Nothing;
        if let Some(inside) = self.inside(&mut element) {
            let _ = visitor.visit_seq(First(Some(inside)));
        }
        Err(self.is(Seen::Seq(Box::new(element))))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Nothing> {
        let mut first = Seen::Nothing;
        if let Some(inside) = self.inside(&mut first) {
            let _ = visitor.visit_seq(First(Some(inside)));
        }
        Err(self.is(Seen::Tuple(length, Box::new(first))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Nothing> {
        // A struct with flattened fields asks for a map.
        if let Some(named) = expected(&visitor) {
            return Err(self.is(named));
        }
        let (mut key, mut value) = (Seen::Nothing, Seen::Nothing);
        let inside = (self.inside(&mut key), self.inside(&mut value));
        if let (Some(key), Some(value)) = inside {
            let _ = visitor.visit_map(Entry { key: Some(key), value: Some(value) });
        }
        Err(self.is(Seen::Map(Box::new(key), Box::new(value))))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Nothing> {
        Err(self.is(named::<V::Value>(name)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Nothing> {
        Err(self.is(named::<V::Value>(name)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Nothing> {
        Err(self.is(named::<V::Value>(name)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        Err(self.is(named::<V::Value>(name)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        Err(self.is(named::<V::Value>(name)))
    }
}

/// The first element of a sequence.
struct First<'a>(Option<Probe<'a>>);

impl<'de> de::SeqAccess<'de> for First<'_> {
    type Error = Nothing;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Nothing> {
        seed.deserialize(self.0.take().ok_or(Nothing)?).map(Some)
    }
}

/// An entry of a map.
struct Entry<'a> {
    key: Option<Probe<'a>>,
    value: Option<Probe<'a>>,
}

impl<'de> de::MapAccess<'de> for Entry<'_> {
    type Error = Nothing;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Nothing> {
        seed.deserialize(self.key.take().ok_or(Nothing)?).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Nothing> {
        seed.deserialize(self.value.take().ok_or(Nothing)?)
    }

    /// Both are asked, although there is no key.
    fn next_entry<K: Deserialize<'de>, T: Deserialize<'de>>(&mut self) -> Result<Option<(K, T)>, Nothing> {
        let key = K::deserialize(self.key.take().ok_or(Nothing)?);
        let value = T::deserialize(self.value.take().ok_or(Nothing)?);
        Ok(Some((key?, value?)))
    }
}
