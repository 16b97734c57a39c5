//! Making and opening refs.

use avout_core::{ErrorKind, InProcess, Json, Key, Stm};
use avout_local::Local;

use super::bench::{client, clients, refused, refused_at, roles};
use crate::law::{Ctx, Outcome, laws, needs, together};
use crate::sample::key;

laws! { "stm":
    opening_leaves_the_value,
    create_refuses_an_existing_ref,
    open_refuses_an_absent_ref,
    another_type_is_a_mismatch,
    another_codec_is_a_mismatch,
    another_store_is_a_mismatch,
    a_pinned_type_tag_names_the_type,
    names_that_are_no_keys_are_refused,
    unusual_names_are_keys,
    racing_to_create_gives_one_value,
    values_come_back_as_they_are,
    lists_what_exists_under_a_prefix,
    refs_outlive_their_clients,
    the_in_process_codec_needs_the_process,
    json_values_come_back,
    limits_of_builders_are_checked,
    atoms_are_made_and_opened_like_refs,
    atoms_and_refs_of_one_name_are_apart,
}

/// The original reset a ref to its initial value whenever a client opened it: here a value that is there is left as
/// it is.
async fn opening_leaves_the_value(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_or_open_ref("/r", 1_i64).await?;
    r.set(7).await?;
    let again = two.create_or_open_ref("/r", 1_i64).await?;
    assert_eq!((again.get().await?, r.get().await?), (7, 7), "opened with an initial value");
    let atom = one.create_or_open_atom("/a", 1_i64).await?;
    atom.reset(7).await?;
    let again = two.create_or_open_atom("/a", 1_i64).await?;
    assert_eq!((again.get().await?, atom.get().await?), (7, 7), "an atom, opened with an initial value");
    Ok(())
}

/// `create_ref` of a ref that exists is `AlreadyExists`, with any type, and changes nothing.
async fn create_refuses_an_existing_ref(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    refused_at(one.create_ref("/r", 2_i64).await, ErrorKind::AlreadyExists, r.key(), "create_ref again");
    refused_at(two.create_ref("/r", 2_i64).await, ErrorKind::AlreadyExists, r.key(), "of another client");
    let text = "x".to_owned();
    refused_at(two.create_ref("/r", text).await, ErrorKind::AlreadyExists, r.key(), "with another type");
    assert_eq!(r.get().await?, 1);
    Ok(())
}

/// `open_ref` of what was never made, or was destroyed, is `NotFound`, and makes nothing.
async fn open_refuses_an_absent_ref(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    refused_at(one.open_ref::<i64>("/r").await, ErrorKind::NotFound, &key("/r"), "open_ref");
    assert!(one.list("/").await?.is_empty(), "opening made a ref");
    one.create_ref("/r", 1_i64).await?.destroy().await?;
    refused_at(two.open_ref::<i64>("/r").await, ErrorKind::NotFound, &key("/r"), "open_ref after destroy");
    Ok(())
}

#[track_caller]
fn assert_names(error: &avout_core::Error, names: &[&str]) {
    let text = error.to_string();
    for name in names {
        assert!(text.contains(name), "{text:?} does not name {name}");
    }
}

/// Opening a ref with another type is a `Mismatch` that names both, and the value stays.
async fn another_type_is_a_mismatch(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let opened = refused_at(two.open_ref::<String>("/r").await, ErrorKind::Mismatch, r.key(), "open_ref");
    assert_names(&opened, &["i64", "String"]);
    let made = two.create_or_open_ref("/r", vec![1_u8]).await;
    assert_names(&refused_at(made, ErrorKind::Mismatch, r.key(), "create_or_open_ref"), &["i64", "Vec<u8>"]);
    assert_eq!(r.get().await?, 1);
    Ok(())
}

/// Opening a ref with another codec is a `Mismatch` that names both.
async fn another_codec_is_a_mismatch(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).codec(Json).await?;
    let opened = refused_at(two.open_ref::<i64>("/r").await, ErrorKind::Mismatch, r.key(), "open_ref");
    assert_names(&opened, &["codec 2", "with 1"]);
    assert_eq!(two.open_ref::<i64>("/r").codec(Json).await?.get().await?, 1);
    Ok(())
}

/// Opening a ref in another store than its own is a `Mismatch` that names both realms.
async fn another_store_is_a_mismatch(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let elsewhere = Local::new().store();
    let opened = stm.open_ref::<i64>("/r").in_store(&elsewhere).await;
    let error = refused_at(opened, ErrorKind::Mismatch, r.key(), "open_ref in another store");
    let other = avout_core::Store::realm(&*elsewhere).to_string();
    assert_names(&error, &[&stm.store().realm().to_string(), &other]);
    let made = stm.create_or_open_ref("/r", 1_i64).in_store(&elsewhere).await;
    refused_at(made, ErrorKind::Mismatch, r.key(), "create_or_open_ref in another store");
    Ok(())
}

/// With `type_tag` it is the tag that must agree, and not the type's Rust name.
async fn a_pinned_type_tag_names_the_type(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).type_tag("count").await?;
    let plain = refused_at(two.open_ref::<i64>("/r").await, ErrorKind::Mismatch, r.key(), "without the tag");
    assert_names(&plain, &["count", "i64"]);
    let other = two.open_ref::<i64>("/r").type_tag("sum").await;
    assert_names(&refused_at(other, ErrorKind::Mismatch, r.key(), "with another tag"), &["count", "sum"]);
    assert_eq!(two.open_ref::<i64>("/r").type_tag("count").await?.get().await?, 1);
    Ok(())
}

/// A name that is no key is refused as `InvalidInput`, for refs, atoms and lists, before anything is asked.
async fn names_that_are_no_keys_are_refused(ctx: Ctx) -> Outcome {
    let (stm, counting) = super::bench::counted(&ctx).await?;
    let long = format!("/{}", "x".repeat(512));
    for name in ["", "r", "/", "/r/", "/a//b", "/../r", "/a/.", "/a\0b", "/a\nb", &long, "/.avout/floor", "/.avout"] {
        refused(stm.create_ref(name, 1_i64).await, ErrorKind::InvalidInput, name);
        refused(stm.create_or_open_ref(name, 1_i64).await, ErrorKind::InvalidInput, name);
        refused(stm.open_ref::<i64>(name).await, ErrorKind::InvalidInput, name);
        refused(stm.create_atom(name, 1_i64).await, ErrorKind::InvalidInput, name);
        refused(stm.open_atom::<i64>(name).await, ErrorKind::InvalidInput, name);
        if name != "/" {
            refused(stm.list(name).await, ErrorKind::InvalidInput, name);
        }
    }
    assert_eq!(counting.counts().requests(), 0, "requests for names that are no keys");
    Ok(())
}

/// Names that mean something to a path, a query language or a template are plain keys here, and no two are one ref.
async fn unusual_names_are_keys(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let mut names = crate::sample::hostile_keys();
    for (n, name) in names.iter().enumerate() {
        one.create_ref(name.as_str(), n as i64).await?;
    }
    for (n, name) in names.iter().enumerate() {
        assert_eq!(two.open_ref::<i64>(name.as_str()).await?.get().await?, n as i64, "{name}");
    }
    names.sort_unstable();
    assert_eq!(two.list("/").await?, names);
    Ok(())
}

/// Of twenty tasks that create or open one new ref with different values, one sets it, and all open that one.
async fn racing_to_create_gives_one_value(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    for round in 0..5 {
        let tasks = (0..20_i64).map(|n| {
            let stm: Stm = [&one, &two][n as usize % 2].clone();
            async move { Ok(stm.create_or_open_ref(format!("/race/{round}"), n).await?.get().await?) }
        });
        let found = together(tasks).await?;
        assert!(found.iter().all(|value| *value == found[0]), "round {round}: {found:?}");
        let made =
            together(
                (0..20_i64).map(|n| {
                    let stm: Stm = [&one, &two][n as usize % 2].clone();
                    async move {
                        Ok(stm.create_ref(format!("/single/{round}"), n).await.map_err(|error| error.kind()).err())
                    }
                }),
            )
            .await?;
        assert_eq!(made.iter().filter(|kind| kind.is_none()).count(), 1, "round {round}: {made:?}");
        let others = made.iter().flatten();
        assert!(others.clone().all(|kind| *kind == ErrorKind::AlreadyExists), "round {round}: {made:?}");
    }
    Ok(())
}

/// The original read `false` and `nil` back as the value before: here false, none, unit and empty values come back as
/// they are, to this client and to another one.
async fn values_come_back_as_they_are(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    macro_rules! comes_back {
        ($name:literal: $type:ty = $($value:expr),+) => {
            let name = concat!("/v/", $name);
            let values: Vec<$type> = vec![$($value),+];
            let r = one.create_ref(name, values[0].clone()).await?;
            let of_two = two.open_ref::<$type>(name).await?;
            for value in values {
                r.set(value.clone()).await?;
                assert_eq!(r.get().await?, value, $name);
                assert_eq!(of_two.get().await?, value, $name);
                assert_eq!(one.dosync(async |tx| tx.get(&r).await).await?, value, $name);
            }
        };
    }
    comes_back!("bool": bool = true, false, true, false);
    comes_back!("option": Option<i64> = Some(1), None, Some(0), None);
    comes_back!("nested": Option<Option<bool>> = Some(Some(false)), Some(Some(true)));
    comes_back!("unit": () = (), ());
    comes_back!("text": String = "x".to_owned(), String::new(), "\0".to_owned(), "é\u{1F980}".to_owned());
    comes_back!("list": Vec<i64> = vec![1], vec![], vec![0, 0]);
    comes_back!("number": i64 = 1, 0, -1, i64::MIN, i64::MAX);
    comes_back!("wide": u64 = 1, 0, u64::MAX);
    comes_back!("float": f64 = 1.5, 0.0, -0.0, f64::MAX, f64::INFINITY);
    comes_back!("char": char = 'x', '\0', '\u{10FFFF}');
    comes_back!("map": std::collections::BTreeMap<String, Vec<Option<u8>>> =
        [("a".to_owned(), vec![None, Some(0)])].into(), std::collections::BTreeMap::new());
    comes_back!("tuple": (bool, (), Option<String>) = (false, (), None), (true, (), Some(String::new())));
    Ok(())
}

/// `list` gives the refs that exist under a prefix, sorted; destroyed ones, atoms and the engine's own are not among
/// them.
async fn lists_what_exists_under_a_prefix(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    assert!(two.list("/").await?.is_empty(), "a fresh namespace");
    for name in ["/b", "/a/2", "/a/1", "/a", "/ab", "/a/gone"] {
        one.create_ref(name, 1_i64).await?;
    }
    one.create_atom("/a/atom", 1_i64).await?;
    one.open_ref::<i64>("/a/gone").await?.destroy().await?;
    let keys = |names: &[&str]| -> Vec<Key> { names.iter().map(|name| key(name)).collect() };
    for stm in [&one, &two] {
        assert_eq!(stm.list("/").await?, keys(&["/a", "/a/1", "/a/2", "/ab", "/b"]));
        assert_eq!(stm.list("/a").await?, keys(&["/a", "/a/1", "/a/2"]));
        assert_eq!(stm.list("/none").await?, []);
        assert_eq!(stm.list_atoms("/").await?, keys(&["/a/atom"]));
    }
    one.create_ref("/a/gone", 1_i64).await?;
    assert_eq!(two.list("/a").await?, keys(&["/a", "/a/1", "/a/2", "/a/gone"]), "made again");
    for n in 0..150 {
        one.create_ref(format!("/lots/{n:03}"), ()).await?;
    }
    assert_eq!(two.list("/lots").await?.len(), 150);
    Ok(())
}

/// Refs, their values and atoms outlive all clients.
async fn refs_outlive_their_clients(ctx: Ctx) -> Outcome {
    needs(ctx.fixture.survives_reopen(), "a namespace does not outlive its clients")?;
    let first = client(&ctx).await?;
    let r = first.create_ref("/r", 1_i64).await?;
    r.set(2).await?;
    let big = first.create_ref("/big", vec![7_u8; 100_000]).await?;
    let atom = first.create_atom("/a", "x".to_owned()).await?;
    first.close().await;
    drop((r, big, atom, first));
    // What went on in the background lets go of the client a moment later, and nothing tells when.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let second = client(&ctx).await?;
    assert_eq!(second.create_or_open_ref("/r", 1_i64).await?.get().await?, 2);
    assert_eq!(second.open_ref::<Vec<u8>>("/big").await?.get().await?, vec![7; 100_000]);
    assert_eq!(second.open_atom::<String>("/a").await?.get().await?, "x");
    Ok(())
}

/// A type that has no codec can be kept in the process.
#[derive(Clone, Debug)]
struct Opaque(fn() -> i64);

/// The in-process codec keeps any type where coordinator and store live in the process, and is `Unsupported` elsewhere,
/// with nothing made.
async fn the_in_process_codec_needs_the_process(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let value = Opaque(|| 7);
    let made = stm.create_ref("/r", value.clone()).codec(InProcess).await;
    if coordinator.capabilities().in_process {
        assert_eq!((made?.get().await?.0)(), 7);
        refused(stm.open_ref::<i64>("/r").await, ErrorKind::Mismatch, "another type");
    } else {
        refused(made, ErrorKind::Unsupported, "create_ref");
        assert!(stm.list("/").await?.is_empty(), "a refused ref was made");
    }
    let atom = stm.create_atom("/a", value.clone()).codec(InProcess).await;
    if store.capabilities().in_process {
        assert_eq!((atom?.get().await?.0)(), 7);
    } else {
        refused(atom, ErrorKind::Unsupported, "create_atom");
    }
    let local = Local::new().store();
    let elsewhere = stm.create_ref("/elsewhere", value).codec(InProcess).in_store(&local).await?;
    assert_eq!((elsewhere.get().await?.0)(), 7, "in a store of the process, whatever the coordinator");
    Ok(())
}

/// Values of the JSON codec come back, in refs and atoms.
async fn json_values_come_back(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let value = vec![Some("é\"\\".to_owned()), None];
    let r = one.create_ref("/r", value.clone()).codec(Json).await?;
    assert_eq!(two.open_ref::<Vec<Option<String>>>("/r").codec(Json).await?.get().await?, value);
    r.set(vec![]).await?;
    assert!(r.get().await?.is_empty());
    let atom = one.create_atom("/a", value.clone()).codec(Json).await?;
    assert_eq!(two.open_atom::<Vec<Option<String>>>("/a").codec(Json).await?.get().await?, value);
    drop(atom);
    Ok(())
}

/// A type tag of more than 255 bytes and a history of more than 256 values are refused as `InvalidInput`.
async fn limits_of_builders_are_checked(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let long = stm.create_ref("/r", 1_i64).type_tag("x".repeat(256)).await;
    refused_at(long, ErrorKind::InvalidInput, &key("/r"), "a long tag");
    refused_at(stm.create_ref("/r", 1_i64).history(257).await, ErrorKind::InvalidInput, &key("/r"), "long history");
    stm.create_ref("/r", 1_i64).type_tag("x".repeat(255)).history(256).await?;
    Ok(())
}

/// Atoms are made and opened by the same rules: `AlreadyExists` whatever the type, `NotFound`, `Mismatch`.
async fn atoms_are_made_and_opened_like_refs(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    refused_at(one.open_atom::<i64>("/a").await, ErrorKind::NotFound, &key("/a"), "open_atom");
    let atom = one.create_atom("/a", 1_i64).await?;
    refused_at(two.create_atom("/a", 2_i64).await, ErrorKind::AlreadyExists, atom.key(), "create_atom");
    let other = two.create_atom("/a", "x".to_owned()).await;
    refused_at(other, ErrorKind::AlreadyExists, atom.key(), "create_atom with another type");
    let opened = refused_at(two.open_atom::<String>("/a").await, ErrorKind::Mismatch, atom.key(), "open_atom");
    assert_names(&opened, &["String"]);
    let opened = two.create_or_open_atom("/a", "x".to_owned()).await;
    refused_at(opened, ErrorKind::Mismatch, atom.key(), "create_or_open_atom");
    assert_eq!(atom.get().await?, 1);
    atom.destroy().await?;
    refused_at(two.open_atom::<i64>("/a").await, ErrorKind::NotFound, atom.key(), "after destroy");
    refused_at(atom.get().await, ErrorKind::NotFound, atom.key(), "get after destroy");
    refused_at(atom.swap(|n| n).await, ErrorKind::NotFound, atom.key(), "swap after destroy");
    two.create_atom("/a", "x".to_owned()).await?;
    refused_at(atom.get().await, ErrorKind::Mismatch, atom.key(), "the old handle of an atom of another type");
    let tasks = (0..20_i64).map(|n| {
        let stm: Stm = [&one, &two][n as usize % 2].clone();
        async move { Ok(stm.create_or_open_atom("/race", n).await?.get().await?) }
    });
    let found = together(tasks).await?;
    assert!(found.iter().all(|value| *value == found[0]), "racing to create: {found:?}");
    Ok(())
}

/// An atom and a ref of the same name have nothing to do with each other.
async fn atoms_and_refs_of_one_name_are_apart(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/x", 1_i64).await?;
    let atom = stm.create_atom("/x", "a".to_owned()).await?;
    r.set(2).await?;
    atom.reset("b".to_owned()).await?;
    assert_eq!((r.get().await?, atom.get().await?), (2, "b".to_owned()));
    r.destroy().await?;
    assert_eq!(atom.get().await?, "b");
    Ok(())
}
