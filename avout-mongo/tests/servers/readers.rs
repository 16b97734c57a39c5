//! Clients that only read: what they leave alone, the rights that they need, and what they notice all the same.

use std::time::Duration;

use avout_conformance::servers::Mongo;
use avout_core::backend::Store as _;
use avout_core::{ErrorKind, Ref};
use avout_mongo::Options;
use mongodb::bson::{Document, doc};

use crate::older_copy::{copy, goes_on_for_a_moment, lost, put_back};
use crate::support::{Outcome, client, driver, open, shared_url, stm, with};

const SOON: Duration = Duration::from_secs(20);

/// A namespace that is not there is not made, and one without marks or eras is left as it is.
pub(crate) async fn a_client_that_reads_makes_and_marks_nothing() -> Outcome {
    let url = shared_url("reading").await?;
    let reading = with(&url, "readonly=true");
    let database = driver(&url).await?;
    let error = open(&reading).await.expect_err("there is no such namespace");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(!database.list_collection_names().await?.iter().any(|name| name.starts_with("reading.")));

    let store = Options::from_url(&url)?.open_store().await?;
    assert_eq!(Options::from_url(&reading)?.open_store().await?.realm(), store.realm());
    assert_eq!(open(&reading).await.expect_err("a store alone").kind(), ErrorKind::NotFound);
    assert!(!database.list_collection_names().await?.contains(&"reading.refs".to_owned()));

    let r = client(&url, 10).await?.create_ref("/r", 1_i64).await?;
    for (name, id) in [("values", 0), ("atoms", 0), ("refs", 0), ("refs", 255), ("refs", -1)] {
        let collection = database.collection::<Document>(&format!("reading.{name}"));
        let taken = collection.find_one_and_delete(doc! { "_id": id }).await?.expect("it is there");
        let error = open(&reading).await.expect_err("it would have to be made");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name} {id}: {error:?}");
        assert!(error.to_string().contains("open it once to write"), "{error}");
        assert_eq!(collection.find_one(doc! { "_id": id }).await?, None);
        collection.insert_one(taken).await?;
    }
    assert_eq!(client(&reading, 10).await?.open_ref::<i64>("/r").await?.get().await?, r.get().await?);
    Ok(())
}

/// The server's own role `read` is enough, also for a client that watches, and where nobody begins an era after a restart.
pub(crate) async fn the_role_read_is_enough() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).user("admin", "correct-horse").start().await?;
    let admin = with(&mongo.url("tests").replacen("://", "://admin:correct-horse@", 1), "authSource=admin");
    let user = doc! { "createUser": "reader", "pwd": "paper-clip", "roles": ["read"] };
    driver(&admin).await?.run_command(user).await?;
    let writer = client(&with(&admin, "namespace=role"), 60).await?;
    let r = writer.create_ref("/r", 1_i64).await?;
    let large = writer.create_ref("/large", vec![7_u8; 9 << 20]).await?;
    let atom = writer.create_atom("/atom", 1_i64).await?;

    let reader = mongo.url("tests").replacen("://", "://reader:paper-clip@", 1);
    let reader = with(&reader, "namespace=role&readonly=true");
    let (one, two) = (client(&reader, 60).await?, client(&reader, 60).await?);
    let of_one = one.open_ref::<i64>("/r").await?;
    let (mut refs, mut atoms) = (of_one.watch().await?, one.open_atom::<i64>("/atom").await?.watch().await?);
    r.set(2).await?;
    atom.reset(2).await?;
    let change = tokio::time::timeout(SOON, refs.next()).await?.expect("the watch goes on")?;
    assert_eq!(change.new, Some(2));
    let change = tokio::time::timeout(SOON, atoms.next()).await?.expect("the watch goes on")?;
    assert_eq!(change.new, Some(2));
    assert_eq!(one.open_ref::<Vec<u8>>("/large").await?.get().await?.len(), large.get().await?.len());
    assert_eq!(one.list("/").await?.len(), 2, "its refs");
    let error = of_one.set(3).await.expect_err("it only reads");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");

    writer.close().await;
    mongo.node(0).kill().await?;
    mongo.node(0).start().await?;
    mongo.primary().await?;
    let third = client(&reader, 60).await?;
    for stm in [&one, &two, &third] {
        assert_eq!(stm.open_ref::<i64>("/r").await?.get().await?, 2);
    }
    Ok(())
}

/// An older copy of the data is noticed by a client that only reads, once, also while nobody writes.
pub(crate) async fn a_client_that_reads_notices_an_older_copy() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=seen&timeout=5s");
    let r = client(&url, 60).await?.create_ref("/r", 0_i64).await?;
    r.set(1).await?;
    // It is of the same era.
    let admin = driver(&url).await?.client().database("admin");
    let saved = tempfile::TempDir::new()?;
    admin.run_command(doc! { "fsync": 1, "lock": true }).await?;
    copy(mongo.node(0).folder(), saved.path())?;
    admin.run_command(doc! { "fsyncUnlock": 1 }).await?;
    goes_on_for_a_moment(&r).await?;

    let reading = open(&with(&url, "readonly=true")).await?;
    let seen: Ref<i64> = stm(&reading).open_ref("/r").await?;
    assert!(seen.get().await? > 1);
    drop(r);
    mongo.node(0).kill().await?;
    put_back(saved.path(), mongo.node(0).folder())?;
    mongo.node(0).start().await?;
    mongo.primary().await?;
    let error = loop {
        match seen.get().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            read => break read.expect_err("what it has seen is lost"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::StoreLost, "{error:?}");
    assert_eq!((seen.get().await?, lost(&reading)), (1, 1), "it is told once");

    let writer = client(&url, 60).await?;
    let r = writer.open_ref::<i64>("/r").await?;
    r.set(2).await?;
    assert_eq!((seen.get().await?, lost(&reading)), (2, 1), "the next era loses nothing more");
    Ok(())
}
