//! A commit is one script.

use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Key, Point};
use avout_core::{Error, ErrorKind, Result};
use redis::Value;

use super::read::snapshot;
use crate::schema::cell::{self, Clock, REVISION_BYTES, expected, revision};
use crate::wire::{Client, Head, Script};

/// The most that a commit has.
pub(super) const MAX_BYTES: usize = 256 << 20;

pub(super) async fn send(client: &Client, commit: &Commit) -> Result<CommitOutcome> {
    let mut records = Vec::with_capacity(commit.puts.len());
    let mut bytes = 0;
    for put in &commit.puts {
        let record = put.record.encode().map_err(|error| error.at(&put.key))?;
        bytes += record.len();
        records.push(record);
    }
    // The script takes the puts first.
    let puts = commit.puts.iter().map(|put| (&put.key, put.revision.as_ref()));
    let checks = commit.checks.iter().map(|check| (&check.key, check.revision.as_ref()));
    let deletes = commit.deletes.iter().map(|delete| (&delete.key, Some(&delete.revision)));
    let lines = puts.chain(checks).chain(deletes);
    bytes += lines.clone().map(|(key, _)| key.as_str().len()).sum::<usize>();
    if bytes > MAX_BYTES {
        return Err(Error::new(ErrorKind::TooLarge, "a commit has at most 256 MiB"));
    }
    let names = &client.names;
    let keys = [&*names.cells, &names.names];
    let size = (2 + 2 * commit.len() + records.len(), bytes + 40 + commit.len() * REVISION_BYTES);
    let counts = Counts::of(commit);
    let ran = client.run(Script::Commit, &keys, size, ErrorKind::OutcomeUnknown, |cmd, head| {
        cmd.arg(&counts.after(head)[..]).arg(cell::CLOCK);
        for (key, _) in lines.clone() {
            cmd.arg(key.as_str());
        }
        for (_, revision) in lines.clone() {
            let (bytes, length) = expected(revision);
            cmd.arg(&bytes[..length]);
        }
        for record in &records {
            cmd.arg(&record[..]);
        }
    });
    let (reply, head, link) = ran.await?;
    if let Some(point) = cell::point(&reply) {
        client.still_true(&link, point)?;
        if !counts.only_checks() {
            client.confirm(link.era, point).await?;
        }
        let nonce = u64::from_be_bytes(head[16..].try_into().expect("a head has 24 bytes"));
        let revisions = commit.puts.iter().map(|_| revision(point, nonce)).collect();
        return Ok(CommitOutcome::Committed(Committed { point: Point::new(point), revisions }));
    }
    let unreadable = || Error::new(ErrorKind::OutcomeUnknown, "the server's answer to a commit is not understood");
    let Value::Array(stale) = reply else { return Err(unreadable()) };
    let mut stale = stale.into_iter();
    let clock = stale.next().and_then(|clock| Clock::read(&clock)).ok_or_else(unreadable)?;
    let all: Vec<&Key> = lines.map(|(key, _)| key).collect();
    let mut found = Vec::new();
    while let (Some(Value::Int(index)), Some(value)) = (stale.next(), stale.next()) {
        let index = usize::try_from(index - 1).map_err(|_| unreadable())?;
        found.push((index, (*all.get(index).ok_or_else(unreadable)?, value)));
    }
    // In the order of the trait's lists: checks, puts, deletes.
    let (puts, checks) = (commit.puts.len(), commit.checks.len());
    found.sort_by_key(|(index, _)| if (puts..puts + checks).contains(index) { index - puts } else { index + checks });
    let stale = found.iter().map(|(_, (key, _))| (*key).clone()).collect();
    // A record that cannot be read is for the one who reads it to find; and what is of a history that is over is of no use.
    let current = client.history.observe(link.era, clock.point).is_current();
    // What a failover may lose is not told; it is read again, which waits.
    let current = current && client.confirm_read(link.era, clock.point, None).await.is_ok();
    let fresh = snapshot(client, &clock, found.into_iter().map(|(_, found)| found)).ok().filter(|_| current);
    Ok(CommitOutcome::Conflict(Conflict { stale, fresh }))
}

/// What the script of a commit needs to know beside the head.
struct Counts([u32; 4]);

impl Counts {
    fn of(commit: &Commit) -> Self {
        // The slots of clients come last, and nobody watches them.
        let quiet = commit.puts.iter().rev().take_while(|put| put.key.as_str().starts_with("/.avout/slots/")).count();
        let counts = [commit.puts.len(), commit.checks.len(), commit.deletes.len(), quiet];
        Self(counts.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    fn only_checks(&self) -> bool {
        let Self([puts, _, deletes, _]) = self;
        puts + deletes == 0
    }

    fn after(&self, head: &Head) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..24].copy_from_slice(head);
        for (place, count) in bytes[24..].chunks_mut(4).zip(self.0) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        bytes
    }
}
