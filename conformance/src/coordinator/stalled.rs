//! A server that stops answering and keeps its connections open.

use std::time::Duration;

use avout_core::protocol::{Commit, CommitOutcome, SessionId};
use avout_core::{ErrorKind, Result};

use crate::law::{Ctx, Outcome, laws, needs, within};
use crate::sample::{check, entry, key, number, put, puts, write};

laws! { "coordinator":
    every_call_ends_on_a_stalled_server,
    a_watch_outlives_a_stalled_server,
}

/// How a call ended while the server did not answer: in time, and with no other error than one that tells so. A store may still
/// answer what it needs no server for.
pub(crate) async fn ended<T>(limit: Duration, what: &str, call: impl Future<Output = Result<T>>) -> Option<T> {
    match tokio::time::timeout(limit, call).await {
        Err(_) => panic!("{what} had not ended after {limit:?} on a server that does not answer"),
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            let kinds = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
            assert!(kinds.contains(&error.kind()), "{what}, on a server that does not answer: {error:?}");
            None
        }
    }
}

/// Every call ends in bounded time while the server does not answer; a commit that is told as failed then is never made; and the
/// client goes on when the server does.
async fn every_call_ends_on_a_stalled_server(ctx: Ctx) -> Outcome {
    let client = ctx.coordinator().await?;
    let all = [key("/a"), key("/b")];
    write(&*client, &all[0], 1).await?;
    let seen = entry(&*client, &all[0]).await?.expect("it was written");
    if let Some(sessions) = client.sessions() {
        sessions.begin(SessionId::new(1), sessions.min_ttl().max(Duration::from_secs(60))).await?;
    }
    needs(ctx.fixture.stall(&ctx.namespace).await, "the fixture cannot stall a server")?;
    let limit = ctx.fixture.patience();
    let unmade = async {
        let commit = puts([put(&all[1], None, 1)]);
        match tokio::time::timeout(limit, client.commit(&commit)).await {
            Err(_) => panic!("a commit had not ended after {limit:?} on a server that does not answer"),
            Ok(outcome) => outcome.err().is_some_and(|error| error.kind() == ErrorKind::Unavailable),
        }
    };
    let checks = Commit { checks: vec![check(&all[0], Some(&seen.revision))], ..Commit::default() };
    let sessions = async {
        let Some(sessions) = client.sessions() else { return };
        let (ttl, asked) = (sessions.min_ttl().max(Duration::from_secs(60)), [SessionId::new(1)]);
        tokio::join!(
            ended(limit, "the begin of a session", sessions.begin(SessionId::new(2), ttl)),
            ended(limit, "a sign of life", sessions.renew(SessionId::new(1), ttl)),
            ended(limit, "a look at who is alive", sessions.alive(&asked)),
            ended(limit, "the end of a session", sessions.end(SessionId::new(3))),
        );
    };
    let root = avout_core::Key::root();
    let calls = async {
        tokio::join!(
            unmade,
            ended(limit, "a read", client.read(&all, None)),
            ended(limit, "a read of no keys", client.read(&[], None)),
            ended(limit, "a commit that only checks", client.commit(&checks)),
            ended(limit, "the begin of a watch", client.watch(&all)),
            ended(limit, "a list", client.list_all(&root)),
            Box::pin(sessions),
        )
    };
    let (unmade, ..) = Box::pin(calls).await;
    ctx.fixture.resume(&ctx.namespace).await;
    let again = async {
        loop {
            match client.read(&all, None).await {
                Ok(found) => return found,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = within(ctx.fixture.time_limit() / 3, "a read when the server goes on", again).await;
    assert_eq!(found.entries[0].as_ref().map(number), Some(1));
    if unmade {
        // What was on its way has arrived by then, or never does.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let found = ctx.coordinator().await?.read(&all, None).await?;
        assert!(found.entries[1].is_none(), "a commit that was told as failed was made after all");
    }
    Ok(())
}

/// A watch that was begun before a server stopped answering tells of changes after that as before.
async fn a_watch_outlives_a_stalled_server(ctx: Ctx) -> Outcome {
    let client = ctx.coordinator().await?;
    let key = key("/a");
    write(&*client, &key, 1).await?;
    let mut watcher = client.watch(std::slice::from_ref(&key)).await?;
    needs(ctx.fixture.stall(&ctx.namespace).await, "the fixture cannot stall a server")?;
    let limit = ctx.fixture.patience();
    ended(limit, "a read", client.read(std::slice::from_ref(&key), None)).await;
    ctx.fixture.resume(&ctx.namespace).await;
    let written = async {
        loop {
            let attempt = async {
                let seen = client.read(std::slice::from_ref(&key), None).await?.entries.remove(0);
                client.commit(&puts([put(&key, seen.as_ref().map(|entry| &entry.revision), 2)])).await
            };
            if matches!(attempt.await, Ok(CommitOutcome::Committed(_))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(ctx.fixture.time_limit() / 3, "a commit when the server goes on", written).await;
    let told = async {
        loop {
            if let Err(error) = watcher.changed().await {
                assert!(!matches!(error.kind(), ErrorKind::Closed | ErrorKind::StoreLost), "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let seen = client.read(std::slice::from_ref(&key), None).await;
            if seen.is_ok_and(|found| found.entries[0].as_ref().map(number) == Some(2)) {
                return;
            }
        }
    };
    let limit = ctx.fixture.hint_delay() + ctx.fixture.time_limit() / 6;
    within(limit, "a hint when the server goes on", told).await;
    Ok(())
}
