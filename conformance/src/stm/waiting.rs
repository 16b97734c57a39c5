//! Waiting for a change: `retry` and `or_else`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use avout_core::{Error, ErrorKind, Ref, Stm};

use super::bench::{Runs, SOON, client, clients, eventually, refused, refused_at, rigged, set_aside};
use super::rig::Then;
use crate::law::{Ctx, Failure, Outcome, laws, within};

laws! { "stm":
    a_retry_waits_for_a_change_of_what_it_read,
    a_retry_wakes_by_another_client,
    a_change_before_the_wait_is_not_missed,
    a_retry_keeps_nothing_it_wrote,
    a_retry_holds_nothing_of_its_attempt,
    a_retry_of_nothing_is_refused,
    a_retry_ends_at_the_deadline,
    a_retry_survives_lost_watches,
    a_retry_wakes_when_its_ref_is_destroyed,
    or_else_undoes_the_first_branch,
    or_else_keeps_what_was_before,
    or_else_undoes_the_hooks_of_the_first_branch,
    or_else_passes_errors_on,
    or_else_waits_for_both_branches,
    or_else_nests,
    or_else_protects_what_the_first_branch_read,
    a_queue_hands_each_job_to_one_worker;
    timed:
    a_retry_ends_at_the_deadline_though_watches_fail,
}

/// Begins to wait in a task of its own until `r` is not zero; gives the number of runs and the value.
fn wait_for_value(stm: &Stm, r: &Ref<i64>, runs: &Arc<Runs>) -> tokio::task::JoinHandle<Result<i64, Error>> {
    let (stm, r, runs) = (stm.clone(), r.clone(), Arc::clone(runs));
    tokio::spawn(async move {
        stm.transaction()
            .deadline(SOON)
            .dosync(async |tx| {
                runs.next();
                match tx.get(&r).await? {
                    0 => Err(tx.retry()),
                    n => Ok(n),
                }
            })
            .await
    })
}

async fn ends<T>(what: &str, task: tokio::task::JoinHandle<Result<T, Error>>) -> Result<T, Failure> {
    Ok(within(SOON, what, task).await.expect("the task does not panic")?)
}

/// A body that retries is run again when a ref that it read changes, and not for changes of others.
async fn a_retry_waits_for_a_change_of_what_it_read(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let runs = Arc::new(Runs::default());
    let before = rig.calls();
    let waiting = wait_for_value(&stm, &r, &runs);
    eventually("the wait's look", || rig.calls() >= before + 3).await;
    for n in 0..10 {
        s.set(n).await?;
    }
    assert_eq!(runs.count(), 1, "runs after changes of another ref");
    r.set(7).await?;
    assert_eq!((ends("the wait", waiting).await?, runs.count()), (7, 2));
    Ok(())
}

/// A wait ends by another client's commit, each time.
async fn a_retry_wakes_by_another_client(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    for n in 1..=5 {
        r.set(0).await?;
        let runs = Arc::new(Runs::default());
        let waiting = wait_for_value(&one, &r, &runs);
        eventually("the first run", || runs.count() >= 1).await;
        of_two.set(n).await?;
        assert_eq!(ends("the wait", waiting).await?, n);
        assert!(runs.count() <= 2, "{} runs for one change", runs.count());
    }
    Ok(())
}

/// A change between the read and the wait ends the wait at once.
async fn a_change_before_the_wait_is_not_missed(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let s = stm.create_ref("/s", 0_i64).await?;
    for read_more in [false, true] {
        r.set(0).await?;
        let runs = Runs::default();
        let wait = stm.transaction().deadline(SOON).dosync(async |tx| {
            runs.next();
            if tx.get(&r).await? == 0 {
                set_aside(&r, 1).await;
                if read_more {
                    set_aside(&s, 1).await;
                    tx.get(&s).await?;
                }
                return Err(tx.retry());
            }
            Ok(())
        });
        within(SOON, "a change before the wait", wait).await?;
        assert_eq!(runs.count(), 2);
    }
    Ok(())
}

/// What a body wrote before its retry is gone, also in its next run.
async fn a_retry_keeps_nothing_it_wrote(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let n = tx.get(&r).await?;
        if runs.next() == 1 {
            tx.set(&s, 5).await?;
            set_aside(&r, 1).await;
        }
        assert!(n == 1 || runs.count() == 1);
        if n == 0 { Err(tx.retry()) } else { tx.alter(&s, |s| s + 1).await }
    })
    .await?;
    assert_eq!(s.get().await?, 1);
    Ok(())
}

/// While a retry waits, nothing is held of its attempt: what a hook has taken along is free.
async fn a_retry_holds_nothing_of_its_attempt(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let guard = Arc::new(());
    let (held, taken) = (Arc::downgrade(&guard), Mutex::new(Some(guard)));
    let waiting = stm.dosync(async |tx| {
        let n = tx.get(&r).await?;
        if let Some(guard) = taken.lock().expect("no panic under the lock").take() {
            tx.on_commit(move |_| drop(guard));
        }
        if n == 0 { Err(tx.retry()) } else { Ok(()) }
    });
    let change = async {
        eventually("the guard is free", || held.strong_count() == 0).await;
        set_aside(&r, 1).await;
    };
    within(SOON, "the retry", async { tokio::join!(waiting, change).0 }).await?;
    Ok(())
}

/// A retry in a body that has read nothing could wait for ever: it is `InvalidInput`, with nothing written.
async fn a_retry_of_nothing_is_refused(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let done = stm
        .dosync(async |tx| {
            tx.set(&r, 1).await?;
            assert_eq!(tx.get(&r).await?, 1);
            Err::<(), _>(tx.retry())
        })
        .await;
    refused(within(SOON, "the refusal", async { done }).await, ErrorKind::InvalidInput, "a retry of nothing");
    assert_eq!(r.get().await?, 0);
    Ok(())
}

/// A wait ends at the transaction's deadline: `Timeout` with the attempts, the time and a key that was waited for.
async fn a_retry_ends_at_the_deadline(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    // So long that the watch is made before.
    let deadline = Duration::from_secs(2);
    let wait = stm.transaction().deadline(deadline).dosync(async |tx| {
        tx.get(&r).await?;
        Err::<(), _>(tx.retry())
    });
    let error = refused_at(within(SOON, "the deadline", wait).await, ErrorKind::Timeout, r.key(), "a wait");
    assert_eq!(error.attempts(), Some(1));
    assert!(error.elapsed().is_some_and(|elapsed| elapsed >= deadline), "{error:?}");
    Ok(())
}

/// A wait whose watches fail all the time ends at the deadline, and does not ask without pause.
async fn a_retry_ends_at_the_deadline_though_watches_fail(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    rig.hints(Then::Fail(ErrorKind::Unavailable));
    let wait = stm.transaction().deadline(Duration::from_millis(150)).dosync(async |tx| {
        tx.get(&r).await?;
        Err::<(), _>(tx.retry())
    });
    let done = within(SOON, "the deadline", wait).await;
    assert!(
        matches!(&done, Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)),
        "{done:?}"
    );
    assert!(rig.calls() < 500, "{} requests in 150 ms", rig.calls());
    Ok(())
}

/// A wait goes on through watches that fail or are lost, and ends by the change that went by meanwhile.
async fn a_retry_survives_lost_watches(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    rig.hints(Then::Fail(ErrorKind::Unavailable));
    let runs = Arc::new(Runs::default());
    let waiting = wait_for_value(&stm, &r, &runs);
    eventually("the first run", || runs.count() == 1).await;
    r.set(5).await?;
    assert_eq!(ends("failing watches", waiting).await?, 5);

    let (deaf, rig) = rigged(&ctx, |rig| rig.deaf()).await?;
    r.set(0).await?;
    let of_deaf = deaf.open_ref::<i64>("/r").await?;
    let runs = Arc::new(Runs::default());
    let before = rig.calls();
    let waiting = wait_for_value(&deaf, &of_deaf, &runs);
    eventually("the wait's look", || rig.calls() >= before + 3).await;
    r.set(6).await?;
    rig.say_lost();
    assert_eq!(ends("a lost watch", waiting).await?, 6);
    Ok(())
}

/// A wait ends when what it read is destroyed, and the body finds it gone.
async fn a_retry_wakes_when_its_ref_is_destroyed(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let runs = Arc::new(Runs::default());
    let waiting = wait_for_value(&one, &r, &runs);
    eventually("the first run", || runs.count() == 1).await;
    two.open_ref::<i64>("/r").await?.destroy().await?;
    let done = within(SOON, "the wait", waiting).await.expect("the task does not panic");
    refused_at(done, ErrorKind::NotFound, r.key(), "the second run");
    Ok(())
}

/// If the first branch of `or_else` retries, none of its writes is left: the second sees and commits as if it had not run.
async fn or_else_undoes_the_first_branch(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (a, b) = (stm.create_ref("/a", 1_i64).await?, stm.create_ref("/b", 1_i64).await?);
    let c = stm.create_ref("/c", 1_i64).await?;
    let answer = stm
        .dosync(async |tx| {
            tx.or_else(
                async |tx| {
                    tx.set(&a, 100).await?;
                    tx.commute(&b, |n| n + 100).await?;
                    tx.destroy(&c).await?;
                    Err(tx.retry())
                },
                async |tx| tx.get_many((&a, &b, &c)).await,
            )
            .await
        })
        .await?;
    assert_eq!(answer, (1, 1, 1), "in the second branch");
    assert_eq!((a.get().await?, b.get().await?, c.get().await?), (1, 1, 1), "after the commit");
    Ok(())
}

/// Writes from before `or_else` are there in both branches, and are committed with the second one's.
async fn or_else_keeps_what_was_before(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (a, b) = (stm.create_ref("/a", 1_i64).await?, stm.create_ref("/b", 1_i64).await?);
    stm.dosync(async |tx| {
        tx.set(&a, 2).await?;
        tx.commute(&b, |n| n + 1).await?;
        tx.or_else(
            async |tx| {
                assert_eq!(tx.alter(&a, |n| n * 10).await?, 20);
                tx.commute(&b, |n| n * 100).await?;
                Err(tx.retry())
            },
            async |tx| {
                assert_eq!(tx.alter(&a, |n| n + 1).await?, 3);
                tx.commute(&b, |n| n + 1).await
            },
        )
        .await
    })
    .await?;
    assert_eq!((a.get().await?, b.get().await?), (3, 3));
    Ok(())
}

/// Hooks for the commit that the undone branch has set are not called, and its hooks for the abort are; those of the
/// second branch and from before are called as ever.
async fn or_else_undoes_the_hooks_of_the_first_branch(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let called = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let called = Arc::clone(&called);
        move || called.lock().expect("no panic under it").push(what)
    };
    stm.dosync(async |tx| {
        let (before, first, second) = (note("before"), note("first"), note("second"));
        tx.on_commit(move |_| before());
        tx.or_else(
            async |tx| {
                tx.on_commit(|_| panic!("a hook of an undone branch"));
                tx.on_abort(first);
                tx.get(&r).await?;
                Err(tx.retry())
            },
            async |tx| {
                tx.on_commit(move |_| second());
                tx.set(&r, 2).await
            },
        )
        .await
    })
    .await?;
    assert_eq!(*called.lock().expect("no panic under it"), ["first", "before", "second"]);
    Ok(())
}

/// An error of the first branch that is no retry is the answer, and the second branch does not run; neither does it after
/// a success.
async fn or_else_passes_errors_on(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let second = Runs::default();
    let done = stm.dosync(async |tx| {
        tx.or_else(
            async |tx| {
                tx.set(&r, 2).await?;
                Err::<(), _>(Error::abort("no"))
            },
            async |_| {
                second.next();
                Ok(())
            },
        )
        .await
    });
    refused(done.await, ErrorKind::Aborted, "an error of the first branch");
    assert_eq!((r.get().await?, second.count()), (1, 0));
    stm.dosync(async |tx| {
        tx.or_else(
            async |tx| tx.set(&r, 3).await,
            async |_| {
                second.next();
                Ok(())
            },
        )
        .await
    })
    .await?;
    assert_eq!((r.get().await?, second.count()), (3, 0));
    Ok(())
}

/// If both branches retry, a change of what either has read ends the wait.
async fn or_else_waits_for_both_branches(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let a = one.create_ref("/a", 0_i64).await?;
    let b = one.create_ref("/b", 0_i64).await?;
    for changed in ["/a", "/b"] {
        let runs = Arc::new(Runs::default());
        let (stm, a, b, counting) = (one.clone(), a.clone(), b.clone(), Arc::clone(&runs));
        let take = async |tx: &avout_core::Tx, r: &Ref<i64>, name: &'static str| match tx.get(r).await? {
            0 => Err(tx.retry()),
            _ => tx.set(r, 0).await.map(|()| name),
        };
        let waiting = tokio::spawn(async move {
            stm.dosync(async |tx| {
                counting.next();
                tx.or_else(async |tx| take(&tx, &a, "/a").await, async |tx| take(&tx, &b, "/b").await).await
            })
            .await
        });
        eventually("the first run", || runs.count() == 1).await;
        two.open_ref::<i64>(changed).await?.set(1).await?;
        assert_eq!(ends("a wait for both", waiting).await?, changed);
    }
    Ok(())
}

/// `or_else` within either branch of another one undoes what it must and no more.
async fn or_else_nests(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm
        .create_ref("/r", Vec::<&'static str>::new().iter().map(|s| (*s).to_owned()).collect::<Vec<String>>())
        .await?;
    let push = async |tx: &avout_core::Tx, what: &'static str| tx.update(&r, |list| list.push(what.to_owned())).await;
    stm.dosync(async |tx| {
        push(&tx, "before").await?;
        tx.or_else(
            async |tx| {
                push(&tx, "1").await?;
                tx.or_else(
                    async |tx| {
                        push(&tx, "1.1").await?;
                        Err(tx.retry())
                    },
                    async |tx| {
                        push(&tx, "1.2").await?;
                        Err(tx.retry())
                    },
                )
                .await
            },
            async |tx| {
                push(&tx, "2").await?;
                tx.or_else(
                    async |tx| {
                        push(&tx, "2.1").await?;
                        Err::<(), _>(tx.retry())
                    },
                    async |tx| push(&tx, "2.2").await,
                )
                .await
            },
        )
        .await
    })
    .await?;
    assert_eq!(r.get().await?, ["before", "2", "2.2"]);
    Ok(())
}

/// What the undone branch has read is protected at the commit: its retry was decided by it.
async fn or_else_protects_what_the_first_branch_read(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (a, b) = (stm.create_ref("/a", 0_i64).await?, stm.create_ref("/b", 0_i64).await?);
    let runs = Runs::default();
    let taken = stm
        .dosync(async |tx| {
            let run = runs.next();
            tx.or_else(
                async |tx| match tx.get(&a).await? {
                    0 => Err(tx.retry()),
                    n => Ok(n),
                },
                async |tx| {
                    if run == 1 {
                        set_aside(&a, 5).await;
                    }
                    tx.set(&b, 1).await.map(|()| 0)
                },
            )
            .await
        })
        .await?;
    assert_eq!((taken, b.get().await?, runs.count()), (5, 0, 2));
    Ok(())
}

/// Workers of two clients that wait for jobs in a list take each job once, and none is left.
async fn a_queue_hands_each_job_to_one_worker(ctx: Ctx) -> Outcome {
    const JOBS: i64 = 40;
    let [one, two] = clients(&ctx).await?;
    let jobs = one.create_ref("/jobs", Vec::<i64>::new()).await?;
    let of_two = two.open_ref::<Vec<i64>>("/jobs").await?;
    let workers: Vec<_> = (0..4)
        .map(|n| {
            let (stm, jobs) = if n % 2 == 0 { (one.clone(), jobs.clone()) } else { (two.clone(), of_two.clone()) };
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let job = stm.dosync(async |tx| match tx.update(&jobs, Vec::pop).await? {
                        Some(job) => Ok(job),
                        None => Err(tx.retry()),
                    });
                    match job.await? {
                        -1 => return Ok::<_, Error>(done),
                        job => done.push(job),
                    }
                }
            })
        })
        .collect();
    for job in 0..JOBS {
        jobs.update(|jobs| jobs.insert(0, job)).await?;
    }
    for _ in 0..4 {
        jobs.update(|jobs| jobs.insert(0, -1)).await?;
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(ends("a worker", worker).await?);
    }
    all.sort_unstable();
    assert_eq!(all, (0..JOBS).collect::<Vec<_>>());
    Ok(())
}
