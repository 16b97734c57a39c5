use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use avout_core::protocol::Realm;

use crate::coordinator::records::Records;
use crate::store::values::Values;

/// All that one namespace holds.
pub(crate) struct Namespace {
    pub(crate) records: Records,
    pub(crate) values: Values,
}

impl Namespace {
    /// One that nobody else can reach.
    pub(crate) fn new() -> Arc<Self> {
        let realm = Realm::random();
        Arc::new(Self { records: Records::new(realm), values: Values::new(realm) })
    }

    /// The one of this name, if anybody has it.
    pub(crate) fn found(name: &str) -> Option<Arc<Self>> {
        NAMED.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(Weak::upgrade)
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = named.get(name).and_then(Weak::upgrade) {
            return namespace;
        }
        named.retain(|_, namespace| namespace.strong_count() > 0);
        let namespace = Self::new();
        named.insert(name.into(), Arc::downgrade(&namespace));
        namespace
    }
}

/// The namespaces that have a name. They are held by their clients, not from here.
static NAMED: LazyLock<Mutex<HashMap<Box<str>, Weak<Namespace>>>> = LazyLock::new(Mutex::default);
