//! A namespace that is emptied under its clients.

use std::time::Duration;

use avout_core::backend::Coordinator;
use avout_core::protocol::{Commit, CommitOutcome};
use avout_core::{Error, ErrorKind, Key, Result, Revision};

use crate::law::{Ctx, Outcome, laws, needs};
use crate::sample::{self, check, delete, entry, key, number, put, puts, write};

laws! { "coordinator":
    a_wiped_namespace_is_lost_to_its_clients,
    a_namespace_made_anew_is_not_the_one_that_was_lost,
}

/// Fails unless a call says that the store is lost. While connections are made anew it may be unavailable.
pub(crate) async fn is_lost<T, F>(ctx: &Ctx, what: &str, call: impl Fn() -> F)
where
    F: Future<Output = Result<T>>,
{
    let begun = tokio::time::Instant::now();
    loop {
        let error: Error = match call().await {
            Ok(_) => panic!("{what} is answered, though the namespace was wiped"),
            Err(error) => error,
        };
        let waits = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown);
        if !waits || begun.elapsed() > ctx.fixture.time_limit() / 6 {
            assert_eq!(error.kind(), ErrorKind::StoreLost, "{what}, on a namespace that was wiped: {error:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All that a client asks.
async fn all_is_lost(ctx: &Ctx, client: &dyn Coordinator, key: &Key, revision: &Revision) {
    let alone = std::slice::from_ref(key);
    let checks = |revision| Commit { checks: vec![check(key, revision)], ..Commit::default() };
    let commits = [
        ("a put of an absent key", puts([put(&sample::key("/other"), None, 9)])),
        ("a put", puts([put(key, Some(revision), 9)])),
        ("a check of absence", checks(None)),
        ("a check", checks(Some(revision))),
        ("a delete", Commit { deletes: vec![delete(key, revision)], ..Commit::default() }),
    ];
    is_lost(ctx, "a read", || client.read(alone, None)).await;
    is_lost(ctx, "a read of no keys", || client.read(&[], None)).await;
    for (what, commit) in &commits {
        // A conflict will do: nothing was written, and the reads that follow it say the rest.
        let made = || async move {
            match client.commit(commit).await? {
                CommitOutcome::Conflict(_) => Err(Error::new(ErrorKind::StoreLost, "it conflicts")),
                CommitOutcome::Committed(done) => Ok(done),
            }
        };
        is_lost(ctx, what, made).await;
    }
    let root = Key::root();
    is_lost(ctx, "a list", || client.list_all(&root)).await;
}

/// When a namespace is emptied under its clients, whatever they ask is answered with `StoreLost`, or a commit with a conflict:
/// nothing is read as absent, and nothing is written.
async fn a_wiped_namespace_is_lost_to_its_clients(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let revision = write(&*one, &key, 1).await?.revisions.remove(0);
    entry(&*two, &key).await?;
    needs(ctx.fixture.wipe(&ctx.namespace).await, "the fixture cannot wipe a namespace")?;
    all_is_lost(&ctx, &*one, &key, &revision).await;
    all_is_lost(&ctx, &*two, &key, &revision).await;
    Ok(())
}

/// When a namespace that was emptied is made anew by others it has another realm, and to those who knew the old one it stays
/// lost: they neither read the new one nor write into it.
async fn a_namespace_made_anew_is_not_the_one_that_was_lost(ctx: Ctx) -> Outcome {
    let old = ctx.coordinator().await?;
    let key = key("/a");
    let revision = write(&*old, &key, 1).await?.revisions.remove(0);
    needs(ctx.fixture.wipe(&ctx.namespace).await, "the fixture cannot wipe a namespace")?;
    let new = ctx.coordinator().await?;
    assert_ne!(
        new.capabilities().realm,
        old.capabilities().realm,
        "a namespace made anew has the realm of the old one"
    );
    assert!(new.list_all(&Key::root()).await?.is_empty(), "a namespace made anew is not empty");
    write(&*new, &key, 2).await?;
    all_is_lost(&ctx, &*old, &key, &revision).await;
    assert_eq!(
        new.list_all(&Key::root()).await?,
        std::slice::from_ref(&key),
        "somebody wrote who knew another namespace"
    );
    assert_eq!(entry(&*new, &key).await?.as_ref().map(number), Some(2), "somebody wrote who knew another namespace");
    Ok(())
}
