//! A value as serde sees it, to tell whether what was read back is what was written.

use std::fmt;

use serde::ser::{self, Error as _, Serialize, Serializer};

/// A value as it describes itself to serde. Maps and sequences are sorted: those of a hash map come in another order each time.
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
    List(Vec<Tree>),
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
        value.serialize(Builder { readable })
    }

    fn named(self, name: &'static str) -> Self {
        Self::Named(name, Box::new(self))
    }
}

#[derive(Clone, Copy)]
struct Builder {
    readable: bool,
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
        Ok(Tree::Some(Box::new(value.serialize(self)?)))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Tree, NoTree> {
        Ok(Tree::Unit.named(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<Tree, NoTree> {
        Ok(value.serialize(self)?.named(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree, NoTree> {
        Ok(value.serialize(self)?.named(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, NoTree> {
        Ok(List { of: self, name: None, elements: Vec::new(), sorted: true })
    }

    fn serialize_tuple(self, _: usize) -> Result<List, NoTree> {
        Ok(List { of: self, name: None, elements: Vec::new(), sorted: false })
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<List, NoTree> {
        Ok(List { of: self, name: Some(name), elements: Vec::new(), sorted: false })
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<List, NoTree> {
        Ok(List { of: self, name: Some(variant), elements: Vec::new(), sorted: false })
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
    elements: Vec<Tree>,
    sorted: bool,
}

impl List {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoTree> {
        self.elements.push(value.serialize(self.of)?);
        Ok(())
    }

    fn finish(mut self) -> Tree {
        if self.sorted {
            self.elements.sort_unstable();
        }
        let list = Tree::List(self.elements);
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
        self.entries.push((Tree::Text(key.to_owned()), value.serialize(self.of)?));
        Ok(())
    }

    fn finish(mut self) -> Tree {
        self.entries.sort_unstable();
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
        self.key = Some(key.serialize(self.of)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoTree> {
        let key = self.key.take().ok_or_else(|| NoTree::custom("a value of a map without its key"))?;
        self.entries.push((key, value.serialize(self.of)?));
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
