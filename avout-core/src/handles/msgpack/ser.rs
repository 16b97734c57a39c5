use rmp::encode;
use serde::ser::{self, Serialize};

use super::format::{Error, I128, MAX_DEPTH, SOME, U128, too_deep};
use super::seq::{Map, Seq};
use super::writer::{Serializer, length};

const NIL: u8 = 0xc0;
/// The head of an extension of one byte.
const FIXEXT_1: u8 = 0xd4;

impl<'a> ser::Serializer for &'a mut Serializer {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Seq<'a>;
    type SerializeTuple = Seq<'a>;
    type SerializeTupleStruct = Seq<'a>;
    type SerializeTupleVariant = Seq<'a>;
    type SerializeMap = Map<'a>;
    type SerializeStruct = Map<'a>;
    type SerializeStructVariant = Map<'a>;

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        encode::write_sint(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Error> {
        match (i64::try_from(value), u128::try_from(value)) {
            (Ok(value), _) => self.serialize_i64(value),
            (_, Ok(value)) => self.serialize_u128(value),
            _ => self.put_wide(I128, value.to_be_bytes()),
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        encode::write_uint(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        match u64::try_from(value) {
            Ok(value) => self.serialize_u64(value),
            Err(_) => self.put_wide(U128, value.to_be_bytes()),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        Ok(encode::write_f32(&mut self.out, value)?)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        Ok(encode::write_f64(&mut self.out, value)?)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        length(value.len())?;
        Ok(encode::write_str(&mut self.out, value)?)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        length(value.len())?;
        Ok(encode::write_bin(&mut self.out, value)?)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        let start = self.out.len();
        self.put_inner(value)?;
        match self.out[start..] {
            [NIL] => {
                self.out.truncate(start);
                self.out.extend_from_slice(&[FIXEXT_1, SOME as u8, 1]);
            }
            [FIXEXT_1, kind, ref mut depth] if kind == SOME as u8 => {
                *depth += 1;
                if usize::from(*depth) > MAX_DEPTH {
                    return Err(too_deep());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.push(NIL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        // Serde's buffers accept only this form.
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        self.put_inner(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.put_variant(variant)?;
        self.enter()?;
        self.put(value)?;
        self.leave();
        Ok(())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Seq<'a>, Error> {
        Seq::maybe_u8s(self, length.unwrap_or(0))
    }

    fn serialize_tuple(self, length: usize) -> Result<Seq<'a>, Error> {
        Seq::maybe_u8s(self, length)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Seq<'a>, Error> {
        Seq::begin(self, length, false)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Seq<'a>, Error> {
        self.put_variant(variant)?;
        self.enter()?;
        Seq::begin(self, length, true)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Map<'a>, Error> {
        Map::begin(self, length, false)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Map<'a>, Error> {
        Map::begin(self, Some(length), false)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Map<'a>, Error> {
        self.put_variant(variant)?;
        self.enter()?;
        Map::begin(self, Some(length), true)
    }
}
