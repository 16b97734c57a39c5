//! Clients that were opened to read only.

use std::time::Duration;

use avout_core::backend::{Coordinator, Store};
use avout_core::{Error, ErrorKind, Key, Revision, Stm};
use futures_util::future::BoxFuture;

use crate::Backend;
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::stm::bench::{SOON, client, roles};

laws! { "readonly":
    a_client_that_reads_makes_no_namespace,
    a_client_that_reads_sees_and_watches_all,
    a_client_that_reads_writes_nothing,
    a_client_may_be_told_to_read_only,
}

async fn open(ctx: &Ctx) -> Result<avout_core::Result<Backend>, Failure> {
    let opened = ctx.fixture.open_readonly(&ctx.namespace).await;
    opened.ok_or_else(|| Failure::Skipped("the backend has no clients that only read".to_owned()))
}

/// A client that was opened to read only. A backend that has one role only is completed from memory.
async fn reader(ctx: &Ctx) -> Result<Stm, Failure> {
    let Backend { coordinator, store } = open(ctx).await??;
    let local = avout_local::Local::named(&ctx.namespace);
    let coordinator = coordinator.unwrap_or_else(|| local.coordinator());
    let store = store.unwrap_or_else(|| local.store());
    Ok(ctx.stm(coordinator, store).seed(ctx.seed).deadline(Some(Duration::from_secs(10))).build())
}

/// A namespace that is not there is not made by a client that only reads: it is told so, and the next one that opens it finds
/// nothing.
async fn a_client_that_reads_makes_no_namespace(ctx: Ctx) -> Outcome {
    for round in 0..2 {
        let error = match open(&ctx).await? {
            Ok(_) => panic!("round {round}: a namespace is opened to read that nobody has made"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    assert!(client(&ctx).await?.list("/").await?.is_empty());
    Ok(())
}

/// It reads refs, atoms and whole transactions, sees what others commit, and is woken by it.
async fn a_client_that_reads_sees_and_watches_all(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let (a, b) = (writer.create_ref("/a", 1_i64).await?, writer.create_ref("/b", 1_i64).await?);
    let large = writer.create_ref("/large", vec![7_u8; 300_000]).await?;
    let atom = writer.create_atom("/atom", 1_i64).await?;
    let held = writer.lock("/lock")?.acquire().await?;

    let stm = reader(&ctx).await?;
    stm.ping().await?;
    // What is there is opened, also by what would make it otherwise.
    let (of_a, of_b) = (stm.open_ref::<i64>("/a").await?, stm.create_or_open_ref("/b", 9_i64).await?);
    assert_eq!(stm.open_ref::<Vec<u8>>("/large").await?.get().await?.len(), large.get().await?.len());
    let of_atom = stm.create_or_open_atom("/atom", 9_i64).await?;
    assert_eq!((of_atom.get().await?, stm.list("/").await?.len()), (1, 3));
    assert_eq!(stm.lock("/lock")?.status().await?.held, 1, "a lock that another client holds");

    let (mut changes, mut of_atoms) = (of_a.watch().await?, of_atom.watch().await?);
    let sum = async || {
        writer
            .dosync(async |tx| {
                tx.alter(&a, |n| n + 1).await?;
                tx.alter(&b, |n| n + 1).await
            })
            .await
    };
    for n in 2..5 {
        assert_eq!(sum().await?, n);
        let both = stm.dosync(async |tx| Ok((tx.get(&of_a).await?, tx.get(&of_b).await?))).await?;
        assert_eq!(both, (n, n));
        let change = within(SOON, "a change", changes.next()).await.expect("the watch goes on")?;
        assert!(change.new.is_some_and(|new| new <= n), "{change:?}");
    }
    atom.reset(2).await?;
    let change = within(SOON, "a change of an atom", of_atoms.next()).await.expect("the watch goes on")?;
    assert_eq!(change.new, Some(2));
    held.release().await?;
    Ok(())
}

type Operation<'a> = (&'static str, BoxFuture<'a, Result<(), Error>>);

/// All that writes, asked of a client that only reads: each is refused.
async fn all_is_refused(stm: &Stm) -> Outcome {
    let (r, atom) = (stm.open_ref::<i64>("/r").await?, stm.open_atom::<i64>("/a").await?);
    let (lock, queue, latch) = (stm.lock("/l")?, stm.queue::<u8>("/q", 100)?, stm.latch("/t", 100)?);
    macro_rules! operation {
        ($what:literal, $call:expr) => {
            ($what, Box::pin(async { $call.await.map(drop) }) as BoxFuture<'_, _>)
        };
    }
    let operations: Vec<Operation<'_>> = vec![
        operation!("set", r.set(1)),
        operation!("alter", r.alter(|n| n + 1)),
        operation!("destroy", r.clone().destroy()),
        operation!("dosync", stm.dosync(async |tx| tx.set(&r, 3).await)),
        operation!("create ref", stm.create_ref("/new", 0_i64).into_future()),
        operation!("create or open ref", stm.create_or_open_ref("/new", vec![0_u8; 300_000]).into_future()),
        operation!("create atom", stm.create_atom("/new", 0_i64).into_future()),
        operation!("create or open atom", stm.create_or_open_atom("/new", 0_i64).into_future()),
        operation!("swap", atom.swap(|n| n + 1)),
        operation!("reset", atom.reset(5)),
        operation!("acquire", lock.acquire()),
        operation!("push", queue.push(1)),
        operation!("count down", latch.count_down()),
        operation!("counter", stm.counter("/c").into_future()),
        operation!("sweep", stm.sweep()),
    ];
    for (what, operation) in operations {
        let error = match within(SOON, what, operation).await {
            Ok(()) => panic!("{what}: it is done by a client that only reads"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
        assert!(error.to_string().contains("readonly=true"), "{what}: {error}");
    }
    Ok(())
}

/// The records and atoms that a namespace holds, and the revisions of the records.
async fn content(
    coordinator: &dyn Coordinator,
    store: &dyn Store,
) -> Result<(Vec<Key>, Vec<Option<Revision>>, Vec<Key>), Error> {
    let root = Key::root();
    let records = coordinator.list_all(&root).await?;
    let entries = coordinator.read(&records, None).await?.entries;
    let revisions = entries.into_iter().map(|entry| entry.map(|entry| entry.revision)).collect();
    Ok((records, revisions, store.all_keys(avout_core::backend::Kind::Atom, &root).await?))
}

/// Whatever it is asked to write it refuses, and leaves nothing behind: no record, no slot, no session, no value.
async fn a_client_that_reads_writes_nothing(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let writer = ctx.stm(coordinator.clone(), store.clone()).seed(ctx.seed).build();
    let _r = writer.create_ref("/r", 1_i64).await?;
    let _a = writer.create_atom("/a", 1_i64).await?;
    writer.close().await;
    let (coordinator, store) = roles(&ctx).await?;
    let stm = reader(&ctx).await?;
    let before = content(&*coordinator, &*store).await?;
    all_is_refused(&stm).await?;
    stm.close().await;
    assert_eq!(content(&*coordinator, &*store).await?, before);
    Ok(())
}

/// The same by the client's own setting, over a backend that could write.
async fn a_client_may_be_told_to_read_only(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let _r = writer.create_ref("/r", 1_i64).await?;
    let _a = writer.create_atom("/a", 1_i64).await?;
    writer.close().await;
    let (coordinator, store) = roles(&ctx).await?;
    let before = content(&*coordinator, &*store).await?;
    let stm = ctx.stm(coordinator.clone(), store.clone()).seed(ctx.seed).readonly(true).build();
    assert_eq!(stm.open_ref::<i64>("/r").await?.get().await?, 1);
    all_is_refused(&stm).await?;
    stm.close().await;
    let (coordinator, store) = roles(&ctx).await?;
    assert_eq!(content(&*coordinator, &*store).await?, before);
    Ok(())
}
