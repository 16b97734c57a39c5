//! Values as native BSON, for other tools to query.
//!
//! With [`Options::documents`](crate::Options::documents) each document that holds a value's bytes has it once more in
//! the field `v`, as BSON. avout reads the bytes only, which have a checksum, so a value comes back as it was written,
//! whatever BSON makes of it. The copy is written in the same step as the bytes.

use avout_core::protocol::{CodecId, Envelope};
use avout_core::{Codec, Error, ErrorKind, MessagePack, Result};
use bytes::Bytes;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, RawDocumentBuf};

/// The largest copy. With the bytes beside it, it must fit into a document of 16 MiB.
const MOST: usize = 4 << 20;

/// A value's bytes, in their envelope, as the field `v` of a document.
///
/// # Errors
/// [`Codec`](ErrorKind::Codec) if BSON cannot hold the value, or the codec is one that only the application knows;
/// [`TooLarge`](ErrorKind::TooLarge) if it is more than 4 MiB as BSON.
pub(crate) fn copy(bytes: &Bytes) -> Result<RawDocumentBuf> {
    let Envelope { codec, value, .. } = Envelope::open(bytes)?;
    let decoded: Result<Bson, Box<dyn std::error::Error + Send + Sync>> = match codec {
        CodecId::MESSAGE_PACK => MessagePack.decode(&value),
        CodecId::JSON => serde_json::from_slice(&value).map_err(Into::into),
        CodecId(number) => {
            let message =
                format!("documents=true needs the codec MessagePack or Json, and this value has codec {number}");
            return Err(Error::new(ErrorKind::Codec, message));
        }
    };
    let refused = |cause: Box<dyn std::error::Error + Send + Sync>| {
        let message = "BSON cannot hold the value, as documents=true asks: numbers are below 2^63, and keys of maps are texts \
                       without NUL";
        Error::new(ErrorKind::Codec, message).with_source(cause)
    };
    let mut document = Document::new();
    document.insert("v", decoded.map_err(refused)?);
    let document = RawDocumentBuf::try_from(&document).map_err(|error| refused(error.into()))?;
    if document.as_bytes().len() > MOST {
        return Err(too_large());
    }
    Ok(document)
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "with documents=true a value has at most 4 MiB as BSON")
}

/// Refuses a value that lies in chunks, if a copy is wanted.
pub(crate) fn check_size(wanted: bool) -> Result<()> {
    if wanted { Err(too_large()) } else { Ok(()) }
}

/// Adds the copy to a document's fields, if it is wanted.
pub(crate) fn append(fields: &mut RawDocumentBuf, wanted: bool, bytes: &Bytes) -> Result<()> {
    if !wanted {
        return Ok(());
    }
    let copy = copy(bytes)?;
    let value = copy.get("v").ok().flatten().ok_or_else(|| Error::new(ErrorKind::Codec, "BSON lost the value"))?;
    fields.append(cstr!("v"), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use avout_core::Json;
    use mongodb::bson::{Binary, doc, spec::BinarySubtype};
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Unit,
        New(i64),
        Tuple(i8, String),
        Struct { a: Option<bool>, b: Vec<f64> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Whole {
        numbers: (u8, i16, u32, i64, u64, f32, f64),
        text: String,
        letter: char,
        nothing: Option<String>,
        something: Option<Option<u8>>,
        unit: (),
        list: Vec<Kind>,
        map: BTreeMap<String, Vec<u16>>,
        array: [bool; 3],
    }

    fn whole() -> Whole {
        Whole {
            numbers: (255, -32_768, u32::MAX, i64::MIN, i64::MAX as u64, 0.5, -1e300),
            text: "é\n\"\u{0}$.".into(),
            letter: '日',
            nothing: None,
            something: Some(Some(7)),
            unit: (),
            list: vec![
                Kind::Unit,
                Kind::New(-1),
                Kind::Tuple(-3, "x".into()),
                Kind::Struct { a: Some(true), b: vec![1.0, 2.5] },
            ],
            map: [("a.b".into(), vec![1, 2]), ("$where".into(), vec![]), (String::new(), vec![9])].into(),
            array: [true, false, true],
        }
    }

    fn sealed<T, C: Codec<T>>(codec: C, value: &T) -> Bytes {
        let bytes = codec.encode(value).expect("it has an encoding");
        Envelope::seal(codec.id(), "T", &bytes).expect("it is small")
    }

    fn copied<T, C: Codec<T>>(codec: C, value: &T) -> Result<Bson> {
        let document = Document::try_from(copy(&sealed(codec, value))?).expect("valid BSON");
        Ok(document.get("v").cloned().expect("the value"))
    }

    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        for copy in [copied(MessagePack, value), copied(Json, value)] {
            let copy = copy.unwrap_or_else(|error| panic!("{value:?}: {error:?}"));
            let back: T = mongodb::bson::deserialize_from_bson(copy).expect("what was copied");
            assert_eq!(&back, value);
        }
    }

    /// Values of every shape that serde knows can be read from the copy as the type that they were.
    #[test]
    fn copies_hold_serdes_data_model() {
        comes_back(&whole());
        comes_back(&vec![whole(), whole()]);
        comes_back(&(1_u8, "two".to_owned(), [3.0_f64]));
        comes_back(&Some(Kind::Unit));
        comes_back(&BTreeMap::from([("k".to_owned(), whole())]));
        comes_back(&i64::MIN);
        comes_back(&"".to_owned());
    }

    /// Copies look as other tools expect it: documents, arrays, numbers, texts.
    #[test]
    fn copies_look_native() {
        let kind = Kind::Struct { a: None, b: vec![1.5] };
        for copy in [copied(MessagePack, &kind), copied(Json, &kind)] {
            assert_eq!(copy.expect("a copy"), Bson::from(doc! { "Struct": { "a": null, "b": [1.5] } }));
        }
        let bytes = rmp_serde::to_vec(&Raw(vec![1, 2])).expect("an encoding");
        let sealed = Envelope::seal(CodecId::MESSAGE_PACK, "T", &bytes).expect("small");
        let copy = Document::try_from(copy(&sealed).expect("a copy")).expect("valid BSON");
        let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] };
        assert_eq!(copy.get("v"), Some(&Bson::Binary(binary)));
    }

    struct Raw(Vec<u8>);

    impl Serialize for Raw {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    /// What BSON cannot hold is refused, and says so.
    #[test]
    fn what_bson_cannot_hold_is_refused() {
        let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::Codec, "{error:?}");
        refused(copied(MessagePack, &u64::MAX).expect_err("beyond 2^63"));
        refused(copied(Json, &u64::MAX).expect_err("beyond 2^63"));
        refused(copied(MessagePack, &BTreeMap::from([(1_i32, 2_i32)])).expect_err("a key that is no text"));
        refused(copied(MessagePack, &BTreeMap::from([("a\0b".to_owned(), 2)])).expect_err("NUL in a key"));
        let own = Envelope::seal(CodecId(200), "T", b"whatever").expect("small");
        refused(copy(&own).expect_err("a codec of an application's own"));
        let large = copied(MessagePack, &vec![1_u8; 1 << 20]).expect_err("an array of a million numbers");
        assert_eq!(large.kind(), ErrorKind::TooLarge);
    }
}
