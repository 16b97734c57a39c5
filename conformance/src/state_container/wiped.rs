//! A store that is emptied under its clients.

use avout_core::Key;
use avout_core::backend::Kind;

use crate::coordinator::wiped::is_lost;
use crate::law::{Ctx, Outcome, laws, needs};
use crate::sample::{bytes, key, state, version};

laws! { "state_container":
    a_wiped_store_is_lost_to_its_clients,
}

/// When a store is emptied under its clients, whatever they ask is answered with `StoreLost`, also after others have made it
/// anew: nothing is read as absent, and nothing is written into the new one.
async fn a_wiped_store_is_lost_to_its_clients(ctx: Ctx) -> Outcome {
    let old = ctx.store().await?;
    let (atom, values) = (old.state(&key("/a")), old.versioned_state(&key("/a")));
    atom.init().await?;
    values.init().await?;
    let revision = atom.set_state(state("old")).await?;
    values.set_state_at(&version(1), state("old")).await?;
    needs(ctx.fixture.wipe(&ctx.namespace).await, "the fixture cannot wipe a namespace")?;
    for made_anew in [false, true] {
        let new = match made_anew {
            true => Some(ctx.store().await?),
            false => None,
        };
        if let Some(new) = &new {
            assert_ne!(new.realm(), old.realm(), "a store made anew has the realm of the old one");
            new.state(&key("/a")).init().await?;
            new.state(&key("/a")).set_state(state("new")).await?;
        }
        let (first, second, root) = (version(1), version(2), Key::root());
        is_lost(&ctx, "a read of an atom", || atom.state()).await;
        is_lost(&ctx, "a write of an atom", || atom.set_state(state("lost"))).await;
        for expected in [Some(revision.clone()), None] {
            let set = || atom.compare_and_set_state(expected.clone(), state("lost"));
            is_lost(&ctx, "a compare-and-set", set).await;
        }
        is_lost(&ctx, "a read of a value", || values.state_at(&first)).await;
        is_lost(&ctx, "a write of a value", || values.set_state_at(&second, state("lost"))).await;
        is_lost(&ctx, "a list", || old.all_keys(Kind::Atom, &root)).await;
        if let Some(new) = &new {
            let found = new.state(&key("/a")).state().await?;
            let found = found.as_ref().map(|(found, _)| &bytes(found)[..]);
            assert_eq!(found, Some(&b"new"[..]), "somebody wrote who knew another store");
            assert!(new.versioned_state(&key("/a")).versions().await?.is_empty(), "a value of another store");
        }
    }
    Ok(())
}
