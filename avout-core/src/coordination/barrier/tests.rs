use super::*;
use crate::coordination::rules::Waiting;
use crate::protocol::SessionId;

fn claimant(number: u128) -> Claimant {
    Claimant::new(SessionId::new(number), 1)
}

/// A barrier that waits for this round, with so many that were taken for dead in the one before.
fn arrived(round: u64, evicted: u128) -> Arrived {
    let evicted = (0..evicted).map(|number| Evicted { who: claimant(number), round: round - 1 }).collect();
    Arrived { parties: 3, round, line: Line::default(), evicted }
}

/// A party whose session is there has passed a round that is complete, however many were taken for dead in it.
#[test]
fn the_living_pass_whoever_died() {
    let here = arrived(6, EVICTED as u128);
    let place = |who, lives| Place::of(Some(&here), 5, 5, claimant(who), lives);
    assert_eq!(place(100, true), Place::Passed);
    assert_eq!(place(1, false), Place::Evicted);
    assert_eq!(place(100, false), Place::Forgotten, "it may have been the first of so many");
    assert_eq!(Place::of(Some(&arrived(6, 31)), 5, 5, claimant(100), false), Place::Passed, "all are remembered");
    assert_eq!(
        Place::of(Some(&arrived(5, 32)), 5, 5, claimant(100), false),
        Place::Passed,
        "those of an earlier round"
    );
}

/// Nobody passes a round that was not complete: not a party that was taken for dead before the barrier was destroyed either.
#[test]
fn nobody_passes_a_round_of_a_destroyed_barrier() {
    assert_eq!(Place::of(None, 4, 5, claimant(1), false), Place::Evicted);
    assert_eq!(Place::of(Some(&arrived(5, 0)), 4, 5, claimant(1), false), Place::Evicted, "it was made anew");
    assert_eq!(Place::of(None, 5, 5, claimant(1), false), Place::Forgotten);
    assert_eq!(Place::of(None, 5, 5, claimant(1), true), Place::Passed);
}

/// A party waits until the round is complete.
#[test]
fn a_party_waits_for_the_others() {
    let mut here = arrived(5, 0);
    here.line.waiting.push(Waiting { who: claimant(1), take: 0, seat: 0, label: String::new() });
    assert_eq!(Place::of(Some(&here), 4, 5, claimant(1), true), Place::Waits);
    assert_eq!(Place::of(Some(&here), 4, 5, claimant(2), false), Place::Evicted);
}
