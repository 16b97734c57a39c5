//! The wrappers of `avout_conformance::fault` do what they say.

use std::sync::Arc;
use std::time::Duration;

use avout_conformance::fault::{
    Counting, CountingStore, CrashAt, CrashAtStore, CrashPoint, Death, Loss, LossPlan, LossyReplies, Moment,
};
use avout_core::backend::{Coordinator, Store, VersionedStateContainer};
use avout_core::protocol::{ClientId, CodecId, Commit, CommitOutcome, Meta, Put, Realm, Record, State, Version};
use avout_core::{ErrorKind, Key, Payload, Result};
use avout_local::Local;

fn key() -> Key {
    Key::new("/a").expect("a key")
}

fn first_put() -> Commit {
    let meta = Meta { realm: Realm::new(1), codec: CodecId::JSON, type_tag: "t".into(), history: 0 };
    let record = Arc::new(Record::first(Arc::new(meta), Payload::Inline("1".into())));
    Commit { puts: vec![Put { key: key(), revision: None, record }], ..Commit::default() }
}

async fn is_there(coordinator: &dyn Coordinator) -> Result<bool> {
    Ok(coordinator.read(&[key()], None).await?.entries[0].is_some())
}

/// A lost commit is answered as unknown, and takes effect when its loss says: never, at once, late, or when it is delivered.
#[tokio::test(start_paused = true)]
async fn losses_take_effect_as_planned() -> Result<()> {
    let late = Duration::from_millis(50);
    for (loss, at_once, after_a_while, delivered) in [
        (Loss::BeforeApplied, false, false, 0),
        (Loss::AfterApplied, true, true, 0),
        (Loss::Delayed(late), false, true, 0),
        (Loss::Held, false, false, 1),
    ] {
        let inner = Local::new().coordinator();
        let lossy = LossyReplies::new(inner.clone(), LossPlan::listed([loss]));
        assert!(!lossy.capabilities().definite_replies);
        let error = lossy.commit(&first_put()).await.expect_err("a lost reply");
        assert_eq!((error.kind(), error.receipt()), (ErrorKind::OutcomeUnknown, None), "{loss:?}");
        assert_eq!(is_there(&*inner).await?, at_once, "{loss:?} at once");
        lossy.settle().await;
        assert_eq!(is_there(&*inner).await?, after_a_while, "{loss:?} after a while");
        assert_eq!(lossy.deliver().await?.len(), delivered, "{loss:?} delivered");
        assert_eq!(is_there(&lossy).await?, after_a_while || delivered > 0, "{loss:?} in the end");
        let outcome = lossy.commit(&first_put()).await?;
        assert_eq!(
            matches!(outcome, CommitOutcome::Conflict(_)),
            is_there(&*inner).await? && loss != Loss::BeforeApplied
        );
        assert_eq!(lossy.lost(), 1);
    }
    Ok(())
}

/// The same seed loses the same replies.
#[tokio::test(start_paused = true)]
async fn a_seed_repeats_its_losses() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let plan = LossPlan::drawn(7, 0.3, Duration::from_millis(5));
        let lossy = LossyReplies::new(Local::new().coordinator(), plan);
        let mut run = Vec::new();
        for _ in 0..100 {
            run.push(lossy.commit(&first_put()).await.is_err());
            lossy.settle().await;
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    let lost = runs[0].iter().filter(|lost| **lost).count();
    assert!((10..50).contains(&lost), "{lost} of 100 with a probability of 0.3");
}

/// A process dies at the chosen call, before or after its effect, and stays dead, in all its parts.
#[tokio::test(start_paused = true)]
async fn a_process_dies_where_it_is_told() -> Result<()> {
    for (moment, took_effect) in [(Moment::Before, false), (Moment::After, true)] {
        let local = Local::new();
        let point = CrashPoint::new(2, moment, Death::Fail(ErrorKind::Closed));
        let coordinator = CrashAt::new(local.coordinator(), point.clone());
        let store = CrashAtStore::new(local.store(), point.clone());
        let mut watcher = coordinator.watch(&[key()]).await?;
        assert!(!point.has_crashed());
        coordinator.commit(&first_put()).await.expect_err("the fatal call");
        point.crashed().await;
        watcher.changed().await.expect_err("a watcher of the dead");
        store.state(&key()).state().await.expect_err("a store of the dead");
        coordinator.read(&[], None).await.expect_err("a coordinator of the dead");
        assert_eq!(point.calls(), 4);
        assert_eq!(is_there(&*local.coordinator()).await?, took_effect, "{moment:?}");
    }
    let hung = CrashAt::new(Local::new().coordinator(), CrashPoint::new(1, Moment::Before, Death::Hang));
    let answer = tokio::time::timeout(Duration::from_secs(3600), hung.read(&[], None)).await;
    assert!(answer.is_err(), "the dead do not answer");
    Ok(())
}

/// Requests and bytes are counted by kind, until they are taken.
#[tokio::test]
async fn requests_are_counted() -> Result<()> {
    let local = Local::new();
    let counting = Counting::new(local.coordinator());
    counting.commit(&first_put()).await?;
    counting.commit(&first_put()).await?;
    counting.read(&[key(), key()], None).await?;
    let size = first_put().puts[0].record.encoded_size() as u64;
    let counts = counting.take();
    assert_eq!((counts.commits, counts.conflicts, counts.reads, counts.requests()), (2, 1, 1, 3));
    assert_eq!((counts.keys, counts.bytes_sent, counts.bytes_received), (4, 2 * (2 + size) + 4, 3 * size));
    assert_eq!(counting.counts().requests(), 0);

    let store = CountingStore::new(local.store());
    let values = store.versioned_state(&key());
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    values.set_state_at(&version, State::Bytes("12345".into())).await?;
    VersionedStateContainer::state_at(&*values, &version).await?;
    let counts = store.counts();
    assert_eq!((counts.value_writes, counts.value_reads), (1, 1));
    assert_eq!((counts.bytes_sent, counts.bytes_received), (5, 5));
    Ok(())
}
