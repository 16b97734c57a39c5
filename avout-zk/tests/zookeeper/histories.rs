//! An older copy of the data is put in place, or the namespace is made anew, while clients are in the middle of something.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avout_conformance::servers::ZooKeeper;
use avout_core::backend::{CasOutcome, Coordinator as _, Store as _};
use avout_core::protocol::{ClientId, CodecId, Commit, CommitOutcome, Meta, Payload, Put, Record, State, Version};
use avout_core::{ErrorKind, Key, Ref, Stm};
use tokio::sync::Barrier;

use crate::support::{Outcome, PATIENCE, client, eventually, stm, tests, two_refs, within};

tests![
    what_is_committed_after_a_restore_stays,
    what_an_ensemble_commits_after_a_restore_stays,
    an_atom_written_after_a_restore_stays,
    a_value_that_went_back_is_not_committed,
    a_sleeper_is_told_of_two_restores,
    a_restart_loses_nothing,
    a_namespace_made_anew_takes_no_old_commit,
    a_namespace_without_eras_gets_one,
];

/// A copy of each node's data.
#[derive(Default)]
pub(crate) struct Copies(Vec<PathBuf>);

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Copies each node's data, as it is now.
pub(crate) fn copy_of(zk: &ZooKeeper) -> Result<Copies, Box<dyn std::error::Error>> {
    let mut copies = Vec::new();
    for node in zk.nodes() {
        let to = node.folder().join("copy");
        copy_all(&node.folder().join("data"), &to)?;
        copies.push(to);
    }
    Ok(Copies(copies))
}

/// The same while all are down.
async fn copy(zk: &ZooKeeper) -> Result<Copies, Box<dyn std::error::Error>> {
    zk.kill_all().await?;
    let copies = copy_of(zk)?;
    zk.start_all().await?;
    Ok(copies)
}

pub(crate) async fn put_back(zk: &ZooKeeper, copy: &Copies) -> Outcome {
    zk.kill_all().await?;
    for (node, copy) in zk.nodes().iter().zip(&copy.0) {
        copy_all(copy, &node.folder().join("data"))?;
    }
    zk.start_all().await?;
    Ok(())
}

async fn add(stm: &Stm, r: &Ref<i64>, n: i64) -> avout_core::Result<i64> {
    stm.transaction().deadline(PATIENCE).dosync(async |tx| tx.alter(r, |old| old + n).await).await
}

/// A client is stopped between its reads and its commit. Meanwhile an older copy of the data is put back, and another client commits
/// as often as the copy lacks commits. What that one was told stays, and the first one is told that its history is gone.
async fn restore_under_a_transaction(zk: ZooKeeper) -> Outcome {
    let url = format!("{}?session_timeout=2s", zk.url("restore"));
    let maker = client(&url).await?;
    let (r, _) = two_refs(&maker).await?;
    add(&maker, &r, 1).await?;
    let older = copy(&zk).await?;
    for _ in 0..3 {
        add(&maker, &r, 1).await?;
    }
    let backend = avout_zk::connect(&url).await?;
    let sleeper = stm(&backend);
    let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let task = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        tokio::spawn(async move {
            let r: Ref<i64> = sleeper.open_ref("/a").await?;
            let changed = sleeper.transaction().deadline(PATIENCE).dosync(async |tx| {
                let n = tx.get(&r).await?;
                if tx.attempt() == 1 {
                    begun.wait().await;
                    go_on.wait().await;
                }
                tx.set(&r, n + 1).await?;
                Ok::<_, avout_core::Error>(n)
            });
            changed.await
        })
    };
    within("the body", begun.wait()).await;
    put_back(&zk, &older).await?;
    let other = client(&url).await?;
    let (s, _) = two_refs(&other).await?;
    for n in 1..=3 {
        assert_eq!(within("a commit", add(&other, &s, 10)).await?, 1 + 10 * n);
    }
    go_on.wait().await;
    let ended = within("the transaction", task).await?;
    match &ended {
        Ok(seen) => assert_eq!(*seen, 31, "it committed what it had read in the lost history"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}"),
    }
    let left = other.transaction().deadline(PATIENCE).dosync(async |tx| tx.get(&s).await).await?;
    assert_eq!(left, if ended.is_ok() { 32 } else { 31 }, "acknowledged commits are gone: {ended:?}");
    assert_eq!(backend.coordinator.losses().map(|losses| losses.count()), Some(1));
    Ok(())
}

async fn what_is_committed_after_a_restore_stays() -> Outcome {
    restore_under_a_transaction(ZooKeeper::single().await?).await
}

async fn what_an_ensemble_commits_after_a_restore_stays() -> Outcome {
    restore_under_a_transaction(ZooKeeper::ensemble(3).await?).await
}

/// An atom's state that was read before a restore replaces none that was written after it.
async fn an_atom_written_after_a_restore_stays() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = format!("{}?session_timeout=2s", zk.url("restore_atom"));
    let old = avout_zk::connect(&url).await?;
    let key = Key::new("/atom")?;
    let atom = old.store.state(&key);
    let value = |text: &'static str| State::Bytes(text.as_bytes().into());
    atom.set_state(value("made")).await?;
    let older = copy(&zk).await?;
    let set = async |atom: &dyn avout_core::backend::StateContainer, text| {
        eventually("a write", || async { atom.set_state(value(text)).await.is_ok() }).await;
    };
    set(&*atom, "lost").await;
    let (_, read) = atom.state().await?.ok_or("no state")?;
    put_back(&zk, &older).await?;
    let new = avout_zk::connect(&url).await?;
    set(&*new.store.state(&key), "acknowledged").await;
    let outcome = within("an answer", async {
        loop {
            match atom.compare_and_set_state(Some(read.clone()), value("stale")).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                ended => return ended,
            }
        }
    });
    let outcome = outcome.await?;
    assert!(matches!(outcome, CasOutcome::Stale(_)), "{outcome:?}");
    let (left, _) = new.store.state(&key).state().await?.ok_or("no state")?;
    assert!(matches!(&left, State::Bytes(bytes) if bytes[..] == b"acknowledged"[..]), "{left:?}");
    Ok(())
}

/// A value that was written before a restore, by a client that has seen nothing of what is lost, is gone: no commit makes a record that points at
/// it.
async fn a_value_that_went_back_is_not_committed() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = format!("{}?session_timeout=2s", zk.url("restore_value"));
    let backend = avout_zk::connect(&url).await?;
    let older = copy_of(&zk)?;
    let key = Key::new("/r")?;
    let version = |sequence| Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence };
    let values = backend.store.versioned_state(&key);
    values.set_state_at(&version(1), State::Bytes("x".repeat(100_000).into())).await?;
    put_back(&zk, &older).await?;
    let commit = async |sequence| {
        let realm = backend.store.realm();
        let meta = Arc::new(Meta { realm, codec: CodecId::JSON, type_tag: "x".into(), history: 0 });
        let record = Arc::new(Record::first(meta, Payload::Stored { realm, version: version(sequence) }));
        let commit = Commit { puts: vec![Put { key: key.clone(), revision: None, record }], ..Commit::default() };
        within("an answer", async {
            loop {
                match backend.coordinator.commit(&commit).await {
                    Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {}
                    ended => return ended,
                }
            }
        })
        .await
    };
    let refused = commit(1).await?;
    assert!(matches!(&refused, CommitOutcome::Conflict(conflict) if conflict.stale == [key.clone()]), "{refused:?}");
    values.set_state_at(&version(2), State::Bytes("y".repeat(100_000).into())).await?;
    assert!(matches!(commit(2).await?, CommitOutcome::Committed(_)));
    Ok(())
}

/// A client that sleeps while two older copies are put back, one after the other, learns that what it saw is gone.
async fn a_sleeper_is_told_of_two_restores() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = format!("{}?session_timeout=2s", zk.url("restore_twice"));
    let maker = client(&url).await?;
    let (r, _) = two_refs(&maker).await?;
    let first = copy(&zk).await?;
    add(&maker, &r, 1).await?;
    let proxy = zk.proxy(0).await?;
    let sleeper = avout_zk::connect(&format!("zk://{}/restore_twice", proxy.address())).await?;
    let keys = [Key::new("/a")?];
    let seen = sleeper.coordinator.read(&keys, None).await?;
    proxy.cut().await;
    for _ in 0..2 {
        put_back(&zk, &first).await?;
        let other = client(&url).await?;
        let (s, _) = two_refs(&other).await?;
        for _ in 0..4 {
            add(&other, &s, 10).await?;
        }
        drop(other);
    }
    proxy.heal().await?;
    eventually("the sleeper reads", || async { sleeper.coordinator.read(&keys, None).await.is_ok() }).await;
    let now = sleeper.coordinator.read(&keys, None).await?;
    assert_eq!(sleeper.coordinator.losses().map(|losses| losses.count()), Some(1));
    let revision =
        |snapshot: &avout_core::protocol::Snapshot| snapshot.entries[0].as_ref().map(|entry| entry.revision.clone());
    assert_ne!(revision(&seen), revision(&now));
    Ok(())
}

/// A restart, and a change of the leader, lose nothing, and nobody is told of a loss.
async fn a_restart_loses_nothing() -> Outcome {
    for nodes in [1, 3] {
        let zk = ZooKeeper::builder().nodes(nodes).start().await?;
        let url = format!("{}?session_timeout=2s", zk.url("restart"));
        let mut clients = Vec::new();
        for _ in 0..3 {
            let backend = avout_zk::connect(&url).await?;
            let stm = stm(&backend);
            let (r, _) = two_refs(&stm).await?;
            clients.push((backend, stm, r));
        }
        let mut count = 0;
        for _ in 0..2 {
            for (_, stm, r) in &clients {
                count += 1;
                assert_eq!(within("a commit", add(stm, r, 1)).await?, count);
            }
            let leader = zk.leader().await?;
            zk.node(leader).kill().await?;
            zk.node(leader).start().await?;
        }
        for (backend, stm, r) in &clients {
            count += 1;
            assert_eq!(within("a commit", add(stm, r, 1)).await?, count);
            assert_eq!(backend.coordinator.losses().map(|losses| losses.count()), Some(0), "{nodes} nodes");
        }
    }
    Ok(())
}

/// A namespace that was deleted and made anew by hand takes no commit that rests on the earlier one, though versions are the same.
async fn a_namespace_made_anew_takes_no_old_commit() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = zk.url("anew");
    let old = client(&url).await?;
    let (r, _) = two_refs(&old).await?;
    add(&old, &r, 1).await?;
    let raw = avout_zk::zookeeper::Client::connect(&zk.address()).await?;
    let changed = old.transaction().deadline(PATIENCE).dosync(async |tx| {
        let n = tx.get(&r).await?;
        if tx.attempt() == 1 {
            // In a task of its own: the body of a transaction is no place for another one.
            let (raw, url) = (raw.clone(), url.clone());
            let made = tokio::spawn(async move {
                delete_all(&raw, "/anew").await.map_err(|error| avout_core::Error::abort(error.to_string()))?;
                let new = client(&url).await?;
                let (s, _) = two_refs(&new).await?;
                add(&new, &s, 10).await
            });
            made.await.map_err(|error| avout_core::Error::abort(error.to_string()))??;
        }
        tx.set(&r, n + 1).await
    });
    let error = within("an error", changed).await.expect_err("another namespace");
    assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}");
    assert_eq!(client(&url).await?.open_ref::<i64>("/a").await?.get().await?, 10);
    Ok(())
}

async fn delete_all(zk: &avout_zk::zookeeper::Client, path: &str) -> Result<(), avout_zk::zookeeper::Error> {
    for child in zk.list_children(path).await? {
        Box::pin(delete_all(zk, &format!("{path}/{child}"))).await?;
    }
    zk.delete(path, None).await
}

/// A namespace of the version before has no eras: the first client that comes begins one, also under clients that have it open.
async fn a_namespace_without_eras_gets_one() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = zk.url("without");
    let stm = client(&url).await?;
    let (r, _) = two_refs(&stm).await?;
    add(&stm, &r, 1).await?;
    let raw = avout_zk::zookeeper::Client::connect(&zk.address()).await?;
    delete_all(&raw, "/without/era").await?;
    let next = client(&url).await?;
    let (s, _) = two_refs(&next).await?;
    assert_eq!(add(&next, &s, 1).await?, 2);
    // It cannot know what became of the era that it knew, and may be told so once.
    let added = match within("a commit", add(&stm, &r, 1)).await {
        Err(error) if error.kind() == ErrorKind::StoreLost => within("a commit", add(&stm, &r, 1)).await,
        added => added,
    };
    assert_eq!(added?, 3);
    assert_eq!(raw.list_children("/without/era").await?.len(), 2);
    Ok(())
}
