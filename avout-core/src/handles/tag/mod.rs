//! Type tags: names of types that are stored beside values, so that a value is not read as one of an unrelated type.
//!
//! A tag is a type's name without the paths of its modules, with serde's names for structs and enums. Two tags agree if
//! values of one can be read as the other: integers of any width, sequences and sets of any kind, maps of any kind, and
//! the content of an `Option`, a `Box` or another type that adds nothing. Structs and enums agree by their names.

mod name;
mod probe;
mod seen;
mod shape;

use serde::de::DeserializeOwned;

use name::Name;
use shape::Shape;

/// The prefix of a tag that agrees with itself only.
const EXACTLY: &str = "=";

/// The longest type tag, in bytes.
pub(super) const MAX_TYPE_TAG: usize = 255;

/// The tag of a type by its Rust name. The compiler does not promise to keep its names (`std::any::type_name`) for
/// ever; `type_tag` on the builder pins one.
pub(super) fn by_rust_name<T: ?Sized>() -> Vec<String> {
    let full = std::any::type_name::<T>();
    let mut tags = vec![bounded(Name::parse(full).to_string())];
    add(&mut tags, bounded(name::without_paths(full)));
    tags
}

/// The tags of a type that serde can read; the first is written. `readable`: the type describes itself as to a text
/// format.
pub(super) fn by_serde<T: DeserializeOwned>(readable: bool) -> Vec<String> {
    let full = std::any::type_name::<T>();
    let name = Name::parse(full);
    let seen = probe::probe::<T>(readable);
    let mut tags = vec![bounded(name.seen_as(&seen, true).to_string())];
    add(&mut tags, bounded(name.seen_as(&seen, false).to_string()));
    // The name of earlier versions. If it is also the name of another type it has to match exactly.
    let exactly = if tags[0].contains(name::OWN) { EXACTLY } else { "" };
    add(&mut tags, bounded(format!("{exactly}{}", name::without_paths(full))));
    tags
}

/// Whether a value with the tag `found` can be read as one of a type with the tag `own`. A tag that an application gave
/// with the path of a module agrees with itself only.
pub(super) fn agree(own: &str, found: &str) -> bool {
    if let Some(own) = own.strip_prefix(EXACTLY) {
        return own == found;
    }
    let is_path = |tag: &str| tag.contains("::");
    if is_path(own) || is_path(found) || own.contains('{') {
        return own == found;
    }
    own == found || Shape::of(&Name::parse(own)).agrees(&Shape::of(&Name::parse(found)))
}

fn add(tags: &mut Vec<String>, tag: String) {
    if !tags.contains(&tag) {
        tags.push(tag);
    }
}

/// Cuts a tag that is too long, and adds a checksum of the whole.
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
