use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::{Entry, Holder, Key, Reservation, Revision};

/// The longest that anybody waits for a reservation, whatever its lease says.
pub(super) const LONGEST_LEASE: Duration = Duration::from_secs(10);

/// From this many on those that are over are forgotten.
const MANY: usize = 1024;

/// The reservations of others that this client has come to, each with the time at which it is over by this client's clock. So
/// one is waited for once, by all transactions of the client together.
#[derive(Default)]
pub(in crate::engine) struct Leases(Mutex<HashMap<Key, Lease>>);

struct Lease {
    revision: Revision,
    until: Instant,
}

impl Leases {
    /// Until when `holder` has to wait for another's reservation of this record; `None`: there is none, or it is over.
    pub(in crate::engine) fn until(&self, key: &Key, entry: &Entry, holder: Option<Holder>) -> Option<Instant> {
        let reservation = entry.record.reservation.as_ref().filter(|reservation| Some(reservation.holder) != holder)?;
        let now = Instant::now();
        let until = match reservation.lease.is_zero() {
            true => now,
            false => self.first_seen(key, &entry.revision, reservation, now),
        };
        (until > now).then_some(until)
    }

    fn first_seen(&self, key: &Key, revision: &Revision, reservation: &Reservation, now: Instant) -> Instant {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get(key).filter(|lease| lease.revision == *revision) {
            return lease.until;
        }
        if leases.len() >= MANY {
            leases.retain(|_, lease| lease.until > now);
        }
        let until = now + reservation.lease.min(LONGEST_LEASE);
        leases.insert(key.clone(), Lease { revision: revision.clone(), until });
        until
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::{ClientId, Floor, Point};

    const LEASE: Duration = Duration::from_millis(500);

    fn holder(number: u64) -> Holder {
        Holder { client: ClientId::new(1), number }
    }

    fn reserved(revision: u128, lease: Duration) -> Entry {
        let record = Floor { epoch: 0 }.to_record().reserved(Point::new(1), holder(7), lease);
        Entry { revision: Revision::number(revision), point: Point::new(2), record: Arc::new(record) }
    }

    fn key(n: usize) -> Key {
        Key::new(format!("/{n}")).expect("a key")
    }

    /// A reservation is over a lease after it was first seen, whoever comes to it then; another one counts anew, and nobody
    /// waits for their own, nor for one that was ended.
    #[tokio::test(start_paused = true)]
    async fn each_reservation_is_waited_for_once() {
        let leases = Leases::default();
        let entry = reserved(1, LEASE);
        assert!(leases.until(&key(0), &entry, Some(holder(7))).is_none(), "its own");
        let until = leases.until(&key(0), &entry, None).expect("it was just seen");
        assert_eq!(until, Instant::now() + LEASE);
        tokio::time::advance(LEASE / 2).await;
        assert_eq!(leases.until(&key(0), &entry, Some(holder(8))), Some(until));
        tokio::time::advance(LEASE).await;
        assert!(leases.until(&key(0), &entry, None).is_none(), "it was waited for");
        assert!(leases.until(&key(0), &reserved(2, LEASE), None).is_some(), "another one");
        assert!(leases.until(&key(1), &reserved(3, Duration::ZERO), None).is_none(), "one that was ended");
        let endless = leases.until(&key(2), &reserved(4, Duration::MAX), None);
        assert_eq!(endless, Some(Instant::now() + LONGEST_LEASE));
    }

    /// What is remembered of reservations that are over is bounded.
    #[tokio::test(start_paused = true)]
    async fn those_that_are_over_are_forgotten() {
        let leases = Leases::default();
        for n in 0..3 * MANY {
            assert!(leases.until(&key(n), &reserved(n as u128, LEASE), None).is_some());
            tokio::time::advance(LEASE).await;
        }
        let count = leases.0.lock().expect("no panic under the lock").len();
        assert!(count <= MANY, "{count} are remembered");
    }
}
