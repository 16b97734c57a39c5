use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use avout_core::backend::{LONGEST_TIME, UrlReader};
use avout_core::{Error, Result};

/// How often SQLite waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// Each commit is on the disk before it is acknowledged. One wait for each batch of commits.
    #[default]
    Full,
    /// A commit survives the death of the process, but the last ones may be lost with the power. They are lost from the
    /// end: what is left is a state that there was. Much faster where the disk is slow.
    Normal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    File(PathBuf),
}

/// Where the file is and how it is used.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use avout_sql::{Options, Synchronous};
///
/// # async fn f() -> avout_core::Result<()> {
/// let options = Options::new("state.db").synchronous(Synchronous::Normal).busy_timeout(Duration::from_secs(1));
/// let backend = options.open().await?;
///
/// let same = Options::from_url("sqlite:state.db?synchronous=normal&busy_timeout=1s")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) place: Place,
    pub(crate) synchronous: Synchronous,
    pub(crate) readers: usize,
    pub(crate) busy_timeout: Duration,
    pub(crate) readonly: bool,
}

const URL: UrlReader = UrlReader::new("sqlite url", KNOWN);
const KNOWN: &str = "synchronous=full|normal, readers=1..64, busy_timeout=<number>ms|s, readonly=true|false";
const MAX_READERS: usize = 64;

impl Options {
    /// The file at `path`, made if it is not there; `:memory:` is a new store in memory, which this
    /// client alone sees and which ends with it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let place = if path.as_os_str() == ":memory:" { Place::Memory } else { Place::File(path) };
        let busy_timeout = Duration::from_secs(5);
        Self { place, synchronous: Synchronous::Full, readers: 4, busy_timeout, readonly: false }
    }

    /// A store in memory, as `:memory:`.
    pub fn memory() -> Self {
        Self::new(":memory:")
    }

    /// Reads the text form: `sqlite:<path>` or `sqlite::memory:`, then options as in
    /// `?synchronous=normal&readers=8&busy_timeout=500ms`.
    ///
    /// The path is percent-decoded, so that one with `?` or `%` in it can be written; it is relative unless it starts
    /// with `/`. `sqlite://path` is the same as `sqlite:path`.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong; for an unknown option it lists the known ones.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| URL.invalid("the text starts with sqlite:"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path.strip_prefix("//") {
            // As with other databases' URLs, it could be a user and a password.
            Some(path) if !path.starts_with('/') && rest.contains('@') => {
                return Err(URL.invalid("sqlite: takes a path without user and host; an @ after // is written as %40"));
            }
            Some(path) => path,
            None => path,
        };
        let path = URL.decode(path, "the path")?;
        if path.is_empty() {
            return Err(URL.invalid("sqlite: is followed by a path, or by :memory:"));
        }
        let mut options = Self::new(path);
        for (name, value) in UrlReader::pairs(query) {
            options = options.with(name, value)?;
        }
        Ok(options)
    }

    fn with(self, name: &str, value: &str) -> Result<Self> {
        Ok(match name {
            "synchronous" => {
                let levels = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
                self.synchronous(URL.choice(name, value, &levels)?)
            }
            "readers" => self.readers(URL.number(name, value, 1..=MAX_READERS)?),
            "busy_timeout" => self.busy_timeout(URL.duration(name, value, Duration::ZERO..=Duration::MAX)?),
            "readonly" => self.readonly(URL.flag(name, value)?),
            _ => return Err(URL.unknown(name)),
        })
    }

    /// How often SQLite waits for the disk. [`Synchronous::Full`] unless set.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How many connections read at the same time, from 1 to 64. 4 unless set. They are opened as they are needed.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.clamp(1, MAX_READERS);
        self
    }

    /// How long to wait while another process holds the file's write lock; after that it is
    /// [`Unavailable`](avout_core::ErrorKind::Unavailable). 5 seconds unless set, and at most a day.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout.min(LONGEST_TIME);
        self
    }

    /// The client only reads: it makes no file and no tables, and upgrades none. A file that is not there, or has no tables, is
    /// [`NotFound`](avout_core::ErrorKind::NotFound), one of the version before [`Unsupported`](avout_core::ErrorKind::Unsupported). Whatever
    /// would write is [`Denied`](avout_core::ErrorKind::Denied). `false` unless set.
    ///
    /// SQLite marks in a file beside that somebody reads, so the system user needs the right to write to the file and its folder all
    /// the same.
    #[must_use]
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.readonly = readonly;
        self
    }
}

/// As [`Options::from_url`].
impl FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

#[cfg(test)]
mod tests {
    use avout_core::ErrorKind;

    use super::*;

    /// The text form gives the options that the builder gives.
    #[test]
    fn reads_urls() {
        let same = [
            ("sqlite:a/b.db", Options::new("a/b.db")),
            ("sqlite:/a/b.db", Options::new("/a/b.db")),
            ("sqlite:///a/b.db", Options::new("/a/b.db")),
            ("sqlite://b.db", Options::new("b.db")),
            ("sqlite:a%20b%3F%25.db?", Options::new("a b?%.db")),
            ("sqlite::memory:", Options::memory()),
            ("sqlite:x?synchronous=full", Options::new("x")),
            ("sqlite:x?synchronous=normal&readers=2", Options::new("x").synchronous(Synchronous::Normal).readers(2)),
            ("sqlite:x?busy_timeout=250ms", Options::new("x").busy_timeout(Duration::from_millis(250))),
            ("sqlite:x?readonly=true", Options::new("x").readonly(true)),
            ("sqlite:x?busy_timeout=3s", Options::new("x").busy_timeout(Duration::from_secs(3))),
        ];
        for (url, options) in same {
            assert_eq!(url.parse::<Options>().expect(url), options, "{url}");
        }
    }

    /// A text that is wrong is refused, and the message helps.
    #[test]
    fn refuses_wrong_urls() {
        for (url, help) in [
            ("sqlite:", "followed by a path"),
            ("sqlite://", "followed by a path"),
            ("sqlite:?readers=2", "followed by a path"),
            ("redis:x", "starts with sqlite:"),
            ("sqlite:x?sync=full", "synchronous=full|normal"),
            ("sqlite:x?synchronous=FULL", "synchronous=full|normal"),
            ("sqlite:x?readers=0", "readers=1..64"),
            ("sqlite:x?busy_timeout=5", "<number>ms|s"),
            ("sqlite:x?readonly=yes", "readonly=true|false"),
            ("sqlite:%ff", "UTF-8"),
            ("sqlite://user:password@host/x", "without user and host"),
        ] {
            let error = Options::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(help), "{url}: {error}");
        }
    }
}
