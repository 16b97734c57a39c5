//! What clients leave that die in the middle, and what a sweep makes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use avout_core::backend::Coordinator as _;
use avout_core::protocol::{Check, Commit, CommitOutcome, Floor, Key, Put};
use mongodb::bson::{Document, doc};

use crate::support::{Outcome, behind_proxy, client, command, driver, open, shared_url, with};

/// A client that dies before it has written all chunks of a value, or the document that names them, leaves nothing after a sweep.
pub(crate) async fn a_sweep_removes_chunks_without_a_head() -> Outcome {
    let direct = shared_url("headless").await?;
    let values = driver(&direct).await?.collection::<Document>("headless.values");
    let other = client(&direct, 30).await?;
    for (round, last) in [(1, 2), (2, 3), (3, 4)] {
        let (proxy, url) = behind_proxy("headless").await?;
        let stm = client(&url, 2).await?;
        let inserts = AtomicU32::new(0);
        proxy.cut_on_request(move |message| {
            command(message) == Some("update") && inserts.fetch_add(1, Ordering::SeqCst) + 1 == last
        });
        stm.create_ref(format!("/big/{round}"), vec![1_u8; 20 << 20])
            .await
            .expect_err("the connection is cut for good");
        assert!(values.count_documents(doc! { "_id": { "$ne": 0 } }).await? > 0, "it left something");
        drop(stm);
        other.sweep().await?;
        assert_eq!(values.count_documents(doc! { "_id": { "$ne": 0 } }).await?, 0, "cut on insert {last}");
    }
    Ok(())
}

/// Keys that were checked and are absent leave no documents after a sweep, however many they are.
pub(crate) async fn checks_of_absent_keys_leave_nothing() -> Outcome {
    let url = shared_url("absent").await?;
    let (backend, stm) = (open(&url).await?, client(&url, 30).await?);
    let refs = driver(&url).await?.collection::<Document>("absent.refs");
    let checks: Vec<Check> = (0..1000)
        .map(|n| Ok(Check { key: Key::new(format!("/none/{n}"))?, revision: None }))
        .collect::<Result<_, avout_core::Error>>()?;
    let put = Put { key: Key::new("/put")?, revision: None, record: Floor { epoch: 1 }.to_record().into() };
    let commit = Commit { checks, puts: vec![put], ..Commit::default() };
    assert!(matches!(backend.coordinator.commit(&commit).await?, CommitOutcome::Committed(_)));
    stm.sweep().await?;
    let left = refs.count_documents(doc! { "_id": { "$type": "string" }, "r": { "$exists": false } }).await?;
    assert_eq!(left, 0, "documents of absent keys");
    assert_eq!(refs.count_documents(doc! { "_id": "/put" }).await?, 1);
    Ok(())
}

/// The same of the state of an atom that is made or changed. What was there before stays.
pub(crate) async fn a_sweep_removes_chunks_of_atoms_without_a_head() -> Outcome {
    let direct = shared_url("atoms").await?;
    let values = driver(&direct).await?.collection::<Document>("atoms.values");
    let chunks = || values.count_documents(doc! { "_id": { "$ne": 0 } });
    let other = client(&direct, 30).await?;
    for (last, name) in [(2, "update"), (4, "update"), (1, "findAndModify")] {
        let path = format!("/big/{last}/{name}");
        if name == "findAndModify" {
            other.create_atom(&path, vec![7_u8; 9]).await?;
        }
        let (proxy, url) = behind_proxy("atoms").await?;
        let stm = client(&url, 60).await?;
        let seen = AtomicU32::new(0);
        proxy.cut_on_request(move |message| {
            command(message) == Some(name) && seen.fetch_add(1, Ordering::SeqCst) + 1 == last
        });
        let write = async {
            let atom = stm.create_or_open_atom(&path, vec![1_u8; 20 << 20]).await?;
            atom.reset(vec![1_u8; 20 << 20]).await
        };
        tokio::select! {
            written = write => drop(written.expect_err("the connection is cut for good")),
            () = proxy.is_cut() => {}
        }
        assert!(chunks().await? > 0, "it left something");
        drop(stm);
        other.sweep().await?;
        assert_eq!(chunks().await?, 0, "cut on {name} {last}");
        // The atom can be made and changed, and removed again.
        let atom = other.create_or_open_atom(&path, vec![7_u8; 9]).await?;
        assert_eq!(atom.get().await?, [7; 9]);
        atom.reset(vec![2; 20 << 20]).await?;
        assert!(atom.get().await? == vec![2; 20 << 20]);
        atom.destroy().await?;
        assert_eq!(chunks().await?, 0);
        assert!(other.open_atom::<Vec<u8>>(&path).await.is_err(), "it was removed");
    }
    Ok(())
}

/// A sweep between the chunks of an atom's state and the document that names them takes no part of the state: the chunks are written
/// again.
pub(crate) async fn a_state_that_is_being_written_outlives_a_sweep() -> Outcome {
    let direct = shared_url("fenced").await?;
    let database = driver(&direct).await?;
    let values = database.collection::<Document>("fenced.values");
    let chunks = || values.count_documents(doc! { "_id": { "$ne": 0 } });
    let other = client(&direct, 30).await?;
    let atom = other.create_atom("/a", vec![7_u8; 9]).await?;
    let slow = client(&with(&direct, "appName=slow"), 30).await?;
    let slow = slow.open_atom::<Vec<u8>>("/a").await?;
    let hold = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": { "failCommands": ["findAndModify"], "blockConnection": true, "blockTimeMS": 2000, "appName": "slow" },
    };
    database.client().database("admin").run_command(hold).await?;
    let writing = tokio::spawn(async move { slow.reset(vec![1_u8; 20 << 20]).await });
    while chunks().await? < 3 {
        assert!(!writing.is_finished(), "it is held");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    other.sweep().await?;
    writing.await??;
    assert!(atom.get().await? == vec![1; 20 << 20], "it is whole");
    assert_eq!(chunks().await?, 3);
    Ok(())
}
