//! A folder as a table of names, bytes and tags. It knows nothing of avout: think of it as the driver of some database.
//!
//! A value is written in full beside the others and then moved to its place, so that no one reads half of it. The
//! conditional write is one step for all who have the folder open in *this process*, whose lock it takes; between
//! processes it would need a lock of the file system. Files are not flushed, so the last ones may go with the power.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{MAIN_SEPARATOR_STR, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fmt, fs};

/// The file system refused.
#[derive(Debug)]
pub(crate) struct Failed(io::Error);

type Result<T, E = Failed> = std::result::Result<T, E>;

static WRITING: Mutex<()> = Mutex::new(());

#[derive(Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Drawn when the folder was made.
    pub(crate) id: u128,
}

/// A value with its tag, a random number that is new with each write.
pub(crate) type Tagged = (u128, Vec<u8>);

impl Folder {
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let mut folder = Self { path: path.into(), id: 0 };
        folder.id = match folder.put_if("id", b"", |found| found.is_none())? {
            Ok(drawn) | Err(Some((drawn, _))) => drawn,
            Err(None) => return Err(foreign("no id")),
        };
        Ok(folder)
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<Tagged>> {
        let Some(file) = unless_absent(fs::read(self.file(name)))? else { return Ok(None) };
        let (tag, value) = file.split_first_chunk().ok_or_else(|| foreign("a value without a tag"))?;
        Ok(Some((u128::from_be_bytes(*tag), value.to_vec())))
    }

    /// Puts a value if `condition` holds of the present one's tag, and gives the new tag. `Err` in `Ok`: it does not
    /// hold of this one.
    pub(crate) fn put_if(
        &self,
        name: &str,
        value: &[u8],
        condition: impl FnOnce(Option<u128>) -> bool,
    ) -> Result<Result<u128, Option<Tagged>>> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, found) = (self.file(name), self.get(name)?);
        if !condition(found.as_ref().map(|(tag, _)| *tag)) {
            return Ok(Err(found));
        }
        let tag: u128 = rand::random();
        fs::create_dir_all(file.parent().unwrap_or(&self.path))?;
        fs::write(self.path.join("new"), [&tag.to_be_bytes(), value].concat())?;
        fs::rename(self.path.join("new"), file)?;
        Ok(Ok(tag))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        unless_absent(fs::remove_file(self.file(name))).map(drop)
    }

    /// The names that begin with `prefix`, sorted.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.collect(&self.path.join("values"), &mut names)?;
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        Ok(names)
    }

    /// A name's file: its bytes in hexadecimal, in pieces that file names have room for, and then a name that is no
    /// piece.
    fn file(&self, name: &str) -> PathBuf {
        let hex = |piece: &[u8]| piece.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let folders: PathBuf = name.as_bytes().chunks(100).map(hex).collect();
        self.path.join("values").join(folders).join("value")
    }

    fn collect(&self, folder: &Path, names: &mut Vec<String>) -> Result<()> {
        for entry in unless_absent(fs::read_dir(folder))?.into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                self.collect(&path, names)?;
            } else {
                names.push(self.name(folder).ok_or_else(|| foreign("a file that is not the folder's own"))?);
            }
        }
        Ok(())
    }

    fn name(&self, folder: &Path) -> Option<String> {
        let path = folder.strip_prefix(self.path.join("values")).ok()?;
        let hex = path.to_str()?.replace(MAIN_SEPARATOR_STR, "");
        let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
        String::from_utf8(hex.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?).ok()
    }
}

fn foreign(what: &'static str) -> Failed {
    Failed(io::Error::new(ErrorKind::InvalidData, what))
}

fn unless_absent<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed(error)),
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failed {}
