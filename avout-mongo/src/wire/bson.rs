//! Values as MongoDB has them.

use avout_core::protocol::Point;
use avout_core::{Error, ErrorKind};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, RawDocumentBuf, Timestamp, rawdoc};

/// MongoDB's position in its log, as a point.
pub(crate) fn point(time: Timestamp) -> Point {
    Point::new(u64::from(time.time) << 32 | u64::from(time.increment))
}

/// A point that was made from one, as a position in MongoDB's log.
pub(crate) fn timestamp(point: Point) -> Timestamp {
    let number = point.number();
    Timestamp { time: (number >> 32) as u32, increment: number as u32 }
}

pub(crate) fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

/// What every write waits for.
pub(crate) fn majority() -> RawDocumentBuf {
    rawdoc! { "w": "majority", "j": true }
}

pub(crate) fn strange() -> Error {
    Error::new(ErrorKind::Corrupt, "the reply is not what a MongoDB server answers")
}
