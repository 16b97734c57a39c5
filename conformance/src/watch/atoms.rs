//! Streams of an atom's changes.

use avout_core::{Error, ErrorKind};

use super::changes::next;
use crate::law::{Ctx, Outcome, laws, within};
use crate::stm::bench::{SOON, client, clients, refused_at};

laws! { "watch":
    an_atoms_last_value_is_always_told,
    an_atoms_values_never_go_back,
    an_atom_destroyed_and_made_again_is_told,
    an_atom_that_cannot_be_read_is_told_once,
}

/// Each value of an atom that stays long enough is told, with the one told before, to this client's watches and another's.
async fn an_atoms_last_value_is_always_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let atom = one.create_atom("/a", 0_i64).await?;
    let of_two = two.open_atom::<i64>("/a").await?;
    let mut watches = [atom.watch().await?, of_two.watch().await?];
    for n in 1..=10 {
        if n % 2 == 0 { &atom } else { &of_two }.reset(n).await?;
        for watch in &mut watches {
            let change = next(watch).await?;
            assert_eq!((change.old, change.new, change.point), (Some(n - 1), Some(n), None));
        }
    }
    Ok(())
}

/// While an atom is changed fast, the values told only grow, each old value is the one told before, and the last one comes.
async fn an_atoms_values_never_go_back(ctx: Ctx) -> Outcome {
    const UPDATES: i64 = 200;
    let [one, two] = clients(&ctx).await?;
    let atom = one.create_atom("/a", 0_i64).await?;
    let mut watch = two.open_atom::<i64>("/a").await?.watch().await?;
    let writer = tokio::spawn(async move {
        for _ in 0..UPDATES {
            atom.swap(|n| n + 1).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Error>(())
    });
    let mut last = 0;
    while last < UPDATES {
        let change = next(&mut watch).await?;
        assert_eq!(change.old, Some(last), "{change:?}");
        let new = change.new.expect("it is not destroyed");
        assert!(new > last, "{new} after {last}");
        last = new;
    }
    writer.await.expect("the writer does not panic")?;
    Ok(())
}

/// Destroying an atom is told with no new value, and making it again with no old one.
async fn an_atom_destroyed_and_made_again_is_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let atom = one.create_atom("/a", 0_i64).await?;
    let mut watch = atom.watch().await?;
    for _ in 0..2 {
        two.open_atom::<i64>("/a").await?.destroy().await?;
        let change = next(&mut watch).await?;
        assert_eq!((change.old, change.new), (Some(0), None));
        two.create_atom("/a", 0_i64).await?;
        let change = next(&mut watch).await?;
        assert_eq!((change.old, change.new), (None, Some(0)));
    }
    Ok(())
}

/// A value that cannot be read is told as an error once, and the next one that can is told.
async fn an_atom_that_cannot_be_read_is_told_once(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let atom = stm.create_atom("/a", 0_i64).await?;
    let mut watch = atom.watch().await?;
    atom.destroy().await?;
    assert_eq!(next(&mut watch).await?.new, None);
    let text = stm.create_atom("/a", "x".to_owned()).await?;
    let told = within(SOON, "the other type", watch.next()).await.expect("the stream goes on");
    refused_at(told, ErrorKind::Mismatch, atom.key(), "the other type");
    let again = tokio::time::timeout(std::time::Duration::from_millis(30), watch.next()).await;
    assert!(again.is_err(), "the same error again: {again:?}");
    text.destroy().await?;
    stm.create_atom("/a", 7_i64).await?;
    loop {
        let change = next(&mut watch).await?;
        if change.new == Some(7) {
            return Ok(());
        }
        assert_eq!(change.new, None, "{change:?}");
    }
}
