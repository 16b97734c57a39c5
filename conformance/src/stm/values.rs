//! Values that lie in stores, and what is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::{ErrorKind, Key, Payload, Version};

use super::bench::{INLINE, Runs, SOON, client, large, refused_at, roles, small};
use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::fault::CountingStore;
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::entry;

laws! { "stm":
    large_values_lie_in_the_store_and_come_back,
    small_values_lie_in_the_record,
    values_too_large_for_the_store_are_refused,
    nothing_is_left_but_what_the_record_points_at,
    nothing_is_left_of_lost_attempts,
    nothing_is_left_of_a_refused_commit,
    nothing_is_left_of_a_ref_made_again_as_another_type,
    values_are_read_from_memory_once_known,
    a_lost_value_is_corrupt,
    a_snapshot_fetches_all_values_at_once,
}

/// The versions that the container of a ref holds, and those that its record points at.
pub(crate) async fn versions(ctx: &Ctx, key: &Key) -> Result<(Vec<Version>, Vec<Version>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let held = store.versioned_state(key).versions().await?;
    let entry = entry(&*coordinator, key).await?;
    let mut pointed: Vec<_> =
        entry.iter().flat_map(|entry| entry.record.stored().map(|(_, version)| version)).collect();
    pointed.sort_unstable();
    Ok((held, pointed))
}

/// A value over the coordinator's limit lies in the home store, and comes back to this client and to another one.
async fn large_values_lie_in_the_store_and_come_back(ctx: Ctx) -> Outcome {
    let (one, ..) = small(&ctx).await?;
    let (two, ..) = small(&ctx).await?;
    let r = one.create_ref("/r", large(0)).await?;
    for n in 1..=3 {
        r.set(large(n)).await?;
        let entry = crate::sample::present(&*one.coordinator(), r.key()).await?;
        let realm = one.store().realm();
        assert!(matches!(entry.record.payload, Payload::Stored { realm: found, .. } if found == realm), "{entry:?}");
        assert_eq!(r.get().await?, large(n));
        assert_eq!(two.open_ref::<Vec<u8>>("/r").await?.get().await?, large(n), "by another client");
    }
    let plain = client(&ctx).await?;
    let million = plain.create_ref("/million", vec![7_u8; 1_000_000]).await?;
    million.update(|value| value.push(8)).await?;
    assert_eq!(two.open_ref::<Vec<u8>>("/million").await?.get().await?.len(), 1_000_001);
    Ok(())
}

/// A value within the limit lies in the record, and moves to the store and back as its size changes.
async fn small_values_lie_in_the_record(ctx: Ctx) -> Outcome {
    let (stm, ..) = small(&ctx).await?;
    let r = stm.create_ref("/r", Vec::<u8>::new()).await?;
    for size in [0, 1, INLINE * 2, 2, INLINE * 3, INLINE * 4, 0] {
        r.set(vec![5; size]).await?;
        let entry = crate::sample::present(&*stm.coordinator(), r.key()).await?;
        assert_eq!(matches!(entry.record.payload, Payload::Inline(_)), size < INLINE, "{size} bytes: {entry:?}");
        assert_eq!(r.get().await?, vec![5; size]);
    }
    let sizes: Vec<_> = r.history().await?.into_iter().map(|past| past.value.map(|value| value.len())).collect();
    assert_eq!(sizes, [0, INLINE * 4, INLINE * 3, 2, INLINE * 2, 1, 0, 0].map(Some));
    Ok(())
}

/// A value over the store's limit is `TooLarge` with the key and the limit, with nothing of the transaction written.
async fn values_too_large_for_the_store_are_refused(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rigged = Arc::new(Rigged::new(coordinator).small(INLINE));
    let store = Arc::new(RiggedStore::new(store).limited(500));
    let stm = ctx.stm(rigged, store).build();
    let (r, s) = (stm.create_ref("/r", large(0)).await?, stm.create_ref("/s", large(0)).await?);
    let done = stm.dosync(async |tx| {
        tx.set(&s, large(1)).await?;
        tx.set(&r, vec![0; 501]).await
    });
    let error = refused_at(done.await, ErrorKind::TooLarge, r.key(), "a large value");
    assert!(error.to_string().contains("500"), "{error}");
    let atom = stm.create_atom("/a", large(0)).await?;
    refused_at(atom.reset(vec![0; 501]).await, ErrorKind::TooLarge, atom.key(), "a large value of an atom");
    refused_at(
        stm.create_ref("/t", vec![0_u8; 501]).await,
        ErrorKind::TooLarge,
        &crate::sample::key("/t"),
        "a new ref",
    );
    assert_eq!((r.get().await?, s.get().await?, atom.get().await?), (large(0), large(0), large(0)));
    r.set(vec![0; 450]).await?;
    stm.close().await;
    for key in [r.key(), s.key()] {
        let (held, pointed) = versions(&ctx, key).await?;
        assert_eq!(held, pointed, "of {key}");
    }
    Ok(())
}

/// After many updates by two clients, and `close`, the container holds what the record points at and no more. The original left
/// a thousand nodes for a thousand transactions.
async fn nothing_is_left_but_what_the_record_points_at(ctx: Ctx) -> Outcome {
    for history in [0_u16, 3] {
        let (one, ..) = small(&ctx).await?;
        let (two, ..) = small(&ctx).await?;
        let name = format!("/r/{history}");
        let r = one.create_ref(&name, large(0)).history(history).await?;
        let of_two = two.open_ref::<Vec<u8>>(&name).await?;
        for n in 0..15 {
            if n % 2 == 0 { &r } else { &of_two }.set(large(n)).await?;
        }
        one.close().await;
        two.close().await;
        let (held, pointed) = versions(&ctx, r.key()).await?;
        assert_eq!(held, pointed);
        assert_eq!(held.len(), usize::from(history) + 1);
        let (last, ..) = small(&ctx).await?;
        let r = last.open_ref::<Vec<u8>>(&name).await?;
        r.set(vec![]).await?;
        for _ in 0..=history {
            r.set(vec![]).await?;
        }
        last.close().await;
        assert_eq!(versions(&ctx, r.key()).await?.0, [], "after all were replaced by small ones");
    }
    Ok(())
}

/// Values of attempts that lost are deleted, where many lose.
async fn nothing_is_left_of_lost_attempts(ctx: Ctx) -> Outcome {
    let (one, ..) = small(&ctx).await?;
    let (two, ..) = small(&ctx).await?;
    let r = one.create_ref("/r", large(0)).history(2).await?;
    let of_two = two.open_ref::<Vec<u8>>("/r").await?;
    let tasks = (0..8_u8).map(|task| {
        let r = if task % 2 == 0 { r.clone() } else { of_two.clone() };
        async move {
            for _ in 0..5 {
                r.update(|value| value.push(task)).await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(r.get().await?.len(), INLINE * 4 + 40);
    one.close().await;
    two.close().await;
    let (held, pointed) = versions(&ctx, r.key()).await?;
    assert_eq!(held, pointed, "{:?} and {:?}", one.stats(), two.stats());
    Ok(())
}

/// Values of a commit that the coordinator refused, or that never was sent, are deleted.
async fn nothing_is_left_of_a_refused_commit(ctx: Ctx) -> Outcome {
    let (stm, rig, store) = small(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", large(0)).await?, stm.create_ref("/s", large(0)).await?);
    rig.commits(super::rig::Then::Fail(ErrorKind::Full));
    assert!(r.set(large(1)).await.is_err());
    rig.commits(super::rig::Then::Pass);
    store.value_writes(super::rig::Then::Fail(ErrorKind::Full));
    assert!(s.set(large(1)).await.is_err());
    stm.close().await;
    for key in [r.key(), s.key()] {
        let (held, pointed) = versions(&ctx, key).await?;
        assert_eq!((held.len(), held), (1, pointed), "of {key}");
    }
    Ok(())
}

/// When a ref is destroyed and made again with another type, nothing of its earlier values is left.
async fn nothing_is_left_of_a_ref_made_again_as_another_type(ctx: Ctx) -> Outcome {
    let (stm, ..) = small(&ctx).await?;
    let r = stm.create_ref("/r", large(0)).await?;
    for n in 1..4 {
        r.set(large(n)).await?;
    }
    r.destroy().await?;
    stm.create_ref("/r", "x".repeat(INLINE * 2)).await?;
    stm.close().await;
    let (held, pointed) = versions(&ctx, r.key()).await?;
    assert_eq!((held.len(), held), (1, pointed));
    Ok(())
}

/// A value in a store is fetched once by each client, and not at all by the one that wrote it, unless nothing is kept in
/// memory.
async fn values_are_read_from_memory_once_known(ctx: Ctx) -> Outcome {
    let open = async |cache: u64| {
        let (coordinator, store) = roles(&ctx).await?;
        let counting = Arc::new(CountingStore::new(Arc::new(RiggedStore::new(store))));
        let rigged = Arc::new(Rigged::new(coordinator).small(INLINE));
        let stm = ctx.stm(rigged, Arc::clone(&counting) as _).cache_bytes(cache).build();
        Ok::<_, Failure>((stm, counting))
    };
    let (one, of_one) = open(1 << 20).await?;
    let (two, of_two) = open(1 << 20).await?;
    let (none, of_none) = open(0).await?;
    let r = one.create_ref("/r", large(0)).await?;
    let others = (two.open_ref::<Vec<u8>>("/r").await?, none.open_ref::<Vec<u8>>("/r").await?);
    for _ in 0..5 {
        for r in [&r, &others.0, &others.1] {
            assert_eq!(r.get().await?, large(0));
        }
    }
    let reads = [of_one, of_two, of_none].map(|counting| counting.counts().value_reads);
    assert_eq!(reads, [0, 1, 5]);
    Ok(())
}

/// A value that its store has lost is `Corrupt` for who reads it, and can be replaced.
async fn a_lost_value_is_corrupt(ctx: Ctx) -> Outcome {
    let (one, ..) = small(&ctx).await?;
    let (two, ..) = small(&ctx).await?;
    one.create_ref("/r", large(0)).await?;
    let r = two.open_ref::<Vec<u8>>("/r").await?;
    let (held, _) = versions(&ctx, r.key()).await?;
    let (_, store) = roles(&ctx).await?;
    store.versioned_state(r.key()).delete_state_at(&held[0]).await?;
    refused_at(r.get().await, ErrorKind::Corrupt, r.key(), "get");
    refused_at(two.snapshot().await?.get(&r).await, ErrorKind::Corrupt, r.key(), "a snapshot's get");
    refused_at(
        two.dosync(async |tx| tx.commute(&r, |value| value).await).await,
        ErrorKind::Corrupt,
        r.key(),
        "commute",
    );
    let runs = Runs::default();
    two.dosync(async |tx| {
        runs.next();
        tx.set(&r, large(1)).await
    })
    .await?;
    assert_eq!((r.get().await?, runs.count()), (large(1), 1));
    let mut changes = r.watch().await?;
    let (before, _) = versions(&ctx, r.key()).await?;
    let of_one = one.open_ref::<Vec<u8>>("/r").await?;
    of_one.set(large(2)).await?;
    let (held, _) = versions(&ctx, r.key()).await?;
    let lost = held.iter().find(|version| !before.contains(version)).expect("a new value");
    store.versioned_state(r.key()).delete_state_at(lost).await?;
    let told = within(SOON, "an error", changes.next()).await.expect("a watch has no end");
    refused_at(told, ErrorKind::Corrupt, r.key(), "a watch");
    of_one.set(large(3)).await?;
    let told = within(SOON, "a change", changes.next()).await.expect("a watch has no end")?;
    assert_eq!(told.new, Some(large(3)));
    Ok(())
}

/// A snapshot fetches the values that it is asked for at the same time, by one deadline.
async fn a_snapshot_fetches_all_values_at_once(ctx: Ctx) -> Outcome {
    const READ: Duration = Duration::from_millis(500);
    const REFS: u8 = 6;
    let (writer, ..) = small(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator).small(INLINE));
    let reader = ctx.stm(rig, Arc::new(RiggedStore::new(store).slow(READ))).seed(ctx.seed).build();
    let mut refs = Vec::new();
    for n in 0..REFS {
        writer.create_ref(format!("/r/{n}"), large(n)).await?;
        refs.push(reader.open_ref::<Vec<u8>>(format!("/r/{n}")).await?);
    }
    let snapshot = reader.snapshot().await?;
    let begun = Instant::now();
    assert_eq!(snapshot.get_many(&refs).await?, (0..REFS).map(large).collect::<Vec<_>>());
    assert!(begun.elapsed() < READ * u32::from(REFS / 2), "it took {:?}", begun.elapsed());
    Ok(())
}
