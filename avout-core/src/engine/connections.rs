//! Whether a client's stores are connected, in the order in which that changed.

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::select_all;

use crate::backend::Connection;
use crate::protocol::Realm;

/// What a store is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It orders the commits. It may be the client's home store as well.
    Coordinator,
    /// It holds values, and is the one of this realm.
    Store(Realm),
}

/// The connections of all stores of a client.
#[derive(Default)]
pub(crate) struct ConnectionLog(RwLock<Vec<(Role, Arc<Connection>)>>);

/// What a listener was told of: how many changes of each.
#[derive(Default)]
pub(crate) struct Heard(Vec<u64>);

impl ConnectionLog {
    /// Takes in a store's connection. Several stores may have one, whose role is the first's.
    pub(super) fn add(&self, role: Role, connection: Option<&Arc<Connection>>) {
        let Some(connection) = connection else { return };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().any(|(_, known)| Arc::ptr_eq(known, connection)) {
            all.push((role, Arc::clone(connection)));
        }
    }

    /// Where a listener stands that is told of what changes from now on.
    pub(crate) fn now(&self) -> Heard {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Heard(all.iter().map(|(_, connection)| connection.turns()).collect())
    }

    /// The next change that a listener was not told of, and whether that store is connected by it.
    pub(crate) fn next(&self, heard: &mut Heard) -> Option<(Role, bool)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (at, (role, connection)) in all.iter().enumerate() {
            if heard.0.len() == at {
                // It was attached meanwhile, and is connected already.
                heard.0.push(connection.turns());
            }
            if let Some((number, up)) = connection.after(heard.0[at]) {
                heard.0[at] = number;
                return Some((*role, up));
            }
        }
        None
    }

    /// Waits until there is a change that a listener was not told of; for ever where no store tells of its connections.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub(crate) async fn changed(&self, heard: &Heard) {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if all.is_empty() {
            return std::future::pending().await;
        }
        let told = |at: usize, connection: &Connection| heard.0.get(at).copied().unwrap_or_else(|| connection.turns());
        select_all(all.iter().enumerate().map(|(at, (_, connection))| {
            let told = told(at, connection);
            Box::pin(connection.changed(told))
        }))
        .await;
    }
}
