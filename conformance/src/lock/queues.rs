//! What a queue promises beside its order: of its capacity, of those who go away, hang, or cannot read what is in it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use avout_core::{Error, ErrorKind, Queue, Stm};
use futures_util::future::BoxFuture;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::bench::{LONG, Mortal, client};
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::noise::Noise;
use crate::stm::bench::{SOON, aside, refused_at, roles};
use crate::stm::rig::Rigged;

laws! { "lock":
    a_queue_of_another_capacity_is_refused,
    a_slow_job_does_not_fill_a_queue,
    a_push_wakes_a_receiver_that_looked_too_early,
    a_value_that_cannot_be_read_is_told_and_stays;
    timed:
    a_dropped_receive_leaves_its_value,
    a_hung_receiver_is_followed_whoever_looks,
}

/// Longer than any law.
const HOURS: Duration = Duration::from_secs(3600);

/// How long it may take until something is noticed that needs no more than a look.
const NOTICED: Duration = Duration::from_secs(2);

/// What several operations of a queue answer if there is nothing for them to do; `Mismatch` must come before.
async fn refused_by_all(queue: &Queue<u32>) {
    let what = "another capacity";
    refused_at(queue.push(9).await, ErrorKind::Mismatch, queue.key(), what);
    refused_at(queue.try_pop().await, ErrorKind::Mismatch, queue.key(), what);
    refused_at(queue.pop_timeout(SOON).await, ErrorKind::Mismatch, queue.key(), what);
    refused_at(within(SOON, "receive", queue.receive(HOURS)).await, ErrorKind::Mismatch, queue.key(), what);
    refused_at(queue.len().await, ErrorKind::Mismatch, queue.key(), what);
    refused_at(queue.is_empty().await, ErrorKind::Mismatch, queue.key(), what);
}

/// Whatever is done to a queue with another capacity than its own is refused, names both, and leaves the queue as it was; also if
/// nothing was taken off yet.
async fn a_queue_of_another_capacity_is_refused(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    for (key, own, other) in [("/jobs", 3, 2), ("/more", 10, 100), ("/fewer", 100, 10)] {
        let (right, wrong) = (stms[0].queue::<u32>(key, own)?, stms[1].queue::<u32>(key, other)?);
        right.push(0).await?;
        refused_by_all(&wrong).await;
        assert_eq!(right.try_pop().await?, Some(0));
        refused_by_all(&wrong).await;
        right.push(1).await?;
        assert_eq!(right.try_pop().await?, Some(1));
        for n in 2..5 {
            right.push(n).await?;
        }
        let error = refused_at(wrong.try_pop().await, ErrorKind::Mismatch, wrong.key(), "another capacity");
        let text = error.to_string();
        assert!(text.contains(&own.to_string()) && text.contains(&other.to_string()), "both are named: {text}");
        refused_by_all(&wrong).await;
        let delivery = within(SOON, "the first", right.receive(HOURS)).await?;
        refused_by_all(&wrong).await;
        assert_eq!(delivery.ack().await?, 2);
        assert_eq!((right.pop().await?, right.pop().await?, right.try_pop().await?), (3, 4, None));
    }
    Ok(())
}

/// A queue takes as many values as it has room for, however many have come and gone since those that are out were received; they
/// come in their order, and what was out comes back in its place.
async fn a_slow_job_does_not_fill_a_queue(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let (a, b) = (stms[0].queue::<u32>("/q", 10)?, stms[1].queue::<u32>("/q", 10)?);
    a.push(0).await?;
    let slow = a.receive(HOURS).await?;
    for n in 1..=25 {
        b.push(n).await?;
        let job = within(SOON, "a job", a.receive(HOURS)).await?;
        assert_eq!(*job.value(), n);
        job.ack().await?;
    }
    b.push(100).await?;
    let second = within(SOON, "a job", b.receive(HOURS)).await?;
    assert_eq!((*second.value(), b.len().await?), (100, 2));
    // Round by round: as many as there is room for beside the two that are out.
    for round in 0..4_u32 {
        for n in 0..8 {
            a.push(round * 10 + n).await?;
        }
        refused_at(b.push(99).await, ErrorKind::Full, b.key(), "a queue that is full");
        for n in 0..8 {
            assert_eq!(b.try_pop().await?, Some(round * 10 + n), "round {round}");
        }
        assert_eq!((b.try_pop().await?, b.len().await?), (None, 2));
    }
    drop(slow);
    let again = within(SOON, "the slow one again", b.receive(HOURS)).await?;
    assert_eq!((again.times(), again.ack().await?), (2, 0));
    assert_eq!(second.ack().await?, 100);
    assert!(a.is_empty().await?);
    Ok(())
}

/// Lets a future be polled so many times, and drops it.
async fn polled<F: Future>(future: F, times: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A value whose `receive` is dropped, at whatever moment, is soon there for others, though the client lives on.
async fn a_dropped_receive_leaves_its_value(ctx: Ctx) -> Outcome {
    // There are moments before and after each of its calls to be dropped at.
    let (coordinator, store) = roles(&ctx).await?;
    let yielding = Arc::new(Rigged::new(coordinator).yielding());
    let (stm, other) = (ctx.stm(yielding, store).seed(ctx.seed).session_ttl(LONG).build(), client(&ctx, LONG).await?);
    let _alive = stm.lock("/alive")?.acquire().await?;
    let (queue, others) = (stm.queue::<u32>("/q", 10)?, other.queue::<u32>("/q", 10)?);
    let noise = Noise::new(&ctx).await?;
    let mut rng = ctx.rng(12);
    for round in 0..120_u32 {
        others.push(round).await?;
        let long = Duration::from_secs(600);
        let got = match round % 2 {
            0 => polled(queue.receive(long), 1 + round / 2 % 20).await,
            _ => tokio::time::timeout(Duration::from_micros(rng.random_range(0..6000)), queue.receive(long)).await.ok(),
        };
        drop(got);
        let dropped = Instant::now();
        let back = within(SOON, &format!("value {round} back"), others.receive(long)).await?;
        let after = dropped.elapsed();
        assert!(after < NOTICED + noise.allowance(), "value {round} was back after {after:?}");
        assert_eq!(back.ack().await?, round);
    }
    // A task that is aborted drops what it waits for, and what it has got.
    for round in 0..20_u32 {
        others.push(round).await?;
        let task = tokio::spawn({
            let queue = queue.clone();
            async move {
                let _delivery = queue.receive(HOURS).await;
                std::future::pending::<()>().await;
            }
        });
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..6000))).await;
        task.abort();
        let back = within(SOON, &format!("value {round} back"), others.receive(HOURS)).await?;
        assert_eq!(back.ack().await?, round);
    }
    assert!(queue.is_empty().await?);
    Ok(())
}

/// A value whose receiver hangs comes back when it was hidden for long enough, also if those who look open the queue anew for each
/// look, and each looks for less than that.
async fn a_hung_receiver_is_followed_whoever_looks(ctx: Ctx) -> Outcome {
    let (holder, stm) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let queue = holder.queue::<u32>("/q", 10)?;
    queue.push(7).await?;
    let (hidden, look) = (Duration::from_millis(500), Duration::from_millis(400));
    let hung = queue.receive(hidden).await?;
    let noise = Noise::new(&ctx).await?;
    let begun = Instant::now();
    let again = within(SOON, "the value again", async {
        loop {
            let queue = stm.queue::<u32>("/q", 10)?;
            if let Ok(got) = tokio::time::timeout(look, queue.receive(hidden)).await {
                return got;
            }
        }
    })
    .await?;
    let after = begun.elapsed();
    assert!(after >= hidden, "it came back after {after:?}");
    assert!(after < hidden + look + NOTICED + noise.allowance(), "it came back after {after:?}");
    assert_eq!((again.times(), again.ack().await?), (2, 7));
    refused_at(hung.ack().await, ErrorKind::Lost, queue.key(), "what was handed to another");
    Ok(())
}

/// Does this after so many reads more.
fn after_reads(rig: Arc<Rigged>, reads: u32, then: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match reads {
            0 => then.await,
            _ => Arc::clone(&rig).after_read(after_reads(rig, reads - 1, then)),
        }
    })
}

/// A receiver waits for the next value, though another one took the first off between its looks: whichever of its reads that comes
/// after, it gets what is pushed then.
async fn a_push_wakes_a_receiver_that_looked_too_early(ctx: Ctx) -> Outcome {
    let other = client(&ctx, LONG).await?;
    for reads in 0..6 {
        let Mortal { stm, rig } = Mortal::new(&ctx, LONG).await?;
        let key = format!("/q/{reads}");
        let (queue, others) = (stm.queue::<u32>(&key, 10)?, other.queue::<u32>(&key, 10)?);
        others.push(1).await?;
        let popped = others.clone();
        let then = Box::pin(async move {
            aside(async move { popped.try_pop().await.expect("a pop") }).await;
        });
        rig.after_read(after_reads(Arc::clone(&rig), reads, then));
        let receiver = tokio::spawn(async move { queue.receive(HOURS).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        others.push(2).await?;
        // Where the first value was got after all, the second stays.
        let got = within(SOON, &format!("a value, after {reads} reads"), receiver).await.expect("no panic")?;
        assert!([1, 2].contains(got.value()));
        got.ack().await?;
    }
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

/// An error with all that it says of its causes.
fn full_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The error of a value that cannot be read names the queue, the value's number, both types, and what is wrong.
fn tells_all(error: &Error, number: u64) {
    let text = full_text(error);
    assert_eq!(error.key().map(avout_core::Key::as_str), Some("/jobs"), "{text}");
    for part in ["/jobs", &number.to_string(), "NewJob", "OldJob", "Call"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains(".avout"), "{text}");
}

async fn both(ctx: &Ctx) -> Result<(Stm, Stm), Failure> {
    Ok((client(ctx, LONG).await?, client(ctx, LONG).await?))
}

/// A value that a consumer cannot read stays for those who can, and the error says all that there is to know.
async fn a_value_that_cannot_be_read_is_told_and_stays(ctx: Ctx) -> Outcome {
    let (old, new) = both(&ctx).await?;
    let (olds, news) = (old.queue::<OldJob>("/jobs", 10)?, new.queue::<NewJob>("/jobs", 10)?);
    news.push(NewJob::Mail("hello".to_owned())).await?;
    assert_eq!(olds.pop().await?, OldJob::Mail("hello".to_owned()), "what both know is read by both");
    news.push(NewJob::Call { number: 7 }).await?;
    olds.push(OldJob::Mail("later".to_owned())).await?;
    for _ in 0..2 {
        tells_all(&refused_at(olds.try_pop().await, ErrorKind::Codec, olds.key(), "a new job"), 1);
        tells_all(&refused_at(olds.pop_timeout(SOON).await, ErrorKind::Codec, olds.key(), "a new job"), 1);
        let received = within(SOON, "the error", olds.receive(HOURS)).await;
        tells_all(&refused_at(received, ErrorKind::Codec, olds.key(), "a new job"), 1);
    }
    let delivery = within(SOON, "the new job", news.receive(HOURS)).await?;
    assert_eq!((delivery.value(), delivery.times()), (&NewJob::Call { number: 7 }, 1));
    // What another one has is in nobody's way.
    let mail = within(SOON, "the next job", olds.receive(HOURS)).await?;
    assert_eq!(mail.ack().await?, OldJob::Mail("later".to_owned()));
    delivery.ack().await?;
    assert!(olds.is_empty().await?);
    Ok(())
}
