use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};

use futures_util::future::join_all;

use super::found::AT_ONCE;
use super::look::Look;
use super::report::SweepReport;
use crate::backend::page::Walk;
use crate::backend::{Kind, Store};
use crate::engine::client::Engine;
use crate::error::{ErrorKind, Result};
use crate::protocol::{Entry, Floor, Key, Realm, Version};

/// The versions of one container that a sweep may delete unless the record points at them.
struct Old {
    key: Key,
    versions: Vec<Version>,
    /// The container holds nothing else.
    all: bool,
}

impl Engine {
    /// The stores to be swept: all that are attached.
    pub(super) fn stores_of(&self, look: &Look, report: &mut SweepReport) -> VecDeque<Arc<dyn Store>> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        for realm in look.realms.iter().filter(|realm| !stores.contains_key(realm)) {
            report.skip(store_name(*realm), "it is not attached to this client");
        }
        let mut sorted: Vec<&Arc<dyn Store>> = stores.values().collect();
        sorted.sort_unstable_by_key(|store| store.realm());
        sorted.into_iter().cloned().collect()
    }

    /// The next keys under which a store holds values; none at the end, or if the store does not answer.
    pub(super) async fn next_values(&self, store: &dyn Store, keys: &mut Walk, report: &mut SweepReport) -> Vec<Key> {
        let root = Key::root();
        let page = async |after: Option<Key>| {
            self.until(self.deadline(), || store.keys(Kind::Ref, &root, after.as_ref())).await
        };
        keys.next(AT_ONCE, page).await.unwrap_or_else(|error| {
            report.skip(store_name(store.realm()), error);
            Vec::new()
        })
    }

    /// Deletes the garbage in some containers: values that no record points at or will point at. They were written by
    /// clients of this coordinator under an earlier epoch, and the records are read after the values were found.
    /// `false`: the store or the coordinator does not answer.
    ///
    /// # Cancel safety
    /// Safe: it deletes only garbage.
    pub(super) async fn sweep_some(&self, store: &dyn Store, keys: &[Key], report: &mut SweepReport) -> bool {
        let realm = store.realm();
        let found = join_all(keys.iter().map(|key| self.old_versions(store, key, report.epoch))).await;
        let mut old = Vec::new();
        for (key, found) in keys.iter().zip(found) {
            match found {
                Ok(found) => old.extend(found.filter(|old| !old.versions.is_empty())),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    report.skip(store_name(realm), error);
                    return false;
                }
                Err(error) => report.skip(key, error),
            }
        }
        if old.is_empty() {
            return true;
        }
        let keys: Vec<Key> = old.iter().map(|old| old.key.clone()).chain([Floor::key()]).collect();
        let mut entries = match self.entries_of(&keys).await {
            Ok(entries) => entries,
            Err(error) => {
                report.skip(store_name(realm), error);
                return false;
            }
        };
        let floor = entries.pop().and_then(|floor| Floor::from_entry(floor.ok()?.as_ref()).ok());
        let raised = floor.is_some_and(|floor| floor.epoch >= report.epoch);
        if !raised {
            // A coordinator that loses its last commits in a failover may lose a raise.
            report.skip(store_name(realm), "the floor is not raised any more: the coordinator has lost commits");
            return false;
        }
        for (mut old, entry) in old.into_iter().zip(entries) {
            let pointed: BTreeSet<(Realm, Version)> = match entry {
                Ok(entry) => entry.iter().flat_map(|entry: &Entry| entry.record.stored()).collect(),
                // It is not known what this record points at.
                Err(error) => {
                    report.skip(&old.key, error);
                    continue;
                }
            };
            let before = old.versions.len();
            old.versions.retain(|version| !pointed.contains(&(realm, *version)));
            old.all &= old.versions.len() == before;
            if !self.delete(store, old, report).await {
                return false;
            }
        }
        true
    }

    async fn old_versions(&self, store: &dyn Store, key: &Key, epoch: u64) -> Result<Option<Old>> {
        let container = store.versioned_state(key);
        let mut versions = self.until(self.deadline(), || container.versions()).await?;
        let coordinator = self.capabilities.realm;
        let count = versions.len();
        versions.retain(|version| version.epoch < epoch && version.client.is_of(coordinator));
        let all = versions.len() == count;
        Ok((count > 0).then(|| Old { key: key.clone(), versions, all }))
    }

    async fn delete(&self, store: &dyn Store, old: Old, report: &mut SweepReport) -> bool {
        let Old { key, versions, all } = old;
        let container = store.versioned_state(&key);
        let (container, container_key) = (&*container, &key);
        let deletes = versions.iter().map(|version| async move {
            self.cache.forget(container_key, version);
            self.until(self.deadline(), || container.delete_state_at(version)).await
        });
        let mut answers = true;
        let mut deleted = 0;
        for done in join_all(deletes).await {
            match done {
                Ok(()) => deleted += 1,
                Err(error) => {
                    answers &= error.kind() != ErrorKind::Unavailable;
                    report.skip(&key, error);
                }
            }
        }
        if deleted > 0 {
            *report.values.entry(store.realm()).or_default() += deleted;
            report.containers += u64::from(all && deleted == versions.len() as u64);
        }
        answers
    }
}

fn store_name(realm: Realm) -> String {
    format!("the store of realm {realm}")
}
