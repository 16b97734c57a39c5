//! What is done to a queue by those who look after it: another capacity, its end, and values that nobody can read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use avout_core::protocol::{CodecId, Commit, CommitOutcome, Envelope, Meta, Put, Record};
use avout_core::{Codec, ErrorKind, Key, MessagePack, Payload, Queue, Realm, Stm, Unreadable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bench::{LONG, client};
use crate::law::{Ctx, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused, refused_at, roles};

laws! { "lock":
    the_capacity_of_a_queue_changes_while_it_is_used,
    a_smaller_queue_keeps_what_is_in_it,
    those_who_wait_are_told_of_another_capacity,
    a_queue_is_destroyed_with_all_that_is_in_it,
    a_queue_is_destroyed_while_it_is_used,
    an_unreadable_value_is_taken_off_as_bytes,
    a_queue_of_an_earlier_version_goes_on;
    timed:
    an_unreadable_value_is_skipped_by_its_number,
}

/// Longer than any law.
const HOURS: Duration = Duration::from_secs(3600);

/// What a user of a queue does who hears of its capacity from elsewhere.
struct Follower {
    stm: Stm,
    capacity: Arc<AtomicU64>,
}

impl Follower {
    /// Does this until it is refused for no more than another capacity or no room.
    async fn done<T, F, Fut>(&self, what: F) -> avout_core::Result<T>
    where
        F: Fn(Queue<u64>) -> Fut,
        Fut: Future<Output = avout_core::Result<T>>,
    {
        loop {
            let queue = self.stm.queue::<u64>("/q", self.capacity.load(Ordering::SeqCst))?;
            match what(queue).await {
                Err(error) if matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Full) => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                other => return other,
            }
        }
    }
}

/// While the capacity grows and shrinks each value that is pushed comes once, and whoever pops gets those of one producer in their order.
async fn the_capacity_of_a_queue_changes_while_it_is_used(ctx: Ctx) -> Outcome {
    const EACH: u64 = 30;
    let capacity = Arc::new(AtomicU64::new(4));
    // Those who push, and whoever changes the capacity, as long as they are at it.
    let busy = Arc::new(AtomicU64::new(3));
    let mut tasks: Vec<futures_util::future::BoxFuture<'static, Result<Vec<u64>, crate::law::Failure>>> = Vec::new();
    for producer in 0..2_u64 {
        let follower = Follower { stm: client(&ctx, LONG).await?, capacity: Arc::clone(&capacity) };
        let busy = Arc::clone(&busy);
        tasks.push(Box::pin(async move {
            for n in 0..EACH {
                follower.done(async |queue| queue.push(producer * 1000 + n).await).await?;
            }
            busy.fetch_sub(1, Ordering::SeqCst);
            Ok(Vec::new())
        }));
    }
    for receives in [false, true] {
        let follower = Follower { stm: client(&ctx, LONG).await?, capacity: Arc::clone(&capacity) };
        let busy = Arc::clone(&busy);
        tasks.push(Box::pin(async move {
            let mut got = Vec::new();
            loop {
                let next = follower.done(async |queue| match receives {
                    false => queue.try_pop().await,
                    true => match tokio::time::timeout(Duration::from_millis(20), queue.receive(HOURS)).await {
                        // It is acknowledged whatever the capacity is by now.
                        Ok(delivery) => delivery?.ack().await.map(Some),
                        Err(_) => Ok(None),
                    },
                });
                match next.await? {
                    Some(value) => got.push(value),
                    None if busy.load(Ordering::SeqCst) == 0 => return Ok(got),
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        }));
    }
    let (changer, changed) = (client(&ctx, LONG).await?, Arc::clone(&capacity));
    tasks.push(Box::pin(async move {
        for new in [1, 7, 2, 12, 3, 1, 20, 5, 4, 9].into_iter().cycle().take(30) {
            changer.queue::<u64>("/q", changed.load(Ordering::SeqCst))?.set_capacity(new).await?;
            changed.store(new, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        busy.fetch_sub(1, Ordering::SeqCst);
        Ok(Vec::new())
    }));
    let mut got = together(tasks).await?;
    // What was got for a receive that was dropped may not have been back before they ended.
    let rest = client(&ctx, LONG).await?.queue::<u64>("/q", capacity.load(Ordering::SeqCst))?;
    let mut left = Vec::new();
    while !rest.is_empty().await? {
        left.push(within(SOON, "what is left", rest.receive(HOURS)).await?.ack().await?);
    }
    got.push(left);
    let mut last = HashMap::new();
    for value in &got[2] {
        let before = last.insert(value / 1000, *value);
        assert!(before.is_none_or(|before| before < *value), "{value} was popped after {before:?}: {:?}", got[2]);
    }
    let mut all: Vec<u64> = got.concat();
    all.sort_unstable();
    let expected: Vec<u64> = (0..2).flat_map(|producer| (0..EACH).map(move |n| producer * 1000 + n)).collect();
    assert_eq!(all, expected, "each value comes once");
    Ok(())
}

/// A queue that holds more than its new capacity keeps it all, in its order, and takes more when there is room.
async fn a_smaller_queue_keeps_what_is_in_it(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let large = stms[0].queue::<u32>("/q", 5)?;
    for n in 0..5 {
        large.push(n).await?;
    }
    let out = within(SOON, "the first", large.receive(HOURS)).await?;
    let small = large.set_capacity(2).await?;
    let error = refused_at(large.try_pop().await, ErrorKind::Mismatch, large.key(), "the capacity that it had");
    assert!(error.to_string().contains('2') && error.to_string().contains('5'), "both are named: {error}");
    assert_eq!(small.len().await?, 5);
    for n in 1..4 {
        refused(small.push(9).await, ErrorKind::Full, "a queue that holds more than it has room for");
        assert_eq!(small.pop().await?, n);
    }
    refused(small.push(9).await, ErrorKind::Full, "a queue that holds what it has room for");
    assert_eq!(out.ack().await?, 0, "what was received before is acknowledged after");
    small.push(5).await?;
    refused(small.push(9).await, ErrorKind::Full, "a queue that is full again");
    let same = stms[1].queue::<u32>("/q", 2)?;
    assert_eq!((same.pop().await?, same.pop().await?, same.try_pop().await?), (4, 5, None));
    // It can be done again, as after a reply that was lost, and by whoever knows no more than the new number.
    let wide = stms[1].queue::<u32>("/q", 100)?.set_capacity(100).await?;
    large.set_capacity(100).await?;
    for n in 0..100 {
        wide.push(n).await?;
    }
    refused(wide.push(100).await, ErrorKind::Full, "a hundred values");
    for n in 0..100 {
        assert_eq!(wide.try_pop().await?, Some(n));
    }
    refused(wide.set_capacity(0).await, ErrorKind::InvalidInput, "no room at all");
    Ok(())
}

/// Those who wait for a value when the capacity changes are told so.
async fn those_who_wait_are_told_of_another_capacity(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let queue = stms[0].queue::<u32>("/q", 2)?;
    queue.push(1).await?;
    queue.pop().await?;
    let (popping, receiving) = (stms[0].queue::<u32>("/q", 2)?, stms[1].queue::<u32>("/q", 2)?);
    let pop = tokio::spawn(async move { popping.pop().await });
    let receive = tokio::spawn(async move { receiving.receive(HOURS).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!pop.is_finished() && !receive.is_finished(), "they wait");
    let queue = queue.set_capacity(3).await?;
    refused(within(SOON, "a pop that waits", pop).await.expect("no panic"), ErrorKind::Mismatch, "another capacity");
    let received = within(SOON, "a receive that waits", receive).await.expect("no panic");
    refused(received, ErrorKind::Mismatch, "another capacity");
    queue.push(2).await?;
    assert_eq!(queue.pop().await?, 2);
    Ok(())
}

/// How many records of queues there are that hold anything.
async fn records_of_queues(ctx: &Ctx) -> Result<usize, crate::law::Failure> {
    let coordinator = ctx.coordinator().await?;
    let mut many = 0;
    for key in coordinator.list_all(&Key::root()).await? {
        if key.as_str().starts_with("/.avout/queues/") {
            let entry = coordinator.read(&[key], None).await?.entries.pop().flatten();
            many += usize::from(entry.is_some_and(|entry| !matches!(entry.record.payload, Payload::Deleted)));
        }
    }
    Ok(many)
}

/// A queue that is destroyed goes with all its values, and a new one of any capacity begins empty.
async fn a_queue_is_destroyed_with_all_that_is_in_it(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let queue = stms[0].queue::<u32>("/q", 150)?;
    queue.destroy().await?;
    for n in 0..150 {
        queue.push(n).await?;
    }
    let out = [queue.receive(HOURS).await?, queue.receive(HOURS).await?];
    queue.pop().await?;
    let wider = queue.set_capacity(200).await?;
    for n in 0..10 {
        wider.push(n).await?;
    }
    refused_at(queue.destroy().await, ErrorKind::Mismatch, queue.key(), "another capacity");
    wider.destroy().await?;
    assert_eq!(records_of_queues(&ctx).await?, 1, "a number is left, from which values go on to be counted");
    let [first, second] = out;
    refused(first.ack().await, ErrorKind::Lost, "a value of a queue that was destroyed");
    drop(second);
    let narrow = stms[1].queue::<u32>("/q", 2)?;
    assert_eq!((narrow.try_pop().await?, narrow.len().await?, narrow.peek().await?), (None, 0, None));
    narrow.push(1).await?;
    narrow.push(2).await?;
    refused(narrow.push(3).await, ErrorKind::Full, "the new capacity");
    refused(wider.try_pop().await, ErrorKind::Mismatch, "the capacity that it had");
    assert_eq!((narrow.pop().await?, narrow.pop().await?, narrow.try_pop().await?), (1, 2, None));
    narrow.push(4).await?;
    assert!(!narrow.skip(0).await? && !narrow.skip(1).await?, "no number names a second value");
    narrow.destroy().await?;
    narrow.destroy().await?;
    assert_eq!(records_of_queues(&ctx).await?, 1, "the number is left");
    Ok(())
}

/// Those who wait for values of a queue that is destroyed get those of the new one, and nothing of the old; an acknowledgement that is a
/// part of a transaction makes that do nothing.
async fn a_queue_is_destroyed_while_it_is_used(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let (a, b) = (stms[0].queue::<u32>("/q", 4)?, stms[1].queue::<u32>("/q", 4)?);
    let done = stms[0].create_ref("/done", 0_u32).await?;
    a.push(1).await?;
    let out = within(SOON, "the first", a.receive(HOURS)).await?;
    let receive = tokio::spawn({
        let b = b.clone();
        async move { b.receive(HOURS).await }
    });
    let pop = tokio::spawn({
        let b = b.clone();
        async move { b.pop().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    a.destroy().await?;
    let both = stms[0].dosync(async |tx| {
        tx.set(&done, 1).await?;
        out.ack_in(&tx).await
    });
    refused(both.await, ErrorKind::Lost, "a value of a queue that was destroyed");
    assert_eq!(done.get().await?, 0);
    for n in 2..4 {
        a.push(n).await?;
    }
    let received = within(SOON, "a value that is received", receive).await.expect("no panic")?.ack().await?;
    let popped = within(SOON, "a value that is popped", pop).await.expect("no panic")?;
    assert_eq!(received.min(popped)..received.max(popped) + 1, 2..4);
    drop(out);
    assert!(a.is_empty().await?);
    Ok(())
}

/// What a newer version of a program pushes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum NewJob {
    Mail(String),
    Call { number: u64 },
}

/// What an older version knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum OldJob {
    Mail(String),
}

/// The number of the value that an error tells of.
fn number<T>(done: avout_core::Result<T>) -> u64 {
    let error = refused(done, ErrorKind::Codec, "a value that cannot be read");
    let unreadable = error.downcast_ref::<Unreadable>().expect("what could not be read");
    assert_eq!((unreadable.pushed_as(), unreadable.read_as()), ("NewJob", "OldJob"));
    unreadable.number()
}

/// A value is skipped by its number alone: never another one, nor one that somebody has; and in a transaction with what it does.
async fn an_unreadable_value_is_skipped_by_its_number(ctx: Ctx) -> Outcome {
    let (old, new) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let (olds, news) = (old.queue::<OldJob>("/jobs", 10)?, new.queue::<NewJob>("/jobs", 10)?);
    let skipped = old.create_ref("/skipped", 0_u64).await?;
    let call = |number| NewJob::Call { number };
    for n in 0..5 {
        news.push(call(n)).await?;
    }
    news.push(NewJob::Mail("last".to_owned())).await?;
    let first = number(olds.try_pop().await);
    assert!(!olds.skip(first + 1).await?, "it is not the first");
    assert!(olds.skip(first).await?);
    assert!(!olds.skip(first).await?, "it is gone");
    // Another one gets it between the error and the skip.
    let second = number(olds.try_pop().await);
    assert_eq!(news.pop().await?, call(1));
    assert!(!olds.skip(second).await?, "another one has taken it off");
    let third = number(within(SOON, "the error", olds.receive(HOURS)).await);
    let has = within(SOON, "the third", news.receive(HOURS)).await?;
    assert!(!olds.skip(third).await?, "another one has it");
    // It is given back, and is the first again.
    drop(has);
    eventually_skipped(&olds, third).await?;
    let fourth = number(olds.try_pop().await);
    let nothing = old.dosync(async |tx| {
        assert!(olds.skip_in(&tx, fourth).await?);
        Err::<(), _>(avout_core::Error::abort("no"))
    });
    refused(nothing.await, ErrorKind::Aborted, "a body that gives up");
    let done = old.dosync(async |tx| {
        assert!(olds.skip_in(&tx, fourth).await? && !olds.skip_in(&tx, fourth).await?);
        tx.set(&skipped, fourth).await
    });
    done.await?;
    assert_eq!((skipped.get().await?, number(olds.peek().await)), (fourth, fourth + 1));
    // A receiver that hangs has it: it is skipped when it was hidden for long enough.
    let hung = within(SOON, "the fifth", news.receive(Duration::from_millis(100))).await?;
    eventually_skipped(&olds, hung.number()).await?;
    refused(hung.ack().await, ErrorKind::Lost, "a value that was skipped");
    assert_eq!(olds.pop().await?, OldJob::Mail("last".to_owned()));
    assert!(olds.is_empty().await?);
    Ok(())
}

async fn eventually_skipped(queue: &Queue<OldJob>, number: u64) -> Outcome {
    let skipped = async {
        while !queue.skip(number).await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    within(SOON, "a value that is to be handed out again", skipped).await
}

/// A value that cannot be read is taken off with all that is known of it, to be kept elsewhere.
async fn an_unreadable_value_is_taken_off_as_bytes(ctx: Ctx) -> Outcome {
    let (old, new) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let (olds, news) = (old.queue::<OldJob>("/jobs", 10)?, new.queue::<NewJob>("/jobs", 10)?);
    let kept = old.create_ref("/kept", Vec::<u8>::new()).await?;
    assert!(olds.pop_raw().await?.is_none() && olds.peek_raw(0).await?.is_none());
    for n in 0..2 {
        news.push(NewJob::Call { number: n }).await?;
    }
    let first = number(olds.try_pop().await);
    let raw = olds.peek_raw(first).await?.expect("the first");
    assert_eq!((raw.number(), raw.type_tag(), raw.decode::<NewJob>()?), (first, "NewJob", NewJob::Call { number: 0 }));
    assert_eq!(number(raw.decode::<OldJob>()), first);
    assert!(olds.peek_raw(first + 1).await?.is_none(), "it is not the first");
    let moved = old.dosync(async |tx| {
        let raw = olds.pop_raw_in(&tx).await?.expect("the first");
        tx.set(&kept, raw.bytes().to_vec()).await
    });
    moved.await?;
    assert_eq!(kept.get().await?, raw.bytes().to_vec());
    let out = within(SOON, "the second", news.receive(HOURS)).await?;
    let raw = olds.peek_raw(out.number()).await?.expect("what is out");
    assert_eq!(raw.decode::<NewJob>()?, NewJob::Call { number: 1 });
    assert!(olds.pop_raw().await?.is_none(), "what is out is not the first");
    out.ack().await?;
    news.push(NewJob::Mail("hello".to_owned())).await?;
    let raw = olds.pop_raw().await?.expect("the third");
    assert_eq!((raw.number(), raw.decode::<OldJob>()?), (2, OldJob::Mail("hello".to_owned())));
    assert!(news.is_empty().await?);
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct EarlierHead {
    next: u64,
    out: Vec<EarlierOut>,
}

#[derive(Serialize, Deserialize)]
struct EarlierOut {
    number: u64,
    who: EarlierClaimant,
    times: u32,
    hidden: u64,
}

#[derive(Serialize, Deserialize)]
struct EarlierClaimant {
    s: u128,
    t: u64,
}

#[derive(Serialize, Deserialize)]
struct EarlierTail {
    next: u64,
    first: u64,
    capacity: u64,
}

/// A record as an earlier version has written it.
fn earlier<T: Serialize + DeserializeOwned>(part: &str, tag: &str, realm: Realm, value: &T) -> Put {
    let bytes = MessagePack.encode(value).expect("plain data");
    let meta = Meta { realm, codec: CodecId::MESSAGE_PACK, type_tag: tag.into(), history: 0 };
    let sealed = Envelope::seal(CodecId::MESSAGE_PACK, tag, &bytes).expect("small");
    Put {
        key: Key::from_stored(format!("/.avout/queues/{part}/q")).expect("a key"),
        revision: None,
        record: Arc::new(Record::first(Arc::new(meta), Payload::Inline(sealed))),
    }
}

/// A queue that an earlier version has made goes on with its values in their order, what was received among them, and with its capacity,
/// which can be changed.
async fn a_queue_of_an_earlier_version_goes_on(ctx: Ctx) -> Outcome {
    for received in [true, false] {
        let ctx = if received { ctx.clone() } else { ctx.elsewhere() };
        let (coordinator, store) = roles(&ctx).await?;
        let realm = store.realm();
        let mut puts: Vec<Put> =
            (2..5_u64).map(|n| earlier(&(n % 4).to_string(), "item", realm, &format!("job {n}"))).collect();
        puts.push(earlier("tail", "tail", realm, &EarlierTail { next: 5, first: 1, capacity: 4 }));
        let who = EarlierClaimant { s: 7, t: 1 };
        let out = EarlierOut { number: 2, who, times: 1, hidden: 3_600_000 };
        let head = match received {
            true => EarlierHead { next: 3, out: vec![out] },
            false => EarlierHead { next: 2, out: Vec::new() },
        };
        puts.push(earlier("head", "head", realm, &head));
        let outcome = coordinator.commit(&Commit { puts, ..Commit::default() }).await?;
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
        let stm = ctx.stm(coordinator, store).session_ttl(LONG).build();
        let queue = stm.queue::<String>("/q", 4)?;
        let other = stm.queue::<String>("/q", 5)?;
        refused_at(other.try_pop().await, ErrorKind::Mismatch, other.key(), "another capacity");
        refused_at(other.push("x".to_owned()).await, ErrorKind::Mismatch, other.key(), "another capacity");
        assert_eq!(queue.len().await?, 3);
        // Its holder is gone, with no record of its session.
        let first = within(SOON, "the first", queue.receive(HOURS)).await?;
        assert_eq!((&**first.value(), first.times()), ("job 2", if received { 2 } else { 1 }));
        assert_eq!(queue.pop().await?, "job 3");
        for n in 5..7 {
            queue.push(format!("job {n}")).await?;
        }
        refused(queue.push("job 7".to_owned()).await, ErrorKind::Full, "the capacity that it was made with");
        let queue = queue.set_capacity(6).await?;
        for n in 7..9 {
            queue.push(format!("job {n}")).await?;
        }
        assert_eq!(first.ack().await?, "job 2");
        for n in 4..9 {
            assert_eq!(queue.pop().await?, format!("job {n}"));
        }
        queue.destroy().await?;
        assert_eq!(records_of_queues(&ctx).await?, 1, "the number is left, from which values go on to be counted");
    }
    Ok(())
}
