//! Type tags: what is stored beside a value, so that a value of something else is not taken for one of this type.
//!
//! A tag is a type's name without the paths of its modules, with serde's names for structs and enums. Two tags agree if values of
//! one can be read as the other: integers of any width, sequences and sets of any kind, maps of any kind, and whatever lies in an
//! `Option`, a `Box` or another type that adds nothing. Structs and enums agree by their names.

mod name;
mod probe;
mod shape;

use serde::de::DeserializeOwned;

use name::Name;
use shape::Shape;

/// The most bytes of a type tag.
pub(super) const MAX_TYPE_TAG: usize = 255;

/// The tag of a type by its Rust name. The names are the compiler's (`std::any::type_name`), which does not promise them for ever;
/// `type_tag` on the builder pins one.
pub(super) fn by_rust_name<T: ?Sized>() -> Vec<String> {
    let full = std::any::type_name::<T>();
    let mut tags = vec![bounded(Name::parse(full).to_string())];
    add(&mut tags, bounded(name::without_paths(full)));
    tags
}

/// The tags of a type that serde can read, the one to be written first. `readable`: as text.
pub(super) fn by_serde<T: DeserializeOwned>(readable: bool) -> Vec<String> {
    let full = std::any::type_name::<T>();
    let name = Name::parse(full);
    let seen = probe::probe::<T>(readable);
    let mut tags = vec![bounded(name.seen_as(&seen, true).to_string())];
    add(&mut tags, bounded(name.seen_as(&seen, false).to_string()));
    // As earlier versions named it.
    add(&mut tags, bounded(name::without_paths(full)));
    tags
}

/// Whether a value with the tag `found` can be read as one of a type with the tag `own`.
pub(super) fn agree(own: &str, found: &str) -> bool {
    own == found || Shape::of(&Name::parse(own)).agrees(&Shape::of(&Name::parse(found)))
}

fn add(tags: &mut Vec<String>, tag: String) {
    if !tags.contains(&tag) {
        tags.push(tag);
    }
}

/// A tag that is too long is cut, and gets a checksum of the whole.
fn bounded(mut tag: String) -> String {
    if tag.len() > MAX_TYPE_TAG {
        let checksum = crc32fast::hash(tag.as_bytes());
        let mut end = MAX_TYPE_TAG - 9;
        while !tag.is_char_boundary(end) {
            end -= 1;
        }
        tag.truncate(end);
        tag.push_str(&format!("#{checksum:08x}"));
    }
    tag
}

#[cfg(test)]
mod tests;
