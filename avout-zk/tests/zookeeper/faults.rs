//! One server, and connections that break.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use avout_conformance::servers::{Action, Direction, Proxy, ZooKeeper, shared};
use avout_core::backend::{Coordinator as _, Wake};
use avout_core::protocol::{Commit, Put, SlotState};
use avout_core::{ErrorKind, Key, Stm};

use crate::support::{Outcome, PATIENCE, client, eventually, hello, is_commit, stm, tests, two_refs, within};

tests![
    a_reply_that_is_lost_is_found_out,
    a_request_that_is_lost_is_made_again,
    a_coordinator_never_sends_a_commit_twice,
    a_session_that_expires_in_a_body_is_replaced,
    a_session_that_expires_in_a_commit_leaves_no_doubt,
    a_watch_survives_a_new_session,
    a_server_that_is_not_there_is_unavailable,
    a_server_that_is_silent_is_unavailable,
    a_client_that_is_closed_says_so,
    a_restart_of_the_server_is_waited_through,
    what_was_asked_without_a_connection_is_never_sent,
];

/// A client behind a proxy of its own.
async fn behind(namespace: &str) -> Result<(Proxy, Stm), Box<dyn std::error::Error>> {
    let proxy = shared::zookeeper().await?.proxy(0).await?;
    let stm = client(&format!("zk://{}/{namespace}?connections=1", proxy.address())).await?;
    Ok((proxy, stm))
}

/// The commit took effect and its reply was lost with the connection: it is found out, and done once.
async fn a_reply_that_is_lost_is_found_out() -> Outcome {
    let (proxy, stm) = behind("faults_reply").await?;
    let (a, b) = two_refs(&stm).await?;
    for round in 1..=3 {
        proxy.cut_on_reply_to(is_commit);
        let commit = hello(&stm, &a, &b);
        let heal = async {
            proxy.is_cut().await;
            proxy.heal().await
        };
        let (done, healed) = within("a commit", Box::pin(async { tokio::join!(commit, heal) })).await;
        healed?;
        assert_eq!(done?, round);
        assert_eq!((a.get().await?, b.get().await?), (round, round));
    }
    assert_eq!(stm.stats().resolved, 3);
    Ok(())
}

/// The commit was lost on its way: it is fenced off, and the transaction is made again.
async fn a_request_that_is_lost_is_made_again() -> Outcome {
    let (proxy, stm) = behind("faults_request").await?;
    let (a, b) = two_refs(&stm).await?;
    for round in 1..=3 {
        proxy.cut_on_request(is_commit);
        let commit = hello(&stm, &a, &b);
        let heal = async {
            proxy.is_cut().await;
            proxy.heal().await
        };
        let (done, healed) = within("a commit", Box::pin(async { tokio::join!(commit, heal) })).await;
        healed?;
        assert_eq!(done?, round);
        assert_eq!((a.get().await?, b.get().await?), (round, round));
    }
    assert_eq!(stm.stats().resolved, 3);
    Ok(())
}

/// Whether the request or the reply is lost, the coordinator says that the outcome is unknown, and one request at most is ever sent.
async fn a_coordinator_never_sends_a_commit_twice() -> Outcome {
    let zk = shared::zookeeper().await?;
    let proxy = zk.proxy(0).await?;
    let backend = avout_zk::connect(&format!("zk://{}/faults_once", proxy.address())).await?;
    for applied in [false, true] {
        let key = Key::new(format!("/{applied}"))?;
        let sent = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sent);
        proxy.hook(move |direction, message| {
            if direction == Direction::Request && is_commit(message) {
                counted.fetch_add(1, Ordering::SeqCst);
                return if applied { Action::Pass } else { Action::Cut };
            }
            // The reply to it, or whatever comes before that.
            let waits = counted.load(Ordering::SeqCst) > 0;
            if direction == Direction::Reply && waits { Action::Cut } else { Action::Pass }
        });
        let record = Arc::new(SlotState { sequence: 1, committed: true }.to_record());
        let commit = Commit { puts: vec![Put { key: key.clone(), revision: None, record }], ..Commit::default() };
        let error = within("an error", backend.coordinator.commit(&commit)).await.expect_err("no reply");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
        let sends = sent.load(Ordering::SeqCst);
        proxy.is_cut().await;
        proxy.heal().await?;
        let keys = [key];
        let found = within("a read", async {
            loop {
                match backend.coordinator.read(&keys, None).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    found => return found,
                }
            }
        });
        assert_eq!((sends, found.await?.entries[0].is_some()), (1, applied));
    }
    Ok(())
}

/// A server of the test's own, and a client behind a proxy, whose one session is short.
async fn alone() -> Result<(ZooKeeper, Proxy, Stm), Box<dyn std::error::Error>> {
    let zk = ZooKeeper::single().await?;
    let proxy = zk.proxy(0).await?;
    let stm = client(&format!("zk://{}/alone?session_timeout=1s&connections=1", proxy.address())).await?;
    Ok((zk, proxy, stm))
}

async fn sessions(zk: &ZooKeeper) -> Result<u64, Box<dyn std::error::Error>> {
    let answer = zk.ask(0, "mntr").await?;
    let count = answer.lines().find_map(|line| line.strip_prefix("zk_global_sessions")?.trim().parse().ok());
    count.ok_or_else(|| format!("no count of sessions in {answer}").into())
}

/// Keeps the client from the server until its session, the only one, is gone there.
async fn expire(zk: &ZooKeeper, proxy: &Proxy) -> Outcome {
    proxy.cut().await;
    eventually("the session expires", || async { sessions(zk).await.is_ok_and(|count| count == 0) }).await;
    proxy.heal().await?;
    Ok(())
}

/// The session expires while a body runs: the transaction commits in the next one, and all handles go on.
async fn a_session_that_expires_in_a_body_is_replaced() -> Outcome {
    let (zk, proxy, stm) = alone().await?;
    let (a, b) = two_refs(&stm).await?;
    let atom = stm.create_atom("/atom", 1_i64).await?;
    let first = AtomicU32::new(0);
    let done = stm.dosync(async |tx| {
        let n = tx.get(&a).await?;
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            expire(&zk, &proxy).await.map_err(|error| avout_core::Error::abort(error.to_string()))?;
        }
        tx.set(&a, n + 1).await?;
        tx.alter(&b, |n| n + 1).await
    });
    assert_eq!(within("a commit in the next session", done).await?, 1);
    assert_eq!(atom.swap(|n| n + 1).await?, 2);
    assert_eq!(hello(&stm, &a, &b).await?, 2);
    Ok(())
}

/// The session expires while a commit is in flight, applied or not: its outcome is found out in the next session.
async fn a_session_that_expires_in_a_commit_leaves_no_doubt() -> Outcome {
    let (zk, proxy, stm) = alone().await?;
    let (a, b) = two_refs(&stm).await?;
    let mut expected = 0;
    for applied in [true, false] {
        expected += 1;
        if applied {
            proxy.cut_on_reply_to(is_commit);
        } else {
            proxy.cut_on_request(is_commit);
        }
        let commit = hello(&stm, &a, &b);
        let expire = async {
            proxy.is_cut().await;
            expire(&zk, &proxy).await
        };
        let (done, expired) = within("a commit", Box::pin(async { tokio::join!(commit, expire) })).await;
        expired?;
        assert_eq!(done?, expected);
        assert_eq!((a.get().await?, b.get().await?), (expected, expected));
    }
    Ok(())
}

/// After a new session, and after a new connection of the same one, a watcher says `Lost`, and sees changes as before.
async fn a_watch_survives_a_new_session() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let proxy = zk.proxy(0).await?;
    let watching =
        avout_zk::connect(&format!("zk://{}/watch?session_timeout=1s&connections=1", proxy.address())).await?;
    let writing = client(&format!("{}?connections=1", zk.url("watch"))).await?;
    let (a, b) = two_refs(&writing).await?;
    let mut watcher = watching.coordinator.watch(&[Key::new("/a")?]).await?;
    let mut stream = stm(&watching).open_ref::<i64>("/a").await?.watch().await?;
    for round in 0..4 {
        proxy.cut().await;
        let written = hello(&writing, &a, &b).await?;
        if round % 2 == 0 {
            eventually("the session expires", || async { sessions(&zk).await.is_ok_and(|count| count == 1) }).await;
        }
        proxy.heal().await?;
        let lost = within("a hint that changes may be lost", watcher.changed()).await?;
        assert_eq!(lost, Wake::Lost, "round {round}");
        let seen = within("the change that was made meanwhile", stream.next()).await.ok_or("the stream ended")??;
        assert_eq!(seen.new, Some(written));
        let written = hello(&writing, &a, &b).await?;
        let wake = within("a hint of a change", watcher.changed()).await?;
        assert_eq!(wake, Wake::Changed, "round {round}");
        let seen = within("the next change", stream.next()).await.ok_or("the stream ended")??;
        assert_eq!(seen.new, Some(written));
    }
    Ok(())
}

/// Where nobody listens, opening ends after the timeout.
async fn a_server_that_is_not_there_is_unavailable() -> Outcome {
    let port = avout_conformance::servers::free_port();
    let url = format!("zk://127.0.0.1:{port}/x?timeout=500ms");
    let error = within("an error", client(&url)).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    Ok(())
}

/// A server that does not answer any more, though its connections stay, is given up; when it goes on, so does the client.
async fn a_server_that_is_silent_is_unavailable() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let backend = avout_zk::connect(&format!("{}?session_timeout=2s&timeout=1s", zk.url("silent"))).await?;
    let keys = [Key::new("/a")?];
    backend.coordinator.read(&keys, None).await?;
    zk.node(0).pause().await?;
    let record = Arc::new(SlotState { sequence: 1, committed: true }.to_record());
    let puts = vec![Put { key: keys[0].clone(), revision: None, record }];
    let commit = Commit { puts, ..Commit::default() };
    let error = within("an error", backend.coordinator.commit(&commit)).await.expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    let error = within("an error", backend.coordinator.read(&keys, None)).await.expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    zk.node(0).resume().await?;
    eventually("it answers again", || async { backend.coordinator.read(&keys, None).await.is_ok() }).await;
    Ok(())
}

/// After `close` everything, watchers too, is `Closed`.
async fn a_client_that_is_closed_says_so() -> Outcome {
    let zk = shared::zookeeper().await?;
    let backend = avout_zk::connect(&zk.url("faults_closed")).await?;
    let keys = [Key::new("/a")?];
    let mut watcher = backend.coordinator.watch(&keys).await?;
    backend.close();
    let error = within("an end of the watch", watcher.changed()).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = backend.coordinator.read(&keys, None).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(backend.coordinator.watch(&keys).await.err().map(|error| error.kind()), Some(ErrorKind::Closed));
    Ok(())
}

/// Transactions that run while the server is killed and started again go on afterwards, and each is done once.
async fn a_restart_of_the_server_is_waited_through() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let stm = client(&format!("{}?session_timeout=4s", zk.url("restart"))).await?;
    let (a, b) = two_refs(&stm).await?;
    let worker = |stm: Stm| {
        tokio::spawn(async move {
            let (a, b) = two_refs(&stm).await?;
            for _ in 0..100 {
                stm.transaction()
                    .deadline(PATIENCE)
                    .dosync(async |tx| {
                        let n = tx.alter(&a, |n| n + 1).await?;
                        tx.set(&b, n).await
                    })
                    .await?;
            }
            Ok::<_, avout_core::Error>(())
        })
    };
    let workers = [worker(stm.clone()), worker(stm.clone()), worker(client(&zk.url("restart")).await?)];
    for moment in [20, 120, 220] {
        let ended = || workers.iter().any(tokio::task::JoinHandle::is_finished);
        eventually("some transactions", || async { ended() || a.get().await.is_ok_and(|n| n >= moment) }).await;
        zk.node(0).kill().await?;
        zk.node(0).start().await?;
    }
    for worker in workers {
        within("all transactions", worker).await??;
    }
    assert_eq!((a.get().await?, b.get().await?), (300, 300));
    Ok(())
}

/// A commit that is asked for while the connection is lost, and nobody knows it yet, is not sent by the next one: its server may have
/// another history.
async fn what_was_asked_without_a_connection_is_never_sent() -> Outcome {
    let zk = shared::zookeeper().await?;
    let proxy = zk.proxy(0).await?;
    let backend = avout_zk::connect(&format!("zk://{}/faults_unsent?connections=1", proxy.address())).await?;
    let mut sent = 0;
    for round in 0..20_u64 {
        let key = Key::new(format!("/{round}"))?;
        let record = Arc::new(SlotState { sequence: 1, committed: true }.to_record());
        let commit = Commit { puts: vec![Put { key: key.clone(), revision: None, record }], ..Commit::default() };
        let connections = proxy.connections();
        proxy.cut().await;
        // At once, so that the client may not know it yet.
        let asked = backend.coordinator.commit(&commit);
        let heal = async { proxy.heal().await };
        let (asked, healed) = within("an answer", Box::pin(async { tokio::join!(asked, heal) })).await;
        healed?;
        let keys = [key];
        eventually("a read", || async { backend.coordinator.read(&keys, None).await.is_ok() }).await;
        let found = backend.coordinator.read(&keys, None).await?.entries[0].is_some();
        assert!(proxy.connections() > connections);
        match asked {
            // It was made when the client had entered by another connection.
            Ok(_) => assert!(found),
            Err(error) => {
                sent += u32::from(found);
                assert!(matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable), "{error:?}");
            }
        }
    }
    assert_eq!(sent, 0, "commits that were asked for without a connection took effect unseen");
    Ok(())
}
