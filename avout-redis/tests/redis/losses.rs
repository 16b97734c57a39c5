//! Who is told that a server has lost commits: each client once, by an operation of its user or by a watch, whatever it does
//! beside that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::{Atom, Changes, Error, ErrorKind, Event, Lock, LockGuard, Ref, Stm};

use crate::histories::{forget, forgetful};
use crate::support::{Outcome, Pair, at_last, calls, lost, namespace, open, within};

const SOON: Duration = Duration::from_secs(20);

/// A client, and how it learns of the loss.
struct Client {
    habit: &'static str,
    stm: Stm,
    value: Ref<u64>,
    atom: Atom<u64>,
    lock: Lock,
}

impl Client {
    async fn open(url: &str, habit: &'static str) -> Outcome<Self> {
        let backend = avout_redis::connect(url).await?;
        let builder = Stm::builder(backend.coordinator, backend.store);
        let stm = builder.session_ttl(Duration::from_secs(2)).sweep_every(Some(Duration::from_millis(20))).build();
        let value = stm.create_or_open_ref("/value", 0).await?;
        let atom = stm.create_or_open_atom(format!("/atom/{}", habit.replace(' ', "_")), 0).await?;
        let lock = stm.lock(format!("/lock/{}", habit.replace(' ', "_")))?;
        Ok(Self { habit, stm, value, atom, lock })
    }

    /// Reads one thing again and again, until it has read it three times without an error. Gives how often it was told.
    async fn told_by(&self, operation: impl AsyncFn() -> Result<(), Error>) -> usize {
        let (mut told, mut done) = (0, 0);
        while done < 3 {
            match within(SOON, self.habit, operation()).await {
                Ok(()) => done += 1,
                Err(error) if lost(&error).is_some() => told += 1,
                // Sweeps as frequent as these may remove the slot that would tell what became of a lost reply.
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
                Err(error) => panic!("{}: {error:?}", self.habit),
            }
        }
        told
    }
}

/// What a watch tells until it has told `last`: how often of a loss.
async fn told_by_watch(habit: &str, changes: &mut Changes<u64>, last: u64) -> usize {
    let mut told = 0;
    loop {
        match within(SOON, habit, changes.next()).await {
            Some(Ok(change)) if change.new == Some(last) => return told,
            Some(Ok(_)) => {}
            Some(Err(error)) if lost(&error).is_some() => told += 1,
            other => panic!("{habit}: {other:?}"),
        }
    }
}

/// Clients of different habits that have all seen what is then lost, each with signs of life and sweeps in the background, which
/// come first: each is told once.
pub(crate) async fn each_client_is_told_of_a_loss_once() -> Outcome {
    let redis = forgetful().await?;
    let url = redis.url(&namespace());
    let writes = Client::open(&url, "writes").await?;
    let reads = Client::open(&url, "reads").await?;
    let atoms = Client::open(&url, "atoms").await?;
    let watches = Client::open(&url, "watches").await?;
    let holds = Client::open(&url, "holds a lock").await?;
    let requires = Client::open(&url, "requires a lock").await?;
    let idles = Client::open(&url, "reads once").await?;
    let all = Client::open(&url, "all of it").await?;
    redis.command(0, &["SAVE"]).await?;
    // All see what is lost then.
    let (mut watched, mut also_watched) = (watches.value.watch().await?, all.value.watch().await?);
    writes.value.set(7).await?;
    let guards: Vec<LockGuard> = {
        let ask = async |client: &Client| within(SOON, client.habit, client.lock.acquire()).await;
        vec![ask(&holds).await?, ask(&requires).await?, ask(&all).await?]
    };
    for client in [&reads, &idles, &all, &holds, &requires, &writes] {
        assert_eq!(client.value.get().await?, 7);
    }
    for client in [&atoms, &all] {
        client.atom.reset(7).await?;
    }
    assert_eq!(told_by_watch("before", &mut watched, 7).await + told_by_watch("before", &mut also_watched, 7).await, 0);

    forget(&redis).await?;
    // Signs of life and sweeps come first, of all those that have any.
    at_last("work in the background", async || {
        let calls = calls(&redis).await.ok()?;
        (calls.get("evalsha").copied().unwrap_or(0) >= 40).then_some(())
    })
    .await;

    let [held, required, _both]: [LockGuard; 3] = guards.try_into().expect("three guards");
    let mut told = Vec::new();
    // Its only operation takes the guard with it.
    let released = within(SOON, holds.habit, held.release()).await.expect_err("the lock is gone");
    assert!(lost(&released).is_some(), "{released:?}");
    told.push((holds.habit, holds.told_by(async || holds.value.get().await.map(drop)).await + 1));
    let require = requires.stm.dosync(async |tx| tx.require(&required).await).await.expect_err("the lock is gone");
    assert!(lost(&require).is_some(), "{require:?}");
    told.push((requires.habit, requires.told_by(async || requires.value.get().await.map(drop)).await + 1));
    told.push((writes.habit, writes.told_by(async || writes.value.set(8).await).await));
    for client in [&reads, &idles, &all] {
        told.push((client.habit, client.told_by(async || client.value.get().await.map(drop)).await));
    }
    told.push((atoms.habit, atoms.told_by(async || atoms.atom.get().await.map(drop)).await));
    told.push((watches.habit, told_by_watch(watches.habit, &mut watched, 8).await));
    assert_eq!(told_by_watch(all.habit, &mut also_watched, 8).await, 1, "a watch of {}", all.habit);
    assert!(told.iter().all(|(_, times)| *times == 1), "{told:?}");
    Ok(())
}

/// A lock that was given back in a history that is lost is free again, though the client that had it lives and holds others.
pub(crate) async fn what_was_given_back_in_a_lost_history_is_free() -> Outcome {
    let redis = forgetful().await?;
    let url = redis.url(&namespace());
    let (holds, waits) = (Client::open(&url, "holds").await?, Client::open(&url, "waits").await?);
    let kept = within(SOON, holds.habit, holds.lock.acquire()).await?;
    let shared = within(SOON, holds.habit, holds.stm.lock("/shared")?.acquire()).await?;
    redis.command(0, &["SAVE"]).await?;
    shared.release().await?;
    forget(&redis).await?;
    let lock = waits.stm.lock("/shared")?;
    let acquire = async {
        loop {
            match lock.acquire().await {
                Err(error) if lost(&error).is_some() => {}
                other => return other,
            }
        }
    };
    drop(within(SOON, "the lock", acquire).await?);
    // It may have been given back as well, for all that its client knows.
    within(SOON, "the end of the others", kept.lost()).await;
    Ok(())
}

/// After a loss each watch of a client is told of it once and goes on with the value that there is now, callbacks too.
pub(crate) async fn every_watch_goes_on_after_a_loss() -> Outcome {
    let redis = forgetful().await?;
    let url = redis.url(&namespace());
    let pair = Pair::open(open(&url).await?, "pair").await?;
    let atom = pair.stm.create_atom("/atom", 0_u64).await?;
    redis.command(0, &["SAVE"]).await?;
    let (mut one, mut two) = (pair.a().watch().await?, pair.a().watch().await?);
    let mut of_atom = atom.watch().await?;
    let called = Arc::<Mutex<Vec<Option<u64>>>>::default();
    let calls = Arc::clone(&called);
    pair.a()
        .add_watch("named", move |change| calls.lock().unwrap_or_else(PoisonError::into_inner).push(change.new))
        .await?;
    let called = |value: u64| {
        let called = &called;
        at_last("the callback", async move || {
            (called.lock().unwrap_or_else(PoisonError::into_inner).last() == Some(&Some(value))).then_some(())
        })
    };
    for _ in 0..3 {
        pair.bump().await?;
    }
    atom.reset(3).await?;
    for changes in [&mut one, &mut two, &mut of_atom] {
        assert_eq!(told_by_watch("before", changes, 3).await, 0);
    }
    called(3).await;

    forget(&redis).await?;
    let other = Pair::open(open(&url).await?, "pair").await?;
    let other_atom = other.stm.open_atom::<u64>("/atom").await?;
    // The first is the value that the client has seen already, in another history.
    assert_eq!(other.bump().await?, 1);
    other_atom.reset(1).await?;
    for changes in [&mut one, &mut two, &mut of_atom] {
        assert_eq!(told_by_watch("after", changes, 1).await, 1);
    }
    called(1).await;
    for _ in 2..=9 {
        other.bump().await?;
    }
    other_atom.reset(9).await?;
    for changes in [&mut one, &mut two, &mut of_atom] {
        assert_eq!(told_by_watch("later", changes, 9).await, 0);
    }
    called(9).await;
    assert!(lost(&pair.read().await.expect_err("an operation is told too")).is_some());
    assert_eq!(pair.read().await?, 9);
    Ok(())
}

/// A loss is an event for those who operate the client, each of them once, found by whatever the client does.
pub(crate) async fn a_loss_is_an_event() -> Outcome {
    let redis = forgetful().await?;
    let stm = open(&redis.url(&namespace())).await?;
    let value: Ref<u64> = stm.create_ref("/value", 0).await?;
    redis.command(0, &["SAVE"]).await?;
    let (mut one, mut two) = (stm.events(), stm.events());
    value.set(1).await?;
    forget(&redis).await?;
    let error = value.get().await.expect_err("it is told");
    let told = lost(&error).copied().expect("a loss");
    for events in [&mut one, &mut two] {
        // The connection was lost and made again beside it.
        let loss = async {
            loop {
                match events.next().await.expect("the client was not closed") {
                    Event::CommitsLost(lost) => return lost,
                    other => assert!(matches!(other, Event::Disconnected(_) | Event::Connected(_)), "{other:?}"),
                }
            }
        };
        assert_eq!(within(SOON, "the event", loss).await, told);
    }
    assert_eq!(value.get().await?, 0);
    stm.close().await;
    for events in [&mut one, &mut two] {
        while let Some(event) = events.next().await {
            assert!(matches!(event, Event::Disconnected(_) | Event::Connected(_)), "{event:?}");
        }
    }
    Ok(())
}
