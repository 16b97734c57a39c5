//! One server of a kind for a whole test program, or the one that the environment names.
//!
//! A server that is started here ends with the process. Laws and tests that share it use a namespace each.
//!
//! `AVOUT_ZK_URL`, `AVOUT_REDIS_URL` and `AVOUT_MONGO_URL` name servers that exist already, for the functions that give a
//! URL. The namespace takes the place of `{namespace}` in it, or stands at the end of its path:
//! `redis://:secret@cache.example:6379`, `zk://a:2181,b:2181/tests/{namespace}?timeout=5s`.
//!
//! # Examples
//! ```no_run
//! use avout_conformance::servers::{Error, shared};
//!
//! # async fn f() -> Result<(), Error> {
//! let url = shared::redis_url("shop").await?;
//! let again = shared::redis_url("bank").await?; // the same server
//! # Ok(()) }
//! ```

use std::future::Future;

use tokio::sync::OnceCell;

use super::{Error, Mongo, Redis, ZooKeeper};

/// Where a server of a whole test program is kept: a static. It is made with `Slot::const_new()`.
pub type Slot<T> = OnceCell<Result<T, Error>>;

/// One ZooKeeper server.
///
/// # Errors
/// If it is not installed or does not start: the same each time.
pub async fn zookeeper() -> Result<&'static ZooKeeper, Error> {
    static SLOT: Slot<ZooKeeper> = OnceCell::const_new();
    once(&SLOT, ZooKeeper::single).await
}

/// A ZooKeeper ensemble of three.
///
/// # Errors
/// As for [`zookeeper`].
pub async fn zookeeper_ensemble() -> Result<&'static ZooKeeper, Error> {
    static SLOT: Slot<ZooKeeper> = OnceCell::const_new();
    once(&SLOT, || ZooKeeper::ensemble(3)).await
}

/// One Redis server.
///
/// # Errors
/// As for [`zookeeper`].
pub async fn redis() -> Result<&'static Redis, Error> {
    static SLOT: Slot<Redis> = OnceCell::const_new();
    once(&SLOT, Redis::single).await
}

/// A MongoDB replica set of one.
///
/// # Errors
/// As for [`zookeeper`].
pub async fn mongo() -> Result<&'static Mongo, Error> {
    static SLOT: Slot<Mongo> = OnceCell::const_new();
    once(&SLOT, || Mongo::replica_set(1)).await
}

/// A MongoDB replica set of three.
///
/// # Errors
/// As for [`zookeeper`].
pub async fn mongo_replica_set() -> Result<&'static Mongo, Error> {
    static SLOT: Slot<Mongo> = OnceCell::const_new();
    once(&SLOT, || Mongo::replica_set(3)).await
}

/// A namespace on the ZooKeeper of `AVOUT_ZK_URL`, or else on [`zookeeper`].
///
/// # Errors
/// As for [`zookeeper`].
pub async fn zookeeper_url(namespace: &str) -> Result<String, Error> {
    match given("AVOUT_ZK_URL", namespace) {
        Some(url) => Ok(url),
        None => Ok(zookeeper().await?.url(namespace)),
    }
}

/// A namespace on the Redis of `AVOUT_REDIS_URL`, or else on [`redis`].
///
/// # Errors
/// As for [`zookeeper`].
pub async fn redis_url(namespace: &str) -> Result<String, Error> {
    match given("AVOUT_REDIS_URL", namespace) {
        Some(url) => Ok(url),
        None => Ok(redis().await?.url(namespace)),
    }
}

/// A namespace on the MongoDB of `AVOUT_MONGO_URL`, or else on [`mongo`].
///
/// # Errors
/// As for [`zookeeper`].
pub async fn mongo_url(namespace: &str) -> Result<String, Error> {
    match given("AVOUT_MONGO_URL", namespace) {
        Some(url) => Ok(url),
        None => Ok(mongo().await?.url(namespace)),
    }
}

/// Starts a server of any kind at the first call, and gives that one at each. [`Spec`](super::Spec) has an example.
///
/// # Errors
/// Those of `start`: the same each time.
pub async fn once<T, F>(slot: &'static Slot<T>, start: impl FnOnce() -> F) -> Result<&'static T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    slot.get_or_init(start).await.as_ref().map_err(Clone::clone)
}

fn given(variable: &str, namespace: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|url| !url.is_empty()).map(|url| within(&url, namespace))
}

fn within(url: &str, namespace: &str) -> String {
    if url.contains("{namespace}") {
        return url.replace("{namespace}", namespace);
    }
    let (path, query) = url.split_once('?').map_or((url, String::new()), |(path, query)| (path, format!("?{query}")));
    format!("{}/{namespace}{query}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The namespace gets into a given URL where it belongs.
    #[test]
    fn a_given_url_gets_the_namespace() {
        for (given, expected) in [
            ("redis://a:1", "redis://a:1/n"),
            ("redis://a:1/", "redis://a:1/n"),
            ("mongodb://a:1,b:2/?replicaSet=r", "mongodb://a:1,b:2/n?replicaSet=r"),
            ("zk://a:1/tests/{namespace}?x=y", "zk://a:1/tests/n?x=y"),
        ] {
            assert_eq!(within(given, "n"), expected);
        }
    }
}
