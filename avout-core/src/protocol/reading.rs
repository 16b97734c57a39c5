use super::{Entry, Point};

/// What to do with entries that were just read for an attempt that has a read point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All were current at the read point: use them.
    Use,
    /// They are older than the read point, which moved meanwhile: read them again.
    Again,
    /// Some are newer than the read point: try to move it up, else take them from the history.
    Extend,
}

/// Classifies entries by the read point and by the point at which they were current together.
///
/// An absent key has no point of its own. It may have been there at the read point and been removed since, so it counts as newer
/// unless it was read at just that point.
pub fn classify<'a>(
    read_point: Point,
    current_at: Point,
    entries: impl IntoIterator<Item = Option<&'a Entry>>,
) -> Reading {
    if current_at < read_point {
        return Reading::Again;
    }
    let as_of_read_point = |entry: Option<&Entry>| match entry {
        Some(entry) => entry.point <= read_point,
        None => current_at == read_point,
    };
    if entries.into_iter().all(as_of_read_point) { Reading::Use } else { Reading::Extend }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::{Floor, Revision};

    fn entry(point: u64) -> Entry {
        let record = Arc::new(Floor { epoch: 0 }.to_record());
        Entry { revision: Revision::number(0), point: Point::new(point), record }
    }

    /// An entry is used only if it was current at the read point.
    #[test]
    fn uses_what_was_current_at_the_read_point() {
        let (old, new) = (entry(3), entry(7));
        let classify = |read, at, entries: &[Option<&Entry>]| {
            super::classify(Point::new(read), Point::new(at), entries.iter().copied())
        };
        assert_eq!(classify(5, 9, &[Some(&old)]), Reading::Use);
        assert_eq!(classify(5, 9, &[Some(&old), Some(&new)]), Reading::Extend);
        assert_eq!(classify(5, 4, &[Some(&old)]), Reading::Again);
        assert_eq!(classify(5, 9, &[None]), Reading::Extend);
        assert_eq!(classify(5, 5, &[None]), Reading::Use);
    }
}
