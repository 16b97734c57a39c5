//! Requests of several operations, which reach no namespace but the one that was opened.
//!
//! A namespace that was deleted and made anew has the same paths. So each read reads the clock as well, and each change checks the era.

use std::vec;

use avout_core::{Error, ErrorKind, Result};
use zookeeper::{
    CheckWriteError, CheckWriter, Client as Zk, CreateOptions, Error as ZkError, MultiReadResult, MultiReader,
    MultiWriteResult, Stat,
};

use super::client::{Client, Ground};
use super::enter::clock;
use super::error::{Right, classify, classify_at, eras_change, parent, unexpected};

/// How often a change is made in another era, when its own is over.
pub(crate) const ERAS: u32 = 10;

/// What a read gave, without the clock's own result.
pub(crate) struct Seen {
    pub(crate) ground: Ground,
    pub(crate) clock: Stat,
    pub(crate) results: vec::IntoIter<MultiReadResult>,
}

/// What became of a change.
pub(crate) enum Change {
    Done(Vec<MultiWriteResult>),
    /// One operation is refused, and nothing was done.
    Refused(Refused),
    /// Another era was begun, and nothing was done.
    Over,
}

/// The operation that was refused.
pub(crate) struct Refused {
    /// Its number, from 0 on.
    pub(crate) index: usize,
    pub(crate) source: ZkError,
    /// What it needs of which znode's ACL.
    needs: Option<(Right, String)>,
}

impl Refused {
    /// What it means where nothing better is known.
    pub(crate) fn told(self) -> Error {
        match self.needs {
            Some((right, path)) => classify_at(self.source, right, &path),
            None => classify(self.source),
        }
    }
}

/// The operations of a change, and what each needs.
pub(crate) struct Changes<'a> {
    writer: CheckWriter<'a>,
    needs: Vec<(Right, String)>,
}

impl Changes<'_> {
    /// That a znode has this version, or any. It needs a right to read.
    pub(crate) fn check(&mut self, path: &str, version: i32) -> Result<(), ZkError> {
        self.needs.push((Right::Read, path.to_owned()));
        self.writer.add_check_version(path, version)
    }

    pub(crate) fn create(&mut self, path: &str, data: &[u8], options: &CreateOptions<'_>) -> Result<(), ZkError> {
        self.needs.push((Right::Create, parent(path).to_owned()));
        self.writer.add_create(path, data, options)
    }

    pub(crate) fn set(&mut self, path: &str, data: &[u8], version: i32) -> Result<(), ZkError> {
        self.needs.push((Right::Write, path.to_owned()));
        self.writer.add_set_data(path, data, Some(version))
    }

    pub(crate) fn delete(&mut self, path: &str, version: i32) -> Result<(), ZkError> {
        self.needs.push((Right::Delete, parent(path).to_owned()));
        self.writer.add_delete(path, Some(version))
    }
}

impl Client {
    /// Reads the clock and then what `add` adds, as of one moment that is not before anything acknowledged before the call.
    ///
    /// # Errors
    /// [`StoreLost`](ErrorKind::StoreLost): the namespace is not there any more, or another one is.
    pub(crate) async fn read(&self, add: impl Fn(&mut MultiReader<'_>) -> Result<(), ZkError> + Send) -> Result<Seen> {
        let answer = self.request(ErrorKind::Unavailable, async |ground: Ground| {
            let results = self.read_by(&ground.zk, &add).await;
            results.map(|results| (ground, results))
        });
        let (ground, mut results) = answer.await?.map_err(classify)?;
        let clock = self.clock(results.next())?;
        Ok(Seen { ground, clock, results })
    }

    /// The same by a certain connection. The first result is the clock's, for [`clock`](Self::clock).
    ///
    /// Both requests leave before the first answer comes. The server answers a session's requests in their order, so the
    /// multi-read is not before the sync. It is one step of the server's, which makes no change meanwhile (`CommitProcessor`).
    pub(crate) async fn read_by(
        &self,
        zk: &Zk,
        add: &(impl Fn(&mut MultiReader<'_>) -> Result<(), ZkError> + Send),
    ) -> Result<vec::IntoIter<MultiReadResult>, ZkError> {
        let mut reader = zk.new_multi_reader();
        reader.add_get_data(&self.paths.clock)?;
        add(&mut reader)?;
        let current = self.catch_up(zk);
        let read = reader.commit();
        current.await?;
        Ok(read.await?.into_iter())
    }

    /// The clock that a read of this namespace tells.
    pub(crate) fn clock(&self, result: Option<MultiReadResult>) -> Result<Stat> {
        let opened = self.opened().ok_or_else(unexpected)?;
        clock(result, opened.clock_made, &self.paths.clock)
    }

    /// Makes a change in the era of a connection: all that `add` adds, or nothing.
    ///
    /// # Errors
    /// That of the whole request.
    pub(crate) async fn change_in(
        &self,
        ground: &Ground,
        add: impl FnOnce(&mut Changes<'_>) -> Result<(), ZkError>,
    ) -> Result<Change, ZkError> {
        let write = || {
            let writer = ground.zk.new_check_writer(&self.paths.lasts(ground.era), None)?;
            let mut changes = Changes { writer, needs: Vec::new() };
            add(&mut changes)?;
            Ok::<_, ZkError>((changes.writer.commit(), changes.needs))
        };
        let (written, mut needs) = write()?;
        match written.await {
            Ok(results) => Ok(Change::Done(results)),
            Err(CheckWriteError::CheckFailed { source: ZkError::NoNode }) => {
                self.leave(ground);
                Ok(Change::Over)
            }
            Err(CheckWriteError::OperationFailed { index, source }) => {
                let needs = (index < needs.len()).then(|| needs.swap_remove(index));
                Ok(Change::Refused(Refused { index, source, needs }))
            }
            Err(CheckWriteError::CheckFailed { source } | CheckWriteError::RequestFailed { source }) => Err(source),
        }
    }

    /// Makes a change that may be made again, in whatever era there is. The outer error: there is no connection or no answer, or the user
    /// may not do it.
    pub(crate) async fn change(
        &self,
        add: impl Fn(&mut Changes<'_>) -> Result<(), ZkError>,
    ) -> Result<Result<(), ZkError>> {
        for _ in 0..ERAS {
            let changed =
                self.request(ErrorKind::Unavailable, async |ground: Ground| self.change_in(&ground, &add).await);
            match changed.await? {
                Ok(Change::Done(_)) => return Ok(Ok(())),
                Ok(Change::Refused(refused)) if refused.source == ZkError::NoAuth => return Err(refused.told()),
                Ok(Change::Refused(Refused { source, .. })) | Err(source) => return Ok(Err(source)),
                Ok(Change::Over) => {}
            }
        }
        Err(eras_change())
    }
}
