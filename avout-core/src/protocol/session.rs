use serde::{Deserialize, Serialize};

use super::{Key, SessionId};

/// The heartbeat record of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// Grows while the session is in use.
    pub(crate) beat: u64,
    /// How long the session lives without a change of the record, in milliseconds.
    pub(crate) ttl: u64,
    /// The numbers of its waiters' seats are smaller than this. Records of older versions do not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) seats: u32,
}

fn is_zero(seats: &u32) -> bool {
    *seats == 0
}

/// What a key under `/.avout/sessions` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKey {
    Heartbeat(SessionId),
    Seat(SessionId),
}

impl Heartbeat {
    /// The type tag of the record.
    pub(crate) const TAG: &str = "session";

    /// Where a session has its record.
    pub(crate) fn key(session: SessionId) -> Key {
        Key::reserved(&format!("sessions/{session}"))
    }

    /// A key that one waiter of a session watches: whoever grants it what it waits for writes there.
    pub(crate) fn seat(session: SessionId, number: u32) -> Key {
        Key::reserved(&format!("sessions/{session}/seats/{number}"))
    }
}

impl SessionKey {
    /// `None`: it is something else.
    pub(crate) fn of(key: &Key) -> Option<Self> {
        let mut parts = key.as_str().strip_prefix("/.avout/sessions/")?.split('/');
        let session = parts.next()?.parse().ok()?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(Self::Heartbeat(session)),
            (Some("seats"), Some(_), None) => Some(Self::Seat(session)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of sessions are told from each other and from all others.
    #[test]
    fn keys_of_sessions_are_told_apart() {
        let session = SessionId::new(7);
        assert_eq!(SessionKey::of(&Heartbeat::key(session)), Some(SessionKey::Heartbeat(session)));
        assert_eq!(SessionKey::of(&Heartbeat::seat(session, 3)), Some(SessionKey::Seat(session)));
        for other in ["/.avout/floor", "/.avout/sessions/7", "/.avout/sessions", "/.avout/locks/held/sessions"] {
            let other = Key::from_stored(other).expect("a key");
            assert_eq!(SessionKey::of(&other), None, "{other}");
        }
    }

    /// A record that says nothing of seats is read: older versions wrote such.
    #[test]
    fn a_record_without_seats_is_read() {
        let old = rmp_serde::from_slice::<Heartbeat>(b"\x82\xa4beat\x05\xa3ttl\x14").expect("an old record");
        assert_eq!(old, Heartbeat { beat: 5, ttl: 20, seats: 0 });
    }
}
