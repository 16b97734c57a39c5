//! Several candidates, of which one leads at a time; when it resigns or dies the next one does.
//!
//! `cargo run --example leader [URL [NAME]]`
//!
//! Without a name three candidates of this process lead one after the other, and it ends. With `sqlite:leader.db` and a name
//! it is one candidate, until it is killed: start several of them in different terminals, and kill the one that leads.

use std::time::Duration;

use avout::{ErrorKind, Ref, Stm};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mem:".to_owned());
    let stm = avout::connect(url).await?;
    let decisions = stm.create_or_open_ref("/leader/decisions", 0_u64).await?;
    if let Some(name) = args.next() {
        loop {
            lead(&stm, &decisions, &name, u64::MAX).await?;
        }
    }
    let mut candidates = JoinSet::new();
    for name in ["ann", "bob", "cy"] {
        let (stm, decisions) = (stm.clone(), decisions.clone());
        candidates.spawn(async move { lead(&stm, &decisions, name, 2).await });
    }
    while let Some(ended) = candidates.join_next().await {
        ended??;
    }
    println!("{} decisions", decisions.get().await?);
    stm.close().await;
    Ok(())
}

/// Waits to be elected, and makes so many decisions in that term.
async fn lead(stm: &Stm, decisions: &Ref<u64>, name: &str, terms: u64) -> Result<(), Failure> {
    let term = stm.election("/leader")?.campaign(name).await?;
    for _ in 0..terms {
        // It commits only if the term has not ended: a leader that was paused cannot decide any more.
        let decided = stm.dosync(async |tx| {
            tx.require(&term).await?;
            tx.alter(decisions, |n| n + 1).await
        });
        match decided.await {
            Ok(number) => println!("{name} made decision {number}"),
            Err(error) if error.kind() == ErrorKind::Lost => {
                println!("{name} is not the leader any more");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = term.lost() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    term.resign().await?;
    Ok(())
}
