/// The most bytes of a type tag.
pub(super) const MAX_TYPE_TAG: usize = 255;

/// The name of a type without the paths of its modules, so that moving a type to another module changes nothing:
/// `alloc::vec::Vec<app::model::Account>` becomes `Vec<Account>`.
///
/// The names are the compiler's (`std::any::type_name`), which does not promise them for ever; `type_tag` on the
/// builder pins one.
pub(super) fn type_tag<T: ?Sized>() -> String {
    let full = std::any::type_name::<T>();
    let mut tag = String::with_capacity(full.len());
    let mut path_start = 0;
    let mut rest = full.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c == ':' && full[at..].starts_with("::") {
            rest.next();
            tag.truncate(path_start);
        } else {
            tag.push(c);
            if !(c.is_alphanumeric() || c == '_') {
                path_start = tag.len();
            }
        }
    }
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
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A tag has no module paths, and at most 255 bytes.
    #[test]
    fn leaves_out_module_paths() {
        assert_eq!(type_tag::<i64>(), "i64");
        assert_eq!(type_tag::<Vec<String>>(), "Vec<String>");
        assert_eq!(
            type_tag::<(HashMap<String, Option<u8>>, [u8; 4])>().replace(", RandomState", ""),
            "(HashMap<String, Option<u8>>, [u8; 4])"
        );
        type Wide = (HashMap<String, Option<Vec<String>>>, HashMap<String, Option<Vec<String>>>);
        type Wider = (Wide, Wide, Wide, Wide);
        assert!(type_tag::<(Wider, Wider)>().len() <= MAX_TYPE_TAG);
        assert_ne!(type_tag::<(Wider, Wider)>(), type_tag::<(Wider, Wider, u8)>());
    }
}
