//! Validators, errors and panics of bodies, and bodies that swallow their doom.

use std::panic::AssertUnwindSafe;

use avout_core::{Error, ErrorKind, Ref, Stm};
use futures_util::FutureExt as _;

use super::bench::{Runs, client, clients, refused, refused_at, set_aside};
use crate::law::{Ctx, Failure, Outcome, laws};

laws! { "stm":
    a_refused_value_is_rejected_with_all_else,
    a_validator_that_panics_is_a_refusal,
    a_refused_first_value_makes_no_ref,
    validators_belong_to_the_handle,
    a_refused_atom_value_is_not_written,
    an_error_of_the_body_comes_back_as_it_is,
    an_error_type_of_the_application_comes_back,
    a_panic_of_the_body_goes_through,
    a_panic_of_a_commuted_function_goes_through,
    a_swallowed_restart_cannot_commit,
    a_swallowed_restart_is_no_failure_of_the_bodys,
    a_swallowed_retry_waits_all_the_same,
}

async fn pair(stm: &Stm) -> Result<(Ref<i64>, Ref<i64>), Failure> {
    Ok((stm.create_ref("/r", 1_i64).await?, stm.create_ref("/s", 1_i64).await?))
}

/// The original printed a validator's refusal and returned nil: here `false` and `Err` are `Rejected` with the key and the reason,
/// and nothing of the whole transaction is written.
async fn a_refused_value_is_rejected_with_all_else(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    let write = async |value: i64| {
        stm.dosync(async |tx| {
            tx.set(&s, value).await?;
            tx.set(&r, value).await
        })
        .await
    };
    r.set_validator(|n: &i64| *n < 10);
    refused_at(write(10).await, ErrorKind::Rejected, r.key(), "false");
    r.set_validator(|n: &i64| if *n < 10 { Ok(()) } else { Err(format!("{n} is too much")) });
    let error = refused_at(write(987_654_321).await, ErrorKind::Rejected, r.key(), "an error");
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(reason.as_deref(), Some("987654321 is too much"));
    assert!(!error.to_string().contains("987654321"), "a value is in the message: {error}");
    refused_at(r.alter(|n| n + 20).await, ErrorKind::Rejected, r.key(), "alter");
    assert_eq!((r.get().await?, s.get().await?), (1, 1), "after refusals");
    write(9).await?;
    assert_eq!((r.get().await?, s.get().await?), (9, 9), "after an allowed value");
    Ok(())
}

/// A validator that panics refuses the value, and the client goes on.
async fn a_validator_that_panics_is_a_refusal(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    r.set_validator(|n: &i64| {
        assert!(*n < 10, "a panic of a validator, by plan");
        true
    });
    for _ in 0..3 {
        let done = stm.dosync(async |tx| {
            tx.set(&s, 10).await?;
            tx.set(&r, 10).await
        });
        refused_at(done.await, ErrorKind::Rejected, r.key(), "a panic");
    }
    r.set(2).await?;
    assert_eq!((r.get().await?, s.get().await?), (2, 1));
    Ok(())
}

/// A first value that the validator refuses makes no ref and no atom; for what is there already it is not asked.
async fn a_refused_first_value_makes_no_ref(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let key = crate::sample::key("/r");
    let refuse = |_: &i64| false;
    refused_at(stm.create_ref("/r", 1_i64).validator(refuse).await, ErrorKind::Rejected, &key, "create_ref");
    let made = stm.create_or_open_ref("/r", 1_i64).validator(refuse).await;
    refused_at(made, ErrorKind::Rejected, &key, "create_or_open_ref");
    refused_at(stm.create_atom("/r", 1_i64).validator(refuse).await, ErrorKind::Rejected, &key, "create_atom");
    refused(stm.open_ref::<i64>("/r").await, ErrorKind::NotFound, "after the refusals");
    refused(stm.open_atom::<i64>("/r").await, ErrorKind::NotFound, "after the refusals");
    stm.create_ref("/r", 1_i64).await?;
    let r = stm.create_or_open_ref("/r", 1_i64).validator(refuse).await?;
    refused_at(r.set(2).await, ErrorKind::Rejected, &key, "a later value");
    assert_eq!(r.get().await?, 1);
    Ok(())
}

/// `set_validator` and `remove_validator` hold for a handle and its clones, and for no other handle.
async fn validators_belong_to_the_handle(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).validator(|n: &i64| *n < 10).await?;
    let (again, of_two) = (one.open_ref::<i64>("/r").await?, two.open_ref::<i64>("/r").await?);
    refused(r.clone().set(10).await, ErrorKind::Rejected, "a clone");
    again.set(10).await?;
    of_two.set(11).await?;
    r.set_validator(|n: &i64| *n > 10);
    refused(r.set(10).await, ErrorKind::Rejected, "another validator");
    r.set(12).await?;
    r.clone().remove_validator();
    r.set(0).await?;
    assert_eq!(of_two.get().await?, 0);
    Ok(())
}

/// A value that an atom's validator refuses, or panics at, is not written.
async fn a_refused_atom_value_is_not_written(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let atom = stm.create_atom("/a", 1_i64).validator(|n: &i64| *n < 10).await?;
    refused_at(atom.reset(10).await, ErrorKind::Rejected, atom.key(), "reset");
    refused_at(atom.swap(|n| n + 10).await, ErrorKind::Rejected, atom.key(), "swap");
    refused_at(atom.compare_and_set(&1, 10).await, ErrorKind::Rejected, atom.key(), "compare_and_set");
    atom.set_validator(|_: &i64| -> bool { panic!("a panic of a validator, by plan") });
    refused_at(atom.reset(2).await, ErrorKind::Rejected, atom.key(), "a panic");
    assert_eq!(atom.get().await?, 1);
    atom.remove_validator();
    atom.reset(10).await?;
    assert_eq!(atom.get().await?, 10);
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Overdrawn(i64);

impl std::fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("overdrawn")
    }
}

impl std::error::Error for Overdrawn {}

/// The original printed errors in a body and returned nil: here the body's error is what `dosync` gives, after one run and
/// with nothing written; the reason of `Error::abort` is found in it.
async fn an_error_of_the_body_comes_back_as_it_is(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    let runs = Runs::default();
    let done = stm
        .dosync(async |tx| {
            runs.next();
            tx.set(&s, 2).await?;
            let n = tx.alter(&r, |n| n - 5).await?;
            if n < 0 { Err(Error::abort(Overdrawn(n))) } else { Ok(()) }
        })
        .await;
    let error = refused(done, ErrorKind::Aborted, "the body's error");
    assert_eq!(error.downcast_ref::<Overdrawn>(), Some(&Overdrawn(-4)));
    let own = Error::new(ErrorKind::Denied, "of the body's own");
    let error = std::sync::Mutex::new(Some(own));
    let done = stm
        .dosync(async |tx| {
            runs.next();
            tx.set(&s, 2).await?;
            Err::<(), _>(error.lock().expect("no panic under it").take().expect("one run"))
        })
        .await;
    assert_eq!(refused(done, ErrorKind::Denied, "an error").to_string(), "of the body's own");
    assert_eq!((runs.count(), r.get().await?, s.get().await?), (2, 1, 1));
    Ok(())
}

/// A transaction whose body has an error type of its own gives that, with nothing written.
async fn an_error_type_of_the_application_comes_back(ctx: Ctx) -> Outcome {
    #[derive(Debug)]
    enum Mine {
        No(i64),
        State(Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self::State(error)
        }
    }
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    let done: Result<(), Mine> = stm
        .transaction()
        .dosync(async |tx| {
            tx.set(&s, 2).await?;
            Err(Mine::No(tx.get(&r).await?))
        })
        .await;
    assert!(matches!(done, Err(Mine::No(1))), "{done:?}");
    r.destroy().await?;
    let done: Result<i64, Mine> = stm.transaction().dosync(async |tx| Ok(tx.get(&r).await?)).await;
    assert!(matches!(&done, Err(Mine::State(error)) if error.kind() == ErrorKind::NotFound), "{done:?}");
    assert_eq!(s.get().await?, 1);
    Ok(())
}

/// A panic of the body goes through to the caller with nothing written, and the client is as good as before.
async fn a_panic_of_the_body_goes_through(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    for after_writing in [false, true] {
        let run = stm.dosync(async |tx| {
            if after_writing {
                tx.set(&r, 2).await?;
                tx.commute(&s, |n| n + 1).await?;
            }
            let value = tx.get(&s).await?;
            assert_eq!(value, 100, "a panic of a body, by plan");
            Ok(())
        });
        let caught = AssertUnwindSafe(run).catch_unwind().await;
        assert!(caught.is_err(), "the panic did not go through");
        assert_eq!((r.get().await?, s.get().await?), (1, 1));
    }
    let caught = AssertUnwindSafe(r.alter(|_| panic!("a panic of a function, by plan"))).catch_unwind().await;
    assert!(caught.is_err());
    // Not nested any more, and nothing is stuck.
    stm.dosync(async |tx| tx.set(&r, 2).await).await?;
    assert_eq!(r.alter(|n| n + 1).await?, 3);
    Ok(())
}

/// A panic of a commuted function that is applied again goes through as well, with nothing written.
async fn a_panic_of_a_commuted_function_goes_through(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    let run = stm.dosync(async |tx| {
        tx.set(&s, 2).await?;
        tx.commute(&r, |n| {
            assert!(n < 50, "a panic of a commuted function, by plan");
            n + 1
        })
        .await?;
        set_aside(&r, 50).await;
        Ok(())
    });
    assert!(AssertUnwindSafe(run).catch_unwind().await.is_err(), "the panic did not go through");
    assert_eq!((r.get().await?, s.get().await?), (50, 1));
    assert_eq!(s.alter(|n| n + 1).await?, 2);
    Ok(())
}

/// Has an attempt lost for good in the body's first run: its history was trimmed. Gives the error that the body saw.
async fn doom(tx: &avout_core::Tx, first: &Ref<i64>, second: &Ref<i64>, run: u32) -> Result<i64, Error> {
    let seen = tx.get(first).await?;
    if run == 1 {
        for n in 0..3 {
            set_aside(first, n).await;
            set_aside(second, n).await;
        }
    }
    Ok(seen + tx.get(second).await?)
}

async fn trimmed_pair(stm: &Stm) -> Result<(Ref<i64>, Ref<i64>), Failure> {
    Ok((stm.create_ref("/r", 1_i64).history(0).await?, stm.create_ref("/s", 1_i64).history(0).await?))
}

/// A body that keeps the `Restart` error to itself is run again: it cannot commit, and can do nothing more.
async fn a_swallowed_restart_cannot_commit(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = trimmed_pair(&stm).await?;
    let written = stm.create_ref("/written", 0_i64).await?;
    let runs = Runs::default();
    let sum = stm
        .dosync(async |tx| {
            let run = runs.next();
            tx.set(&written, i64::from(run)).await?;
            match doom(&tx, &r, &s, run).await {
                Ok(sum) => Ok(sum),
                Err(error) => {
                    assert_eq!((error.kind(), run), (ErrorKind::Restart, 1), "{error:?}");
                    refused(tx.get(&written).await, ErrorKind::Restart, "a read after it");
                    refused(tx.set(&written, 99).await, ErrorKind::Restart, "a write after it");
                    Ok(-1)
                }
            }
        })
        .await?;
    assert_eq!((sum, runs.count(), written.get().await?), (4, 2, 2));
    Ok(())
}

/// A body that makes the `Restart` error an error of its own is run again: the caller never sees either.
async fn a_swallowed_restart_is_no_failure_of_the_bodys(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let native = stm.coordinator().capabilities().native_snapshots;
    crate::law::needs(!native, "a reader needs no history, so none is lost")?;
    let (r, s) = trimmed_pair(&stm).await?;
    let runs = Runs::default();
    let sum = stm
        .dosync(async |tx| doom(&tx, &r, &s, runs.next()).await.map_err(|error| Error::abort(error.to_string())))
        .await?;
    assert_eq!((sum, runs.count()), (4, 2));
    Ok(())
}

/// A body that swallows its own `retry` waits all the same, and can do nothing more.
async fn a_swallowed_retry_waits_all_the_same(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = pair(&stm).await?;
    let runs = Runs::default();
    let answer = stm
        .dosync(async |tx| {
            let n = tx.get(&r).await?;
            if runs.next() == 1 {
                let r = r.clone();
                tokio::spawn(async move { r.set(7).await });
                let _ = tx.retry();
                refused(tx.set(&s, 9).await, ErrorKind::Restart, "a write after retry");
                return Ok(-1);
            }
            Ok(n)
        })
        .await?;
    assert_eq!((answer, runs.count(), s.get().await?), (7, 2, 1));
    Ok(())
}
