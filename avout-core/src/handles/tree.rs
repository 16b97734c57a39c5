//! A value as serde sees it, to tell whether the value that was read back is the one that was written.

use std::fmt;

use serde::ser::{self, Error as _, Serialize, Serializer};

use super::msgpack::bytes_of;

/// A value as it describes itself to serde.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tree {
    Unit,
    None,
    Some(Box<Tree>),
    Bool(bool),
    /// The type's name, and the value.
    Signed(&'static str, i128),
    Unsigned(&'static str, u128),
    F32(u32),
    F64(u64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    /// A sequence of `u8`, which may be long.
    U8s(Vec<u8>),
    Seq(Vec<Tree>),
    /// A list in which each element has a position of its own, such as a tuple.
    Tuple(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Named(&'static str, Box<Tree>),
}

/// The value has no tree: it refuses to describe itself.
#[derive(Debug)]
pub(super) struct NoTree(String);

impl fmt::Display for NoTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoTree {}

impl ser::Error for NoTree {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Tree {
    /// `readable`: as it describes itself to formats that are text.
    pub(super) fn of<T: Serialize + ?Sized>(value: &T, readable: bool) -> Result<Self, NoTree> {
        Builder { readable }.tree(value)
    }

    /// Whether they are the same value. The elements of a hash set or map come in a different order each time.
    pub(super) fn equals(mut self, mut other: Self) -> bool {
        self == other || {
            self.sort();
            other.sort();
            self == other
        }
    }

    /// Sorts sequences and maps, so that the order of their elements does not matter.
    fn sort(&mut self) {
        match self {
            Self::Some(inner) | Self::Named(_, inner) => inner.sort(),
            Self::U8s(bytes) => bytes.sort_unstable(),
            Self::Tuple(elements) => elements.iter_mut().for_each(Self::sort),
            Self::Seq(elements) => {
                elements.iter_mut().for_each(Self::sort);
                elements.sort_unstable();
            }
            Self::Map(entries) => {
                for (key, value) in entries.iter_mut() {
                    key.sort();
                    value.sort();
                }
                entries.sort_unstable();
            }
            _ => {}
        }
    }

    fn named(self, name: &'static str) -> Self {
        Self::Named(name, Box::new(self))
    }
}

#[derive(Clone, Copy)]
struct Builder {
    readable: bool,
}

impl Builder {
    fn tree<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, NoTree> {
        match bytes_of(value) {
            Some(bytes) => Ok(Tree::U8s(bytes.to_vec())),
            None => value.serialize(self),
        }
    }
}

macro_rules! leaves {
    ($($name:ident($value:ident: $type:ty) $tree:expr;)*) => {
        $(fn $name(self, $value: $type) -> Result<Tree, NoTree> {
            Ok($tree)
        })*
    };
}

impl Serializer for Builder {
    type Ok = Tree;
    type Error = NoTree;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Map;
    type SerializeStruct = Map;
    type SerializeStructVariant = Map;

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    leaves! {
        serialize_bool(value: bool) Tree::Bool(value);
        serialize_i8(value: i8) Tree::Signed("i8", value.into());
        serialize_i16(value: i16) Tree::Signed("i16", value.into());
        serialize_i32(value: i32) Tree::Signed("i32", value.into());
        serialize_i64(value: i64) Tree::Signed("i64", value.into());
        serialize_i128(value: i128) Tree::Signed("i128", value);
        serialize_u8(value: u8) Tree::Unsigned("u8", value.into());
        serialize_u16(value: u16) Tree::Unsigned("u16", value.into());
        serialize_u32(value: u32) Tree::Unsigned("u32", value.into());
        serialize_u64(value: u64) Tree::Unsigned("u64", value.into());
        serialize_u128(value: u128) Tree::Unsigned("u128", value);
        serialize_f32(value: f32) Tree::F32(value.to_bits());
        serialize_f64(value: f64) Tree::F64(value.to_bits());
        serialize_char(value: char) Tree::Char(value);
        serialize_str(value: &str) Tree::Text(value.to_owned());
        serialize_bytes(value: &[u8]) Tree::Bytes(value.to_vec());
        serialize_unit_struct(name: &'static str) Tree::Unit.named(name);
    }

    fn serialize_unit(self) -> Result<Tree, NoTree> {
        Ok(Tree::Unit)
    }

    fn serialize_none(self) -> Result<Tree, NoTree> {
        Ok(Tree::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, NoTree> {
        Ok(Tree::Some(Box::new(self.tree(value)?)))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Tree, NoTree> {
        Ok(Tree::Unit.named(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<Tree, NoTree> {
        Ok(self.tree(value)?.named(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree, NoTree> {
        Ok(self.tree(value)?.named(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, NoTree> {
        Ok(List::new(self, None, true))
    }

    fn serialize_tuple(self, _: usize) -> Result<List, NoTree> {
        Ok(List::new(self, None, false))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<List, NoTree> {
        Ok(List::new(self, Some(name), false))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<List, NoTree> {
        Ok(List::new(self, Some(variant), false))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map, NoTree> {
        Ok(Map { of: self, name: None, entries: Vec::new(), key: None })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Map, NoTree> {
        Ok(Map { of: self, name: Some(name), entries: Vec::new(), key: None })
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Map, NoTree> {
        Ok(Map { of: self, name: Some(variant), entries: Vec::new(), key: None })
    }
}

struct List {
    of: Builder,
    name: Option<&'static str>,
    /// Holds the elements as long as all are `u8`; `elements` is empty then.
    u8s: Vec<u8>,
    elements: Vec<Tree>,
    is_seq: bool,
}

impl List {
    fn new(of: Builder, name: Option<&'static str>, is_seq: bool) -> Self {
        Self { of, name, u8s: Vec::new(), elements: Vec::new(), is_seq }
    }

    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoTree> {
        match self.of.tree(value)? {
            Tree::Unsigned("u8", byte) if self.is_seq && self.elements.is_empty() => self.u8s.push(byte as u8),
            tree => {
                let numbers = self.u8s.drain(..).map(|byte| Tree::Unsigned("u8", byte.into()));
                self.elements.extend(numbers);
                self.elements.push(tree);
            }
        }
        Ok(())
    }

    fn finish(self) -> Tree {
        let list = match self.is_seq {
            true if !self.u8s.is_empty() => Tree::U8s(self.u8s),
            true => Tree::Seq(self.elements),
            false => Tree::Tuple(self.elements),
        };
        match self.name {
            Some(name) => list.named(name),
            None => list,
        }
    }
}

struct Map {
    of: Builder,
    name: Option<&'static str>,
    entries: Vec<(Tree, Tree)>,
    key: Option<Tree>,
}

impl Map {
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), NoTree> {
        self.entries.push((Tree::Text(key.to_owned()), self.of.tree(value)?));
        Ok(())
    }

    fn finish(self) -> Tree {
        let map = Tree::Map(self.entries);
        match self.name {
            Some(name) => map.named(name),
            None => map,
        }
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident;)*) => {
        $(impl ser::$trait for List {
            type Ok = Tree;
            type Error = NoTree;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoTree> {
                self.add(value)
            }

            fn end(self) -> Result<Tree, NoTree> {
                Ok(self.finish())
            }
        })*
    };
}

lists! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

impl ser::SerializeMap for Map {
    type Ok = Tree;
    type Error = NoTree;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoTree> {
        self.key = Some(self.of.tree(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoTree> {
        let key = self.key.take().ok_or_else(|| NoTree::custom("a value of a map without its key"))?;
        self.entries.push((key, self.of.tree(value)?));
        Ok(())
    }

    fn end(self) -> Result<Tree, NoTree> {
        Ok(self.finish())
    }
}

macro_rules! fields {
    ($($trait:ident;)*) => {
        $(impl ser::$trait for Map {
            type Ok = Tree;
            type Error = NoTree;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), NoTree> {
                self.field(key, value)
            }

            fn end(self) -> Result<Tree, NoTree> {
                Ok(self.finish())
            }
        })*
    };
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte strings take one byte for each byte in a tree too, wherever they are.
    #[test]
    fn bytes_are_no_trees() {
        let bytes = vec![7_u8; 100];
        let of = |tree: Result<Tree, NoTree>| tree.expect("a tree");
        assert_eq!(of(Tree::of(&bytes, false)), Tree::U8s(bytes.clone()));
        assert_eq!(of(Tree::of(&Some(&bytes), false)), Tree::Some(Box::new(Tree::U8s(bytes.clone()))));
        assert_eq!(of(Tree::of(&bytes.clone().into_boxed_slice(), false)), Tree::U8s(bytes.clone()));
        let deque: std::collections::VecDeque<u8> = bytes.iter().copied().collect();
        assert_eq!(of(Tree::of(&[("a", &deque)], false)), {
            let pair = [Tree::Text("a".to_owned()), Tree::U8s(bytes)];
            Tree::Tuple(vec![Tree::Tuple(pair.into())])
        });
    }
}
