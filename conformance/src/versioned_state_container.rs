//! Group `versioned_state_container`: the contracts of [`VersionedStateContainer`].

use std::sync::Arc;

use avout_core::ErrorKind;
use avout_core::backend::VersionedStateContainer;
use avout_core::protocol::{ClientId, State, Version};
use bytes::Bytes;
use rand::seq::SliceRandom as _;

use crate::law::{Ctx, Failure, Outcome, laws, needs, together};
use crate::sample::{big, bytes, hostile_keys, key, state, version};
use crate::state_container::SIZES;

laws! { "versioned_state_container":
    absent_is_none_and_init_gives_no_value,
    what_is_written_is_found_by_all,
    writing_again_the_same_changes_nothing,
    another_value_never_takes_the_place_of_the_first,
    delete_removes_one_and_is_idempotent,
    many_are_deleted_at_once_and_no_others,
    versions_are_listed_in_order,
    versions_that_differ_in_one_part_are_kept_apart,
    hostile_keys_are_kept_apart,
    destroy_removes_all_and_is_idempotent,
    values_of_all_sizes_come_back,
    a_value_over_the_limit_is_refused,
    concurrent_writes_all_stay,
    a_concurrent_repeat_is_no_error,
    shared_values_come_back_as_they_are,
    survives_reopening,
}

async fn containers(ctx: &Ctx) -> Result<[Arc<dyn VersionedStateContainer>; 2], Failure> {
    let containers = ctx.stores().await?.map(|store| store.versioned_state(&key("/a")));
    containers[0].init().await?;
    Ok(containers)
}

/// The bytes of a version that was written.
async fn value(container: &dyn VersionedStateContainer, version: &Version) -> Result<Bytes, Failure> {
    let found = container.state_at(version).await?;
    Ok(bytes(&found.unwrap_or_else(|| panic!("{version:?} was written and is not found"))).clone())
}

/// There is no value before the first write; `init` may be repeated, gives none and keeps those that there are.
async fn absent_is_none_and_init_gives_no_value(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    two.init().await?;
    one.init().await?;
    assert!(one.state_at(&version(1)).await?.is_none() && one.versions().await?.is_empty());
    one.set_state_at(&version(1), state("kept")).await?;
    one.init().await?;
    two.init().await?;
    assert_eq!(value(&*two, &version(1)).await?, "kept", "init changed a value");
    Ok(())
}

/// A value is found by every client once its write has returned, and again and again.
async fn what_is_written_is_found_by_all(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    for n in 0..20 {
        let text = format!("value {n}");
        containers[n % 2].set_state_at(&version(n as u64), state(&text)).await?;
        for container in &containers {
            assert_eq!(value(&**container, &version(n as u64)).await?, text);
        }
    }
    for n in 0..20 {
        assert_eq!(value(&*containers[n % 2], &version(n as u64)).await?, format!("value {n}"));
    }
    assert!(containers[1].state_at(&version(20)).await?.is_none(), "a value of a version that nobody wrote");
    Ok(())
}

/// The same value may be written again under its version, by the same or another client.
async fn writing_again_the_same_changes_nothing(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    for size in [0, 10, 100_000] {
        let version = version(size as u64);
        for container in [&one, &one, &two] {
            container.set_state_at(&version, State::Bytes(big(size, 1))).await?;
            assert_eq!(value(&*one, &version).await?, big(size, 1));
        }
    }
    assert_eq!(one.versions().await?.len(), 3, "a repeated write made another version");
    Ok(())
}

/// A version has one value. Another one under its name is refused or left out; the first stays.
async fn another_value_never_takes_the_place_of_the_first(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let first = big(200_000, 1);
    one.set_state_at(&version(1), State::Bytes(first.clone())).await?;
    for other in [Bytes::from_static(b"other"), big(200_000, 2), big(400_000, 3), Bytes::new()] {
        // The engine never does this, so the trait does not say how it is refused.
        let _ = two.set_state_at(&version(1), State::Bytes(other)).await;
        for container in [&one, &two] {
            assert!(value(&**container, &version(1)).await? == first, "a value changed after it was written");
        }
    }
    Ok(())
}

/// `delete_state_at` removes the value of this version, for everyone, and no other; it may be repeated.
async fn delete_removes_one_and_is_idempotent(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.delete_state_at(&version(1)).await?;
    for n in 1..=3 {
        one.set_state_at(&version(n), State::Bytes(big(100_000, n as u8))).await?;
    }
    two.delete_state_at(&version(2)).await?;
    two.delete_state_at(&version(2)).await?;
    one.delete_state_at(&version(9)).await?;
    for container in [&one, &two] {
        assert!(container.state_at(&version(2)).await?.is_none(), "a deleted value is found");
        assert_eq!(container.versions().await?, [version(1), version(3)]);
        for n in [1, 3] {
            assert!(value(&**container, &version(n)).await? == big(100_000, n as u8), "another version was deleted");
        }
    }
    Ok(())
}

/// `delete_states_at` removes these values, for everyone, and no others, whichever of them are there; it may be repeated.
async fn many_are_deleted_at_once_and_no_others(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let keys = ["/a", "/a/b", "/c"].map(key);
    for key in &keys {
        for n in 1..=4 {
            one.versioned_state(key).set_state_at(&version(n), State::Bytes(big(100_000, n as u8))).await?;
        }
    }
    let gone = [(0, 2), (0, 3), (1, 1), (2, 9), (0, 2)].map(|(of, n)| (keys[of].clone(), version(n)));
    for gone in [&gone[..], &gone[..], &[]] {
        two.delete_states_at(gone).await?;
    }
    for (key, kept) in keys.iter().zip([&[1, 4][..], &[2, 3, 4], &[1, 2, 3, 4]]) {
        let container = one.versioned_state(key);
        assert_eq!(container.versions().await?, kept.iter().copied().map(version).collect::<Vec<_>>(), "of {key}");
        for n in kept {
            assert!(value(&*container, &version(*n)).await? == big(100_000, *n as u8), "value {n} of {key} is another");
        }
        for n in (1..=9).filter(|n| !kept.contains(n)) {
            assert!(container.state_at(&version(n)).await?.is_none(), "value {n} of {key} is found");
        }
    }
    Ok(())
}

/// All versions that have a value are listed, in order, whatever the order of writing.
async fn versions_are_listed_in_order(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut all = Vec::new();
    for epoch in [0, 1, 255, 256, u64::MAX] {
        for client in [0, 1, u128::MAX] {
            for (slot, sequence) in [(0, 9), (0, 10), (3, 1), (u32::MAX, u64::MAX)] {
                all.push(Version { epoch, client: ClientId::new(client), slot, sequence });
            }
        }
    }
    let mut shuffled = all.clone();
    shuffled.shuffle(&mut ctx.rng(0));
    for version in &shuffled {
        one.set_state_at(version, state("x")).await?;
    }
    assert_eq!(two.versions().await?, all);
    Ok(())
}

/// Each part of a version is a part of the value's name.
async fn versions_that_differ_in_one_part_are_kept_apart(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let base = Version { epoch: 1 << 40, client: ClientId::new(1 << 100), slot: 1 << 20, sequence: 1 << 40 };
    let all = [
        base,
        Version { epoch: base.epoch + 1, ..base },
        Version { client: ClientId::new((1 << 100) + 1), ..base },
        Version { client: ClientId::new((1 << 100) + (1 << 70)), ..base },
        Version { slot: base.slot + 1, ..base },
        Version { sequence: base.sequence + 1, ..base },
        Version { sequence: base.sequence + (1 << 62), ..base },
    ];
    for (n, version) in all.iter().enumerate() {
        one.set_state_at(version, state(n.to_string())).await?;
    }
    for (n, version) in all.iter().enumerate() {
        assert_eq!(value(&*two, version).await?, n.to_string(), "{version:?}");
    }
    Ok(())
}

/// Keys that look alike to a store, or mean something to it, are different containers.
async fn hostile_keys_are_kept_apart(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let mut all = hostile_keys();
    for key in &all {
        let container = one.versioned_state(key);
        container.init().await?;
        assert!(container.versions().await?.is_empty(), "{key} is taken for another key");
        container.set_state_at(&version(1), state(key.as_str())).await?;
    }
    for key in &all {
        let container = two.versioned_state(key);
        assert_eq!(value(&*container, &version(1)).await?, key.as_str(), "{key}");
        assert_eq!(container.versions().await?, [version(1)], "{key}");
    }
    two.versioned_state(&key("/a")).destroy().await?;
    all.retain(|other| *other != key("/a"));
    all.sort_unstable();
    assert_eq!(one.all_keys(avout_core::backend::Kind::Ref, &avout_core::Key::root()).await?, all);
    Ok(())
}

/// `destroy` removes all values of its own container, for everyone, may be repeated, and lets it be used again.
async fn destroy_removes_all_and_is_idempotent(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let [a, b, under] = ["/a", "/b", "/a/b"].map(|name| one.versioned_state(&key(name)));
    a.destroy().await?;
    for container in [&a, &b, &under] {
        container.init().await?;
        for n in 0..5 {
            container.set_state_at(&version(n), State::Bytes(big(50_000, n as u8))).await?;
        }
    }
    let other = two.versioned_state(&key("/a"));
    other.destroy().await?;
    other.destroy().await?;
    assert!(a.versions().await?.is_empty() && a.state_at(&version(1)).await?.is_none(), "a destroyed value is found");
    for container in [&b, &under] {
        assert_eq!(container.versions().await?.len(), 5, "destroying one container changed another");
    }
    other.init().await?;
    other.set_state_at(&version(9), state("new")).await?;
    assert_eq!(a.versions().await?, [version(9)]);
    Ok(())
}

/// Values of all sizes up to the limit come back as they were.
async fn values_of_all_sizes_come_back(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let limit = one.capabilities().max_value;
    let (one, two) = (one.versioned_state(&key("/a")), two.versioned_state(&key("/a")));
    one.init().await?;
    let sizes: Vec<usize> =
        SIZES.into_iter().filter(|size| *size <= limit).chain((limit < 64 << 20).then_some(limit)).collect();
    for (n, size) in sizes.iter().enumerate() {
        one.set_state_at(&version(n as u64), State::Bytes(big(*size, n as u8))).await?;
    }
    for (n, size) in sizes.iter().enumerate() {
        let found = value(&*two, &version(n as u64)).await?;
        assert!(found == big(*size, n as u8), "{} bytes came back for {size}, or others", found.len());
    }
    Ok(())
}

/// A value of one byte more than the limit is refused as too large, and nothing is written.
async fn a_value_over_the_limit_is_refused(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let limit = store.capabilities().max_value;
    needs(limit < 256 << 20, "its limit is out of reach, or it has none")?;
    let container = store.versioned_state(&key("/a"));
    container.init().await?;
    let refused = container.set_state_at(&version(1), State::Bytes(Bytes::from(vec![7; limit + 1]))).await;
    assert_eq!(refused.expect_err("a value over the limit was taken").kind(), ErrorKind::TooLarge);
    assert!(container.state_at(&version(1)).await?.is_none(), "a refused value is found");
    assert!(container.versions().await?.is_empty(), "a refused value is listed");
    Ok(())
}

/// Values that many tasks write to one container at a time, by two clients, are all found.
async fn concurrent_writes_all_stay(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let tasks = (0..10).map(|task| {
        let container = containers[task % 2].clone();
        async move {
            for n in 0..6 {
                let version = Version { client: ClientId::new(task as u128), ..version(n) };
                container.set_state_at(&version, state(format!("{task}, {n}"))).await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(containers[0].versions().await?.len(), 60);
    for (task, n) in (0..10).flat_map(|task| (0..6).map(move |n| (task, n))) {
        let version = Version { client: ClientId::new(task), ..version(n) };
        assert_eq!(value(&*containers[1], &version).await?, format!("{task}, {n}"));
    }
    Ok(())
}

/// One value that is written at the same time by many, as a caller does whose replies are late, is written once.
async fn a_concurrent_repeat_is_no_error(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    for round in 0..5 {
        let tasks = (0..6).map(|task| {
            let container = containers[task % 2].clone();
            async move { Ok(container.set_state_at(&version(round), State::Bytes(big(70_000, 1))).await?) }
        });
        together(tasks).await?;
        assert!(value(&*containers[0], &version(round)).await? == big(70_000, 1));
    }
    Ok(())
}

/// A store in this process gives back the very value that was written.
async fn shared_values_come_back_as_they_are(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    needs(one.capabilities().in_process, "it does not live in this process")?;
    let value: avout_core::protocol::Shared = Arc::new("some value".to_owned());
    for _ in 0..2 {
        one.versioned_state(&key("/a")).set_state_at(&version(1), State::Shared(Arc::clone(&value))).await?;
    }
    match two.versioned_state(&key("/a")).state_at(&version(1)).await? {
        Some(State::Shared(found)) => assert!(Arc::ptr_eq(&found, &value), "another value came back"),
        found => panic!("{found:?} came back for a shared value"),
    }
    Ok(())
}

/// Values outlive all clients, and so do deletions.
async fn survives_reopening(ctx: Ctx) -> Outcome {
    needs(ctx.fixture.survives_reopen(), "a namespace does not outlive its clients")?;
    let store = ctx.store().await?;
    let container = store.versioned_state(&key("/a"));
    container.init().await?;
    for n in 0..3 {
        container.set_state_at(&version(n), State::Bytes(big(100_000, n as u8))).await?;
    }
    container.delete_state_at(&version(1)).await?;
    drop((container, store));
    let container = ctx.store().await?.versioned_state(&key("/a"));
    container.init().await?;
    assert_eq!(container.versions().await?, [version(0), version(2)]);
    assert!(value(&*container, &version(2)).await? == big(100_000, 2));
    Ok(())
}
