//! Reservations of what is only read, and those of readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avout_core::{Error, ErrorKind, Key, Ref, Stm, Tx};

use super::bench::{
    INLINE, Runs, SOON, add_aside, aside, client, clients, counted, eventually, large, refused, rigged, roles, small,
};
use super::rig::{Rigged, Then};
use super::rig_store::RiggedStore;
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::sample::present;

laws! { "stm":
    a_reservation_of_what_is_only_read_is_gone_with_the_commit,
    a_reservation_of_what_is_only_read_holds_up_nobody_who_reads_it,
    what_an_earlier_attempt_had_reserved_is_gone_with_the_commit,
    a_reservation_ends_with_a_transaction_that_is_dropped_or_panics,
    a_reservation_that_is_not_answered_ends_with_the_deadline,
    what_does_not_fit_into_one_commit_is_reserved_and_released,
    reservations_are_released_though_the_floor_was_raised,
    a_slow_reader_of_a_ref_without_history_has_its_turn,
}

/// What a transaction reads only, and what it changes.
struct Pair {
    config: Ref<i64>,
    hot: Ref<i64>,
    /// Another client's handle of what it changes.
    others: Ref<i64>,
}

impl Pair {
    async fn new(stm: &Stm, other: &Stm) -> Result<Self, Failure> {
        let (config, hot) = (stm.create_ref("/config", 0_i64).await?, stm.create_ref("/hot", 0_i64).await?);
        Ok(Self { config, hot, others: other.open_ref("/hot").await? })
    }

    /// Loses, unless it has reserved both: whether it has.
    async fn lose(&self, tx: &Tx, stm: &Stm) -> Result<bool, Error> {
        let n = tx.get(&self.config).await? + tx.get(&self.hot).await?;
        if is_reserved(stm, self.hot.key()).await {
            assert!(is_reserved(stm, self.config.key()).await, "what it reads is not reserved");
            return Ok(true);
        }
        assert!(tx.attempt() <= 20, "it was lost {} times and never reserved", tx.attempt() - 1);
        add_aside(&self.others, 1).await;
        tx.set(&self.hot, n).await?;
        Ok(false)
    }
}

/// Whether others wait to write it.
async fn is_reserved(stm: &Stm, key: &Key) -> bool {
    let record = present(&*stm.coordinator(), key).await.expect("the coordinator answers").record;
    record.reservation.as_ref().is_some_and(|reservation| !reservation.lease.is_zero())
}

/// A transaction that has reserved holds nobody up once it has committed, also not those who write what it has only read.
async fn a_reservation_of_what_is_only_read_is_gone_with_the_commit(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (other, counts) = counted(&ctx).await?;
    let pair = Pair::new(&stm, &other).await?;
    for read_only in [false, true] {
        let done = stm.transaction().no_deadline().dosync(async |tx| {
            let reserved = pair.lose(&tx, &stm).await?;
            if reserved && !read_only {
                tx.set(&pair.hot, 100).await?;
            }
            Ok::<_, Error>(())
        });
        done.await?;
        for r in [&pair.config, &pair.hot] {
            assert!(!is_reserved(&stm, r.key()).await, "{} is still reserved", r.key());
        }
        let config = other.open_ref::<i64>("/config").await?;
        counts.take();
        config.alter(|n| n).await?;
        pair.others.alter(|n| n).await?;
        assert_eq!(counts.take().watches, 0, "it waited for a transaction that is over");
    }
    // One that ends in an error, too.
    let done = stm.transaction().no_deadline().dosync(async |tx| match pair.lose(&tx, &stm).await? {
        true => Err(Error::abort("it has reserved")),
        false => Ok(()),
    });
    refused(done.await, ErrorKind::Aborted, "the body's own error");
    for r in [&pair.config, &pair.hot] {
        assert!(!is_reserved(&stm, r.key()).await, "{} is still reserved", r.key());
    }
    Ok(())
}

/// A transaction that has reserved and dies holds up nobody who only reads what it has reserved, and each client that writes
/// it once, whether that commits or not.
async fn a_reservation_of_what_is_only_read_holds_up_nobody_who_reads_it(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let (other, counts) = counted(&ctx).await?;
    let pair = Arc::new(Pair::new(&stm, &other).await?);
    let reserved = Arc::new(AtomicBool::new(false));
    let dies = {
        let (pair, reserved) = (Arc::clone(&pair), Arc::clone(&reserved));
        tokio::spawn(async move {
            let never: Result<(), Error> = stm
                .transaction()
                .no_deadline()
                .dosync(async |tx| {
                    if pair.lose(&tx, &stm).await? {
                        reserved.store(true, Ordering::SeqCst);
                        std::future::pending::<()>().await;
                    }
                    Ok(())
                })
                .await;
            never
        })
    };
    eventually("a reservation", || reserved.load(Ordering::SeqCst)).await;
    // Its process is no more, and releases nothing.
    rig.all(Then::Hang);
    dies.abort();
    let config = other.open_ref::<i64>("/config").await?;
    counts.take();
    for n in 0..5 {
        let own = other.create_ref(format!("/own/{n}"), 0_i64).await?;
        other
            .dosync(async |tx| {
                let n = tx.get(&config).await?;
                tx.set(&own, n).await
            })
            .await?;
    }
    assert_eq!(counts.take().watches, 0, "those who read it waited");
    assert!(is_reserved(&other, config.key()).await);
    config.set_validator(|n: &i64| *n < 10);
    for _ in 0..3 {
        refused(config.set(10).await, ErrorKind::Rejected, "a value that is not allowed");
    }
    assert_eq!(counts.take().watches, 1, "the client waits for a lease once");
    for _ in 0..3 {
        config.alter(|n| n + 1).await?;
    }
    assert_eq!(counts.take().watches, 0, "the client has waited for the lease already");
    assert!(!is_reserved(&other, config.key()).await);
    Ok(())
}

/// A transaction that has reserved, and whose next attempts touch less, holds nobody up once it has committed, also not those
/// who write what only the earlier attempt has touched.
async fn what_an_earlier_attempt_had_reserved_is_gone_with_the_commit(ctx: Ctx) -> Outcome {
    let [stm, other] = clients(&ctx).await?;
    let pair = Pair::new(&stm, &other).await?;
    let (less, runs) = (AtomicBool::new(false), Runs::default());
    let done = stm.transaction().no_deadline().dosync(async |tx| {
        if !less.load(Ordering::SeqCst) {
            if pair.lose(&tx, &stm).await? {
                less.store(true, Ordering::SeqCst);
                add_aside(&pair.others, 1).await;
                tx.set(&pair.hot, 0).await?;
            }
            return Ok(());
        }
        tx.get(&pair.hot).await?;
        if runs.next() == 1 {
            add_aside(&pair.others, 1).await;
        }
        tx.set(&pair.hot, 100).await
    });
    done.await?;
    assert!(runs.count() > 1, "it was not lost again");
    for r in [&pair.config, &pair.hot] {
        assert!(!is_reserved(&stm, r.key()).await, "{} is still reserved", r.key());
    }
    Ok(())
}

/// A transaction that has reserved and whose future is dropped, or whose body panics, asks nobody to wait any longer.
async fn a_reservation_ends_with_a_transaction_that_is_dropped_or_panics(ctx: Ctx) -> Outcome {
    let [stm, other] = clients(&ctx).await?;
    let pair = Arc::new(Pair::new(&stm, &other).await?);
    for panics in [false, true] {
        let reserved = Arc::new(AtomicBool::new(false));
        let ends = {
            let (stm, pair, reserved) = (stm.clone(), Arc::clone(&pair), Arc::clone(&reserved));
            tokio::spawn(async move {
                let transaction = stm.transaction().no_deadline();
                let never: Result<(), Error> = transaction
                    .dosync(async |tx| {
                        if pair.lose(&tx, &stm).await? {
                            reserved.store(true, Ordering::SeqCst);
                            assert!(!panics, "by plan");
                            std::future::pending::<()>().await;
                        }
                        Ok(())
                    })
                    .await;
                never
            })
        };
        eventually("a reservation", || reserved.load(Ordering::SeqCst)).await;
        ends.abort();
        let ended = within(SOON, "its end", ends).await.expect_err("it does not return");
        assert_eq!(ended.is_panic(), panics, "{ended}");
        within(SOON, "the end of the reservations", async {
            while is_reserved(&other, pair.config.key()).await || is_reserved(&other, pair.hot.key()).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    Ok(())
}

/// A transaction whose reservation is not answered ends at its deadline.
async fn a_reservation_that_is_not_answered_ends_with_the_deadline(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let other = client(&ctx).await?;
    let pair = Pair::new(&stm, &other).await?;
    rig.reservations(Then::Hang);
    let done = stm.transaction().deadline(Duration::from_secs(2)).dosync(async |tx| {
        let n = tx.get(&pair.hot).await?;
        add_aside(&pair.others, 1).await;
        tx.set(&pair.hot, n).await
    });
    refused(within(SOON, "the deadline", done).await, ErrorKind::Timeout, "one that never wins");
    Ok(())
}

/// A transaction that reads more than one commit could write has its turn too, and holds nobody up afterwards.
async fn what_does_not_fit_into_one_commit_is_reserved_and_released(ctx: Ctx) -> Outcome {
    const SIZE: usize = 512;
    let (stm, _) = rigged(&ctx, |rig| rig.limited(64, 1 << 14, SIZE * 3)).await?;
    let other = client(&ctx).await?;
    let mut read = Vec::new();
    for n in 0..5 {
        read.push(stm.create_ref(format!("/read/{n}"), vec![7_u8; SIZE]).await?);
    }
    let hot = stm.create_ref("/hot", 0_i64).await?;
    let others = other.open_ref::<i64>("/hot").await?;
    let done = stm.transaction().no_deadline().dosync(async |tx| {
        tx.get_many(&read).await?;
        let n = tx.get(&hot).await?;
        if !is_reserved(&stm, hot.key()).await {
            assert!(tx.attempt() <= 20, "it was lost {} times and never reserved", tx.attempt() - 1);
            add_aside(&others, 1).await;
        }
        tx.set(&hot, n + 1000).await
    });
    done.await?;
    assert!(hot.get().await? >= 1000);
    for key in read.iter().map(Ref::key).chain([hot.key()]) {
        assert!(!is_reserved(&stm, key).await, "{key} is still reserved");
    }
    Ok(())
}

/// Where revisions may come again, too, a transaction that has reserved holds nobody up once it is over, whatever was swept meanwhile.
async fn reservations_are_released_though_the_floor_was_raised(ctx: Ctx) -> Outcome {
    let (stm, _) = rigged(&ctx, Rigged::plain).await?;
    let other = client(&ctx).await?;
    let pair = Pair::new(&stm, &other).await?;
    let done = stm.transaction().no_deadline().dosync(async |tx| {
        if !pair.lose(&tx, &stm).await? {
            return Ok(());
        }
        let other = other.clone();
        aside(async move { other.sweep().await }).await?;
        Err(Error::abort("it has reserved"))
    });
    refused(done.await, ErrorKind::Aborted, "the body's own error");
    for r in [&pair.config, &pair.hot] {
        assert!(!is_reserved(&stm, r.key()).await, "{} is still reserved", r.key());
    }
    Ok(())
}

/// Where a ref keeps no history and its store answers so late that the value was replaced meanwhile, again and again, a reader has its
/// turn all the same.
async fn a_slow_reader_of_a_ref_without_history_has_its_turn(ctx: Ctx) -> Outcome {
    const READ: Duration = Duration::from_millis(250);
    let (writer, ..) = small(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator).small(INLINE));
    let reader = ctx.stm(rig, Arc::new(RiggedStore::new(store).slow(READ))).seed(ctx.seed).build();
    let written = writer.create_ref("/r", large(0)).history(0).await?;
    let over = Arc::new(AtomicBool::new(false));
    let busy = {
        let (over, written) = (Arc::clone(&over), written.clone());
        tokio::spawn(async move {
            for n in 1.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                written.set(large((n % 100) as u8)).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Outcome::Ok(())
        })
    };
    let r = within(SOON, "opening", reader.open_ref::<Vec<u8>>("/r").into_future()).await?;
    assert_eq!(within(SOON, "a read", r.get()).await?.len(), large(0).len());
    let past = within(SOON, "the history", r.history()).await?;
    assert_eq!(past.first().and_then(|past| past.value.as_ref()).map(Vec::len), Some(large(0).len()));
    let mut changes = within(SOON, "the beginning of a watch", r.watch()).await?;
    let commute = reader.dosync(async |tx| tx.commute(&r, |_| large(200)).await);
    within(SOON, "a commute", commute).await?;
    over.store(true, Ordering::SeqCst);
    within(SOON, "the writer", busy).await.expect("no panic")?;
    let told = within(SOON, "a change", changes.next()).await.expect("a watch has no end")?;
    assert!(told.old.is_some(), "what was there before is not told");
    Ok(())
}
