//! An older copy of the data that is put back under running clients, and restarts that lose nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use avout_conformance::servers::Mongo;
use avout_core::backend::Coordinator as _;
use avout_core::protocol::Key;
use avout_core::{ErrorKind, Ref, Stm};
use avout_mongo::Backend;
use mongodb::bson::{Document, doc};
use tokio::sync::Notify;

use crate::support::{Outcome, driver, open, stm, with};

pub(crate) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

pub(crate) fn put_back(copy_of: &Path, folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    copy(copy_of, folder)
}

pub(crate) fn lost(backend: &Backend) -> u64 {
    backend.coordinator.losses().map_or(0, |losses| losses.count())
}

/// Clients that have seen commits which an older copy of the data lacks are told so, once, whoever has committed meanwhile. A
/// client that has not seen them is told nothing.
pub(crate) async fn an_older_copy_is_a_loss() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=older&timeout=5s");
    let (ours, theirs) = (open(&url).await?, open(&url).await?);
    let (one, two) = (stm(&ours), stm(&theirs));
    let key = Key::new("/r")?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let saved = tempfile::TempDir::new()?;
    mongo.node(0).kill().await?;
    copy(mongo.node(0).folder(), saved.path())?;
    mongo.node(0).start().await?;
    mongo.primary().await?;
    // What is lost has gone on for longer than a moment.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        r.alter(|n| n + 1).await?;
    }
    ours.coordinator.read(std::slice::from_ref(&key), None).await?;
    assert_eq!((lost(&ours), lost(&theirs)), (0, 0), "a restart loses nothing");
    mongo.node(0).kill().await?;
    put_back(saved.path(), mongo.node(0).folder())?;
    mongo.node(0).start().await?;
    mongo.primary().await?;

    // A third, and one that has slept, commit on what is left.
    let third = open(&url).await?;
    for _ in 0..3 {
        stm(&third).open_ref::<i64>("/r").await?.alter(|n| n + 10).await?;
    }
    assert_eq!(of_two.get().await?, 30);
    assert_eq!((lost(&theirs), lost(&third)), (0, 0), "they have seen nothing that is lost");
    for _ in 0..3 {
        // The first request may find its connection broken.
        let _ = ours.coordinator.read(std::slice::from_ref(&key), None).await;
    }
    assert_eq!(lost(&ours), 1, "it has seen what is lost");
    Ok(())
}

/// Servers that stop and start take their time.
fn patient(backend: &Backend) -> Stm {
    let builder = Stm::builder(backend.coordinator.clone(), backend.store.clone());
    builder.deadline(Some(Duration::from_secs(150))).build()
}

/// A server whose data was copied, and a client that has seen for longer than a moment what the copy lacks.
struct Restored {
    mongo: Mongo,
    saved: tempfile::TempDir,
    url: String,
}

impl Restored {
    async fn begin(namespace: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mongo = Mongo::replica_set(1).await?;
        let url = with(&mongo.url("tests"), &format!("namespace={namespace}&timeout=5s"));
        stm(&open(&url).await?).create_ref("/r", 0_i64).await?;
        let saved = tempfile::TempDir::new()?;
        mongo.node(0).kill().await?;
        copy(mongo.node(0).folder(), saved.path())?;
        mongo.node(0).start().await?;
        mongo.primary().await?;
        Ok(Self { mongo, saved, url })
    }

    /// Puts the copy back, and commits on it as another client.
    async fn put_back(&self) -> Outcome {
        self.mongo.node(0).kill().await?;
        put_back(self.saved.path(), self.mongo.node(0).folder())?;
        self.mongo.node(0).start().await?;
        self.mongo.primary().await?;
        let other = stm(&open(&self.url).await?);
        let r = other.open_ref::<i64>("/r").await?;
        for _ in 0..3 {
            r.alter(|n| n + 10).await?;
        }
        Ok(())
    }
}

pub(crate) async fn goes_on_for_a_moment(r: &Ref<i64>) -> Outcome {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        r.alter(|n| n + 1).await?;
    }
    Ok(())
}

/// A transaction that has read what is lost, and goes on after an older copy was put back and others have committed on it, is told of
/// the loss once, and commits nothing.
pub(crate) async fn what_was_read_in_a_lost_history_is_not_committed() -> Outcome {
    let restored = Restored::begin("read").await?;
    let ours = open(&restored.url).await?;
    let one = patient(&ours);
    let r = one.open_ref::<i64>("/r").await?;
    goes_on_for_a_moment(&r).await?;
    let (has_read, may_go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let transaction = {
        let (r, one) = (r.clone(), one.clone());
        let (has_read, may_go_on) = (Arc::clone(&has_read), Arc::clone(&may_go_on));
        tokio::spawn(async move {
            one.dosync(async |tx| {
                let n = tx.get(&r).await?;
                has_read.notify_one();
                may_go_on.notified().await;
                tx.set(&r, n + 1000).await
            })
            .await
        })
    };
    has_read.notified().await;
    restored.put_back().await?;
    may_go_on.notify_one();
    let error = transaction.await?.expect_err("what it has read is lost");
    assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}");
    assert_eq!(r.get().await?, 30, "it is told once, and nothing was committed");
    assert_eq!(lost(&ours), 1);
    Ok(())
}

/// The same of a commit that was sent, and reaches no server before the older copy is put back.
pub(crate) async fn a_commit_that_is_held_over_a_restore_is_not_made() -> Outcome {
    let restored = Restored::begin("held").await?;
    let proxy = restored.mongo.proxy(0).await?;
    let url = format!("mongodb://{}/tests?directConnection=true&namespace=held&timeout=20s", proxy.address());
    let ours = open(&url).await?;
    let one = patient(&ours);
    let r = one.open_ref::<i64>("/r").await?;
    goes_on_for_a_moment(&r).await?;
    let is_held = Arc::new(Notify::new());
    let transaction = {
        let (r, one, proxy, is_held) = (r.clone(), one.clone(), proxy.clone(), Arc::clone(&is_held));
        tokio::spawn(async move {
            one.dosync(async |tx| {
                let n = tx.get(&r).await?;
                tx.set(&r, n + 1000).await?;
                proxy.hold();
                is_held.notify_one();
                Ok(())
            })
            .await
        })
    };
    is_held.notified().await;
    restored.put_back().await?;
    proxy.release();
    let error = transaction.await?.expect_err("what it has read is lost");
    assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}");
    assert_eq!(r.get().await?, 30, "it is told once, and nothing was committed");
    assert_eq!(lost(&ours), 1);
    Ok(())
}

/// A client whose own last commit is lost is told, though the copy has the last beat: it looks for that commit.
pub(crate) async fn a_loss_after_the_last_beat_is_told_to_who_committed() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=short&timeout=5s");
    let ours = open(&url).await?;
    let r = stm(&ours).create_ref("/r", 0_i64).await?;
    r.set(0).await?;
    // The copy is of the same era.
    let database = driver(&url).await?;
    let (admin, refs) = (database.client().database("admin"), database.collection::<Document>("short.refs"));
    let saved = tempfile::TempDir::new()?;
    admin.run_command(doc! { "fsync": 1, "lock": true }).await?;
    copy(mongo.node(0).folder(), saved.path())?;
    admin.run_command(doc! { "fsyncUnlock": 1 }).await?;
    let mut beat = 0;
    let mut after_a_beat = false;
    while !after_a_beat {
        r.alter(|n| n + 1).await?;
        let era = refs.find_one(doc! { "_id": -1 }).await?.expect("there is an era");
        let written = refs.find_one(doc! { "_id": "/r" }).await?.expect("there is the ref");
        let bound = written.get_binary_generic("r")?[..8].try_into().map(i64::from_be_bytes)?;
        after_a_beat = beat == era.get_i64("beat")? && bound > beat;
        beat = era.get_i64("beat")?;
    }
    mongo.node(0).kill().await?;
    put_back(saved.path(), mongo.node(0).folder())?;
    mongo.node(0).start().await?;
    mongo.primary().await?;
    // As if the copy had been taken right after the beat.
    refs.update_one(doc! { "_id": -1 }, doc! { "$set": { "beat": beat } }).await?;
    let error = r.alter(|n| n + 1).await.expect_err("its last commit is lost");
    assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}");
    assert_eq!((r.alter(|n| n + 1).await?, lost(&ours)), (1, 1), "it is told once");
    Ok(())
}

/// Failovers and restarts lose nothing, and nobody is told of a loss.
pub(crate) async fn failovers_are_no_losses() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let url = with(&mongo.url("tests"), "namespace=eras&timeout=5s");
    let (ours, idle) = (open(&url).await?, open(&url).await?);
    let (one, two) = (stm(&ours), stm(&idle));
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    for round in 1..=2 {
        r.alter(|n| n + 1).await?;
        let primary = mongo.primary().await?;
        if round % 2 == 0 {
            mongo.step_down().await?;
        } else {
            mongo.node(primary).kill().await?;
            mongo.node(primary).start().await?;
        }
        assert_eq!(r.get().await?, round);
    }
    assert_eq!(of_two.get().await?, 2);
    assert_eq!((lost(&ours), lost(&idle)), (0, 0));
    Ok(())
}
