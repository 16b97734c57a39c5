use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{
    self, CasOutcome, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer, Watcher,
};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Error, ErrorKind, Key, Result, Revision};
use bytes::Bytes;
use tokio::sync::Notify;

use super::common::{Common, lock};
use super::fault::Fault;
use super::watch::AtomWatch;

pub(super) fn wrap(inner: Arc<avout_local::Store>, common: Arc<Common>) -> Arc<dyn backend::Store> {
    let realm = if common.is(Fault::NewRealmForEachClient) { Realm::random() } else { backend::Store::realm(&*inner) };
    let own = Arc::new(Own { notify: Arc::default(), written: Mutex::default() });
    Arc::new(Store { inner, common, own, realm })
}

/// What one client keeps for itself.
struct Own {
    notify: Arc<Notify>,
    written: Mutex<HashSet<u128>>,
}

struct Store {
    inner: Arc<dyn backend::Store>,
    common: Arc<Common>,
    own: Arc<Own>,
    realm: Realm,
}

impl Store {
    fn container(&self, key: &Key) -> Arc<Container> {
        let real = self.common.key(key);
        Arc::new(Container {
            atom: self.inner.state(&real),
            values: self.inner.versioned_state(&real),
            store: Arc::clone(&self.inner),
            key: real,
            common: Arc::clone(&self.common),
            own: Arc::clone(&self.own),
            seen: Mutex::default(),
        })
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        let mut capabilities = self.inner.capabilities();
        if self.common.is(Fault::LimitNotKept) {
            capabilities.max_value = 1000;
        }
        capabilities
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        self.container(key)
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        self.container(key)
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let mut all = self.inner.all_keys(kind, &Key::root()).await?;
        match self.common.fault {
            Fault::KindsMixed => {
                all.extend(self.inner.all_keys(Kind::Atom, &Key::root()).await?);
                all.extend(self.inner.all_keys(Kind::Ref, &Key::root()).await?);
            }
            Fault::ListsEmptied => all.extend(lock(&self.common.revisions).keys().cloned()),
            _ => {}
        }
        all.retain(|key| match self.common.fault {
            Fault::ListedByText => key.as_str().starts_with(prefix.as_str()),
            _ => key.is_under(prefix),
        });
        all.sort_unstable();
        all.dedup();
        if self.common.is(Fault::ListedBackwards) {
            all.reverse();
        }
        Ok(self.common.page(all, after))
    }
}

struct Container {
    atom: Arc<dyn StateContainer>,
    values: Arc<dyn VersionedStateContainer>,
    store: Arc<dyn backend::Store>,
    key: Key,
    common: Arc<Common>,
    own: Arc<Own>,
    seen: Mutex<Option<(State, Revision)>>,
}

impl Container {
    fn is(&self, fault: Fault) -> bool {
        self.common.is(fault)
    }

    fn stored(&self, value: State) -> State {
        match value {
            State::Bytes(bytes) if self.is(Fault::StatesCut) && bytes.len() > 1 << 20 => {
                State::Bytes(bytes.slice(..1 << 20))
            }
            State::Shared(_) if self.is(Fault::SharedValuesCopied) => State::Shared(Arc::new("a copy".to_owned())),
            value => value,
        }
    }

    /// The number of a write, where numbers begin again with each life of the container.
    fn written(&self, revision: Revision) -> Revision {
        lock(&self.own.written).insert(revision.as_number().expect("the memory's revisions are numbers"));
        self.hint();
        if !self.is(Fault::StateRevisionsBeginAgain) {
            return revision;
        }
        let mut revisions = lock(&self.common.revisions);
        let count = revisions.entry(self.key.clone()).or_default();
        *count += 1;
        Revision::number(*count)
    }

    fn hint(&self) {
        self.own.notify.notify_one();
        self.common.atoms.notify_one();
    }

    fn lost(&self) -> Revision {
        Revision::number(u128::MAX - u128::from(self.common.count.load(std::sync::atomic::Ordering::SeqCst)))
    }

    async fn current(&self) -> Result<Option<(State, Revision)>> {
        let mut found = self.atom.state().await?;
        if let Some((_, revision)) = &mut found
            && self.is(Fault::StateRevisionsBeginAgain)
        {
            *revision = Revision::number(lock(&self.common.revisions).get(&self.key).copied().unwrap_or_default());
        }
        if found.is_none()
            && self.is(Fault::KindsMixed)
            && let Some(version) = self.values.versions().await?.first()
        {
            let value = self.values.state_at(version).await?;
            return Ok(value.map(|value| (value, Revision::number(0))));
        }
        Ok(found)
    }

    async fn set(&self, value: State) -> Result<Revision> {
        let value = self.stored(value);
        if self.is(Fault::AtomHintEarly) {
            self.hint();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.atom.set_state(value).await.map(|revision| self.written(revision))
    }
}

#[async_trait]
impl StateContainer for Container {
    async fn init(&self) -> Result<()> {
        match self.common.fault {
            Fault::InitClobbers => self.atom.set_state(State::Bytes(Bytes::new())).await.map(drop),
            Fault::ListsEmptied => {
                lock(&self.common.revisions).insert(self.key.clone(), 0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn destroy(&self) -> Result<()> {
        match self.common.fault {
            Fault::DestroyIgnored => return Ok(()),
            Fault::DestroyRefusesTwice if self.atom.state().await?.is_none() => {
                return Err(Error::new(ErrorKind::NotFound, "it is not there"));
            }
            Fault::KindsMixed => self.values.destroy().await?,
            _ => drop(lock(&self.common.revisions).remove(&self.key)),
        }
        self.atom.destroy().await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        if self.is(Fault::StaleRead) && self.common.each(2) {
            let seen = lock(&self.seen).clone();
            if seen.is_some() {
                return Ok(seen);
            }
        }
        let found = self.current().await?;
        lock(&self.seen).clone_from(&found);
        Ok(found)
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        if self.is(Fault::LostSet) && self.common.each(2) {
            return Ok(self.lost());
        }
        self.set(value).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let fault = self.common.fault;
        if fault == Fault::LostCas && self.common.each(5) {
            return Ok(CasOutcome::Set(self.lost()));
        }
        if fault == Fault::CasIgnoresRevision && expected.is_some()
            || fault == Fault::CasIgnoresAbsence && expected.is_none()
        {
            return self.set(value).await.map(CasOutcome::Set);
        }
        if fault == Fault::StateRevisionsBeginAgain {
            let found = self.current().await?;
            if found.as_ref().map(|(_, revision)| revision) != expected.as_ref() {
                return Ok(CasOutcome::Stale(found));
            }
            return self.set(value).await.map(CasOutcome::Set);
        }
        if let Some(number) = expected.as_ref().and_then(Revision::as_number)
            && fault == Fault::CasRefusesOthersRevision
            && !lock(&self.own.written).contains(&number)
        {
            return Ok(CasOutcome::Stale(self.current().await?));
        }
        Ok(match self.atom.compare_and_set_state(expected, self.stored(value.clone())).await? {
            CasOutcome::Set(revision) => CasOutcome::Set(self.written(revision)),
            CasOutcome::Stale(_) if fault == Fault::ConflictSwallowed => CasOutcome::Set(self.lost()),
            CasOutcome::Stale(found) => {
                if fault == Fault::StaleCasWrites {
                    self.set(value).await?;
                }
                CasOutcome::Stale(found.filter(|_| fault != Fault::StaleCasForgetsWhatItFound))
            }
        })
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let inner = match self.common.fault {
            Fault::AtomWatchBeginsLate => None,
            _ => Some(self.atom.watch().await?),
        };
        let (common, atom) = (Arc::clone(&self.common), Arc::clone(&self.atom));
        Ok(Box::new(AtomWatch { common, own: Arc::clone(&self.own.notify), atom, inner }))
    }
}

#[async_trait]
impl VersionedStateContainer for Container {
    async fn init(&self) -> Result<()> {
        if self.is(Fault::InitClobbers) { self.values.destroy().await } else { StateContainer::init(self).await }
    }

    async fn destroy(&self) -> Result<()> {
        match self.common.fault {
            Fault::DestroyIgnored => return Ok(()),
            Fault::DestroyRefusesTwice if self.values.versions().await?.is_empty() => {
                return Err(Error::new(ErrorKind::NotFound, "it is not there"));
            }
            Fault::DestroyTakesThoseUnder => {
                for key in self.store.all_keys(Kind::Ref, &self.key).await? {
                    self.store.versioned_state(&key).destroy().await?;
                }
            }
            _ => {}
        }
        self.values.destroy().await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.values.state_at(&self.version(version)).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        let version = self.version(version);
        match self.common.fault {
            Fault::LostValue if self.common.each(5) => return Ok(()),
            Fault::OverwrittenValue | Fault::VersionReused => self.values.delete_state_at(&version).await?,
            Fault::RepeatRefused if self.values.state_at(&version).await?.is_some() => {
                return Err(Error::new(ErrorKind::AlreadyExists, "it was written"));
            }
            _ => {}
        }
        self.values.set_state_at(&version, self.stored(value)).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        match self.common.fault {
            Fault::DeleteIgnored => Ok(()),
            Fault::DeleteTakesAll => self.values.destroy().await,
            _ => self.values.delete_state_at(&self.version(version)).await,
        }
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let mut versions = self.values.versions().await?;
        if self.is(Fault::VersionsUnordered) {
            versions.reverse();
        }
        Ok(versions)
    }
}

impl Container {
    fn version(&self, version: &Version) -> Version {
        match self.common.fault {
            Fault::VersionPartIgnored => Version { slot: 0, ..*version },
            // One name for all values that a client writes.
            Fault::VersionReused => Version { slot: 0, sequence: 0, ..*version },
            _ => *version,
        }
    }
}
