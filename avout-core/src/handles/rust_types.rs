//! The names of the Rust types of values that are kept in this process's memory as they are, where nothing else tells
//! the type.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use crate::protocol::Shared;

/// The types of all handles that this process has made.
static NAMES: LazyLock<RwLock<HashMap<TypeId, &'static str>>> = LazyLock::new(RwLock::default);

/// Takes note that a handle for values of this type is made.
pub(super) fn remember<T: 'static>() {
    let id = TypeId::of::<T>();
    let is_known = NAMES.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id);
    if !is_known {
        NAMES.write().unwrap_or_else(PoisonError::into_inner).insert(id, type_name::<T>());
    }
}

/// The full name of a value's type.
pub(super) fn name_of(value: &Shared) -> String {
    let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
    names.get(&(**value).type_id()).map_or_else(|| "of no handle in this process".to_owned(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The name is that of the value's type, rather than of its container.
    #[test]
    fn names_the_type_of_the_value() {
        remember::<Vec<u8>>();
        let value: Shared = Arc::new(vec![1_u8]);
        assert_eq!(name_of(&value), "alloc::vec::Vec<u8>");
    }
}
