use rmp::encode;
use serde::ser::{self, Serialize};

use super::format::{Error, U8_SEQUENCE};
use super::only_u8::OnlyU8;
use super::writer::{Serializer, is_short, length};

/// Replaces the head at `start`, of `length` bytes, by the right one.
fn set_head(out: &mut Vec<u8>, start: usize, length: usize, head: &[u8]) {
    out.splice(start..start + length, head.iter().copied());
}

/// Writes a sequence, a tuple, or fields without names.
pub(super) struct Seq<'a> {
    to: &'a mut Serializer,
    start: usize,
    /// The length of the head in bytes; zero as long as all elements are `u8`.
    head: usize,
    announced: usize,
    count: usize,
    /// All elements so far are `u8`, and were written as bytes.
    u8s: bool,
    in_variant: bool,
}

impl<'a> Seq<'a> {
    /// Begins a sequence that may consist of `u8`.
    pub(super) fn maybe_u8s(to: &'a mut Serializer, announced: usize) -> Result<Self, Error> {
        to.enter()?;
        let start = to.out.len();
        Ok(Self { to, start, head: 0, announced, count: 0, u8s: true, in_variant: false })
    }

    pub(super) fn begin(to: &'a mut Serializer, announced: usize, in_variant: bool) -> Result<Self, Error> {
        to.enter()?;
        let start = to.out.len();
        let mut seq = Self { to, start, head: 0, announced, count: 0, u8s: false, in_variant };
        seq.put_head()?;
        Ok(seq)
    }

    fn put_head(&mut self) -> Result<(), Error> {
        encode::write_array_len(&mut self.to.out, length(self.announced)?)?;
        self.head = self.to.out.len() - self.start;
        Ok(())
    }

    /// An element is not a `u8`: rewrites those before it as numbers.
    fn become_array(&mut self) -> Result<(), Error> {
        self.u8s = false;
        let bytes = self.to.out.split_off(self.start);
        self.put_head()?;
        for byte in bytes {
            encode::write_uint(&mut self.to.out, byte.into())?;
        }
        Ok(())
    }

    #[inline]
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if self.u8s {
            match value.serialize(OnlyU8 { readable: self.to.readable }) {
                Ok(byte) => {
                    if self.count == 0 {
                        self.to.out.reserve(self.announced);
                    }
                    self.to.out.push(byte);
                    self.count += 1;
                    return Ok(());
                }
                Err(_) => self.become_array()?,
            }
        }
        self.to.put(value)?;
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        self.to.leave();
        if self.in_variant {
            self.to.leave();
        }
        if !self.u8s && self.count == self.announced {
            return Ok(());
        }
        let mut head = Vec::new();
        if self.u8s && !is_short(&self.to.out[self.start..]) {
            encode::write_ext_meta(&mut head, length(self.count)?, U8_SEQUENCE)?;
        } else {
            encode::write_array_len(&mut head, length(self.count)?)?;
        }
        set_head(&mut self.to.out, self.start, self.head, &head);
        Ok(())
    }
}

impl ser::SerializeSeq for Seq<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.put(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTuple for Seq<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.put(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Seq<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.put(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTupleVariant for Seq<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.put(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

/// Writes a map, or fields with their names.
pub(super) struct Map<'a> {
    to: &'a mut Serializer,
    start: usize,
    head: usize,
    announced: usize,
    count: usize,
    in_variant: bool,
}

impl<'a> Map<'a> {
    pub(super) fn begin(to: &'a mut Serializer, announced: Option<usize>, in_variant: bool) -> Result<Self, Error> {
        to.enter()?;
        let start = to.out.len();
        encode::write_map_len(&mut to.out, length(announced.unwrap_or(0))?)?;
        let head = to.out.len() - start;
        Ok(Self { to, start, head, announced: announced.unwrap_or(0), count: 0, in_variant })
    }

    fn put_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        encode::write_str(&mut self.to.out, name)?;
        self.count += 1;
        self.to.put(value)
    }

    fn finish(self) -> Result<(), Error> {
        self.to.leave();
        if self.in_variant {
            self.to.leave();
        }
        if self.count != self.announced {
            let mut head = Vec::new();
            encode::write_map_len(&mut head, length(self.count)?)?;
            set_head(&mut self.to.out, self.start, self.head, &head);
        }
        Ok(())
    }
}

impl ser::SerializeMap for Map<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.count += 1;
        self.to.put(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.to.put(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeStruct for Map<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.put_field(name, value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeStructVariant for Map<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.put_field(name, value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}
