//! The eras of a namespace, as the znode `era` tells of them.

use std::fmt::Write as _;

use avout_core::backend::history::{Era, Survived};
use avout_core::{Error, ErrorKind, Result};

/// How many eras that are over are remembered. A client that slept through more is told that all of its own may be gone.
const REMEMBERED: usize = 128;

/// The most sessions that one run of a server that stands alone is taken to make within an era.
///
/// Such a server numbers its sessions one by one, from the millisecond of its start times 65,536 on. So two sessions whose numbers
/// are this close were made by one run, unless two runs began in the same millisecond of their machines' uptimes.
const SESSIONS: i64 = 1 << 16;

/// Under what an era was begun. As long as it is the same, no older copy of the data can have been put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Began {
    /// The leader's: each election makes a greater one than any that is in the servers' data. Always the same for a server that
    /// stands alone.
    pub(crate) epoch: i64,
    /// The session that began it, which tells one run of a server that stands alone from another.
    pub(crate) session: i64,
}

impl Began {
    /// Whether the history has surely gone on from there to `now`.
    pub(crate) fn goes_on(self, now: Self, ensemble: bool) -> bool {
        self.epoch == now.epoch && (ensemble || self.session.abs_diff(now.session) < SESSIONS.unsigned_abs())
    }
}

/// The current era, and where those before it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eras {
    pub(crate) current: Era,
    pub(crate) began: Began,
    /// Each with the clock at its end, the latest last.
    ended: Vec<(Era, u64)>,
}

impl Eras {
    /// The first era of a namespace.
    pub(crate) fn first(began: Began) -> Self {
        Self { current: Era::begin(1), began, ended: Vec::new() }
    }

    /// The same with a new era, which ends the current one at `clock`.
    pub(crate) fn next(&self, began: Began, clock: u64) -> Self {
        let mut ended = self.ended.clone();
        ended.push((self.current, clock));
        ended.drain(..ended.len().saturating_sub(REMEMBERED));
        Self { current: Era::begin(self.current.number.wrapping_add(1).max(1)), began, ended }
    }

    /// How much of `era` is a part of this history; `None`: it is the current one, or none at all.
    pub(crate) fn survived(&self, era: Era) -> Option<Survived> {
        if era == self.current || era == Era::default() {
            return None;
        }
        let ended = self.ended.iter().rev().find(|(ended, _)| *ended == era);
        Some(ended.map_or(Survived::Nothing, |(_, clock)| Survived::UpTo(*clock)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Began { epoch, session } = self.began;
        let mut text = format!("{} {epoch:x} {:x}\n", name(self.current), session.cast_unsigned());
        for (era, clock) in &self.ended {
            writeln!(text, "{} {clock:x}", name(*era)).expect("a String takes all that is written");
        }
        text.into_bytes()
    }

    /// `None`: there was no era yet.
    pub(crate) fn decode(data: &[u8]) -> Result<Option<Self>> {
        if data.is_empty() {
            return Ok(None);
        }
        let eras = str::from_utf8(data).ok().and_then(Self::read);
        let corrupt = || Error::new(ErrorKind::Corrupt, "the znode era of the namespace is not as avout made it");
        eras.map(Some).ok_or_else(corrupt)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        let current = parse(words.next()?)?;
        let epoch = i64::from_str_radix(words.next()?, 16).ok()?;
        let session = u64::from_str_radix(words.next()?, 16).ok()?.cast_signed();
        let ended = lines.map(|line| {
            let (era, clock) = line.split_once(' ')?;
            Some((parse(era)?, u64::from_str_radix(clock, 16).ok()?))
        });
        Some(Self { current, began: Began { epoch, session }, ended: ended.collect::<Option<_>>()? })
    }
}

/// The name of the znode that is there as long as the era lasts.
pub(super) fn name(era: Era) -> String {
    format!("{}-{:016x}", era.number, u64::from_be_bytes(era.id))
}

fn parse(name: &str) -> Option<Era> {
    let (number, id) = name.split_once('-')?;
    let id = u64::from_str_radix(id, 16).ok()?;
    Some(Era { number: number.parse().ok()?, id: id.to_be_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Began = Began { epoch: 3, session: 0x0100_0000_0007_0001 };

    /// Eras come back from their text, and tell of each era before them where it ended; other texts are corrupt.
    #[test]
    fn eras_come_back() {
        let mut eras = Eras::first(BEGAN);
        let first = eras.current;
        let mut earlier = Vec::new();
        for clock in 0..200 {
            earlier.push((eras.current, clock));
            eras = eras.next(Began { session: -5, ..BEGAN }, clock);
            assert_eq!(Eras::decode(&eras.encode()).expect("its own"), Some(eras.clone()));
        }
        let (last, clock) = earlier[199];
        assert_eq!(eras.survived(last), Some(Survived::UpTo(clock)));
        assert_eq!(eras.survived(first), Some(Survived::Nothing));
        assert_eq!((eras.survived(eras.current), eras.survived(Era::default())), (None, None));
        assert!(eras.encode().len() < 8 * 1024);
        assert_eq!(Eras::decode(b"").expect("none yet"), None);
        for text in ["x", "1-5", "1-5 0", "1-5 0 z", "1-5 0 7\nx"] {
            assert_eq!(Eras::decode(text.as_bytes()).expect_err(text).kind(), ErrorKind::Corrupt, "{text}");
        }
    }

    /// An ensemble's history goes on as long as its epoch lasts, that of a server that stands alone as long as it runs.
    #[test]
    fn what_goes_on_is_told() {
        let later = Began { session: BEGAN.session + 300, ..BEGAN };
        let restarted = Began { session: BEGAN.session + (5 << 16), ..BEGAN };
        let elected = Began { epoch: 4, ..BEGAN };
        for (now, ensemble, goes_on) in [
            (BEGAN, false, true),
            (later, false, true),
            (restarted, false, false),
            (restarted, true, true),
            (elected, true, false),
            (elected, false, false),
        ] {
            assert_eq!(BEGAN.goes_on(now, ensemble), goes_on, "{now:?} {ensemble}");
        }
    }
}
