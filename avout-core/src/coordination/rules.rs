//! The rules of the one line that locks, semaphores and elections share: plain data, no await and no clock.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::protocol::SessionId;

/// The id of a request: a session, and the number that its client gave to this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Claimant {
    #[serde(rename = "s")]
    session: u128,
    #[serde(rename = "t")]
    pub(super) ticket: u64,
}

impl Claimant {
    pub(super) fn new(session: SessionId, ticket: u64) -> Self {
        Self { session: session.number(), ticket }
    }

    pub(super) fn session(&self) -> SessionId {
        SessionId::new(self.session)
    }
}

/// The record of the holders. Guards check it in commits, so it changes only when something is granted or given back:
/// the waiters are in a record of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holders {
    /// The number of the last grant. The grants of one commit share a number.
    pub(super) grants: u64,
    /// How much can be held in all.
    pub(super) limit: u32,
    pub(super) held: Vec<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(rename = "w")]
    pub(super) who: Claimant,
    /// How much of the limit it takes.
    #[serde(rename = "n")]
    pub(super) take: u32,
    #[serde(rename = "g")]
    pub(super) token: u64,
    /// The name that it asked with.
    #[serde(rename = "l", default, skip_serializing_if = "String::is_empty")]
    pub(super) label: String,
}

/// The record of the waiters, first come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) waiting: Vec<Waiting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    #[serde(rename = "w")]
    pub(super) who: Claimant,
    #[serde(rename = "n")]
    pub(super) take: u32,
    /// The seat of its session that it watches.
    #[serde(rename = "p")]
    pub(super) seat: u32,
    #[serde(rename = "l", default, skip_serializing_if = "String::is_empty")]
    pub(super) label: String,
}

impl Holders {
    /// No holders.
    pub(super) fn none(limit: u32) -> Self {
        Self { grants: 0, limit, held: Vec::new() }
    }

    /// How much is free.
    pub(super) fn free(&self) -> u64 {
        let taken: u64 = self.held.iter().map(|held| u64::from(held.take)).sum();
        u64::from(self.limit).saturating_sub(taken)
    }

    pub(super) fn of(&self, who: Claimant) -> Option<&Held> {
        self.held.iter().find(|held| held.who == who)
    }

    /// Takes back what a claimant holds. `false`: it holds nothing.
    pub(super) fn remove(&mut self, who: Claimant) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.who != who);
        self.held.len() < before
    }
}

impl Line {
    pub(super) fn position(&self, who: Claimant) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.who == who)
    }

    /// `false`: it was not in the line.
    pub(super) fn remove(&mut self, who: Claimant) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.who != who);
        self.waiting.len() < before
    }
}

/// Grants what is free to the first in the line, in order and to at most `most` of them: a request for more than is
/// free is not overtaken. Gives those that were granted.
pub(super) fn advance(holders: &mut Holders, line: &mut Line, most: usize) -> Vec<Waiting> {
    let mut granted = Vec::new();
    let mut token = None;
    while granted.len() < most
        && let Some(first) = line.waiting.first()
        && u64::from(first.take) <= holders.free()
    {
        let first = line.waiting.remove(0);
        let token = *token.get_or_insert_with(|| {
            holders.grants += 1;
            holders.grants
        });
        holders.held.push(Held { who: first.who, take: first.take, token, label: first.label.clone() });
        granted.push(first);
    }
    granted
}

/// Removes all entries of a session. `false`: it had none.
pub(super) fn evict(holders: &mut Holders, line: &mut Line, session: SessionId) -> bool {
    let before = holders.held.len() + line.waiting.len();
    holders.held.retain(|held| held.who.session() != session);
    line.waiting.retain(|waiting| waiting.who.session() != session);
    holders.held.len() + line.waiting.len() < before
}

/// How many sessions ahead of it a waiter observes, besides those of the holders. If more of them die at once, the rest
/// is noticed only after these were removed.
pub(super) const OBSERVED: usize = 256;

/// The sessions that a waiter observes: the holders and the nearest ones ahead of it. Its own session is alive.
pub(super) fn observed(holders: &Holders, line: &Line, who: Claimant) -> Vec<SessionId> {
    let mut known = HashSet::from([who.session()]);
    let position = line.position(who).unwrap_or(line.waiting.len());
    let waiting = line.waiting[..position].iter().rev().map(|waiting| waiting.who.session());
    let mut ahead: Vec<SessionId> = waiting.filter(|session| known.insert(*session)).take(OBSERVED).collect();
    // A session further ahead may be a holder too.
    known = ahead.iter().copied().chain([who.session()]).collect();
    ahead.extend(holders.held.iter().map(|held| held.who.session()).filter(|session| known.insert(*session)));
    ahead
}

/// The dead sessions that this waiter has to remove: those between it and the next live one ahead of it, and the
/// holders if there is no live one. So exactly one waiter removes each dead session.
pub(super) fn responsible(holders: &Holders, line: &Line, who: Claimant, dead: &[SessionId]) -> Vec<SessionId> {
    let mut mine = Vec::new();
    let position = line.position(who).unwrap_or(line.waiting.len());
    for waiting in line.waiting[..position].iter().rev() {
        let session = waiting.who.session();
        if !dead.contains(&session) {
            return mine;
        }
        if !mine.contains(&session) {
            mine.push(session);
        }
    }
    for held in &holders.held {
        let session = held.who.session();
        if dead.contains(&session) && !mine.contains(&session) {
            mine.push(session);
        }
    }
    mine
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
