//! Prints each change of a ref while others change it.
//!
//! `cargo run --example watch [URL [ROLE]]`
//!
//! Without a role two tasks of this process make the changes. To see those of another process, run `watch
//! sqlite:watch.db show` and then, elsewhere, `watch sqlite:watch.db change`. It ends when the number has grown by ten.

use std::time::Duration;

use avout::{Change, Changes, Ref};
use tokio::task::JoinSet;
use tokio::time::timeout;

const TASKS: i64 = 2;
const EACH: i64 = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mem:".to_owned());
    let role = args.next().unwrap_or_else(|| "both".to_owned());

    let stm = avout::connect(url).await?;
    // With history for all ten changes, even a slow watcher misses none.
    let number = stm.create_or_open_ref("/watched", 0_i64).history(16).await?;
    let changes = number.watch().await?;
    match role.as_str() {
        "both" => {
            tokio::try_join!(show(changes), change(&number))?;
        }
        "show" => show(changes).await?,
        "change" => change(&number).await?,
        _ => return Err(format!("{role} is no role: show or change").into()),
    }
    Ok(())
}

async fn show(mut changes: Changes<i64>) -> Result<(), Failure> {
    let mut goal = None;
    loop {
        let next = timeout(Duration::from_secs(60), changes.next()).await.map_err(|_| "no change for a minute")?;
        let Change { old: Some(old), new: Some(new), point: Some(point), skipped, .. } =
            next.ok_or("the watch ended")??
        else {
            return Err("the ref was made or destroyed meanwhile".into());
        };
        println!("{old} -> {new} at point {point}, skipped: {skipped}");
        if new >= *goal.get_or_insert(old + TASKS * EACH) {
            return Ok(());
        }
    }
}

async fn change(number: &Ref<i64>) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let number = number.clone();
        tasks.spawn(async move {
            for _ in 0..EACH {
                number.alter(|number| number + 1).await?;
            }
            Ok::<_, avout::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
