//! What clients leave that die in the middle, and what a sweep makes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use avout_core::backend::Coordinator as _;
use avout_core::protocol::{Check, Commit, CommitOutcome, Floor, Key, Put};
use mongodb::bson::{Document, doc};

use crate::support::{Outcome, behind_proxy, client, command, driver, open, shared_url};

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
            command(message) == Some("insert") && inserts.fetch_add(1, Ordering::SeqCst) + 1 == last
        });
        stm.create_ref(format!("/big/{round}"), vec![1_u8; 20 << 20])
            .await
            .expect_err("the connection is cut for good");
        assert!(values.count_documents(doc! {}).await? > 0, "it left something");
        drop(stm);
        other.sweep().await?;
        assert_eq!(values.count_documents(doc! {}).await?, 0, "cut on insert {last}");
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
