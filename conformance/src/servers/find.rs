//! Where the servers' programs are.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Error;

const ZOOKEEPER: &str = "on Debian and Ubuntu `apt-get install --no-install-recommends libzookeeper-java` brings it; or unpack \
                         Apache's archive and set AVOUT_ZOOKEEPER_JARS to its folder of jars (3.6 or later)";
const JAVA: &str =
    "ZooKeeper needs Java: `apt-get install --no-install-recommends default-jre-headless`, or set AVOUT_JAVA";
const REDIS: &str = "on Debian and Ubuntu `apt-get install --no-install-recommends redis-server` brings it; or set \
                     AVOUT_REDIS_SERVER to the program (7.0 or later)";
const MONGO: &str =
    "`scripts/servers` of avout's repository fetches it, or set AVOUT_MONGOD to the program (6.0 or later)";

/// Java, and ZooKeeper's class path.
pub(super) fn zookeeper() -> Result<(PathBuf, OsString), Error> {
    let jars = match std::env::var_os("AVOUT_ZOOKEEPER_JARS") {
        Some(given) => {
            let path: Vec<PathBuf> = std::env::split_paths(&given).map(|path| jars_in(&path)).collect();
            if !std::env::split_paths(&given).any(|path| path.exists()) {
                let what = format!("AVOUT_ZOOKEEPER_JARS names {}, which is not there", Path::new(&given).display());
                return Err(Error::missing("zk", what, ZOOKEEPER));
            }
            std::env::join_paths(path).map_err(|error| Error::missing("zk", error.to_string(), ZOOKEEPER))?
        }
        None => {
            let cached = cache().map(|cache| cache.join("zookeeper/lib"));
            let usual = ["/usr/share/java/zookeeper.jar", "/opt/zookeeper/lib", "/usr/share/zookeeper/lib"];
            let found = cached.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.exists());
            let found = found.ok_or_else(|| Error::missing("zk", "ZooKeeper is not installed", ZOOKEEPER))?;
            let mut path = jars_in(&found).into_os_string();
            // Debian's jar names all that it needs, but nothing that writes the log.
            let log = Path::new("/usr/share/java/slf4j-simple.jar");
            if found.extension() == Some(OsStr::new("jar")) && log.exists() {
                path.push(":");
                path.push(log);
            }
            path
        }
    };
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")).filter(|java| java.exists());
    let java = match home {
        Some(java) if std::env::var_os("AVOUT_JAVA").is_none() => java,
        _ => program("zk", "AVOUT_JAVA", "java", JAVA)?,
    };
    Ok((java, jars))
}

pub(super) fn redis() -> Result<PathBuf, Error> {
    program("redis", "AVOUT_REDIS_SERVER", "redis-server", REDIS)
}

pub(super) fn mongod() -> Result<PathBuf, Error> {
    program("mongo", "AVOUT_MONGOD", "mongod", MONGO)
}

/// All jars of a folder, as Java writes it; a jar stays what it is.
fn jars_in(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("*") } else { path.to_owned() }
}

/// A program: the one that the environment names, or the first found of PATH, the usual folders, and the cache.
pub(super) fn program(server: &'static str, variable: &str, name: &str, how: &'static str) -> Result<PathBuf, Error> {
    if let Some(given) = std::env::var_os(variable) {
        let given = PathBuf::from(given);
        return match given.is_file() {
            true => Ok(given),
            false => {
                Err(Error::missing(server, format!("{variable} names {}, which is not there", given.display()), how))
            }
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    let cached = cache().map(|cache| cache.join("bin"));
    let mut folders = std::env::split_paths(&path).chain(usual).chain(cached);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|program| program.is_file()));
    found.ok_or_else(|| Error::missing(server, format!("{name} is not installed"), how))
}

/// The folder of this user for what `scripts/test` fetched: `~/.cache/avout`.
fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("AVOUT_CACHE").or_else(|| {
        let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
        Some(base.join("avout"))
    })
}
