use std::collections::btree_map::Entry;
use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{
    CasOutcome, Kind, Page, Polling, StateContainer, Store, StoreCapabilities, VersionedStateContainer, Watcher,
};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Error, ErrorKind, Key, Result, Revision};

use crate::ahead;
use crate::link::{Link, Reply};
use crate::values::Values;

/// One client's view of a simulated store.
pub(crate) struct SimStore {
    values: Arc<Values>,
    link: Link,
}

impl SimStore {
    pub(crate) fn new(values: Arc<Values>, link: Link) -> Self {
        Self { values, link }
    }

    fn container(&self, key: &Key) -> Arc<Container> {
        Arc::new(Container { values: Arc::clone(&self.values), link: self.link.clone(), key: key.clone() })
    }
}

#[async_trait]
impl Store for SimStore {
    fn realm(&self) -> Realm {
        self.values.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::default()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        self.container(key)
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        self.container(key)
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let list = move |values: &Values, prefix: &Key| -> Vec<Key> {
            let held = values.held();
            match kind {
                Kind::Atom => held.atoms.keys().filter(|key| key.is_under(prefix)).cloned().collect(),
                Kind::Ref => held.refs.keys().filter(|key| key.is_under(prefix)).cloned().collect(),
            }
        };
        Ok(Page::rest(self.container(prefix).ask("list what is under", list).await?, after))
    }
}

#[derive(Clone)]
struct Container {
    values: Arc<Values>,
    link: Link,
    key: Key,
}

impl Container {
    /// Sends a request that may be repeated.
    async fn ask<T, F>(&self, what: &'static str, apply: F) -> Result<T>
    where
        F: Fn(&Values, &Key) -> T + Clone + Send + 'static,
    {
        match self.send(what, apply).await {
            Reply::Done(done) => Ok(done),
            Reply::Refused | Reply::Lost => Err(Error::new(ErrorKind::Unavailable, "no answer, by plan")),
        }
    }

    /// Sends a request that takes effect each time it is carried out.
    async fn write<T, F>(&self, what: &'static str, apply: F) -> Result<T>
    where
        F: Fn(&Values, &Key) -> T + Clone + Send + 'static,
    {
        match self.send(what, apply).await {
            Reply::Done(done) => Ok(done),
            Reply::Refused => Err(Error::new(ErrorKind::Unavailable, "refused, by plan")),
            Reply::Lost => Err(Error::new(ErrorKind::OutcomeUnknown, "the reply was lost, by plan")),
        }
    }

    async fn send<T, F>(&self, what: &'static str, apply: F) -> Reply<T>
    where
        F: Fn(&Values, &Key) -> T + Clone + Send + 'static,
    {
        let (values, key, link) = (Arc::clone(&self.values), self.key.clone(), self.link.clone());
        let apply = move || {
            link.tell(|| format!("{what} {key} in store {}", values.realm().number()));
            apply(&values, &key)
        };
        self.link.call(|| format!("{what} {}", self.key), apply).await
    }
}

#[async_trait]
impl StateContainer for Container {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let destroy = |values: &Values, key: &Key| drop(values.held().atoms.remove(key));
        self.write("destroy the atom", destroy).await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.ask("read the atom", |values, key| values.held().atoms.get(key).cloned()).await
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let set = move |values: &Values, key: &Key| values.set(key, None, value.clone());
        match self.write("write the atom", set).await? {
            CasOutcome::Set(revision) => Ok(revision),
            CasOutcome::Stale(_) => unreachable!("it expected nothing"),
        }
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let set = move |values: &Values, key: &Key| values.set(key, Some(expected.as_ref()), value.clone());
        self.write("compare and write the atom", set).await
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let container = self.clone();
        let look = move || {
            let container = container.clone();
            async move { Ok(container.state().await?.map(|(_, revision)| revision)) }
        };
        Ok(Box::new(Polling::begin(look).await?))
    }
}

#[async_trait]
impl VersionedStateContainer for Container {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.ask("destroy the values of", |values, key| drop(values.held().refs.remove(key))).await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let version = *version;
        let read = move |values: &Values, key: &Key| values.held().refs.get(key)?.get(&version).cloned();
        Ok(match self.ask("read a value of", read).await? {
            Some(State::Bytes(bytes)) if self.link.is_ahead() => Some(State::Bytes(ahead::value(&self.key, &bytes))),
            state => state,
        })
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        let (version, world) = (*version, self.link.world().clone());
        let set = move |values: &Values, key: &Key| {
            let mut held = values.held();
            let found = held.refs.entry(key.clone()).or_default().entry(version).or_insert_with(|| value.clone());
            if let (State::Bytes(found), State::Bytes(new)) = (&*found, &value)
                && found != new
            {
                world.violation(format!("version reused: two values of {key} have one name"));
            }
        };
        self.ask("write a value of", set).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        let version = *version;
        let delete = move |values: &Values, key: &Key| {
            let mut held = values.held();
            if let Entry::Occupied(mut values) = held.refs.entry(key.clone()) {
                values.get_mut().remove(&version);
                if values.get().is_empty() {
                    values.remove();
                }
            }
        };
        self.ask("delete a value of", delete).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let read = |values: &Values, key: &Key| {
            values.held().refs.get(key).map(|values| values.keys().copied().collect()).unwrap_or_default()
        };
        self.ask("list the values of", read).await
    }
}
