use proptest::prelude::*;

use super::*;

fn session(number: u128) -> SessionId {
    SessionId::new(number)
}

fn claimant(number: u128, ticket: u64) -> Claimant {
    Claimant::new(session(number), ticket)
}

fn waiting(who: Claimant, take: u32) -> Waiting {
    Waiting { who, take, seat: 0, label: String::new() }
}

fn line(of: &[(u128, u32)]) -> Line {
    let enter = |(ticket, &(number, take)): (usize, &(u128, u32))| waiting(claimant(number, ticket as u64), take);
    Line { waiting: of.iter().enumerate().map(enter).collect() }
}

/// Requests are granted in the order in which they came, and a large one is not overtaken.
#[test]
fn grants_in_order() {
    let mut holders = Holders::none(3);
    let mut waits = line(&[(1, 1), (2, 1), (3, 3), (4, 1)]);
    let granted = advance(&mut holders, &mut waits, 16);
    assert_eq!(granted.iter().map(|waiting| waiting.who.ticket).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(holders.held.iter().map(|held| held.token).collect::<Vec<_>>(), [1, 1]);
    assert!(holders.remove(claimant(1, 0)) && !holders.remove(claimant(1, 0)));
    assert!(advance(&mut holders, &mut waits, 16).is_empty(), "three are asked for and two are free");
    assert!(holders.remove(claimant(2, 1)));
    assert_eq!(advance(&mut holders, &mut waits, 16).len(), 1);
    assert_eq!((holders.grants, holders.free(), waits.waiting.len()), (2, 0, 1));
}

/// No more is granted at once than a commit has room for; the rest stays first in the line.
#[test]
fn grants_no_more_than_fit_into_a_commit() {
    let mut holders = Holders::none(u32::MAX);
    let mut waits = line(&[(1, 1), (2, 1), (3, 1)]);
    assert_eq!(advance(&mut holders, &mut waits, 2).len(), 2);
    assert_eq!(waits.waiting[0].who.session(), session(3));
}

/// Exactly one live waiter has to remove each dead session, and the first has to remove the holders too.
#[test]
fn each_dead_session_is_one_waiters_business() {
    let mut holders = Holders::none(1);
    let mut waits = line(&[(9, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
    advance(&mut holders, &mut waits, 1);
    let dead = [session(9), session(1), session(3)];
    let of = |number: u128| {
        let who = waits.waiting.iter().find(|waiting| waiting.who.session() == session(number)).expect("waits").who;
        responsible(&holders, &waits, who, &dead)
    };
    assert_eq!(of(2), [session(1), session(9)]);
    assert_eq!(of(4), [session(3)]);
    let new = claimant(5, 50);
    assert_eq!(responsible(&holders, &waits, new, &dead), []);
    assert_eq!(observed(&holders, &waits, new), [4, 3, 2, 1, 9].map(session));
}

/// A waiter observes the sessions ahead of it, each once and the nearest first, up to a number, and also the holders.
#[test]
fn a_waiter_observes_a_crowd() {
    let mut holders = Holders::none(1);
    let ahead: Vec<(u128, u32)> = (0..300).flat_map(|number| [(number, 1), (number, 1)]).collect();
    let mut waits = line(&ahead);
    advance(&mut holders, &mut waits, 1);
    let seen = observed(&holders, &waits, claimant(1000, 1));
    let expected: Vec<SessionId> = (44..300).rev().chain([0]).map(session).collect();
    assert_eq!(seen, expected);
}

proptest! {
    /// Never is more held than the limit, no grant number is used again in a later commit, and a removed session has no
    /// entry left.
    #[test]
    fn keeps_the_limit(limit in 1_u32..5, steps in prop::collection::vec((0_u8..4, 0_u128..4, 1_u32..5), 0..60)) {
        let (mut holders, mut waits, mut ticket) = (Holders::none(limit), Line::default(), 0);
        for (step, number, take) in steps {
            let before = holders.clone();
            match step {
                0 | 1 => {
                    ticket += 1;
                    waits.waiting.push(waiting(claimant(number, ticket), take.min(limit)));
                }
                2 => {
                    let first = holders.held.first().map(|held| held.who);
                    first.map(|who| holders.remove(who));
                }
                _ => {
                    evict(&mut holders, &mut waits, session(number));
                    let has = holders.held.iter().map(|held| held.who).chain(waits.waiting.iter().map(|w| w.who));
                    prop_assert!(has.into_iter().all(|who| who.session() != session(number)));
                }
            }
            let granted = advance(&mut holders, &mut waits, 16);
            let taken: u32 = holders.held.iter().map(|held| held.take).sum();
            prop_assert!(taken <= limit);
            prop_assert_eq!(holders.grants > before.grants, !granted.is_empty());
            for granted in granted {
                prop_assert!(holders.of(granted.who).is_some_and(|held| held.token > before.grants));
            }
            prop_assert!(waits.waiting.first().is_none_or(|first| u64::from(first.take) > holders.free()));
        }
    }
}
