//! Times that no clock can tell, and none at all.

use std::time::Duration;

use avout_core::ErrorKind;

use super::bench::{SOON, roles};
use crate::law::{Ctx, Outcome, laws, within};

laws! { "stm":
    a_time_without_end_is_none,
    no_time_at_all_ends_at_once,
}

/// A deadline, a time to live or a wait that lasts longer than any clock is one without end: everything works, and nothing panics.
async fn a_time_without_end_is_none(ctx: Ctx) -> Outcome {
    let seconds = [u64::MAX, i64::MAX as u64, i64::MAX as u64 - 10_000_000_000, u64::MAX / 1000, 4_000_000_000];
    let times = seconds.map(Duration::from_secs).into_iter().chain([Duration::MAX]);
    for (number, time) in times.enumerate() {
        let (coordinator, store) = roles(&ctx).await?;
        let builder = ctx.stm(coordinator, store).seed(ctx.seed).deadline(Some(time));
        let stm = builder.session_ttl(time).sweep_every(Some(time)).build();
        let name = |what: &str| format!("/{what}/{number}");
        let everything = async {
            let r = stm.create_ref(name("r"), 0_i64).await?;
            stm.transaction().deadline(time).dosync(async |tx| tx.alter(&r, |n| n + 1).await).await?;
            let atom = stm.create_atom(name("a"), 0_i64).await?;
            tokio::try_join!(atom.swap(|n| n + 1), atom.swap(|n| n + 1))?;
            stm.lock(name("l"))?.acquire_timeout(time).await?.release().await?;
            stm.rw_lock(name("w"))?.read_timeout(time).await?.release().await?;
            stm.semaphore(name("s"), 2)?.acquire_timeout(1, time).await?.release().await?;
            stm.latch(name("t"), 0)?.wait_timeout(time).await?;
            stm.barrier(name("b"), 1)?.wait_timeout(time).await?;
            let queue = stm.queue(name("q"), 4)?;
            queue.push(1_i64).await?;
            queue.push(2_i64).await?;
            queue.receive(time).await?.ack().await?;
            let last = queue.pop_timeout(time).await?;
            Ok::<_, avout_core::Error>((r.get().await?, atom.get().await?, last))
        };
        let done = Box::pin(within(SOON, "everything", everything)).await;
        assert_eq!(done.map_err(|error| format!("{error:?}")), Ok((1, 2, 2)), "with {time:?}");
        within(SOON, "close", stm.close()).await;
    }
    Ok(())
}

/// With no time, or next to none, an operation is done at once or ends as one that came too late; nothing panics or hangs, and the client
/// can be used on.
async fn no_time_at_all_ends_at_once(ctx: Ctx) -> Outcome {
    for (number, time) in [Duration::ZERO, Duration::from_nanos(1)].into_iter().enumerate() {
        let (coordinator, store) = roles(&ctx).await?;
        let hasty = ctx.stm(coordinator, store).seed(ctx.seed).deadline(Some(time)).build();
        let (coordinator, store) = roles(&ctx).await?;
        let stm = ctx.stm(coordinator, store).seed(ctx.seed).session_ttl(time).sweep_every(Some(time)).build();
        let name = |what: &str| format!("/{what}/{number}");
        let late = |done: Result<(), avout_core::Error>, what: &str| {
            let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
            assert!(done.as_ref().map_or_else(|error| kinds.contains(&error.kind()), |()| true), "{what}: {done:?}");
        };
        let (r, atom) = (stm.create_ref(name("r"), 0_i64).await?, stm.create_atom(name("a"), 0_i64).await?);
        let queue = stm.queue::<i64>(name("q"), 4)?;
        let soon = async {
            late(hasty.create_ref(name("other"), 0_i64).await.map(drop), "create");
            late(hasty.create_atom(name("other"), 0_i64).await.map(drop), "create an atom");
            late(stm.transaction().deadline(time).dosync(async |tx| tx.set(&r, 1).await).await, "a transaction");
            late(atom.swap(|n| n + 1).await.map(drop), "swap");
            late(stm.rw_lock(name("w"))?.write_timeout(time).await.map(drop), "write lock");
            late(stm.latch(name("t"), 1)?.wait_timeout(time).await, "latch");
            late(queue.pop_timeout(time).await.map(drop), "pop");
            Ok::<_, avout_core::Error>(())
        };
        within(SOON, "everything", soon).await?;
        r.set(5).await?;
        queue.push(7).await?;
        let delivery = within(SOON, "a value", queue.receive(time)).await?;
        assert_eq!((r.get().await?, *delivery.value()), (5, 7));
        within(SOON, "close", stm.close()).await;
    }
    Ok(())
}
