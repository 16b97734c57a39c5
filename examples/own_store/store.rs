//! A store of one's own: all that it takes to keep refs and atoms in something new, here a folder of files.
//!
//! It blocks its thread while the file system works; a store that is farther away would await the answers.

use std::{collections::BTreeSet, future::ready, sync::Arc};

use crate::folder::{Failed, Folder, Tagged};
use avout::backend::{CasOutcome, Kind, Page, Polling, StateContainer, Store, StoreCapabilities};
use avout::backend::{VersionedStateContainer, Watcher};
use avout::{Error, ErrorKind, Key, Realm, Result, Revision, Version, protocol::State};

pub(crate) struct Files(pub(crate) Folder);

/// An atom's value has this name in the folder, and the names of a ref's values begin with it.
struct Values(Folder, String);

// Methods of one expression are on one line. No key has a line feed in it, so names are parted by one.
#[rustfmt::skip]
#[async_trait::async_trait]
impl Store for Files {
    fn realm(&self) -> Realm { Realm::new(self.0.id) }
    fn capabilities(&self) -> StoreCapabilities { StoreCapabilities::default() }
    fn state(&self, key: &Key) -> Arc<dyn StateContainer> { Arc::new(Values(self.0.clone(), format!("Atom{key}\n"))) }
    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values(self.0.clone(), format!("Ref{key}\n")))
    }
    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let kind = format!("{kind:?}");
        let names = self.0.names(&kind)?;
        let keys = names.iter().filter_map(|name| Key::from_stored(name.strip_prefix(&kind)?.split_once('\n')?.0).ok());
        let keys: BTreeSet<Key> = keys.filter(|key| key.is_under(prefix)).collect();
        Ok(Page::rest(keys.into_iter().collect(), after))
    }
}

#[rustfmt::skip]
#[async_trait::async_trait]
impl StateContainer for Values {
    async fn init(&self) -> Result<()> { Ok(()) }
    async fn destroy(&self) -> Result<()> { Ok(self.0.remove(&self.1)?) }
    async fn state(&self) -> Result<Option<(State, Revision)>> { Ok(self.0.get(&self.1)?.map(state)) }
    async fn set_state(&self, value: State) -> Result<Revision> {
        Ok(Revision::number(self.0.put_if(&self.1, bytes(&value), |_| true)?.expect("a write without a condition")))
    }
    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let put = self.0.put_if(&self.1, bytes(&value), |tag| tag.map(Revision::number) == expected)?;
        Ok(put.map_or_else(|found| CasOutcome::Stale(found.map(state)), |tag| CasOutcome::Set(Revision::number(tag))))
    }
    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let (folder, name) = (self.0.clone(), self.1.clone());
        let look = move || ready(folder.get(&name).map(|it| it.map(|(tag, _)| Revision::number(tag))).map_err(Error::from));
        Ok(Box::new(Polling::begin(look).await?))
    }
}

#[rustfmt::skip]
#[async_trait::async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> { Ok(()) }
    async fn destroy(&self) -> Result<()> { Ok(self.0.names(&self.1)?.iter().try_for_each(|it| self.0.remove(it))?) }
    async fn state_at(&self, at: &Version) -> Result<Option<State>> {
        Ok(self.0.get(&format!("{}{at}", self.1))?.map(|found| state(found).0))
    }
    async fn set_state_at(&self, at: &Version, value: State) -> Result<()> {
        Ok(self.0.put_if(&format!("{}{at}", self.1), bytes(&value), |tag| tag.is_none()).map(drop)?)
    }
    async fn delete_state_at(&self, at: &Version) -> Result<()> { Ok(self.0.remove(&format!("{}{at}", self.1))?) }
    async fn versions(&self) -> Result<Vec<Version>> {
        self.0.names(&self.1)?.iter().map(|name| name[self.1.len()..].parse()).collect()
    }
}

fn state((tag, value): Tagged) -> (State, Revision) {
    (State::Bytes(value.into()), Revision::number(tag))
}

fn bytes(state: &State) -> &[u8] {
    let State::Bytes(bytes) = state else { unreachable!("a store outside the process is given bytes") };
    bytes
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        Self::new(ErrorKind::Unavailable, "the file system refused").with_source(failed)
    }
}
