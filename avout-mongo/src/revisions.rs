use avout_core::protocol::{Point, Revision};
use mongodb::bson::{Binary, Document};

use crate::wire::bson::binary;

/// A revision: a bound for the point of the commit that made it, which nobody knows before, and a random number that
/// makes it unique.
pub(crate) fn revision(bound: Point) -> Revision {
    Revision::number(u128::from(bound.number()) << 64 | u128::from(rand::random::<u64>()))
}

/// The bound in a revision.
pub(crate) fn bound(revision: &Revision) -> Option<Point> {
    let number = revision.as_number()? >> 64;
    u64::try_from(number).ok().map(Point::new)
}

/// A revision as bytes. One that is not ours gives some that no document has.
pub(crate) fn revision_bytes(revision: &Revision) -> Binary {
    let bytes = revision.as_number().map(|number| number.to_be_bytes().to_vec()).unwrap_or_default();
    binary(bytes)
}

/// A revision that was read.
pub(crate) fn revision_of(document: &Document) -> Option<Revision> {
    let bytes = document.get_binary_generic("r").ok()?;
    Some(Revision::number(u128::from_be_bytes(bytes.as_slice().try_into().ok()?)))
}
