//! Group `coordinator`: the contracts of [`Coordinator`](avout_core::backend::Coordinator).

pub(crate) mod bounds;
pub(crate) mod cancel;
pub(crate) mod commit;
pub(crate) mod concurrent;
pub(crate) mod conflict;
pub(crate) mod content;
pub(crate) mod cut;
pub(crate) mod lost_reply;
pub(crate) mod read;
pub(crate) mod stalled;
pub(crate) mod watch;
pub(crate) mod wiped;

use avout_core::protocol::Resolution;
use avout_core::{ErrorKind, Key};
use bytes::Bytes;

use crate::law::{Ctx, Failure, Outcome, laws, needs};
use crate::sample::{committed, delete, entry, key, number, present, put, puts, write};

laws! { "coordinator":
    capabilities_are_constant_and_the_same_for_all_clients,
    namespaces_have_nothing_in_common,
    lists_by_whole_parts_sorted,
    a_page_begins_behind_a_key,
    lists_what_has_a_record_and_nothing_else,
    lists_its_own_keys_under_the_root,
    survives_reopening,
    resolves_no_foreign_receipt,
}

/// Capabilities are the same for all clients of a namespace, for as long as it is there.
async fn capabilities_are_constant_and_the_same_for_all_clients(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let before = format!("{:?}", one.capabilities());
    write(&*one, &key("/a"), 1).await?;
    assert_eq!(before, format!("{:?}", one.capabilities()), "after a commit");
    assert_eq!(before, format!("{:?}", two.capabilities()), "of another client");
    assert_eq!(one.capabilities().realm, ctx.coordinator().await?.capabilities().realm, "of a third client");
    Ok(())
}

/// Two namespaces have different realms, and a commit in one changes nothing in the other.
async fn namespaces_have_nothing_in_common(ctx: Ctx) -> Outcome {
    let here = ctx.coordinator().await?;
    let there = ctx.elsewhere().coordinator().await?;
    assert_ne!(here.capabilities().realm, there.capabilities().realm, "two namespaces have one realm");
    let key = key("/a");
    write(&*here, &key, 1).await?;
    assert!(entry(&*there, &key).await?.is_none(), "a record of another namespace is read");
    assert!(there.list_all(&Key::root()).await?.is_empty(), "a key of another namespace is listed");
    committed(there.commit(&puts([put(&key, None, 2)])).await?);
    assert_eq!(number(&present(&*here, &key).await?), 1, "a commit in another namespace changed this one");
    Ok(())
}

/// `list` gives the prefix itself and what lies under it by whole parts, sorted, to every client.
async fn lists_by_whole_parts_sorted(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let names = ["/a", "/a/b", "/a/b/c", "/a/c", "/a.b", "/a_b", "/a%", "/aa", "/ab", "/b/a", "/A/b", "/ä/ü", "/ä"];
    let mut all: Vec<Key> = names.iter().map(|name| key(name)).collect();
    for name in &all {
        write(&*one, name, 1).await?;
    }
    all.sort_unstable();
    for prefix in ["/", "/a", "/a/b", "/a/b/c", "/a_b", "/a%", "/b", "/ä", "/none", "/a/b/c/d"] {
        let prefix = Key::prefix(prefix)?;
        let expected: Vec<Key> = all.iter().filter(|key| key.is_under(&prefix)).cloned().collect();
        assert_eq!(two.list_all(&prefix).await?, expected, "under {prefix}");
    }
    Ok(())
}

/// A page of a list begins behind the key that it is asked for, whether that has a record or not, and lies under the prefix or not.
async fn a_page_begins_behind_a_key(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let names = ["/a", "/a/b", "/a/b/c", "/a/d", "/a.b", "/ab", "/b"];
    let mut all: Vec<Key> = names.iter().map(|name| key(name)).collect();
    for name in &all {
        write(&*coordinator, name, 1).await?;
    }
    all.sort_unstable();
    for prefix in ["/", "/a", "/b"] {
        let prefix = Key::prefix(prefix)?;
        for after in all.iter().cloned().chain([key("/A"), key("/a/c"), key("/c")]) {
            let expected: Vec<Key> = all.iter().filter(|key| key.is_under(&prefix) && **key > after).cloned().collect();
            let page = coordinator.list(&prefix, Some(&after)).await?;
            assert!(
                page.more || page.keys.len() == expected.len(),
                "the last page under {prefix} behind {after} lacks some"
            );
            assert!(!page.more || !page.keys.is_empty(), "a page under {prefix} is empty, and not the last");
            assert_eq!(page.keys, expected[..page.keys.len().min(expected.len())], "under {prefix} behind {after}");
        }
    }
    Ok(())
}

/// `list` gives the keys that have a record now: tombstones too, and none that was deleted or only read.
async fn lists_what_has_a_record_and_nothing_else(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    assert!(coordinator.list_all(&Key::root()).await?.is_empty(), "a fresh namespace lists keys");
    let [live, dead, gone] = [key("/live"), key("/dead"), key("/gone")];
    write(&*coordinator, &live, 1).await?;
    let written = write(&*coordinator, &gone, 1).await?;
    let tombstone =
        std::sync::Arc::new(avout_core::protocol::Record::first(crate::sample::meta(), avout_core::Payload::Deleted));
    let mut commit = puts([avout_core::protocol::Put { key: dead.clone(), revision: None, record: tombstone }]);
    commit.deletes.push(delete(&gone, &written.revisions[0]));
    committed(coordinator.commit(&commit).await?);
    coordinator.read(&[key("/read")], None).await?;
    assert_eq!(coordinator.list_all(&Key::root()).await?, [dead, live]);
    Ok(())
}

/// The engine's own keys are kept like all others, and are listed under the root and under themselves.
async fn lists_its_own_keys_under_the_root(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let own = Key::from_stored("/.avout/slots/1/0")?;
    let user = key("/a");
    write(&*coordinator, &own, 1).await?;
    write(&*coordinator, &user, 2).await?;
    assert_eq!(number(&present(&*coordinator, &own).await?), 1);
    assert_eq!(coordinator.list_all(&Key::root()).await?, [own.clone(), user.clone()]);
    assert_eq!(coordinator.list_all(&Key::from_stored("/.avout")?).await?, [own]);
    assert_eq!(coordinator.list_all(&user).await?, [user]);
    Ok(())
}

/// Records, revisions, the realm and the order of points outlive all clients.
async fn survives_reopening(ctx: Ctx) -> Outcome {
    needs(ctx.fixture.survives_reopen(), "a namespace does not outlive its clients")?;
    let key = key("/a");
    let first = ctx.coordinator().await?;
    let realm = first.capabilities().realm;
    let written = write(&*first, &key, 7).await?;
    let before = present(&*first, &key).await?;
    drop(first);
    let second = ctx.coordinator().await?;
    assert_eq!(second.capabilities().realm, realm, "the realm changed");
    let after = present(&*second, &key).await?;
    assert_eq!((number(&after), &after.revision, after.point), (7, &before.revision, before.point));
    let again = committed(second.commit(&puts([put(&key, Some(&before.revision), 8)])).await?);
    assert!(again.point > written.point, "{:?} after {:?}, which was before the reopening", again.point, written.point);
    Ok(())
}

/// A receipt that the coordinator did not give is refused as unsupported, and is never resolved as committed.
async fn resolves_no_foreign_receipt(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    match coordinator.resolve(&Bytes::from_static(b"\xff no receipt of anybody's")).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(error) => Err(Failure::Broken(format!("the kind is not Unsupported: {error:?}"))),
        Ok(resolution @ (Resolution::Committed(_) | Resolution::NotCommitted)) => {
            Err(Failure::Broken(format!("it is resolved, as {resolution:?}")))
        }
    }
}
