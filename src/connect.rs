use std::time::Duration;

#[cfg(feature = "local")]
use avout_core::backend::UrlReader;
use avout_core::backend::{Backend, open_patiently};
use avout_core::{Error, ErrorKind, Result, Stm};

/// The schemes of all backends, with the feature that each needs.
pub(crate) const SCHEMES: &[(&str, &str)] = &[
    ("mem", "local"),
    ("sqlite", "sql"),
    ("zk", "zk"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("redis+sentinel", "redis"),
    ("rediss+sentinel", "redis"),
    ("redis+cluster", "redis"),
    ("rediss+cluster", "redis"),
    ("mongodb", "mongo"),
    ("mongodb+srv", "mongo"),
];

/// How long a store is tried to be opened that cannot be reached.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the store that `url` names, with the default [`Config`](crate::Config).
///
/// | URL | store | feature |
/// | --- | --- | --- |
/// | `mem:` | this process's memory, empty and shared with nobody | `local` |
/// | `mem:name` | likewise, shared by all in this process that use the name | `local` |
/// | `sqlite:path` | a SQLite file, made if there is none; any number of processes of one machine | `sql` |
/// | `sqlite::memory:` | a SQLite database in memory, empty and shared with nobody | `sql` |
/// | `zk://host:port,…/path` | a ZooKeeper ensemble, under the znode `path`, made if there is none; any number of machines | `zk` |
/// | `redis://user:password@host:6379/namespace` | a Redis server; with `rediss://` over TLS | `redis` |
/// | `redis+sentinel://host:26379,host2:26379/service/namespace` | the Redis master that sentinels name | `redis` |
/// | `redis+cluster://host:6379,host2:6379/namespace` | the master of the namespace's slot in a Redis cluster | `redis` |
/// | `mongodb://…/database` | a MongoDB replica set | `mongo` |
/// | `mongodb+srv://…/database` | likewise, its servers found by DNS | `mongo` |
///
/// Options follow a `?`. With `readonly=true` the client only reads, see [`StmBuilder::readonly`](crate::StmBuilder::readonly); a namespace that is not
/// there is then [`NotFound`](ErrorKind::NotFound). For SQLite there are `synchronous=full` (the default) or `normal`, and the others that [`avout_sql`](crate::sql)
/// lists. `Options::from_url` of each backend's crate tells the others.
///
/// A store that cannot be reached is tried again for ten seconds, in pauses of up to one; an attempt that is under way then has
/// its own time limit, which the backend's options name. All other errors are told at once.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a URL that no backend understands, with those that one does;
/// [`Unsupported`](ErrorKind::Unsupported) for a backend whose feature is off, with the feature's name, and for a store
/// made by a newer version; [`Unavailable`](ErrorKind::Unavailable) if the store cannot be reached for so long; and those of the
/// backend's `open`.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout::Result<()> {
/// let stm = avout::connect("mem:").await?;
/// # Ok(()) }
/// ```
pub async fn connect(url: impl AsRef<str>) -> Result<Stm> {
    let Backend { coordinator, store } = open(url).await?;
    Ok(Stm::new(coordinator, store))
}

/// Opens the coordinator and the store that `url` names, for a client that is set up with
/// [`Stm::builder`], or for refs [`in_store`](crate::RefBuilder::in_store).
///
/// # Errors
/// As [`connect`].
pub async fn open(url: impl AsRef<str>) -> Result<Backend> {
    open_within(url, PATIENCE).await
}

/// The same as [`open`], and a store that cannot be reached is tried again for as long as `patience`; with no time at all it is
/// tried once.
///
/// # Errors
/// As [`connect`].
pub async fn open_within(url: impl AsRef<str>, patience: Duration) -> Result<Backend> {
    let url = url.as_ref();
    open_patiently(patience, || open_once(url)).await.map_err(|error| error.during("connect"))
}

async fn open_once(url: &str) -> Result<Backend> {
    match url.split_once(':') {
        #[cfg(feature = "local")]
        Some(("mem", name)) => open_local(name),
        #[cfg(feature = "sql")]
        Some(("sqlite", _)) => open_sql(url).await,
        #[cfg(feature = "zk")]
        Some(("zk", _)) => open_zk(url).await,
        #[cfg(feature = "redis")]
        Some(("redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster", _)) => {
            open_redis(url).await
        }
        #[cfg(feature = "mongo")]
        Some(("mongodb" | "mongodb+srv", _)) => open_mongo(url).await,
        Some((scheme, _)) => Err(no_backend(scheme)),
        None => Err(no_backend("")),
    }
}

#[cfg(feature = "local")]
fn open_local(text: &str) -> Result<Backend> {
    const URL: UrlReader = UrlReader::new("mem url", "readonly=true|false");
    let (name, query) = text.split_once('?').unwrap_or((text, ""));
    let mut readonly = false;
    for (option, value) in UrlReader::pairs(query) {
        readonly = match option {
            "readonly" => URL.flag(option, value)?,
            _ => return Err(URL.unknown(option)),
        };
    }
    let local = match name {
        name if readonly => avout_local::Local::reading(name)?,
        "" => avout_local::Local::new(),
        name => avout_local::Local::named(name),
    };
    Ok(Backend { coordinator: local.coordinator(), store: local.store() })
}

#[cfg(feature = "sql")]
async fn open_sql(url: &str) -> Result<Backend> {
    let sqlite = avout_sql::Options::from_url(url)?.open().await?;
    Ok(Backend { coordinator: sqlite.coordinator, store: sqlite.store })
}

#[cfg(feature = "zk")]
async fn open_zk(url: &str) -> Result<Backend> {
    let zk = avout_zk::Options::from_url(url)?.open().await?;
    Ok(Backend { coordinator: zk.coordinator, store: zk.store })
}

#[cfg(feature = "redis")]
async fn open_redis(url: &str) -> Result<Backend> {
    let redis = avout_redis::connect(url).await?;
    Ok(Backend { coordinator: redis.coordinator, store: redis.store })
}

#[cfg(feature = "mongo")]
async fn open_mongo(url: &str) -> Result<Backend> {
    let mongo = avout_mongo::Options::from_url(url)?.open().await?;
    Ok(Backend { coordinator: mongo.coordinator, store: mongo.store })
}

/// The rest of a URL may hold credentials, so only its scheme is named.
fn no_backend(scheme: &str) -> Error {
    if let Some((_, feature)) = SCHEMES.iter().find(|(known, _)| *known == scheme) {
        let message =
            format!("{scheme}: is the backend of the feature \"{feature}\", which is off: turn it on in Cargo.toml");
        return Error::new(ErrorKind::Unsupported, message);
    }
    let known: Vec<String> = SCHEMES.iter().map(|(scheme, _)| format!("{scheme}:")).collect();
    let message = format!("a URL begins with one of {}, and this one does not", known.join(", "));
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A URL that nobody knows gives the known schemes, and no part of itself.
    #[tokio::test]
    async fn lists_the_known_schemes() {
        for url in ["", "sqlite", "postgres://user:secret@host/x", "://"] {
            let error = open(url).await.expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = format!("{error} {error:?}");
            assert!(text.contains("mem:, sqlite:") && !text.contains("secret"), "{text}");
        }
    }

    /// A backend that is not built in is refused by its feature's name.
    #[test]
    fn names_the_feature_that_is_off() {
        for (scheme, feature) in SCHEMES {
            let error = no_backend(scheme);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(&format!("\"{feature}\"")), "{error}");
        }
    }
}
