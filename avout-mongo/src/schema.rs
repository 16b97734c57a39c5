//! What is in a namespace, and how it is made.

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::raw::cstr;
use mongodb::bson::{Binary, Document, RawDocumentBuf, rawdoc};

use crate::wire::bson::{binary, majority};
use crate::wire::request::{Requests, WriteErrors};

/// The version of the layout. A change that an older library cannot live with raises it.
pub(crate) const SCHEMA: i32 = 1;

/// The document of `<namespace>.meta`.
const META: &str = "namespace";

/// How many marks are in refs: as many copies of the floor's revision as may be in use at a time.
pub(crate) const STRIPES: i32 = 256;

const NAMESPACE_EXISTS: i32 = 48;
const DUPLICATE_KEY: i32 = 11000;

/// The collections of a namespace.
pub(crate) struct Names {
    pub(crate) meta: String,
    pub(crate) refs: String,
    pub(crate) values: String,
    pub(crate) atoms: String,
}

impl Names {
    pub(crate) fn of(namespace: &str) -> Self {
        let name = |part: &str| format!("{namespace}.{part}");
        Self { meta: name("meta"), refs: name("refs"), values: name("values"), atoms: name("atoms") }
    }
}

/// What kind of server answers.
pub(crate) enum Server {
    Alone,
    Replicated,
}

impl Server {
    /// Whether a coordinator can live there.
    pub(crate) fn check_coordinator(&self) -> Result<()> {
        match self {
            Self::Replicated => Ok(()),
            Self::Alone => Err(Error::new(
                ErrorKind::Unsupported,
                "a stand-alone server has no transactions, which the coordinator needs: start mongod with --replSet rs0 \
                 and run rs.initiate() once; one node will do. Its store alone can be used as it is",
            )),
        }
    }
}

/// Asks the server what it is.
pub(crate) async fn look(requests: &Requests<'_>) -> Result<Server> {
    let hello = requests.run(rawdoc! { "hello": 1 }).await.map_err(|failure| failure.unapplied())?;
    server_of(&hello)
}

fn server_of(hello: &Document) -> Result<Server> {
    // MongoDB 5.0: the first with snapshot reads outside of transactions.
    if hello.get_i32("maxWireVersion").unwrap_or(0) < 13 {
        return Err(Error::new(ErrorKind::Unsupported, "the server is too old: MongoDB 5.0 or later is needed"));
    }
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        let message = "a sharded cluster is not supported, as coordinator or as store: use a replica set";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if !hello.contains_key("setName") {
        return Ok(Server::Alone);
    }
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        let message = "the server is no primary: name all members of the replica set, without directConnection";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    Ok(Server::Replicated)
}

/// What a namespace is opened for.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    /// For a coordinator too, or for a store alone.
    pub(crate) coordinator: bool,
    /// Nothing is made.
    pub(crate) readonly: bool,
}

/// Sees to it that the namespace is there, and gives its realm. Any number of clients may do this at once.
pub(crate) async fn prepare(requests: &Requests<'_>, names: &Names, wanted: Use) -> Result<Realm> {
    let Use { coordinator, readonly } = wanted;
    if let Some(meta) = find(requests, names).await? {
        check_version(&meta)?;
        if meta.get_bool("coordinator").unwrap_or(false) || !coordinator {
            return realm(&meta);
        }
    }
    if readonly {
        return Err(Error::new(ErrorKind::NotFound, "there is no such namespace, and readonly=true makes none"));
    }
    // Transactions cannot make a collection without making others wait, so all are made here. The meta document comes
    // after them: who finds it finds all, and then marks them as its own.
    for name in [&names.meta, &names.values, &names.atoms] {
        create(requests, name).await?;
    }
    if coordinator {
        create(requests, &names.refs).await?;
    }
    let drawn = bytes_of(Realm::random());
    let mut set = RawDocumentBuf::new();
    if coordinator {
        set = rawdoc! { "$set": { "coordinator": true } };
    }
    set.append(cstr!("$setOnInsert"), rawdoc! { "application": "avout", "schema": SCHEMA, "realm": drawn });
    let reply = requests.run(rawdoc! {
        "findAndModify": names.meta.as_str(), "query": { "_id": META }, "update": set, "upsert": true, "new": true,
        "writeConcern": majority(),
    });
    match reply.await {
        Ok(reply) => {
            WriteErrors::of(&reply).check().map_err(unavailable)?;
            let meta = reply.get_document("value").map_err(|_| foreign())?;
            check_version(meta)?;
            realm(meta)
        }
        // Two that insert at once: the other one has made it.
        Err(failure) if failure.code() == Some(DUPLICATE_KEY) => {
            let meta = find(requests, names).await?.ok_or_else(foreign)?;
            check_version(&meta)?;
            realm(&meta)
        }
        Err(failure) => Err(failure.unapplied()),
    }
}

/// All of this may be repeated, so an open outcome is none.
pub(crate) fn unavailable(error: Error) -> Error {
    if error.kind() == ErrorKind::OutcomeUnknown {
        return Error::new(ErrorKind::Unavailable, "a majority of the servers did not confirm it").with_source(error);
    }
    error
}

pub(crate) async fn find(requests: &Requests<'_>, names: &Names) -> Result<Option<Document>> {
    let command = rawdoc! {
        "find": names.meta.as_str(), "filter": { "_id": META }, "limit": 1, "singleBatch": true,
        "readConcern": { "level": "majority" },
    };
    let reply = requests.run(command).await.map_err(|failure| failure.unapplied())?;
    let batch =
        reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).map_err(|_| foreign())?;
    Ok(batch.first().and_then(|first| first.as_document()).cloned())
}

fn check_version(meta: &Document) -> Result<()> {
    if !meta.get_str("application").is_ok_and(|name| name == "avout") {
        return Err(foreign());
    }
    match meta.get_i32("schema").map_err(|_| foreign())? {
        SCHEMA => Ok(()),
        // There was none before the first.
        found if found < SCHEMA => {
            let message =
                format!("the namespace has schema version {found}, which no library has made: restore a backup");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        found => {
            let message = format!(
                "the namespace has schema version {found} and this library knows version {SCHEMA}: upgrade the library"
            );
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

pub(crate) fn realm(meta: &Document) -> Result<Realm> {
    let bytes = meta.get_binary_generic("realm").map_err(|_| foreign())?;
    let bytes: [u8; 16] = bytes.as_slice().try_into().map_err(|_| foreign())?;
    Ok(Realm::new(u128::from_be_bytes(bytes)))
}

pub(crate) fn bytes_of(realm: Realm) -> Binary {
    binary(realm.number().to_be_bytes().to_vec())
}

/// Checks that the namespace is still the one that was opened.
pub(crate) async fn check_realm(requests: &Requests<'_>, names: &Names, opened: Realm) -> Result<()> {
    match find(requests, names).await? {
        Some(meta) if realm(&meta).is_ok_and(|found| found == opened) => Ok(()),
        _ => Err(dropped()),
    }
}

/// What is here is not what was opened.
pub(crate) fn dropped() -> Error {
    Error::new(ErrorKind::StoreLost, "the namespace was dropped or replaced: bring it back, or open it anew")
}

/// A client that only reads does not make what is missing here.
pub(crate) fn incomplete() -> Error {
    let message = "the namespace is being made, or is of the version before, and readonly=true changes neither: open it once \
                   to write";
    Error::new(ErrorKind::Unsupported, message)
}

fn foreign() -> Error {
    Error::new(ErrorKind::Mismatch, "the collections of this namespace are another application's: name another one")
}

async fn create(requests: &Requests<'_>, name: &str) -> Result<()> {
    match requests.run(rawdoc! { "create": name, "writeConcern": majority() }).await {
        Ok(reply) => WriteErrors::of(&reply).check().map_err(unavailable),
        Err(failure) if failure.code() == Some(NAMESPACE_EXISTS) => Ok(()),
        Err(failure) => Err(failure.unapplied()),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    /// A router of a sharded cluster is refused, for a store alone as well; it has no name of a set.
    #[test]
    fn routers_are_refused() {
        let hello = doc! { "maxWireVersion": 21, "isWritablePrimary": true, "msg": "isdbgrid" };
        let error = server_of(&hello).map(drop).expect_err("a router");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("use a replica set"), "{error}");
        let alone = doc! { "maxWireVersion": 21, "isWritablePrimary": true };
        assert!(matches!(server_of(&alone), Ok(Server::Alone)));
    }
}
