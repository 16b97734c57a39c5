//! What is refused inside a body, and with handles that do not belong there.

use std::sync::{Arc, Mutex};

use avout_core::{Error, ErrorKind, Tx};

use super::bench::{client, clients, refused, refused_at};
use crate::law::{Ctx, Outcome, laws};

laws! { "stm":
    operations_of_their_own_are_refused_inside_a_body,
    a_nested_transaction_breaks_nothing,
    another_clients_operations_are_refused_inside_a_body,
    a_spawned_task_is_outside_the_body,
    a_leaked_tx_is_refused,
    a_tx_of_an_earlier_run_is_refused,
    refs_of_another_client_are_refused,
}

/// Inside a body every operation that would be a transaction or a request of its own is `Nested`, and after
/// the body all of them work.
async fn operations_of_their_own_are_refused_inside_a_body(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let atom = stm.create_atom("/a", 1_i64).await?;
    let snapshot = stm.snapshot().await?;
    let all = async || -> Vec<(&'static str, Result<(), Error>)> {
        vec![
            ("dosync", stm.dosync(async |_| Ok(())).await),
            ("transaction", stm.transaction().dosync(async |_| Ok::<_, Error>(())).await),
            ("get", r.get().await.map(drop)),
            ("set", r.set(1).await),
            ("alter", r.alter(|n| n).await.map(drop)),
            ("update", r.update(|_| ()).await),
            ("history", r.history().await.map(drop)),
            ("watch", r.watch().await.map(drop)),
            ("add_watch", r.add_watch("w", |_| ()).await),
            ("create_ref", stm.create_or_open_ref("/r", 1_i64).await.map(drop)),
            ("open_ref", stm.open_ref::<i64>("/r").await.map(drop)),
            ("create_atom", stm.create_or_open_atom("/a", 1_i64).await.map(drop)),
            ("open_atom", stm.open_atom::<i64>("/a").await.map(drop)),
            ("snapshot", stm.snapshot().await.map(drop)),
            ("a read of a snapshot", snapshot.get(&r).await.map(drop)),
            ("list", stm.list("/").await.map(drop)),
            ("list_atoms", stm.list_atoms("/").await.map(drop)),
            ("get of an atom", atom.get().await.map(drop)),
            ("swap", atom.swap(|n| n).await.map(drop)),
            ("update of an atom", atom.update(|_| ()).await),
            ("reset", atom.reset(1).await),
            ("compare_and_set", atom.compare_and_set(&1, 1).await.map(drop)),
            ("watch of an atom", atom.watch().await.map(drop)),
            ("add_watch of an atom", atom.add_watch("w", |_| ()).await),
            ("destroy", r.destroy().await),
            ("destroy of an atom", atom.destroy().await),
        ]
    };
    stm.dosync(async |tx| {
        for (what, done) in Box::pin(all()).await {
            refused(done, ErrorKind::Nested, what);
        }
        tx.set(&r, 2).await
    })
    .await?;
    assert_eq!((r.get().await?, atom.get().await?), (2, 1));
    for (what, done) in Box::pin(all()).await {
        assert!(done.is_ok(), "{what} after the body: {done:?}");
    }
    Ok(())
}

/// The original's nested `dosync!!` committed on its own and broke the outer one: here it is refused, and the outer one commits or
/// ends as if it had not been tried.
async fn a_nested_transaction_breaks_nothing(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 1_i64).await?, stm.create_ref("/s", 1_i64).await?);
    stm.dosync(async |tx| {
        tx.set(&r, 2).await?;
        let inner = stm.dosync(async |inner| inner.set(&s, 9).await).await;
        refused(inner, ErrorKind::Nested, "the inner transaction");
        assert_eq!(tx.get(&r).await?, 2);
        tx.alter(&s, |n| n + 1).await
    })
    .await?;
    assert_eq!((r.get().await?, s.get().await?), (2, 2));
    let done = stm.dosync(async |tx| {
        tx.set(&r, 3).await?;
        stm.dosync(async |inner| inner.set(&s, 9).await).await
    });
    refused(done.await, ErrorKind::Nested, "the error passed on");
    assert_eq!((r.get().await?, s.get().await?), (2, 2));
    Ok(())
}

/// Operations of another client are refused inside a body as well.
async fn another_clients_operations_are_refused_inside_a_body(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    one.dosync(async |tx| {
        refused(of_two.set(5).await, ErrorKind::Nested, "set");
        refused(two.dosync(async |_| Ok(())).await, ErrorKind::Nested, "dosync");
        tx.get(&r).await
    })
    .await?;
    Ok(())
}

/// A task that a body spawns is a task like any other.
async fn a_spawned_task_is_outside_the_body(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let seen = stm
        .dosync(async |_| {
            super::bench::aside({
                let r = r.clone();
                async move { r.get().await }
            })
            .await
        })
        .await?;
    assert_eq!(seen, 1);
    Ok(())
}

async fn assert_misused(tx: &Tx, r: &avout_core::Ref<i64>) {
    refused(tx.get(r).await, ErrorKind::Misuse, "get");
    refused(tx.get_arc(r).await, ErrorKind::Misuse, "get_arc");
    refused(tx.get_many((r,)).await, ErrorKind::Misuse, "get_many");
    refused(tx.prefetch((r,)).await, ErrorKind::Misuse, "prefetch");
    refused(tx.set(r, 9).await, ErrorKind::Misuse, "set");
    refused(tx.alter(r, |n| n).await, ErrorKind::Misuse, "alter");
    refused(tx.update(r, |_| ()).await, ErrorKind::Misuse, "update");
    refused(tx.commute(r, |n| n).await, ErrorKind::Misuse, "commute");
    refused(tx.ensure(r).await, ErrorKind::Misuse, "ensure");
    refused(tx.destroy(r).await, ErrorKind::Misuse, "destroy");
    refused(Err::<(), _>(tx.retry()), ErrorKind::Misuse, "retry");
}

/// A `Tx` that outlived its body can do nothing, whether that committed or failed.
async fn a_leaked_tx_is_refused(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    for fails in [false, true] {
        let leak = Arc::new(Mutex::new(None));
        let done = stm
            .dosync(async |tx| {
                tx.get(&r).await?;
                *leak.lock().expect("no panic under it") = Some(tx);
                if fails { Err(Error::abort("no")) } else { Ok(()) }
            })
            .await;
        assert_eq!(done.is_err(), fails);
        let tx = leak.lock().expect("no panic under it").take().expect("it was leaked");
        assert_misused(&tx, &r).await;
        assert_eq!(r.get().await?, 1);
    }
    Ok(())
}

/// A `Tx` of a run that was lost can do nothing in the next one.
async fn a_tx_of_an_earlier_run_is_refused(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 1_i64).await?, stm.create_ref("/s", 1_i64).await?);
    let leak = Mutex::new(None);
    stm.dosync(async |tx| {
        let n = tx.get(&r).await?;
        let earlier: Option<Tx> = leak.lock().expect("no panic under it").replace(tx.clone());
        match earlier {
            None => super::bench::set_aside(&r, 5).await,
            Some(earlier) => assert_misused(&earlier, &r).await,
        }
        tx.set(&s, n).await
    })
    .await?;
    assert_eq!((r.get().await?, s.get().await?), (5, 5));
    Ok(())
}

/// A ref of another client in a body is `Misuse`, with its key, and the body may go on.
async fn refs_of_another_client_are_refused(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let foreign = two.open_ref::<i64>("/r").await?;
    one.dosync(async |tx| {
        let key = foreign.key();
        refused_at(tx.get(&foreign).await, ErrorKind::Misuse, key, "get");
        refused_at(tx.get_many((&r, &foreign)).await, ErrorKind::Misuse, key, "get_many");
        refused_at(tx.prefetch((&r, &foreign)).await, ErrorKind::Misuse, key, "prefetch");
        refused_at(tx.set(&foreign, 9).await, ErrorKind::Misuse, key, "set");
        refused_at(tx.commute(&foreign, |n| n).await, ErrorKind::Misuse, key, "commute");
        refused_at(tx.ensure(&foreign).await, ErrorKind::Misuse, key, "ensure");
        refused_at(tx.destroy(&foreign).await, ErrorKind::Misuse, key, "destroy");
        tx.alter(&r, |n| n + 1).await
    })
    .await?;
    assert_eq!(foreign.get().await?, 2);
    Ok(())
}
