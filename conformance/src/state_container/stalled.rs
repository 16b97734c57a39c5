//! A store whose server stops answering and keeps its connections open.

use std::time::Duration;

use avout_core::backend::Kind;
use avout_core::{ErrorKind, Key};

use crate::coordinator::stalled::ended;
use crate::law::{Ctx, Outcome, laws, needs, within};
use crate::sample::{bytes, key, state, version};

laws! { "state_container":
    every_call_ends_on_a_stalled_server,
}

/// Every call of a store ends in bounded time while the server does not answer, and the client goes on when the server does.
async fn every_call_ends_on_a_stalled_server(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let (atom, other) = (store.state(&key("/a")), store.state(&key("/b")));
    let (values, unused) = (store.versioned_state(&key("/a")), store.versioned_state(&key("/b")));
    atom.init().await?;
    values.init().await?;
    let revision = atom.set_state(state("one")).await?;
    values.set_state_at(&version(1), state("one")).await?;
    needs(ctx.fixture.stall(&ctx.namespace).await, "the fixture cannot stall a server")?;
    let limit = ctx.fixture.patience();
    let (first, second, root, deleted) = (version(1), version(2), Key::root(), [(key("/a"), version(3))]);
    let atoms = async {
        tokio::join!(
            ended(limit, "an atom's init", other.init()),
            ended(limit, "a read of an atom", atom.state()),
            ended(limit, "a write of an atom", other.set_state(state("two"))),
            ended(limit, "a compare-and-set", atom.compare_and_set_state(Some(revision.clone()), state("one"))),
            ended(limit, "a list of atoms", store.all_keys(Kind::Atom, &root)),
        );
    };
    let values_too = async {
        tokio::join!(
            ended(limit, "a container's init", unused.init()),
            ended(limit, "a read of a value", values.state_at(&first)),
            ended(limit, "a write of a value", values.set_state_at(&second, state("two"))),
            ended(limit, "a delete of a value", values.delete_state_at(&second)),
            ended(limit, "a list of versions", values.versions()),
            ended(limit, "a delete of values", store.delete_states_at(&deleted)),
            ended(limit, "a container's end", unused.destroy()),
        );
    };
    let (atoms, values_too) = (Box::pin(atoms), Box::pin(values_too));
    tokio::join!(atoms, values_too);
    ctx.fixture.resume(&ctx.namespace).await;
    let again = async {
        loop {
            match atom.state().await {
                Ok(found) => return found,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = within(ctx.fixture.time_limit() / 3, "a read when the server goes on", again).await;
    assert_eq!(found.as_ref().map(|(found, _)| &bytes(found)[..]), Some(&b"one"[..]));
    Ok(())
}
