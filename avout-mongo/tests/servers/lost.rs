//! Requests and replies that are lost, late or refused.

use std::error::Error;
use std::time::{Duration, Instant};

use avout_conformance::servers::Mongo;
use avout_core::ErrorKind;
use avout_core::backend::Coordinator as _;
use avout_core::protocol::{Commit, Floor, Key, Put};
use mongodb::ClientSession;
use mongodb::bson::doc;
use mongodb::options::{ClientOptions, DriverInfo};

use crate::support::{Outcome, behind_proxy, client, command, open, stm, with};

fn is_commit(message: &[u8]) -> bool {
    command(message) == Some("commitTransaction")
}

/// A commit whose reply is lost has happened once, and the transaction is told so.
pub(crate) async fn a_lost_reply_is_found_out() -> Outcome {
    let (proxy, url) = behind_proxy("lost_reply").await?;
    let stm = client(&url, 30).await?;
    let r = stm.create_or_open_ref("/r", 0_i64).await?;
    for round in 1..=3 {
        proxy.cut_on_reply_to(is_commit);
        let alter = r.alter(|n| n + 1);
        let heal = async {
            proxy.is_cut().await;
            proxy.heal().await
        };
        let (altered, healed) = tokio::join!(alter, heal);
        healed?;
        assert_eq!(altered?, round);
        assert_eq!(r.get().await?, round);
    }
    assert!(stm.stats().resolved >= 3, "{:?}", stm.stats());
    Ok(())
}

/// A commit whose request is lost has not happened, and is made again. The transaction that is left open on the server
/// keeps nobody from its keys.
pub(crate) async fn a_lost_request_is_made_again() -> Outcome {
    let (proxy, url) = behind_proxy("lost_request").await?;
    let stm = client(&url, 30).await?;
    let r = stm.create_or_open_ref("/r", 0_i64).await?;
    for round in 1..=3 {
        proxy.cut_on_request(is_commit);
        let begun = Instant::now();
        let heal = async {
            proxy.is_cut().await;
            proxy.heal().await
        };
        let (altered, healed) = tokio::join!(r.alter(|n| n + 1), heal);
        healed?;
        assert_eq!(altered?, round);
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited for the server to end the transaction");
    }
    Ok(())
}

/// The driver does not send a commit again: a lost reply is `OutcomeUnknown` at the coordinator.
pub(crate) async fn a_commit_is_sent_once() -> Outcome {
    let (proxy, url) = behind_proxy("once").await?;
    let backend = open(&url).await?;
    let key = Key::new("/a")?;
    let put = Put { key: key.clone(), revision: None, record: Floor { epoch: 1 }.to_record().into() };
    let commit = Commit { puts: vec![put], ..Commit::default() };
    let commits = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&commits);
    proxy.cut_on_reply_to(move |message| {
        let commit = is_commit(message);
        count.fetch_add(u32::from(commit), std::sync::atomic::Ordering::SeqCst);
        commit
    });
    let error = backend.coordinator.commit(&commit).await.expect_err("its reply is lost");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    proxy.is_cut().await;
    proxy.heal().await?;
    let found = backend.coordinator.read(&[key], None).await;
    let found = match found {
        // The first read may find the connections cut.
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            backend.coordinator.read(&[commit.puts[0].key.clone()], None).await?
        }
        found => found?,
    };
    assert!(found.entries[0].is_some(), "it was applied");
    assert_eq!(commits.load(std::sync::atomic::Ordering::SeqCst), 1, "it was sent once");
    Ok(())
}

/// Errors of the server in the middle of a transaction, and at its commit, end in one effect.
pub(crate) async fn a_refused_commit_is_made_again() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=refused");
    let stm = client(&url, 30).await?;
    let r = stm.create_or_open_ref("/r", 0_i64).await?;
    let admin = crate::support::driver(&url).await?.client().database("admin");
    let fail = |commands: Vec<&'static str>, code: i32, times: i32, close: bool| {
        let mut data = doc! { "failCommands": commands };
        if close {
            data.insert("closeConnection", true);
        } else {
            data.insert("errorCode", code);
        }
        doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data }
    };
    let mut expected = 0;
    for commands in [vec!["update"], vec!["commitTransaction"], vec!["find"]] {
        // Write conflict, no such transaction, stepped down, shutting down, interrupted, timed out.
        for code in [112, 251, 10107, 11600, 11602, 189, 91, 50] {
            admin.run_command(fail(commands.clone(), code, 1, false)).await?;
            expected += 1;
            assert_eq!(r.alter(|n| n + 1).await?, expected, "{commands:?} fails with {code}");
        }
        admin.run_command(fail(commands.clone(), 0, 1, true)).await?;
        expected += 1;
        assert_eq!(r.alter(|n| n + 1).await?, expected, "the connection is closed on {commands:?}");
    }
    // A commit that was applied, and a majority that did not confirm it.
    let concern = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": { "failCommands": ["commitTransaction"],
            "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
    };
    admin.run_command(concern).await?;
    expected += 1;
    assert_eq!(r.alter(|n| n + 1).await?, expected, "the write concern is not met");
    assert_eq!(r.get().await?, expected);
    Ok(())
}

/// A transaction that has counted a check of a ref, in its document, and is not ended: what a client leaves that dies
/// between its update and its commit.
async fn left_open(client: &mongodb::Client, namespace: &str, key: &str) -> Result<ClientSession, Box<dyn Error>> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    let check = doc! { "q": { "_id": key }, "u": { "$inc": { "n": 1 } } };
    let update = doc! { "update": format!("{namespace}.refs"), "updates": [check] };
    client.database("tests").run_command(update).session(&mut session).await?;
    Ok(session)
}

/// The driver, as a client of a namespace uses it or as another application.
async fn driver_of(url: &str, namespace: Option<&str>) -> Result<mongodb::Client, Box<dyn Error>> {
    let mut options = ClientOptions::parse(url).await?;
    options.driver_info =
        namespace.map(|namespace| DriverInfo::builder().name("avout").version(format!("tests.{namespace}")).build());
    Ok(mongodb::Client::with_options(options)?)
}

/// A client that is gone between its update and its commit leaves nothing that can be seen, and its keys are free soon, long before
/// the server gives its transaction up. Those of other applications and of other namespaces are theirs.
pub(crate) async fn a_client_that_dies_leaves_nothing_half_done() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).user("admin", "correct-horse").start().await?;
    let admin = with(&mongo.url("tests").replacen("://", "://admin:correct-horse@", 1), "authSource=admin");
    let database = driver_of(&admin, None).await?.database("tests");
    let user = doc! { "createUser": "clerk", "pwd": "paper-clip", "roles": ["readWrite"] };
    database.run_command(user).await?;
    let clerk = mongo.url("tests").replacen("://", "://clerk:paper-clip@", 1);

    // One who may see its own sessions only, and one who may end those of others.
    for (number, url) in [&clerk, &admin].into_iter().enumerate() {
        let namespace = format!("dead{number}");
        let stm = client(&with(url, &format!("namespace={namespace}")), 40).await?;
        let r = stm.create_or_open_ref("/r", 0_i64).await?;
        let mut lost = left_open(&driver_of(&clerk, Some(&namespace)).await?, &namespace, "/r").await?;
        let mut foreign = left_open(&driver_of(url, None).await?, &namespace, "/other").await?;
        let mut elsewhere = left_open(&driver_of(url, Some("elsewhere")).await?, "elsewhere", "/other").await?;
        let begun = Instant::now();
        assert_eq!(r.get().await?, 0, "a read does not wait for it");
        assert_eq!(r.alter(|n| n + 1).await?, 1, "a commit waits until it is ended");
        assert!(begun.elapsed() < Duration::from_secs(30), "it waited for the server to end the transaction");
        // Should it live after all, it is told so, and its commit has no effect.
        let error = lost.commit_transaction().await.expect_err("it was ended");
        assert!(error.contains_label(mongodb::error::TRANSIENT_TRANSACTION_ERROR), "{error:?}");
        assert_eq!(r.get().await?, 1);
        foreign.commit_transaction().await?;
        elsewhere.commit_transaction().await?;
    }
    Ok(())
}

/// The server itself gives up a transaction that nobody may end.
pub(crate) async fn a_transaction_of_others_is_waited_for() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).arguments(&["--setParameter", "transactionLifetimeLimitSeconds=2"]);
    let mongo = mongo.start().await?;
    let stm = client(&with(&mongo.url("tests"), "namespace=others"), 30).await?;
    let r = stm.create_or_open_ref("/r", 0_i64).await?;
    let session = left_open(&driver_of(&mongo.url("tests"), None).await?, "others", "/r").await?;
    assert_eq!(r.get().await?, 0, "a read does not wait for it");
    assert_eq!(r.alter(|n| n + 1).await?, 1, "a commit waits until it is given up");
    drop(session);
    Ok(())
}

/// While the server does not answer requests end in time, and afterwards nothing is lost and nothing done twice.
pub(crate) async fn a_paused_server_is_waited_for() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=paused&timeout=500ms");
    let backend = open(&url).await?;
    let stm = stm(&backend);
    let r = stm.create_or_open_ref("/r", 0_i64).await?;
    mongo.node(0).pause().await?;
    let begun = Instant::now();
    let error = backend.coordinator.read(&[Key::new("/r")?], None).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let lost = stm.transaction().deadline(Duration::from_secs(1)).dosync(async |tx| tx.alter(&r, |n| n + 1).await);
    let error = lost.await.expect_err("no answer");
    assert!(
        [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::OutcomeUnknown].contains(&error.kind()),
        "{error:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let waiting = tokio::spawn({
        let r = r.clone();
        async move { r.alter(|n| n + 10).await }
    });
    mongo.node(0).resume().await?;
    let value = waiting.await??;
    assert_eq!(r.get().await?, value);
    match error.receipt() {
        Some(receipt) => {
            let expected = i64::from(matches!(stm.resolve(receipt).await?, avout_core::Resolution::Committed(_)));
            assert_eq!(value, 10 + expected);
        }
        None => assert_eq!(value, 10),
    }
    Ok(())
}

/// A connection that is reset while a namespace is opened is made again, whatever was asked for last.
pub(crate) async fn a_reset_while_opening_is_survived() -> Outcome {
    for name in ["find", "create", "insert", "findAndModify"] {
        let (proxy, url) = behind_proxy(&format!("reset_{name}")).await?;
        proxy.cut_on_request(move |message| command(message) == Some(name));
        let heal = async {
            proxy.is_cut().await;
            proxy.heal().await
        };
        let (opened, healed) = tokio::join!(open(&url), heal);
        healed?;
        let stm = stm(&opened.map_err(|error| format!("reset on {name}: {error:?}"))?);
        assert_eq!(stm.create_ref("/r", 1_i64).await?.get().await?, 1);
    }
    Ok(())
}
