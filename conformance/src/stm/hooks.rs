//! Hooks of attempts and of transactions.

use std::sync::{Arc, Mutex};

use avout_core::{Error, ErrorKind, Point, Tx};

use super::bench::{SOON, client, refused, rigged, set_aside};
use super::rig::Then;
use crate::law::{Ctx, Outcome, laws, within};

laws! { "stm":
    on_commit_is_called_once_after_the_commit,
    on_commit_of_a_reader_has_its_read_point,
    hooks_of_lost_attempts_say_abort,
    hooks_of_a_failed_transaction_say_abort,
    hooks_of_a_refused_commit_say_abort;
    timed:
    hooks_of_a_late_body_say_abort,
    no_hook_is_called_while_the_outcome_is_unknown,
}

/// What was called, in order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

/// The hook, and the point that it was told.
type Call = (String, Option<Point>);

impl Calls {
    fn note(&self, what: impl Into<String>, point: Option<Point>) {
        self.0.lock().expect("no panic under it").push((what.into(), point));
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().expect("no panic under it").iter().map(|(what, _)| what.clone()).collect()
    }

    fn points(&self) -> Vec<Option<Point>> {
        self.0.lock().expect("no panic under it").iter().map(|(_, point)| *point).collect()
    }

    /// Sets both hooks of the attempt.
    fn hook(&self, tx: &Tx) {
        let (attempt, commit, abort) = (tx.attempt(), self.clone(), self.clone());
        tx.on_commit(move |point| commit.note(format!("commit {attempt}"), Some(point)));
        tx.on_abort(move || abort.note(format!("abort {attempt}"), None));
    }

    /// Sets both hooks of a transaction.
    fn whole<'a>(&self, transaction: avout_core::Transaction<'a>) -> avout_core::Transaction<'a> {
        let (commit, abort) = (self.clone(), self.clone());
        transaction
            .on_commit(move |point| commit.note("commit", Some(point)))
            .on_abort(move || abort.note("abort", None))
    }
}

/// `on_commit` is called once, after the commit can be seen and before `dosync` returns, with the commit's point; the
/// attempt's hooks come before the transaction's, each in their order.
async fn on_commit_is_called_once_after_the_commit(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let calls = Calls::default();
    let early = calls.clone();
    calls
        .whole(stm.transaction())
        .dosync(async |tx| {
            calls.hook(&tx);
            let (early, again) = (early.clone(), calls.clone());
            tx.on_commit(move |point| again.note("second", Some(point)));
            rig.before_commit(async move { assert!(early.names().is_empty(), "a hook before the commit") });
            tx.set(&r, 1).await
        })
        .await?;
    assert_eq!(calls.names(), ["commit 1", "second", "commit"]);
    let point = r.history().await?[0].point;
    let told = calls.points()[0];
    assert_eq!(calls.points(), [told; 3]);
    if ctx.coordinator().await?.capabilities().native_snapshots {
        // Its entries may have points of their own.
        assert!(told >= Some(point), "{told:?} before {point:?}");
    } else {
        assert_eq!(told, Some(point));
    }
    Ok(())
}

/// A transaction that only reads tells its read point, which is not before what it has seen.
async fn on_commit_of_a_reader_has_its_read_point(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    r.set(1).await?;
    let calls = Calls::default();
    calls
        .whole(stm.transaction())
        .dosync(async |tx| {
            calls.hook(&tx);
            tx.get(&r).await
        })
        .await?;
    assert_eq!(calls.names(), ["commit 1", "commit"]);
    let point = r.history().await?[0].point;
    assert!(calls.points().into_iter().all(|read| read >= Some(point)), "{:?} before {point:?}", calls.points());
    Ok(())
}

/// Each lost attempt calls its own `on_abort`, and only the last one's `on_commit` is called.
async fn hooks_of_lost_attempts_say_abort(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let calls = Calls::default();
    calls
        .whole(stm.transaction())
        .dosync(async |tx| {
            calls.hook(&tx);
            let n = tx.get(&r).await?;
            match tx.attempt() {
                1 => set_aside(&r, 1).await,
                2 => {
                    set_aside(&r, 2).await;
                    return Err(tx.retry());
                }
                _ => {}
            }
            tx.set(&s, n).await
        })
        .await?;
    assert_eq!(calls.names(), ["abort 1", "abort 2", "commit 3", "commit"]);
    Ok(())
}

/// A body's error calls the `on_abort` of its attempt and of the transaction, and no `on_commit`.
async fn hooks_of_a_failed_transaction_say_abort(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let calls = Calls::default();
    let done = calls
        .whole(stm.transaction())
        .dosync(async |tx| {
            calls.hook(&tx);
            tx.set(&r, 1).await?;
            Err::<(), _>(Error::abort("no"))
        })
        .await;
    refused(done, ErrorKind::Aborted, "the body");
    assert_eq!(calls.names(), ["abort 1", "abort"]);
    Ok(())
}

/// A refusal at the commit does the same: by a validator, by the limit of attempts, by the coordinator.
async fn hooks_of_a_refused_commit_say_abort(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).validator(|n: &i64| *n < 10).await?;
    for (value, kind) in [(10, ErrorKind::Rejected), (1, ErrorKind::Full), (2, ErrorKind::Contended)] {
        let calls = Calls::default();
        rig.commits(if kind == ErrorKind::Full { Then::Fail(kind) } else { Then::Pass });
        let done = calls
            .whole(stm.transaction().max_attempts(1))
            .dosync(async |tx| {
                calls.hook(&tx);
                tx.get(&r).await?;
                if kind == ErrorKind::Contended {
                    set_aside(&r, 5).await;
                }
                tx.set(&r, value).await
            })
            .await;
        refused(done, kind, "the commit");
        assert_eq!(calls.names(), ["abort 1", "abort"], "after {kind:?}");
    }
    Ok(())
}

/// A body that is ended by the deadline does the same.
async fn hooks_of_a_late_body_say_abort(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let calls = Calls::default();
    let late = calls.whole(stm.transaction().deadline(std::time::Duration::from_millis(50))).dosync(async |tx| {
        calls.hook(&tx);
        std::future::pending::<Result<(), Error>>().await
    });
    refused(within(SOON, "the deadline", late).await, ErrorKind::Timeout, "the body");
    assert_eq!(calls.names(), ["abort 1", "abort"]);
    Ok(())
}

/// Where the outcome stays unknown no hook is called: nothing says which.
async fn no_hook_is_called_while_the_outcome_is_unknown(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let calls = Calls::default();
    let unknown = calls.whole(stm.transaction().deadline(std::time::Duration::from_millis(50))).dosync(async |tx| {
        calls.hook(&tx);
        tx.get(&r).await?;
        rig.commits(Then::Hang);
        tx.set(&r, 1).await
    });
    refused(within(SOON, "the deadline", unknown).await, ErrorKind::OutcomeUnknown, "the commit");
    assert!(calls.names().is_empty(), "{:?}", calls.names());
    Ok(())
}
