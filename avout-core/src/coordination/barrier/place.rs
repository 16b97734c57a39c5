//! Where the parties of a barrier stand: plain data, no await and no clock.

use serde::{Deserialize, Serialize};

use crate::coordination::rules::{Claimant, Line};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arrived {
    pub(super) parties: u32,
    /// The round that the parties wait for.
    pub(super) round: u64,
    pub(super) line: Line,
    /// The parties that were removed because they were taken for dead, the latest last: they may come back and ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) evicted: Vec<Evicted>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Evicted {
    #[serde(rename = "w")]
    pub(super) who: Claimant,
    /// The round that the party had arrived in.
    #[serde(rename = "r")]
    pub(super) round: u64,
}

/// How many parties that were taken for dead are remembered: they rarely come back.
pub(super) const EVICTED: usize = 32;

/// The state of a party that had arrived in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Waits,
    /// The round is complete with it.
    Passed,
    /// It was taken for dead before the round was complete.
    Evicted,
    /// The round is complete, and the party's session has ended. It may have been taken for dead before that; this was
    /// not kept.
    Forgotten,
}

impl Place {
    /// Decides by what is stored. `lives`: the party's session has a record. A client that removes a party ends its
    /// session in the same commit.
    pub(super) fn of(here: Option<&Arrived>, passed: u64, round: u64, who: Claimant, lives: bool) -> Self {
        let is_evicted = |here: &Arrived| here.evicted.iter().any(|evicted| evicted.who == who);
        if here.is_some_and(is_evicted) {
            return Self::Evicted;
        }
        if passed < round {
            let waits = here.is_some_and(|here| here.line.position(who).is_some());
            return if waits { Self::Waits } else { Self::Evicted };
        }
        let is_told = |here: &Arrived| {
            let first = here.evicted.first();
            here.evicted.len() < EVICTED || first.is_none_or(|first| first.round < round)
        };
        if lives || here.is_some_and(is_told) { Self::Passed } else { Self::Forgotten }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
