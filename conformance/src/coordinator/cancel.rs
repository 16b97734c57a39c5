//! Futures that are dropped half-way.

use std::sync::Arc;
use std::time::Duration;

use avout_core::Key;
use avout_core::backend::Coordinator;
use avout_core::protocol::{Commit, CommitOutcome};
use futures_util::FutureExt as _;
use futures_util::future::poll_fn;

use crate::law::{Ctx, Failure, Outcome, laws};
use crate::sample::{key, keys, number, present, put, puts, write};

laws! { "coordinator":
    a_dropped_commit_is_whole_or_nothing,
    a_dropped_read_leaves_the_client_usable,
}

/// After how many polls, and how much time behind each, a future is dropped.
fn drops() -> impl Iterator<Item = (usize, Duration)> {
    let pauses = [0, 30, 100, 300, 1000, 3000].map(Duration::from_micros);
    (0..5).flat_map(move |polls| pauses.into_iter().map(move |pause| (polls, pause)))
}

/// Polls a future at most `polls` times, with a pause before each but the first, and drops it.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize, pause: Duration) -> Option<T> {
    let mut future = Box::pin(future);
    for poll in 0..polls {
        if poll > 0 {
            tokio::time::sleep(pause).await;
        }
        if let std::task::Poll::Ready(value) = poll_fn(|cx| std::task::Poll::Ready(future.poll_unpin(cx))).await {
            return Some(value);
        }
    }
    None
}

async fn both(client: &dyn Coordinator, pair: &[Key]) -> Result<[u64; 2], Failure> {
    let entries = client.read(pair, None).await?.entries;
    Ok([0, 1].map(|n| entries[n].as_ref().map_or(0, number)))
}

/// A commit whose future is dropped, after any number of polls, takes effect as a whole, now or later,
/// or never: no reader sees a part of it, and it never undoes what was committed after it.
async fn a_dropped_commit_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let pair = keys("pair", 2);
    let mut value = 0;
    for (polls, pause) in drops() {
        value += 2;
        let seen = one.read(&pair, None).await?.entries;
        let of = |n: usize, value| put(&pair[n], seen[n].as_ref().map(|entry| &entry.revision), value);
        let commit = puts([of(0, value), of(1, value)]);
        let outcome = poll_and_drop(one.commit(&commit), polls, pause).await;
        if let Some(outcome) = outcome {
            assert!(matches!(outcome?, CommitOutcome::Committed(_)), "a conflict with nobody");
        }
        for _ in 0..3 {
            let [a, b] = both(&*two, &pair).await?;
            assert_eq!(a, b, "half of a commit that was dropped after {polls} polls, {pause:?} each");
        }
        // The next commit of the same keys comes before the dropped one, which then fails, or after it.
        loop {
            let seen = two.read(&pair, None).await?.entries;
            let of = |n: usize, value| put(&pair[n], seen[n].as_ref().map(|entry| &entry.revision), value);
            if let CommitOutcome::Committed(_) = two.commit(&puts([of(0, value + 1), of(1, value + 1)])).await? {
                break;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(both(&*one, &pair).await?, [value + 1; 2], "a dropped commit undid a later one");
    }
    Ok(())
}

/// A client whose reads, watches and commits were dropped answers the next ones rightly: no reply is taken for another's.
async fn a_dropped_read_leaves_the_client_usable(ctx: Ctx) -> Outcome {
    let client: Arc<dyn Coordinator> = ctx.coordinator().await?;
    let all = keys("k", 8);
    for (n, key) in all.iter().enumerate() {
        write(&*client, key, n as u64).await?;
    }
    for (round, (polls, pause)) in drops().enumerate() {
        let (dropped, asked) = (round % 8, (round + 3) % 8);
        match round % 4 {
            0 | 1 => drop(poll_and_drop(client.read(&all[dropped..=dropped], None), polls, pause).await),
            2 => drop(poll_and_drop(client.watch(&all[dropped..=dropped]), polls, pause).await),
            _ => {
                let stale = puts([put(&all[dropped], None, 99)]);
                drop(poll_and_drop(client.commit(&stale), polls, pause).await);
            }
        }
        let found = number(&present(&*client, &all[asked]).await?);
        assert_eq!(found, asked as u64, "{} after a request for {} was dropped", all[asked], all[dropped]);
        let checks = vec![crate::sample::check(&key("/none"), None)];
        let outcome = client.commit(&Commit { checks, ..Commit::default() }).await?;
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "the reply of a dropped request");
    }
    Ok(())
}
