//! A connection enters the namespace: it learns which history that has, and begins a new era where it cannot be told that the
//! history has gone on.
//!
//! ```text
//! client A   reads, as of era 1                                      commits: era/1-.. is gone, nothing is done
//! server                        killed, an older copy put in place
//! client B                                    enters: begins era 2   commits
//! ```
//! No connection sends a request before it has entered, so nobody writes in an older copy before its era is over. What is read
//! from the znode `era` is as of a moment after the connection's own write, which only a leader with a majority takes.

use std::time::Duration;

use avout_core::backend::history::{Entered, Era, History, Known};
use avout_core::{Error, ErrorKind, Result};
use futures_util::FutureExt;
use futures_util::future::Either;
use zookeeper::{Client as Zk, CreateMode, Error as ZkError, MultiReadResult, MultiWriteError, Stat};

use super::error::{Right, classify, classify_at, eras_change, parent, unexpected};
use crate::options::Options;
use crate::schema::{Began, Eras, Paths, made_by};

/// How often entering is begun anew when others come between.
const ATTEMPTS: u32 = 100;

/// Where the servers of an ensemble are listed. It is empty on a server that stands alone.
const CONFIG: &str = "/zookeeper/config";

/// What is needed to enter.
#[derive(Clone, Copy)]
pub(super) struct Entrance<'a> {
    pub(super) options: &'a Options,
    pub(super) paths: &'a Paths,
    pub(super) history: &'a History,
    pub(super) clock_made: i64,
}

/// What a connection learned.
pub(super) struct Found {
    pub(super) era: Era,
    /// How many servers there are; `None`: it is not told.
    pub(super) servers: Option<usize>,
    /// Why this user can neither write nor begin an era: it may read, and not commit.
    pub(super) refused: Option<Error>,
}

/// What a look at the namespace shows.
struct Look {
    /// The error: this user cannot write.
    now: Result<Began, ZkError>,
    /// `None`: none was begun yet.
    eras: Option<Eras>,
    version: i32,
    children: Vec<String>,
    clock: Stat,
    servers: Option<usize>,
}

/// What became of the beginning of an era.
enum Begun {
    Era(Eras),
    /// Something has changed since the look.
    Changed,
    /// This user may not.
    Refused(Error),
}

pub(super) async fn enter(zk: &Zk, at: Entrance<'_>) -> Result<Found> {
    for attempt in 0..ATTEMPTS {
        if attempt > 2 {
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..20))).await;
        }
        // Before the look: what it shows is not older than what is known here.
        let asked = at.history.known();
        let Some(look) = at.look(zk).await? else {
            at.make(zk).await?;
            continue;
        };
        let clock = point(&look.clock)?;
        let (begun, refused) = match look.now {
            Ok(now) if !at.goes_on(&look, now, asked, clock) => match at.begin(zk, &look, now, clock).await? {
                Begun::Changed => continue,
                Begun::Era(begun) => (Some(begun), None),
                Begun::Refused(error) => (None, Some(error)),
            },
            Ok(_) => (None, None),
            Err(ref error) => (None, Some(classify_at(error.clone(), Right::Write, &at.paths.entered))),
        };
        // Who cannot write ends no era: it reads, and is told of losses, in the one that is there.
        if let Some(error) = refused.as_ref().filter(|_| look.eras.is_none()) {
            return Err(error.clone());
        }
        let Some(eras) = begun.or(look.eras) else { return Err(unexpected()) };
        let survived = eras.survived(asked.era);
        if at.history.enter(asked, eras.current, clock, survived) == Entered::Current {
            return Ok(Found { era: eras.current, servers: look.servers, refused });
        }
    }
    Err(eras_change())
}

impl Entrance<'_> {
    /// Whether the current era has surely gone on, for all that this client knows.
    fn goes_on(self, look: &Look, now: Began, asked: Known, clock: u64) -> bool {
        let Some(eras) = &look.eras else { return false };
        let marked = self.paths.eras(&look.children).eq([self.paths.lasts(eras.current)]);
        // Servers that do not tell how many they are, and have held an election, are an ensemble.
        let ensemble = look.servers.map_or(now.epoch != 0, |servers| servers > 0);
        let went_back = asked.era == eras.current && clock < asked.seen;
        marked && !went_back && eras.began.goes_on(now, ensemble)
    }

    /// Looks, in one round trip; `None`: the namespace has not all znodes of eras.
    async fn look(self, zk: &Zk) -> Result<Option<Look>> {
        let session = zk.session_id().0;
        // The number of a change tells the leader's epoch. Who only reads has a majority agree to a change of nothing.
        let mut nothing = zk.new_multi_writer();
        nothing.add_check_version(&self.paths.clock, -1).map_err(classify)?;
        let entered = match self.options.readonly {
            true => Either::Left(nothing.commit().map(|done| match done {
                Ok(_) => Err(ZkError::NoAuth),
                Err(error) => Err(ZkError::from(error)),
            })),
            false => Either::Right(zk.set_data(&self.paths.entered, b"", None)),
        };
        let mut reader = zk.new_multi_reader();
        reader.add_get_data(&self.paths.clock).map_err(classify)?;
        reader.add_get_data(&self.paths.era).map_err(classify)?;
        reader.add_get_children(&self.paths.era).map_err(classify)?;
        reader.add_get_data(CONFIG).map_err(classify)?;
        let read = reader.commit();
        let now = match entered.await {
            Ok(stat) => Ok(Began { epoch: stat.mzxid >> 32, session }),
            Err(error @ ZkError::NoNode) => Err(error),
            Err(error) if is_of_rights(&error) => Err(error),
            Err(error) => return Err(classify(error)),
        };
        let mut results = read.await.map_err(classify)?.into_iter();
        let clock = clock(results.next(), self.clock_made, &self.paths.clock)?;
        let (eras, version) = match results.next() {
            Some(MultiReadResult::Data { data, stat }) => (Eras::decode(&data)?, stat.version),
            Some(MultiReadResult::Error { err: ZkError::NoNode }) => return Ok(None),
            Some(MultiReadResult::Error { err }) => return Err(classify_at(err, Right::Read, &self.paths.era)),
            _ => return Err(unexpected()),
        };
        if now == Err(ZkError::NoNode) {
            return Ok(None);
        }
        let children = match results.next() {
            Some(MultiReadResult::Children { children }) => children,
            Some(MultiReadResult::Error { err }) => return Err(classify(err)),
            _ => return Err(unexpected()),
        };
        let servers = match results.next() {
            Some(MultiReadResult::Data { data, .. }) => Some(servers(&data)),
            Some(MultiReadResult::Error { .. }) => None,
            _ => return Err(unexpected()),
        };
        Ok(Some(Look { now, eras, version, children, clock, servers }))
    }

    /// Makes the znodes of the eras, where the version before has made the namespace.
    async fn make(self, zk: &Zk) -> Result<()> {
        if self.options.readonly {
            let message =
                "the namespace is of the version before, and readonly=true upgrades none: open it once to write";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let options = &made_by(self.options, CreateMode::Persistent);
        for path in [&self.paths.era, &self.paths.entered] {
            match zk.create(path, b"", options).await {
                Ok(_) | Err(ZkError::NodeExists) => {}
                Err(error) => return Err(classify_at(error, Right::Create, parent(path))),
            }
        }
        Ok(())
    }

    /// Begins an era, and ends the one before it at `clock`.
    async fn begin(self, zk: &Zk, look: &Look, now: Began, clock: u64) -> Result<Begun> {
        let eras = look.eras.as_ref().map_or_else(|| Eras::first(now), |eras| eras.next(now, clock));
        let options = &made_by(self.options, CreateMode::Persistent);
        let write = || {
            let mut writer = zk.new_multi_writer();
            writer.add_set_data(&self.paths.era, &eras.encode(), Some(look.version))?;
            writer.add_check_version(&self.paths.clock, look.clock.version)?;
            self.paths.eras(&look.children).try_for_each(|path| writer.add_delete(&path, None))?;
            writer.add_create(&self.paths.lasts(eras.current), b"", options)?;
            Ok::<_, ZkError>(writer.commit())
        };
        match write().map_err(classify)?.await {
            Ok(_) => {
                tracing::info!(era = eras.current.number, clock, "began an era of the namespace");
                Ok(Begun::Era(eras))
            }
            Err(MultiWriteError::OperationFailed { source: ZkError::BadVersion | ZkError::NoNode, .. }) => {
                Ok(Begun::Changed)
            }
            Err(MultiWriteError::OperationFailed { index, source }) if is_of_rights(&source) => {
                let needs = match index {
                    0 => Right::Write,
                    1 => return Ok(Begun::Refused(classify_at(source, Right::Read, &self.paths.clock))),
                    last if last == 2 + self.paths.eras(&look.children).count() => Right::Create,
                    _ => Right::Delete,
                };
                Ok(Begun::Refused(classify_at(source, needs, &self.paths.era)))
            }
            Err(error) => Err(classify(error.into())),
        }
    }
}

/// The clock that a read tells, if it is the one that was found when the namespace was opened.
pub(super) fn clock(result: Option<MultiReadResult>, clock_made: i64, path: &str) -> Result<Stat> {
    match result {
        Some(MultiReadResult::Data { stat, .. }) if stat.czxid == clock_made => Ok(stat),
        Some(MultiReadResult::Data { .. }) => {
            let message = "the namespace was deleted and made anew: open it again";
            Err(Error::new(ErrorKind::StoreLost, message))
        }
        Some(MultiReadResult::Error { err }) => Err(classify_at(err, Right::Read, path)),
        _ => Err(unexpected()),
    }
}

/// Whether the server refuses a write for what the user is allowed.
fn is_of_rights(error: &ZkError) -> bool {
    matches!(error, ZkError::NoAuth | ZkError::QuotaExceeded)
}

fn point(clock: &Stat) -> Result<u64> {
    u64::try_from(clock.mzxid).map_err(|_| unexpected())
}

/// How many servers an ensemble's configuration lists; 0: the server stands alone.
fn servers(config: &[u8]) -> usize {
    config.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"server.")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers are counted in what an ensemble and a server that stands alone tell.
    #[test]
    fn servers_are_counted() {
        assert_eq!(servers(b""), 0);
        assert_eq!(servers(b"server.1=a:1:2:participant\nserver.2=b:1:2:observer;0.0.0.0:3\nversion=0"), 2);
    }
}
