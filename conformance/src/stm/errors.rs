//! Errors of commits, and the moments that they are of.

use std::sync::Arc;

use avout_core::{Error, ErrorKind, Isolation, Ref, Stm};

use super::bench::{INLINE, Runs, aside, client, clients, refused_at, roles};
use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::law::{Ctx, Failure, Outcome, laws};

laws! { "stm":
    an_error_about_a_write_is_of_the_moment_that_was_read,
    a_refusal_of_what_was_applied_again_is_of_the_moment_that_was_read,
    an_error_of_the_moment_that_was_read_is_told_at_once,
}

const BOTH: [Isolation; 2] = [Isolation::Serializable, Isolation::Snapshot];

/// How a body changes the ref that it has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Set,
    Destroy,
    Commute,
}

/// What another client does between a body and its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// It changes what was read, and destroys what was not, in one transaction.
    Destroyed,
    /// And a sweep takes away what is left of it.
    Swept,
    /// And makes it again as another type.
    MadeAgain,
}

/// Has another client get between.
async fn between(other: &Stm, names: &[String; 2], meanwhile: Meanwhile) {
    let (other, names) = (other.clone(), names.clone());
    aside(async move {
        let [a, b] = [other.open_ref::<i64>(&names[0]).await?, other.open_ref::<i64>(&names[1]).await?];
        other
            .dosync(async |tx| {
                tx.set(&a, 2).await?;
                tx.destroy(&b).await
            })
            .await?;
        match meanwhile {
            Meanwhile::Destroyed => {}
            Meanwhile::Swept => drop(other.sweep().await?),
            Meanwhile::MadeAgain => drop(other.create_ref(&names[1], "another type".to_owned()).await?),
        }
        Ok::<_, Error>(())
    })
    .await
    .expect("another transaction");
}

async fn change(tx: &avout_core::Tx, r: &Ref<i64>, way: Way) -> Result<(), Error> {
    match way {
        Way::Set => tx.set(r, 5).await,
        Way::Destroy => tx.destroy(r).await,
        Way::Commute => tx.commute(r, |n| n + 1).await.map(drop),
    }
}

/// A body reads a ref, and changes another one that it has not read. If another client meanwhile changes the first and destroys
/// the second in one transaction, no moment had the first as it was read and not the second: the body is run again.
async fn an_error_about_a_write_is_of_the_moment_that_was_read(ctx: Ctx) -> Outcome {
    let [stm, other] = clients(&ctx).await?;
    let mut case = 0;
    for meanwhile in [Meanwhile::Destroyed, Meanwhile::Swept, Meanwhile::MadeAgain] {
        for (isolation, way) in
            BOTH.into_iter().flat_map(|of| [Way::Set, Way::Destroy, Way::Commute].map(|way| (of, way)))
        {
            for writes_both in [true, false] {
                case += 1;
                let names = [format!("/a/{case}"), format!("/b/{case}")];
                other.create_ref(&names[0], 1_i64).await?;
                other.create_ref(&names[1], 1_i64).await?;
                let (a, b) = (stm.open_ref::<i64>(&names[0]).await?, stm.open_ref::<i64>(&names[1]).await?);
                let runs = Runs::default();
                let done = stm.transaction().isolation(isolation).dosync(async |tx| {
                    let seen = tx.get(&a).await?;
                    if writes_both {
                        tx.set(&a, seen + 10).await?;
                    }
                    if seen == 1 {
                        change(&tx, &b, way).await?;
                    }
                    if runs.next() == 1 {
                        between(&other, &names, meanwhile).await;
                    }
                    Ok::<_, Error>(seen)
                });
                let what = format!("{meanwhile:?}, {isolation:?}, {way:?}, both written: {writes_both}");
                let seen = done.await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!((seen, a.get().await?), (2, if writes_both { 12 } else { 2 }), "{what}");
                // A sweep may take one more.
                assert!((2..=3).contains(&runs.count()), "{what}: {} runs", runs.count());
            }
        }
    }
    Ok(())
}

/// Two refs, the second of another client too.
async fn appended(ctx: &Ctx, limit: usize) -> Result<(Stm, Stm, Ref<i64>, Ref<Vec<u8>>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator).small(INLINE));
    let stm = ctx.stm(rig, Arc::new(RiggedStore::new(store).limited(limit))).seed(ctx.seed).build();
    let (coordinator, store) = roles(ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator).small(INLINE));
    let other = ctx.stm(rig, Arc::new(RiggedStore::new(store))).seed(ctx.seed).build();
    let a = stm.create_ref("/a", 1_i64).await?;
    let b = stm.create_ref("/b", vec![1_u8]).await?;
    Ok((stm, other, a, b))
}

/// A body under `Isolation::Snapshot` reads a ref and commutes another one. If another client meanwhile changes the first, and
/// the second so that the function makes a value of it that is refused, no moment had both: the body is run again.
async fn a_refusal_of_what_was_applied_again_is_of_the_moment_that_was_read(ctx: Ctx) -> Outcome {
    const LIMIT: usize = 1000;
    for rejects in [true, false] {
        let ctx = if rejects { ctx.clone() } else { ctx.elsewhere() };
        let (stm, other, a, b) = appended(&ctx, LIMIT).await?;
        if rejects {
            b.set_validator(|value: &Vec<u8>| value.len() < LIMIT);
        }
        let runs = Runs::default();
        let done = stm.transaction().isolation(Isolation::Snapshot).dosync(async |tx| {
            let seen = tx.get(&a).await?;
            if seen == 1 {
                tx.commute(&b, |mut value| {
                    value.push(1);
                    value
                })
                .await?;
            }
            if runs.next() == 1 {
                let other = other.clone();
                aside(async move {
                    let (a, b) = (other.open_ref::<i64>("/a").await?, other.open_ref::<Vec<u8>>("/b").await?);
                    other
                        .dosync(async |tx| {
                            tx.set(&a, 2).await?;
                            tx.set(&b, vec![7; 2 * LIMIT]).await
                        })
                        .await
                })
                .await?;
            }
            Ok::<_, Error>(seen)
        });
        let seen = done.await.unwrap_or_else(|error| panic!("rejected by a validator, {rejects}: {error:?}"));
        assert_eq!((seen, runs.count()), (2, 2), "rejected by a validator: {rejects}");
    }
    Ok(())
}

/// An error about a ref that was not read is told after one run of the body, if nothing of what was read has changed.
async fn an_error_of_the_moment_that_was_read_is_told_at_once(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 1_i64).await?;
    let b = stm.create_ref("/b", 1_i64).await?;
    let other = client(&ctx).await?;
    b.destroy().await?;
    for swept in [false, true] {
        if swept {
            other.sweep().await?;
        }
        for isolation in BOTH {
            for way in [Way::Set, Way::Destroy] {
                let runs = Runs::default();
                let done = stm.transaction().isolation(isolation).dosync(async |tx| {
                    runs.next();
                    let seen = tx.get(&a).await?;
                    tx.set(&a, seen + 1).await?;
                    change(&tx, &b, way).await
                });
                let what = format!("{isolation:?}, {way:?}, swept: {swept}");
                refused_at(done.await, ErrorKind::NotFound, b.key(), &what);
                assert!(runs.count() <= 2, "{what}: {} runs", runs.count());
            }
        }
    }
    assert_eq!(a.get().await?, 1);
    Ok(())
}
