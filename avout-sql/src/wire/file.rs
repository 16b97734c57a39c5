use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

/// What tells a file from another one that has its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    links: u64,
}

/// The file of a store, and whether it is still there.
///
/// In WAL mode SQLite acknowledges commits to a file that was deleted, replaced, renamed or truncated
/// meanwhile. So the path is looked at before each batch of writes and again before its replies.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    identity: Identity,
    /// The longest that the file was seen.
    length: AtomicU64,
    /// The log and the shared memory, once they are there. SQLite keeps them as long as any connection is open.
    companions: OnceLock<Companions>,
}

#[derive(Debug)]
struct Companions {
    log: (PathBuf, Identity),
    memory: (PathBuf, Identity),
    /// The longest that the log was seen.
    log_length: AtomicU64,
}

/// How long the files have to be, by SQLite's own account. `None`: it cannot tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    file: Option<u64>,
    log: Option<u64>,
}

impl Lengths {
    pub(crate) fn of(connection: &Connection) -> Self {
        let number = |sql, column| connection.query_row(sql, [], |row| row.get::<_, i64>(column));
        let file = || -> rusqlite::Result<i64> { Ok(number("PRAGMA page_count", 0)? * number("PRAGMA page_size", 0)?) };
        // The checkpoint does nothing but count the frames in the log, and those that are in the file too.
        let log = || -> rusqlite::Result<i64> {
            let (frames, copied): (i64, i64) =
                connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
            let page = number("PRAGMA page_size", 0)?;
            Ok(if frames > copied { 32 + frames * (24 + page) } else { 0 })
        };
        let [file, log] = [file(), log()].map(|length| length.ok().map(i64::unsigned_abs));
        Self { file, log }
    }
}

/// Only one thread at a time makes a file: see [`File::prepare`].
static MAKING: Mutex<()> = Mutex::new(());

impl File {
    /// Finds the file at `path`, or makes an empty one that only its owner may use.
    ///
    /// Folders on the way may be symbolic links, which are followed once, here. The file itself may neither be one nor
    /// have a second hard link: SQLite finds the log of a file by its name, so two names would be two logs.
    pub(crate) fn prepare(path: &Path, make: bool) -> Result<Self> {
        let refused = |kind, why: &str| Err(Error::new(kind, format!("{why}: {}", path.display())));
        let Some(name) = path.file_name() else {
            return refused(ErrorKind::InvalidInput, "the path names no file");
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = match folder.canonicalize() {
            Ok(folder) => folder,
            Err(error) => return Err(open_error(&error, path).with_source(error)),
        };
        let path = folder.join(name);
        // A closed descriptor takes all of this process's POSIX locks on its file with it, those of other connections too.
        // So nothing here ever opens a file that exists; and while one is made nobody else opens it.
        let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match make.then(|| options.open(&path)) {
            Some(Ok(_)) => tracing::debug!(path = %path.display(), "made a new file"),
            Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A folder that cannot be written to may hold a file that can be opened; SQLite tells.
            Some(Err(_)) if path.is_file() => {}
            Some(Err(error)) => return Err(open_error(&error, &path).with_source(error)),
            None => {}
        }
        drop(making);
        let refused = |kind, why: &str| Err(Error::new(kind, format!("{why}: {}", path.display())));
        let seen = match fs::symlink_metadata(&path) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !make => {
                return refused(ErrorKind::NotFound, "there is no such file, and readonly=true makes none");
            }
            Err(error) => return Err(open_error(&error, &path).with_source(error)),
        };
        if seen.is_symlink() {
            return refused(ErrorKind::Denied, "the file is a symbolic link; give the path that it points at");
        }
        if !seen.is_file() {
            return refused(ErrorKind::InvalidInput, "the path is no file");
        }
        let identity = identity(&seen);
        if identity.links > 1 {
            return refused(ErrorKind::Denied, "the file has a second name (a hard link)");
        }
        Ok(Self { path, identity, length: AtomicU64::new(seen.len()), companions: OnceLock::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers `-wal` and `-shm`. A connection has to have read before.
    pub(crate) fn remember_companions(&self) -> Result<()> {
        let find = |suffix: &str| -> Result<_> {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            let path = PathBuf::from(name);
            let (known, _) = look(&path).map_err(|error| lost("its log is missing").with_source(error))?;
            Ok((path, known))
        };
        let found = Companions { log: find("-wal")?, memory: find("-shm")?, log_length: AtomicU64::new(0) };
        self.companions.get_or_init(|| found);
        Ok(())
    }

    /// Whether the path still names the file. Costs one system call.
    ///
    /// # Errors
    /// [`ErrorKind::StoreLost`] if not.
    pub(crate) fn check(&self) -> Result<()> {
        self.length_now().map(|_| ())
    }

    fn length_now(&self) -> Result<u64> {
        match look(&self.path) {
            Ok((seen, length)) if seen == self.identity => Ok(length),
            Ok(_) => Err(lost("another file has taken its place, or its name has been linked")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lost("it was deleted or renamed")),
            Err(error) => Err(lost("it cannot be looked at any more").with_source(error)),
        }
    }

    /// Whether the file, its log and its shared memory are still those that the connections have open, and none was cut.
    ///
    /// `lengths` is asked only when one got shorter, as after a VACUUM or when the log begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::StoreLost`] if not.
    pub(crate) fn check_all(&self, lengths: impl Fn() -> Lengths) -> Result<()> {
        check_length(&self.length, || self.length_now(), || lengths().file)?;
        let Some(companions) = self.companions.get() else {
            return Ok(());
        };
        let log = || companion(&companions.log);
        check_length(&companions.log_length, log, || lengths().log)?;
        companion(&companions.memory).map(|_| ())
    }

    /// What it means that this connection failed to read. Where the file or its log was cut or replaced, SQLite says that reading failed, or
    /// that what it read is damaged.
    pub(crate) fn cause(&self, connection: &Connection, error: Error) -> Error {
        let may_be_lost = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt);
        match if may_be_lost { self.check_against(connection) } else { Ok(()) } {
            Ok(()) => error,
            Err(lost) => lost.with_source(error),
        }
    }

    /// As [`check_all`](Self::check_all), also if nobody has looked before how long they were.
    fn check_against(&self, connection: &Connection) -> Result<()> {
        let needed = Lengths::of(connection);
        let is_cut = |length: u64, needed: Option<u64>| needed.is_some_and(|needed| length < needed);
        let Some(companions) = self.companions.get() else {
            return self.check();
        };
        if is_cut(self.length_now()?, needed.file.filter(|_| needed.log == Some(0)))
            || is_cut(companion(&companions.log)?, needed.log)
        {
            return Err(lost("it was cut"));
        }
        companion(&companions.memory).map(|_| ())
    }
}

/// The length of a companion that is still the same.
fn companion((path, known): &(PathBuf, Identity)) -> Result<u64> {
    match look(path) {
        Ok((seen, length)) if seen == *known => Ok(length),
        Ok(_) => Err(lost("its log was replaced")),
        Err(error) => Err(lost("its log was deleted").with_source(error)),
    }
}

fn check_length(
    longest: &AtomicU64,
    length: impl Fn() -> Result<u64>,
    needed: impl FnOnce() -> Option<u64>,
) -> Result<()> {
    let now = length()?;
    if now >= longest.fetch_max(now, Ordering::Relaxed) {
        return Ok(());
    }
    let needed = needed();
    // Others write meanwhile: what SQLite counts is in the file before it counts it, so it is measured again.
    let now = length()?;
    if needed.is_none_or(|needed| now < needed) {
        return Err(lost("it was cut"));
    }
    longest.store(now, Ordering::Relaxed);
    Ok(())
}

fn lost(how: &'static str) -> Error {
    Error::new(ErrorKind::StoreLost, format!("the file is not the one that was opened: {how}"))
}

fn open_error(error: &io::Error, path: &Path) -> Error {
    let (kind, why) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::InvalidInput, "the folder does not exist"),
        io::ErrorKind::NotADirectory => (ErrorKind::InvalidInput, "what should be its folder is a file"),
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
            (ErrorKind::InvalidInput, "the system takes no such name")
        }
        _ if is_loop(error) => (ErrorKind::InvalidInput, "links on the way lead in a circle"),
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "the file may not be made or opened by this user"),
        io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::Denied, "the file system is read-only"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorKind::Full, "there is no room on the disk"),
        _ => (ErrorKind::Unavailable, "the file cannot be opened"),
    };
    Error::new(kind, format!("{why}: {}", path.display()))
}

/// What this user may not do with a file and what lies beside it, of what SQLite needs to do.
#[cfg(target_os = "linux")]
pub(crate) fn forbidden(path: &Path) -> Option<&'static str> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    use rustix::io::Errno;

    if accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ROFS) {
        return Some("the file system is read-only");
    }
    let may = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS) != Err(Errno::ACCESS);
    let beside = |suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    if !may(path, Access::READ_OK | Access::WRITE_OK) {
        return Some("the file may not be read and written by this user");
    }
    if path.parent().is_some_and(|folder| !may(folder, Access::WRITE_OK | Access::EXEC_OK)) {
        return Some("the folder may not be written to by this user, and SQLite keeps its log there");
    }
    let companions = ["-wal", "-shm"].map(beside);
    let others = companions.iter().any(|path| !may(path, Access::READ_OK | Access::WRITE_OK));
    others.then_some("the log beside the file may not be read and written by this user")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn forbidden(_: &Path) -> Option<&'static str> {
    Some("the file cannot be opened by this user")
}

/// `ErrorKind::FilesystemLoop` is not stable yet.
#[cfg(target_os = "linux")]
fn is_loop(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

#[cfg(not(target_os = "linux"))]
fn is_loop(_: &io::Error) -> bool {
    false
}

/// What has this name, and how long it is.
///
/// It asks for nothing else: when somebody has asked for the time of the last change, Linux notes the next one so precisely that
/// the next sync has to write the inode too, which makes each commit about a third slower.
#[cfg(target_os = "linux")]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

    let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::SIZE;
    let seen = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let device = makedev(seen.stx_dev_major, seen.stx_dev_minor);
    Ok((Identity { device, inode: seen.stx_ino, links: seen.stx_nlink.into() }, seen.stx_size))
}

#[cfg(not(target_os = "linux"))]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    fs::symlink_metadata(path).map(|seen| (identity(&seen), seen.len()))
}

#[cfg(unix)]
fn identity(seen: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity { device: seen.dev(), inode: seen.ino(), links: seen.nlink() }
}

/// Elsewhere a file that is open can be neither deleted nor replaced.
#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Identity {
    Identity { device: 0, inode: 0, links: 1 }
}
