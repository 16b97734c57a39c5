use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use avout_core::{Result, Stm};

use super::stage::{Actor, Scene, Test, lock};

/// How many ids there are.
const IDS: u64 = 4;
/// How often one is asked for again after an error.
const TRIES: usize = 30;

/// Transactions that take effect once, asked for by many.
pub(super) struct Once {
    name: String,
    results: Mutex<BTreeMap<u64, u64>>,
}

impl Once {
    pub(super) async fn make(sure: &Stm, name: &str) -> Result<Self> {
        sure.create_ref(format!("{name}/done"), Vec::<u64>::new()).history(0).await?;
        Ok(Self { name: name.to_owned(), results: Mutex::default() })
    }
}

#[async_trait]
impl Scene for Once {
    async fn step(&self, actor: &Actor) {
        let id = actor.world().draw(IDS);
        let what = format!("does {id} of {} once", self.name);
        for _ in 0..TRIES {
            let done = actor.wait(&what, async {
                let done = actor.stm.open_ref::<Vec<u64>>(format!("{}/done", self.name)).await?;
                let (done, world) = (&done, actor.world());
                let body = async |tx: avout_core::Tx| {
                    tx.update(done, move |ids| ids.push(id)).await?;
                    Ok(world.next_id())
                };
                actor.stm.once(format!("{}/once", self.name), 1000)?.dosync(id.to_string(), body).await
            });
            match done.await {
                Ok(result) => {
                    actor.tell(|| format!("{what}: {result}"));
                    let first = *lock(&self.results).entry(id).or_insert(result);
                    if first != result {
                        actor.world().violation(format!("once: {what} has the results {first} and {result}"));
                    }
                    return;
                }
                Err(error) => actor.accept(&what, &error, &[]),
            }
            actor.rest(100).await;
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let done = sure.open_ref::<Vec<u64>>(format!("{}/done", self.name)).await?.get().await?;
        let results = lock(&self.results);
        for id in 0..IDS {
            let times = done.iter().filter(|done| **done == id).count();
            if times > 1 || (times == 0 && results.contains_key(&id)) {
                test.world.violation(format!("once: {id} of {} was done {times} times", self.name));
            }
        }
        Ok(())
    }
}
