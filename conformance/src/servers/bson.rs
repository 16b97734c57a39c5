//! As much of MongoDB's protocol as an administrator's commands take: OP_MSG with one BSON document each way.
//!
//! By hand, so that this crate does not pull in the driver that one of its users tests.

use std::io::{Error, Read as _, Write as _};
use std::net::SocketAddr;

/// A BSON value, of the kinds that the commands below need.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bson {
    Bool(bool),
    Int(i32),
    Double(f64),
    Text(String),
    Document(Vec<(String, Bson)>),
    Array(Vec<Bson>),
    /// Another kind; only in answers.
    Other,
}

impl Bson {
    /// A document.
    pub(super) fn document<const N: usize>(fields: [(&str, Bson); N]) -> Self {
        Self::Document(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A field of a document.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Document(fields) = self else { return None };
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// A number or a truth value, as `ok` and `isWritablePrimary` are.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Double(value) => *value != 0.0,
            _ => false,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Double(_) => 1,
            Self::Text(_) => 2,
            Self::Document(_) => 3,
            Self::Array(_) => 4,
            Self::Bool(_) => 8,
            Self::Other => 10,
            Self::Int(_) => 16,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.push((*value).into()),
            Self::Int(value) => out.extend(value.to_le_bytes()),
            Self::Double(value) => out.extend(value.to_le_bytes()),
            Self::Text(text) => {
                out.extend(length(text.len() + 1));
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Document(fields) => write_fields(fields.iter().map(|(name, value)| (name.clone(), value)), out),
            Self::Array(values) => {
                write_fields(values.iter().enumerate().map(|(n, value)| (n.to_string(), value)), out)
            }
            Self::Other => {}
        }
    }

    fn read(tag: u8, input: &mut &[u8]) -> Result<Self, Error> {
        Ok(match tag {
            1 => Self::Double(f64::from_le_bytes(array(input)?)),
            2 => {
                let length = read_length(input)?;
                let text = take(input, length)?;
                Self::Text(String::from_utf8_lossy(&text[..length.saturating_sub(1)]).into_owned())
            }
            3 => Self::Document(read_fields(input)?),
            4 => Self::Array(read_fields(input)?.into_iter().map(|(_, value)| value).collect()),
            8 => Self::Bool(array::<1>(input)?[0] != 0),
            16 => Self::Int(i32::from_le_bytes(array(input)?)),
            other => {
                let length = match other {
                    // Binary: its length, a kind, and the bytes.
                    5 => 1 + read_length(input)?,
                    // The object id, the date, the timestamp, the long, the decimal, null.
                    7 => 12,
                    9 | 17 | 18 => 8,
                    19 => 16,
                    10 => 0,
                    _ => return Err(Error::other(format!("a BSON value of kind {other}"))),
                };
                take(input, length)?;
                Self::Other
            }
        })
    }
}

/// Sends a command and gives its answer.
///
/// # Errors
/// If the connection fails, or the server refuses: with its words.
pub(super) fn command(address: SocketAddr, database: &str, command: &Bson) -> Result<Bson, Error> {
    let Bson::Document(fields) = command else { return Err(Error::other("a command is a document")) };
    let mut fields = fields.clone();
    fields.push(("$db".to_owned(), Bson::text(database)));

    // https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/: a header of four numbers, flags, a section of kind 0.
    let mut message = vec![0; 21];
    Bson::Document(fields).write(&mut message);
    let length = i32::try_from(message.len()).map_err(Error::other)?;
    message[..4].copy_from_slice(&length.to_le_bytes());
    message[4..8].copy_from_slice(&1_i32.to_le_bytes());
    message[12..16].copy_from_slice(&2013_i32.to_le_bytes());

    let mut stream = super::wire::connect(address)?;
    stream.write_all(&message)?;
    let mut header = [0; 21];
    stream.read_exact(&mut header)?;
    let rest = read_length(&mut &header[..])?.checked_sub(header.len()).filter(|rest| *rest < 1 << 25);
    let mut body = vec![0; rest.ok_or_else(|| Error::other("an answer of no sensible length"))?];
    stream.read_exact(&mut body)?;
    let answer = Bson::Document(read_fields(&mut &body[..])?);
    match answer.get("ok") {
        Some(ok) if ok.is_true() => Ok(answer),
        _ => Err(Error::other(
            answer.get("errmsg").and_then(Bson::as_text).unwrap_or("refused without a word").to_owned(),
        )),
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("an administrator's command is short").to_le_bytes()
}

fn write_fields<'a>(fields: impl Iterator<Item = (String, &'a Bson)>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    for (name, value) in fields {
        out.push(value.tag());
        out.extend(name.as_bytes());
        out.push(0);
        value.write(out);
    }
    out.push(0);
    let size = length(out.len() - start);
    out[start..start + 4].copy_from_slice(&size);
}

fn read_fields(input: &mut &[u8]) -> Result<Vec<(String, Bson)>, Error> {
    read_length(input)?;
    let mut fields = Vec::new();
    loop {
        let tag = array::<1>(input)?[0];
        if tag == 0 {
            return Ok(fields);
        }
        let end = input.iter().position(|byte| *byte == 0).ok_or_else(|| Error::other("a BSON name without end"))?;
        let name = String::from_utf8_lossy(&take(input, end + 1)?[..end]).into_owned();
        fields.push((name, Bson::read(tag, input)?));
    }
}

fn read_length(input: &mut &[u8]) -> Result<usize, Error> {
    usize::try_from(i32::from_le_bytes(array(input)?)).map_err(Error::other)
}

fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Error> {
    take(input, N)?.try_into().map_err(Error::other)
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Error> {
    let (head, rest) =
        input.split_at_checked(count).ok_or_else(|| Error::other("a BSON document that ends too early"))?;
    *input = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read again, and a document is encoded as the specification's example is.
    #[test]
    fn a_document_round_trips() {
        let mut hello = Vec::new();
        Bson::document([("hello", Bson::text("world"))]).write(&mut hello);
        assert_eq!(hello, b"\x16\x00\x00\x00\x02hello\x00\x06\x00\x00\x00world\x00\x00");

        let all = Bson::document([
            ("yes", Bson::Bool(true)),
            ("n", Bson::Int(-7)),
            ("half", Bson::Double(0.5)),
            ("list", Bson::Array(vec![Bson::document([("host", Bson::text("a:1"))]), Bson::Int(1)])),
            ("null", Bson::Other),
        ]);
        let mut bytes = Vec::new();
        all.write(&mut bytes);
        assert_eq!(Bson::Document(read_fields(&mut &bytes[..]).expect("it is whole")), all);
        for cut in 0..bytes.len() {
            assert!(read_fields(&mut &bytes[..cut]).is_err(), "{cut}");
        }
    }
}
