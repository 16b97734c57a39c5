use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ring::Out;
use super::rules::Claimant;
use crate::protocol::{Key, SessionId};

/// This client's observations of values that are out, by its own clock. They belong to the client rather than a handle,
/// so that a queue that is opened anew for each look goes on counting.
#[derive(Default)]
pub(super) struct Sights(Mutex<HashMap<Key, OfQueue>>);

struct OfQueue {
    looked: Instant,
    /// By claimant: each delivery has its own.
    out: HashMap<Claimant, Sight>,
}

struct Sight {
    /// When it was first seen.
    since: Instant,
    /// The last look found its claimant dead.
    dead: bool,
}

/// At most this many queues are remembered, the latest looked at.
const REMEMBERED: usize = 1024;

impl Sights {
    /// Takes in which values of a queue are out, and which of their claimants are dead. Gives the claimants whose
    /// values are due for redelivery, and when the next one will be.
    pub(super) fn look(&self, queue: &Key, out: &[Out], dead: &[SessionId]) -> (Vec<Claimant>, Option<Instant>) {
        let now = Instant::now();
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() {
            queues.remove(queue);
            return (Vec::new(), None);
        }
        if queues.len() >= REMEMBERED && !queues.contains_key(queue) {
            let mut looks: Vec<Instant> = queues.values().map(|of| of.looked).collect();
            looks.sort_unstable();
            let oldest = looks[looks.len() / 2];
            queues.retain(|_, of| of.looked > oldest);
        }
        let of = queues.entry(queue.clone()).or_insert_with(|| OfQueue { looked: now, out: HashMap::new() });
        of.looked = now;
        let mut seen = HashMap::with_capacity(out.len());
        let (mut overdue, mut next) = (Vec::new(), None);
        for out in out {
            let mut sight = of.out.remove(&out.who).unwrap_or(Sight { since: now, dead: false });
            sight.dead = dead.contains(&out.who.session());
            match sight.until(out) {
                _ if sight.dead => overdue.push(out.who),
                Some(until) if until <= now => overdue.push(out.who),
                Some(until) => next = Some(next.map_or(until, |next: Instant| next.min(until))),
                None => {}
            }
            seen.insert(out.who, sight);
        }
        of.out = seen;
        (overdue, next)
    }

    /// Whether a value that is out is due for redelivery, as far as was seen.
    pub(super) fn is_overdue(&self, queue: &Key, out: &Out) -> bool {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sight = queues.get(queue).and_then(|of| of.out.get(&out.who));
        sight.is_some_and(|sight| sight.dead || sight.until(out).is_some_and(|until| until <= Instant::now()))
    }
}

impl Sight {
    /// When the value is due; `None`: later than clocks count.
    fn until(&self, out: &Out) -> Option<Instant> {
        self.since.checked_add(Duration::from_millis(out.hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(session: u128, ticket: u64, hidden: u64) -> Out {
        Out { number: ticket, who: Claimant::new(SessionId::new(session), ticket), times: 1, hidden }
    }

    /// A value is due when it was seen to be out for as long as it is hidden, through whatever handles it was looked
    /// at; when its claimant is dead; and at once when it was given back.
    #[tokio::test(start_paused = true)]
    async fn counts_from_the_first_look() {
        let (sights, key) = (Sights::default(), Key::new("/q").expect("a key"));
        let outs = [out(1, 1, 500), out(2, 2, u64::MAX)];
        let begun = Instant::now();
        assert_eq!(
            sights.look(&key, &outs, &[]),
            (vec![], Some(begun + Duration::from_millis(500))),
            "when to look again"
        );
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(sights.look(&key, &outs, &[]).0, []);
        assert!(!sights.is_overdue(&key, &outs[0]));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(sights.is_overdue(&key, &outs[0]));
        assert_eq!(sights.look(&key, &outs, &[]).0, [outs[0].who]);
        assert_eq!(sights.look(&key, &outs[1..], &[SessionId::new(2)]).0, [outs[1].who], "its holder is dead");
        let again = [out(3, 3, 500), out(3, 4, 0)];
        assert_eq!(sights.look(&key, &again, &[]).0, [again[1].who], "it was handed out anew, and given back");
        assert_eq!(sights.look(&key, &[], &[]), (vec![], None));
    }
}
