//! The example `ledger` keeps its promises while servers and processes die.

#[path = "../../tests/support/audit.rs"]
mod audit;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::time::Duration;

use audit::Ledger;
use avout_conformance::server_tests;
use avout_conformance::servers::ZooKeeper;
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn Error>>;

/// The leader of three servers is killed in the middle, and a process as well: the result is that of one process in memory.
async fn zookeeper_loses_its_leader() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let (ledger, url) = (Ledger::new().await?, zk.url("ledger"));
    let all = ledger.all()?;
    let mut children = ledger.children(&url)?;
    let work = async {
        let stm = avout::connect(&url).await?;
        ledger.until_decided(&stm, all / 3).await?;
        let leader = zk.leader().await?;
        zk.node(leader).kill().await?;
        ledger.until_decided(&stm, all / 2).await?;
        children[1].kill().await?;
        zk.node(leader).start().await?;
        ledger.until_decided(&stm, all * 2 / 3).await?;
        children[1] = ledger.child(&url, 1)?;
        ledger.until_done(&stm, &mut children).await
    };
    timeout(Duration::from_secs(180), work).await??;
    ledger.check(&url).await
}

server_tests![zookeeper_loses_its_leader];
