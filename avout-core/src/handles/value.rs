use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Shared;

/// A type that refs and atoms can hold: any that can be cloned and shared among threads.
///
/// The [`Codec`](crate::Codec) decides how it is stored; with the default one it must also be serde's `Serialize` and
/// `DeserializeOwned`.
pub trait Value: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Value for T {}

/// The value, whose type was checked when it was decoded.
pub(super) fn typed<T: Value>(value: Shared) -> Result<Arc<T>> {
    value.downcast().map_err(|_| {
        let own = std::any::type_name::<T>();
        let message =
            format!("the value here is of another Rust type than {own}, with which its ref or atom was opened");
        Error::new(ErrorKind::Mismatch, message)
    })
}

/// The value itself: copied if it is shared.
pub(super) fn cloned<T: Value>(value: Shared) -> Result<T> {
    match value.downcast_ref::<T>() {
        // Most often it is shared. Asking whether it is would cost a write.
        Some(shared) if Arc::strong_count(&value) > 1 => Ok(shared.clone()),
        _ => typed(value).map(Arc::unwrap_or_clone),
    }
}
