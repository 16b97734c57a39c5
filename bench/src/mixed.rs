//! One transaction over all stores, with ZooKeeper as the coordinator, which reads what it changes or does not, and beside it each
//! of the requests that it consists of, made by itself through the backends' traits: the read of all records, each store's
//! write of a value, the commit; and all of them one after the other.
//!
//! The parts use the client's own connections, and values, records and numbers of keys of the same sizes. They delete nothing; the
//! transaction has values deleted in the background that have left the history, and that is in its time.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout::backend::Store as ValueStore;
use avout::protocol::{Check, Commit, CommitOutcome, Floor, Put, State, Version};
use avout::{Coordinator, Key, Payload, Ref, Stm};
use futures_util::future::try_join_all;

use crate::env::Env;
use crate::library::{effort, new_url};
use crate::measure::{Failure, Meter, Run, tasks};
use crate::spec::{Spec, Store};
use crate::values::{Page, Sample, Small};

pub(crate) const SIZES: [usize; 2] = [16, 4 << 10];

/// The transaction that sets what it has not read.
pub(crate) const BLIND: &str = "avout, blind";

/// So many transactions fill the history of a ref.
const FILLED: usize = 10;

/// The transaction, as "avout" and as "avout, blind", and its parts.
pub(crate) fn contenders(env: &Rc<Env>, spec: Spec) -> Result<Vec<(&'static str, Run)>, Failure> {
    match spec.size {
        16 => of::<Small>(env, spec),
        _ => of::<Page>(env, spec),
    }
}

fn of<V: Sample>(env: &Rc<Env>, spec: Spec) -> Result<Vec<(&'static str, Run)>, Failure> {
    let stm = env.many.block_on(avout::connect(new_url(env, spec.store)?))?;
    let mut refs: Vec<Ref<V>> = Vec::new();
    let mut stores = Vec::new();
    for (n, store) in Store::ALL.into_iter().enumerate() {
        let name = match store {
            Store::Local => "write: local",
            Store::Sql => "write: sql",
            Store::Zk => "write: zk",
            Store::Redis => "write: redis",
            Store::Mongo => "write: mongo",
        };
        // ZooKeeper's too is another store than the client's own, whose small values go into the records.
        let opened = env.many.block_on(avout::open(new_url(env, store)?))?.store;
        let made = stm.create_ref(format!("/{n}"), V::of(spec.size)).in_store(&opened);
        refs.push(env.many.block_on(made)?);
        stores.push((name, opened));
    }
    let refs: Arc<[Ref<V>]> = refs.into();
    env.many.block_on(async {
        for _ in 0..FILLED {
            change(&stm, &refs).await?;
        }
        Ok::<_, Failure>(())
    })?;
    let parts = env.many.block_on(Parts::like(&stm, &refs, &stores))?;

    let mut runs: Vec<(&'static str, Run)> = Vec::new();
    for (name, reads) in [("avout", true), (BLIND, false)] {
        let (env, stm, refs) = (Rc::clone(env), stm.clone(), Arc::clone(&refs));
        let transaction = move |pace| {
            let before = stm.stats();
            let run = |_, mut meter: Meter| {
                let (stm, refs) = (stm.clone(), Arc::clone(&refs));
                async move {
                    let mut value = V::of(spec.size);
                    while meter.go_in_turn().await {
                        if reads {
                            change(&stm, &refs).await?;
                        } else {
                            value = value.bump();
                            replace(&stm, &refs, &value).await?;
                        }
                    }
                    Ok(meter)
                }
            };
            let mut round = env.many.block_on(tasks(1, pace, run))?;
            round.effort = effort(&before, &stm.stats());
            Ok(round)
        };
        runs.push((name, Box::new(transaction)));
    }
    let read = parts.clone();
    runs.push(("read", parts.run(env, move |meter| read.clone().read(meter))));
    for (n, (name, _)) in stores.iter().enumerate() {
        let write = parts.clone();
        runs.push((name, parts.run(env, move |meter| write.clone().write(n, meter))));
    }
    let writes = parts.clone();
    runs.push(("writes: all", parts.run(env, move |meter| writes.clone().write_all(meter))));
    let commit = parts.clone();
    runs.push(("commit", parts.run(env, move |meter| commit.clone().commit(meter))));
    let all = parts.clone();
    runs.push(("by hand", parts.run(env, move |meter| all.clone().one_after_the_other(meter))));
    Ok(runs)
}

/// One read, a value to each store, one commit.
async fn change<V: Sample>(stm: &Stm, refs: &[Ref<V>]) -> Result<(), Failure> {
    stm.dosync(async |tx| {
        for (r, value) in refs.iter().zip(tx.get_many(refs).await?) {
            tx.set(r, value.bump()).await?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// A value to each store, and one commit.
async fn replace<V: Sample>(stm: &Stm, refs: &[Ref<V>], value: &V) -> Result<(), Failure> {
    stm.dosync(async |tx| {
        for r in refs {
            tx.set(r, value.clone()).await?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// What the parts work with.
#[derive(Clone)]
struct Parts {
    coordinator: Arc<dyn Coordinator>,
    keys: Vec<Key>,
    /// What each store is sent, under which versions.
    values: Vec<(Arc<dyn ValueStore>, Key, Version, State)>,
    /// What a commit puts, the slot last: nobody else uses these keys.
    puts: Vec<Put>,
    floor: Check,
    sequence: Arc<AtomicU64>,
}

impl Parts {
    async fn like<V: Sample>(
        stm: &Stm,
        refs: &[Ref<V>],
        stores: &[(&'static str, Arc<dyn ValueStore>)],
    ) -> Result<Self, Failure> {
        let coordinator = stm.coordinator();
        let keys: Vec<Key> = refs.iter().map(|r| r.key().clone()).collect();
        let mut values = Vec::new();
        let mut puts = Vec::new();
        let snapshot = coordinator.read(&keys, None).await?;
        for ((key, entry), (_, store)) in keys.iter().zip(snapshot.entries).zip(stores) {
            let record = entry.ok_or("a ref is gone")?.record;
            let Payload::Stored { version, .. } = record.payload else {
                return Err("a value is not in its store".into());
            };
            let state = store.versioned_state(key).state_at(&version).await?.ok_or("a value is gone")?;
            values.push((Arc::clone(store), key.clone(), version, state));
            puts.push(Put { key: Key::new(format!("/part{key}"))?, revision: None, record });
        }
        let slots = coordinator.list_all(&Key::from_stored("/.avout/slots")?).await?;
        let slot = slots.first().ok_or("no slot")?;
        let read = coordinator.read(&[slot.clone(), Floor::key()], None).await?;
        let [slot, floor] = &read.entries[..] else { return Err("two entries".into()) };
        let record = Arc::clone(&slot.as_ref().ok_or("no slot")?.record);
        puts.push(Put { key: Key::new("/part/slot")?, revision: None, record });
        let revision = floor.as_ref().map(|floor| floor.revision.clone());
        let floor = Check { key: Floor::key(), revision };
        Ok(Self { coordinator, keys, values, puts, floor, sequence: Arc::new(AtomicU64::new(1 << 40)) })
    }

    fn run<Fut>(&self, env: &Rc<Env>, part: impl Fn(Meter) -> Fut + 'static) -> Run
    where
        Fut: Future<Output = Result<Meter, Failure>> + Send + 'static,
    {
        let env = Rc::clone(env);
        Box::new(move |pace| env.many.block_on(tasks(1, pace, |_, meter| part(meter))))
    }

    async fn read(self, mut meter: Meter) -> Result<Meter, Failure> {
        while meter.go_in_turn().await {
            std::hint::black_box(self.coordinator.read(&self.keys, None).await?);
        }
        Ok(meter)
    }

    async fn write(self, store: usize, mut meter: Meter) -> Result<Meter, Failure> {
        let (store, key, version, state) = &self.values[store];
        while meter.go_in_turn().await {
            let version = Version { sequence: self.sequence.fetch_add(1, Ordering::Relaxed), ..*version };
            store.versioned_state(key).set_state_at(&version, state.clone()).await?;
        }
        Ok(meter)
    }

    async fn write_all(self, mut meter: Meter) -> Result<Meter, Failure> {
        while meter.go_in_turn().await {
            self.all_at_once().await?;
        }
        Ok(meter)
    }

    async fn commit(mut self, mut meter: Meter) -> Result<Meter, Failure> {
        self.look().await?;
        while meter.go_in_turn().await {
            self.commit_next().await?;
        }
        Ok(meter)
    }

    async fn one_after_the_other(mut self, mut meter: Meter) -> Result<Meter, Failure> {
        self.look().await?;
        while meter.go_in_turn().await {
            std::hint::black_box(self.coordinator.read(&self.keys, None).await?);
            self.all_at_once().await?;
            self.commit_next().await?;
        }
        Ok(meter)
    }

    /// Writes to all stores at once, as the transaction does it.
    async fn all_at_once(&self) -> Result<(), Failure> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let writes = self.values.iter().map(|(store, key, version, state)| {
            let version = Version { sequence, ..*version };
            async move { store.versioned_state(key).set_state_at(&version, state.clone()).await }
        });
        try_join_all(writes).await?;
        Ok(())
    }

    /// Finds out what the next commit is to expect.
    async fn look(&mut self) -> Result<(), Failure> {
        let keys: Vec<Key> = self.puts.iter().map(|put| put.key.clone()).collect();
        let now = self.coordinator.read(&keys, None).await?;
        for (put, entry) in self.puts.iter_mut().zip(now.entries) {
            put.revision = entry.map(|entry| entry.revision);
        }
        Ok(())
    }

    async fn commit_next(&mut self) -> Result<(), Failure> {
        let commit = Commit { checks: vec![self.floor.clone()], puts: self.puts.clone(), deletes: Vec::new() };
        let CommitOutcome::Committed(done) = self.coordinator.commit(&commit).await? else {
            return Err("nobody else writes here".into());
        };
        for (put, revision) in self.puts.iter_mut().zip(done.revisions) {
            put.revision = Some(revision);
        }
        Ok(())
    }
}
