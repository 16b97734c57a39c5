use std::fmt;
use std::sync::Arc;

use avout_core::{Error, ErrorKind, Result};

use crate::namespace::Namespace;
use crate::{Coordinator, Store};

/// A client of a namespace in this process's memory.
///
/// A clone is another client of the same namespace.
#[derive(Clone)]
pub struct Local {
    namespace: Arc<Namespace>,
    readonly: bool,
}

impl Local {
    /// A client of a new namespace, which nobody else can reach but through its clones.
    pub fn new() -> Self {
        Self { namespace: Namespace::new(), readonly: false }
    }

    /// A client of the namespace of this name, which is the same one all over the process for as long as anybody
    /// has a client of it. After that the name stands for a new one.
    pub fn named(name: &str) -> Self {
        Self { namespace: Namespace::named(name), readonly: false }
    }

    /// A client that only reads, of the namespace of this name, which others have.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): nobody in the process has one. None is made.
    pub fn reading(name: &str) -> Result<Self> {
        match Namespace::found(name) {
            Some(namespace) => Ok(Self { namespace, readonly: true }),
            None => {
                Err(Error::new(ErrorKind::NotFound, "there is no namespace of this name, and readonly=true makes none"))
            }
        }
    }

    /// The namespace's coordinator.
    pub fn coordinator(&self) -> Arc<Coordinator> {
        Arc::new(Coordinator::new(Arc::clone(&self.namespace), self.readonly))
    }

    /// The namespace's store.
    pub fn store(&self) -> Arc<Store> {
        Arc::new(Store::new(Arc::clone(&self.namespace), self.readonly))
    }
}

impl Default for Local {
    /// The same as [`Local::new`].
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("realm", &self.namespace.values.realm()).finish()
    }
}

#[cfg(test)]
mod tests {
    use avout_core::backend::Store as _;

    use super::*;

    /// A name is the same namespace for as long as a client or what it gave lives, and then a new one.
    #[test]
    fn a_name_is_one_namespace() {
        let store = Local::named("a_name_is_one_namespace").store();
        assert_eq!(Local::named("a_name_is_one_namespace").store().realm(), store.realm());
        assert_ne!(Local::named("another name").store().realm(), store.realm());
        assert_ne!(Local::new().store().realm(), store.realm());
        let realm = store.realm();
        drop(store);
        assert_ne!(Local::named("a_name_is_one_namespace").store().realm(), realm);
    }
}
