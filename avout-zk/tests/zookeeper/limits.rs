//! Sizes, quotas, versions at their end, and what others do to the znodes.

use std::sync::Arc;

use avout_conformance::servers::{ZooKeeper, shared};
use avout_core::backend::{Coordinator as _, Store as _};
use avout_core::protocol::{ClientId, State, Version};
use avout_core::{ErrorKind, Key};
use avout_zk::Options;
use avout_zk::zookeeper::{Acls, Client, CreateMode, CreateOptions};
use bytes::Bytes;

use crate::support::{Outcome, client, hello, stm, tests, two_refs, within};

tests![
    versions_pass_their_end,
    a_quota_is_an_error_of_its_own,
    a_namespace_of_others_is_left_alone,
    a_namespace_made_anew_is_another,
    a_foreign_znode_is_one_keys_trouble,
    what_is_made_by_hand_stays_corrupt,
    what_the_version_before_wrote_is_read,
    parts_that_nobody_needs_go,
    a_value_that_was_cut_short_is_none,
    a_value_that_lacks_a_part_is_corrupt,
    names_too_long_for_a_request_are_refused,
];

const OPEN: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

async fn raw(zk: &ZooKeeper) -> Result<Client, Box<dyn std::error::Error>> {
    Ok(Client::connect(&zk.address()).await?)
}

/// Where a znode's version would be the one that means "any" it is left out, for refs, slots and atoms, also while many write.
async fn versions_pass_their_end() -> Outcome {
    let zk = shared::zookeeper().await?;
    let options = Options::new(zk.address(), "/limits_versions")?.hop_at(3);
    let backend = options.clone().open().await?;
    let (one, two) = (stm(&backend), stm(&options.open().await?));
    let (a, b) = two_refs(&one).await?;
    let (c, d) = two_refs(&two).await?;
    let work = [(one.clone(), a.clone(), b), (two.clone(), c, d)].map(|(stm, a, b)| {
        tokio::spawn(async move {
            for _ in 0..20 {
                hello(&stm, &a, &b).await?;
            }
            Ok::<_, avout_core::Error>(())
        })
    });
    for work in work {
        work.await??;
    }
    assert_eq!(a.get().await?, 40);
    let atom = one.create_atom("/atom", 0_i64).await?;
    let again = two.open_atom::<i64>("/atom").await?;
    for _ in 0..10 {
        atom.swap(|n| n + 1).await?;
        again.swap(|n| n + 1).await?;
    }
    assert_eq!(atom.get().await?, 20);
    // Each write is a version, the first one is made in two, and there are two more where it hopped.
    let (_, stat) = raw(zk).await?.get_data(&path_of("limits_versions", "refs", "a")).await?;
    assert_eq!(stat.version, 43);
    Ok(())
}

fn path_of(namespace: &str, folder: &str, name: &str) -> String {
    let bucket = crc32fast::hash(format!("/{name}").as_bytes()) % 64;
    format!("/{namespace}/{folder}/{bucket:02x}/{name}")
}

/// A quota that is used up is `Full`: nothing was written, and reading goes on.
async fn a_quota_is_an_error_of_its_own() -> Outcome {
    let zk = ZooKeeper::builder().java("-Dzookeeper.enforceQuota=true").start().await?;
    let stm = client(&zk.url("quota")).await?;
    let (a, b) = two_refs(&stm).await?;
    let raw = raw(&zk).await?;
    let quota = "/zookeeper/quota/quota";
    raw.create(quota, b"", &OPEN).await?;
    let limits = "count=-1,bytes=-1;byteHardLimit=10000;countHardLimit=-1";
    raw.create(&format!("{quota}/zookeeper_limits"), limits.as_bytes(), &OPEN).await?;
    raw.create(&format!("{quota}/zookeeper_stats"), b"count=0,bytes=0", &OPEN).await?;
    let error = stm.create_ref("/big", "x".repeat(15_000)).await.expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert_eq!((a.get().await?, b.get().await?), (0, 0));
    let error = stm.create_ref("/large", "x".repeat(100_000)).await.expect_err("no room in the store either");
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert_eq!(stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?, 1);
    Ok(())
}

/// A path that holds something else is refused and stays as it is; one that is there and empty is taken.
async fn a_namespace_of_others_is_left_alone() -> Outcome {
    let zk = shared::zookeeper().await?;
    let raw = raw(zk).await?;
    raw.mkdir("/limits_foreign/meta", &OPEN).await?;
    raw.set_data("/limits_foreign/meta", b"somebody's", None).await?;
    let error = client(&zk.url("limits_foreign")).await.expect_err("somebody's");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    raw.mkdir("/limits_half/refs", &OPEN).await?;
    let error = client(&zk.url("limits_half")).await.expect_err("somebody's");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    assert_eq!(raw.list_children("/limits_half").await?, ["refs"]);
    raw.mkdir("/limits_empty", &OPEN).await?;
    two_refs(&client(&zk.url("limits_empty/in/it")).await?).await?;
    raw.set_data("/limits_empty/in/it/meta", b"avout 2 0", None).await?;
    let error = client(&zk.url("limits_empty/in/it")).await.expect_err("a newer layout");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    Ok(())
}

async fn delete_all(raw: &Client, path: &str) -> Outcome {
    for child in raw.list_children(path).await? {
        Box::pin(delete_all(raw, &format!("{path}/{child}"))).await?;
    }
    Ok(raw.delete(path, None).await?)
}

/// A namespace that was deleted, and perhaps made anew, is not the one that a client has open.
async fn a_namespace_made_anew_is_another() -> Outcome {
    let zk = shared::zookeeper().await?;
    let stm = client(&zk.url("limits_anew")).await?;
    let (a, b) = two_refs(&stm).await?;
    delete_all(&raw(zk).await?, "/limits_anew").await?;
    assert_eq!(hello(&stm, &a, &b).await.expect_err("gone").kind(), ErrorKind::StoreLost);
    two_refs(&client(&zk.url("limits_anew")).await?).await?;
    assert_eq!(hello(&stm, &a, &b).await.expect_err("another one").kind(), ErrorKind::StoreLost);
    Ok(())
}

/// A record that somebody else wrote is `Corrupt`, with its key; other refs go on.
async fn a_foreign_znode_is_one_keys_trouble() -> Outcome {
    let zk = shared::zookeeper().await?;
    let stm = client(&zk.url("limits_corrupt")).await?;
    let (a, b) = two_refs(&stm).await?;
    raw(zk).await?.set_data(&path_of("limits_corrupt", "refs", "a"), b"garbage", None).await?;
    let error = a.get().await.expect_err("garbage");
    assert_eq!((error.kind(), error.key().map(Key::as_str)), (ErrorKind::Corrupt, Some("/a")), "{error:?}");
    stm.dosync(async |tx| tx.alter(&b, |n| n + 1).await).await?;
    assert_eq!(b.get().await?, 1);
    Ok(())
}

/// A record or an atom that was deleted and made again by hand with the same bytes, or set by hand to bytes that it had, is `Corrupt` for
/// good, though later commits move the clock on.
async fn what_is_made_by_hand_stays_corrupt() -> Outcome {
    let zk = shared::zookeeper().await?;
    let stm = client(&zk.url("limits_by_hand")).await?;
    let raw = raw(zk).await?;
    let moving = stm.create_ref("/moving", 0_i64).await?;
    for made_again in [true, false] {
        let (r, atom) = (stm.create_ref("/r", 0_i64).await?, stm.create_atom("/atom", 0_i64).await?);
        for (folder, name) in [("refs", "r"), ("atoms", "atom")] {
            let path = path_of("limits_by_hand", folder, name);
            let (data, _) = raw.get_data(&path).await?;
            if made_again {
                raw.delete(&path, None).await?;
                raw.create(&path, &data, &OPEN).await?;
            } else {
                raw.set_data(&path, &data, None).await?;
            }
        }
        stm.dosync(async |tx| tx.alter(&moving, |n| n + 1).await).await?;
        let read = stm.dosync(async |tx| tx.get(&r).await).await;
        let written = stm.dosync(async |tx| tx.alter(&r, |n| n + 1).await).await;
        let (swapped, fetched) = (atom.swap(|n| n + 1).await, atom.get().await);
        for (what, result, key) in
            [("read", read, "/r"), ("write", written, "/r"), ("swap", swapped, "/atom"), ("get", fetched, "/atom")]
        {
            let error = result.err().ok_or(what)?;
            assert_eq!((error.kind(), error.key().map(Key::as_str)), (ErrorKind::Corrupt, Some(key)), "{what}");
        }
        // What is deleted by hand is gone.
        for (folder, name) in [("refs", "r"), ("atoms", "atom")] {
            raw.delete(&path_of("limits_by_hand", folder, name), None).await?;
        }
    }
    Ok(())
}

/// Records and atoms without a stamp, as the version before wrote them, are read, and get one when they are written.
async fn what_the_version_before_wrote_is_read() -> Outcome {
    let zk = shared::zookeeper().await?;
    let stm = client(&zk.url("limits_before")).await?;
    let raw = raw(zk).await?;
    let (r, atom) = (stm.create_ref("/r", 1_i64).await?, stm.create_atom("/atom", 1_i64).await?);
    let moving = stm.create_ref("/moving", 0_i64).await?;
    let paths = [path_of("limits_before", "refs", "r"), path_of("limits_before", "atoms", "atom")];
    for path in &paths {
        let (data, _) = raw.get_data(path).await?;
        raw.delete(path, None).await?;
        // The stamp is a byte and a version.
        raw.create(path, &data[5..], &OPEN).await?;
    }
    stm.dosync(async |tx| tx.alter(&moving, |n| n + 1).await).await?;
    assert_eq!((r.get().await?, atom.get().await?), (1, 1));
    assert_eq!(stm.dosync(async |tx| tx.alter(&r, |n| n + 1).await).await?, 2);
    assert_eq!(atom.swap(|n| n + 1).await?, 2);
    for path in &paths {
        assert_eq!(raw.get_data(path).await?.0[0], 0xa5, "{path}");
    }
    assert_eq!((r.get().await?, atom.get().await?), (2, 2));
    Ok(())
}

fn large(seed: u8) -> State {
    State::Bytes(Bytes::from(vec![seed; 2_000_000]))
}

/// A large value that was replaced or removed leaves none of its parts, and racing writers of large values leave a whole one.
async fn parts_that_nobody_needs_go() -> Outcome {
    let zk = shared::zookeeper().await?;
    let (one, two) =
        (avout_zk::connect(&zk.url("limits_parts")).await?, avout_zk::connect(&zk.url("limits_parts")).await?);
    let raw = raw(zk).await?;
    let key = Key::new("/atom")?;
    let path = path_of("limits_parts", "atoms", "atom");
    let atoms = [one.store.state(&key), two.store.state(&key)];
    let racers = (0..8_u8).map(|n| {
        let atom = Arc::clone(&atoms[usize::from(n) % 2]);
        tokio::spawn(async move { atom.set_state(large(n)).await })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await??;
    }
    let (State::Bytes(found), _) = atoms[0].state().await?.ok_or("no state")? else { return Err("no bytes".into()) };
    assert!(found.len() == 2_000_000 && found.iter().all(|byte| *byte == found[0]), "a mixture");
    assert_eq!(raw.list_children(&path).await?.len(), 4, "parts of values that were replaced");
    atoms[1].set_state(State::Bytes(Bytes::from_static(b"small"))).await?;
    assert_eq!(raw.list_children(&path).await?, [""; 0]);
    atoms[1].set_state(large(9)).await?;
    atoms[0].destroy().await?;
    assert_eq!(raw.list_children(&path).await?, [""; 0]);

    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    let values = one.store.versioned_state(&key);
    values.set_state_at(&version, large(1)).await?;
    assert!(two.store.versioned_state(&key).set_state_at(&version, large(2)).await.is_err());
    let path = path_of("limits_parts", "values", "atom");
    assert_eq!(raw.list_children(&path).await?.len(), 5, "parts of a value that was refused");
    values.delete_state_at(&version).await?;
    assert_eq!(raw.list_children(&path).await?, [""; 0]);
    Ok(())
}

/// A large value whose head was never written is none. Its version is listed, and is deleted like any other.
async fn a_value_that_was_cut_short_is_none() -> Outcome {
    let zk = shared::zookeeper().await?;
    let backend = avout_zk::connect(&zk.url("limits_cut")).await?;
    let raw = raw(zk).await?;
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    let values = backend.store.versioned_state(&Key::new("/r")?);
    values.set_state_at(&version, large(1)).await?;
    let path = path_of("limits_cut", "values", "r");
    raw.delete(&format!("{path}/{version}"), None).await?;
    assert!(values.state_at(&version).await?.is_none());
    assert_eq!(values.versions().await?, [version]);
    values.set_state_at(&version, large(2)).await?;
    values.delete_state_at(&version).await?;
    values.delete_state_at(&version).await?;
    assert_eq!(raw.list_children(&path).await?, [""; 0]);
    Ok(())
}

/// A large value whose head is there, and a part of it is not, is `Corrupt`, and says which part is missing.
async fn a_value_that_lacks_a_part_is_corrupt() -> Outcome {
    let zk = shared::zookeeper().await?;
    let backend = avout_zk::connect(&zk.url("limits_lacks")).await?;
    let raw = raw(zk).await?;
    let key = Key::new("/atom")?;
    let atom = backend.store.state(&key);
    atom.set_state(large(1)).await?;
    let path = path_of("limits_lacks", "atoms", "atom");
    let mut parts = raw.list_children(&path).await?;
    parts.sort_unstable();
    raw.delete(&format!("{path}/{}", parts[1]), None).await?;
    let error = within("an answer", atom.state()).await.expect_err("a part is gone");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(&key)), "{error:?}");
    assert!(error.to_string().contains(&parts[1]), "{error}");
    // It can be written all the same.
    atom.set_state(large(2)).await?;
    assert!(atom.state().await?.is_some());
    Ok(())
}

/// Keys that grow beyond the request's limit when they are written as paths are refused before anything is sent.
async fn names_too_long_for_a_request_are_refused() -> Outcome {
    let zk = shared::zookeeper().await?;
    let backend = avout_zk::connect(&zk.url("limits_names")).await?;
    let keys: Vec<Key> = (0..1000).map(|n| Key::new(format!("/{n:03}{}", "%".repeat(500))).expect("a key")).collect();
    let error = backend.coordinator.read(&keys, None).await.expect_err("1.5 MB of paths");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    assert_eq!(backend.coordinator.read(&keys[..100], None).await?.entries.len(), 100);
    Ok(())
}
