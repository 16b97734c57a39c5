//! Files of the version before.

use avout_core::backend::{CasOutcome, Coordinator as _, Store as _};
use avout_core::protocol::State;
use avout_sql::rusqlite::{Connection, params};

use crate::support::*;

/// The tables of schema 2.
const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE refs (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, point INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE TABLE atoms (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, state BLOB NOT NULL);
    CREATE TABLE ref_values (key TEXT NOT NULL, version BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (key, version));
    CREATE TABLE writers (id BLOB PRIMARY KEY NOT NULL, batch INTEGER NOT NULL);
    INSERT INTO refs VALUES (0, '', 9, x'');
    PRAGMA application_id = 1635151733;
    PRAGMA user_version = 2;
";

/// A file of schema 2 with a ref `/a` of 7 and an atom.
fn older(path: &std::path::Path) -> Connection {
    let file = raw(path);
    file.execute_batch(TABLES).expect("tables");
    file.execute("INSERT INTO meta VALUES ('realm', ?1)", [[7_u8; 16]]).expect("a realm");
    let record = record(7).encode().expect("it is small");
    file.execute("INSERT INTO refs VALUES (NULL, '/a', 5, ?1)", params![record]).expect("a ref");
    file.execute("INSERT INTO atoms VALUES ('/a', 9, x'31')", []).expect("an atom");
    file
}

/// A file of the version before is read, upgraded when it is opened, and goes on, also beside a client of that version which has it open.
#[tokio::test]
async fn a_file_of_the_version_before() {
    let place = Place::new();
    let before = older(&place.file());
    let [backend, other] = [place.open().await, place.open().await];
    let (c, a) = (&backend.coordinator, key("/a"));
    let entry = read(c, &a).await.expect("a ref");
    assert_eq!((number(&entry), entry.point.number()), (7, 5));
    let atom = backend.store.state(&a);
    let (state, revision) = atom.state().await.expect("a read").expect("an atom");
    assert!(matches!(state, State::Bytes(bytes) if bytes == "1"));
    let set = atom.compare_and_set_state(Some(revision), State::Bytes("2".into())).await.expect("an answer");
    assert!(matches!(set, CasOutcome::Set(_)));
    let done = committed(c.commit(&puts(&[(&a, Some(&entry.revision), 8)])).await);
    assert_eq!(done.point.number(), 11);
    // As the version before commits.
    before
        .execute_batch(
            "BEGIN IMMEDIATE; UPDATE writers SET batch = 9; UPDATE refs SET point = 12 WHERE key = '/a' AND point = 11;
             INSERT INTO refs (key, point, record) SELECT '/b', 12, record FROM refs WHERE key = '/a';
             UPDATE refs SET point = 12, record = zeroblob(24) WHERE id = 0; COMMIT;
             UPDATE refs SET record = x'' WHERE id = 0",
        )
        .expect("a commit");
    for client in [&backend, &other] {
        assert_eq!(read(&client.coordinator, &key("/b")).await.as_ref().map(number), Some(8));
        assert_eq!(
            conflict(client.coordinator.commit(&puts(&[(&a, Some(&done.revisions[0]), 9)])).await).stale,
            std::slice::from_ref(&a)
        );
        increment(&client.coordinator, std::slice::from_ref(&a)).await.expect("a commit");
        assert_eq!(client.coordinator.losses().expect("it can tell").count(), 0);
    }
    let version: i32 = before.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
    assert_eq!(version, 3);
}
