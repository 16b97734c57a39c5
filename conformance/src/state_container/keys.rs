//! What a store keeps apart, and what it lists.

use avout_core::Key;
use avout_core::backend::Kind;

use super::current;
use crate::law::{Ctx, Outcome, laws};
use crate::sample::{bytes, hostile_keys, key, state, version};

laws! { "state_container":
    containers_of_one_key_are_views_of_one_state,
    hostile_keys_are_kept_apart,
    an_atom_and_a_ref_under_one_key_are_two_things,
    keys_are_listed_by_kind_and_prefix,
    a_page_begins_behind_a_key,
    what_holds_nothing_is_not_listed,
    stores_have_nothing_in_common,
}

/// Two containers that one store made for a key show the same state.
async fn containers_of_one_key_are_views_of_one_state(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let [one, two] = [store.state(&key("/a")), store.state(&key("/a"))];
    one.init().await?;
    one.set_state(state("seen")).await?;
    assert_eq!(&bytes(&current(&*two).await?.0)[..], b"seen");
    two.destroy().await?;
    assert!(one.state().await?.is_none());
    Ok(())
}

/// Keys that look alike to a store, or mean something to it, are different atoms, and are listed as they are.
async fn hostile_keys_are_kept_apart(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let mut all = hostile_keys();
    for key in &all {
        let container = one.state(key);
        container.init().await?;
        assert!(container.state().await?.is_none(), "{key} is taken for another key");
        container.set_state(state(key.as_str())).await?;
    }
    for key in &all {
        assert_eq!(&bytes(&current(&*two.state(key)).await?.0)[..], key.as_str().as_bytes(), "{key}");
    }
    one.state(&key("/a")).destroy().await?;
    all.retain(|other| *other != key("/a"));
    all.sort_unstable();
    assert_eq!(two.all_keys(Kind::Atom, &Key::root()).await?, all);
    Ok(())
}

/// An atom and the values of a ref under the same key have nothing to do with each other.
async fn an_atom_and_a_ref_under_one_key_are_two_things(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let (atom, values) = (store.state(&key("/a")), store.versioned_state(&key("/a")));
    atom.init().await?;
    values.init().await?;
    values.set_state_at(&version(1), state("of the ref")).await?;
    assert!(atom.state().await?.is_none(), "a ref's value is an atom's state");
    atom.set_state(state("of the atom")).await?;
    assert_eq!(values.versions().await?, [version(1)], "an atom's state is a ref's version");
    values.destroy().await?;
    assert_eq!(&bytes(&current(&*atom).await?.0)[..], b"of the atom", "destroying the ref changed the atom");
    values.init().await?;
    values.set_state_at(&version(2), state("of the ref")).await?;
    atom.destroy().await?;
    let kept = values.state_at(&version(2)).await?;
    assert!(kept.is_some(), "destroying the atom removed the ref's value");
    Ok(())
}

/// `keys` gives the keys of one kind, under a prefix by whole parts, sorted, to every client.
async fn keys_are_listed_by_kind_and_prefix(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let key_list = |names: &[&str]| -> Vec<Key> { names.iter().map(|name| key(name)).collect() };
    let mut atoms = key_list(&["/b", "/a/b", "/a", "/a/b/c", "/a_b", "/aa", "/a%", "/A/b", "/ä/ü"]);
    let mut refs = key_list(&["/b", "/a/c", "/ab", "/r"]);
    for key in &atoms {
        let atom = one.state(key);
        atom.init().await?;
        atom.set_state(state("x")).await?;
    }
    for key in &refs {
        let values = one.versioned_state(key);
        values.init().await?;
        values.set_state_at(&version(1), state("x")).await?;
        values.set_state_at(&version(2), state("y")).await?;
    }
    atoms.sort_unstable();
    refs.sort_unstable();
    for prefix in ["/", "/a", "/a/b", "/a_b", "/a%", "/b", "/r", "/ä", "/none"] {
        let prefix = Key::prefix(prefix)?;
        for (kind, all) in [(Kind::Atom, &atoms), (Kind::Ref, &refs)] {
            let expected: Vec<Key> = all.iter().filter(|key| key.is_under(&prefix)).cloned().collect();
            assert_eq!(two.all_keys(kind, &prefix).await?, expected, "{kind:?} under {prefix}");
        }
    }
    Ok(())
}

/// A page of keys begins behind the one that it is asked for, whether that holds anything or not, and lies under the prefix or not.
async fn a_page_begins_behind_a_key(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let mut all: Vec<Key> = ["/a", "/a/b", "/a/b/c", "/a/d", "/a.b", "/b"].map(key).to_vec();
    for key in &all {
        let (atom, values) = (store.state(key), store.versioned_state(key));
        atom.init().await?;
        atom.set_state(state("x")).await?;
        values.init().await?;
        values.set_state_at(&version(1), state("x")).await?;
        values.set_state_at(&version(2), state("y")).await?;
    }
    all.sort_unstable();
    for (kind, prefix) in [(Kind::Atom, "/"), (Kind::Ref, "/"), (Kind::Atom, "/a"), (Kind::Ref, "/a")] {
        let prefix = Key::prefix(prefix)?;
        for after in all.iter().cloned().chain([key("/A"), key("/a/c"), key("/c")]) {
            let expected: Vec<Key> = all.iter().filter(|key| key.is_under(&prefix) && **key > after).cloned().collect();
            let page = store.keys(kind, &prefix, Some(&after)).await?;
            assert!(
                page.more || page.keys.len() == expected.len(),
                "the last page of {kind:?} behind {after} lacks some"
            );
            assert!(!page.more || !page.keys.is_empty(), "a page of {kind:?} is empty, and not the last");
            assert_eq!(
                page.keys,
                expected[..page.keys.len().min(expected.len())],
                "{kind:?} under {prefix} behind {after}"
            );
        }
    }
    Ok(())
}

/// A key that was only looked at, or whose state and values were removed, is not listed.
async fn what_holds_nothing_is_not_listed(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let (atom, values) = (one.state(&key("/a")), one.versioned_state(&key("/r")));
    assert!(atom.state().await?.is_none() && values.state_at(&version(1)).await?.is_none());
    for destroy in [true, false] {
        atom.init().await?;
        values.init().await?;
        atom.set_state(state("x")).await?;
        values.set_state_at(&version(1), state("x")).await?;
        atom.destroy().await?;
        if destroy {
            values.destroy().await?;
        } else {
            values.delete_state_at(&version(1)).await?;
        }
        for kind in [Kind::Atom, Kind::Ref] {
            assert!(two.all_keys(kind, &Key::root()).await?.is_empty(), "{kind:?} of which nothing is left");
        }
    }
    Ok(())
}

/// Two namespaces have different realms, one namespace has one, and a write to one changes nothing in the other.
async fn stores_have_nothing_in_common(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let other = ctx.elsewhere().store().await?;
    assert_eq!(one.realm(), two.realm(), "two clients of a namespace see different realms");
    assert_ne!(one.realm(), other.realm(), "two namespaces have one realm");
    assert_eq!(format!("{:?}", one.capabilities()), format!("{:?}", two.capabilities()));
    let (atom, values) = (one.state(&key("/a")), one.versioned_state(&key("/a")));
    atom.init().await?;
    values.init().await?;
    atom.set_state(state("x")).await?;
    values.set_state_at(&version(1), state("x")).await?;
    assert!(other.state(&key("/a")).state().await?.is_none(), "an atom of another namespace");
    assert!(other.versioned_state(&key("/a")).state_at(&version(1)).await?.is_none(), "a value of another namespace");
    assert!(other.all_keys(Kind::Atom, &Key::root()).await?.is_empty());
    Ok(())
}
