//! Copies of the servers' snapshots and logs are put back under clients that are at work.

#[path = "../../../tests/support/restored.rs"]
mod laws;

use avout_conformance::servers::ZooKeeper;
use avout_core::Stm;
use laws::Restorable;

use crate::histories::{Copies, copy_of, put_back};
use crate::support::{Outcome, tests};

tests![locks_and_commits_are_granted_once, an_ensemble_grants_locks_and_commits_once];

struct Servers {
    zk: ZooKeeper,
    copies: Copies,
}

impl Restorable for Servers {
    async fn open(&self) -> avout_core::Result<Stm> {
        let opened = avout_zk::connect(&format!("{}?session_timeout=10s", self.zk.url("restored"))).await?;
        Ok(laws::stm(opened.coordinator, opened.store))
    }

    /// What was acknowledged is in the logs of a majority, while they run.
    async fn back_up(&mut self) -> Outcome {
        self.copies = copy_of(&self.zk)?;
        Ok(())
    }

    async fn put_back(&mut self) -> Outcome {
        put_back(&self.zk, &self.copies).await
    }
}

/// See [`laws`].
async fn locks_and_commits_are_granted_once() -> Outcome {
    laws::run(&mut Servers { zk: ZooKeeper::single().await?, copies: Copies::default() }).await
}

/// The same with three servers.
async fn an_ensemble_grants_locks_and_commits_once() -> Outcome {
    laws::run(&mut Servers { zk: ZooKeeper::ensemble(3).await?, copies: Copies::default() }).await
}
