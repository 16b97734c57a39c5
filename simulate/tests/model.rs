//! A model of the commit protocol, with every interleaving explored. See `docs/model.md`.

#[path = "model/checks.rs"]
mod checks;
#[path = "model/client.rs"]
mod client;
#[path = "model/coordinator.rs"]
mod coordinator;
#[path = "model/setup.rs"]
mod setup;
#[path = "model/state.rs"]
mod state;
#[path = "model/sweeper.rs"]
mod sweeper;

use std::collections::BTreeSet;
use std::time::Instant;

use checks::*;
use setup::{FloorCheck, Setup};
use state::State;
use stateright::{Checker, HasDiscoveries, Model};

/// Explores all states: nothing that must hold is broken, and all of `seen` occurs.
fn holds(setup: Setup, seen: &[&'static str]) {
    let begun = Instant::now();
    let checker = setup.checker().threads(2).spawn_bfs().join();
    println!("{} states, depth {}, {:.1?}", checker.unique_state_count(), checker.max_depth(), begun.elapsed());
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        match property.expectation {
            stateright::Expectation::Always => {
                assert!(found.is_none(), "{}: {}", property.name, lines(found.expect("it was found").clone()));
            }
            _ => assert!(found.is_some() || !seen.contains(&property.name), "never: {}", property.name),
        }
    }
}

/// Finds a shortest way to break `property`.
fn breaks(setup: Setup, property: &'static str) {
    let begun = Instant::now();
    let path = (2..60).find_map(|depth| {
        let first = HasDiscoveries::AllOf(BTreeSet::from([property]));
        let checker = setup.clone().checker().target_max_depth(depth).finish_when(first).spawn_bfs().join();
        checker.discovery(property)
    });
    let path = path.unwrap_or_else(|| panic!("not found to be broken: {property}"));
    println!("broken in {:.1?}: {property}{}", begun.elapsed(), lines(path));
}

fn lines(path: stateright::Path<State, Action>) -> String {
    let (last, actions) = (path.last_state().clone(), path.into_actions());
    let steps: String = actions.iter().map(|action| format!("\n    {action:?}")).collect();
    let State { refs, effects, verdicts, .. } = last;
    format!(", {} steps{steps}\n  refs {refs:?}\n  effects {effects:?}\n  reports {verdicts:?}", actions.len())
}

#[test]
fn holds_with_sweeps() {
    holds(Setup::swept(), &[BOTH_COMMIT, CONFLICT, FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT]);
}

#[test]
fn holds_plain() {
    holds(Setup::plain(), &[BOTH_COMMIT, CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND]);
}

#[test]
fn holds_with_reads_apart() {
    holds(Setup::reads_apart(), &[BOTH_COMMIT, CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND]);
}

#[test]
fn holds_with_crashes() {
    holds(Setup::crashed(), &[BOTH_COMMIT, CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, LATE]);
}

#[test]
fn holds_with_crashes_and_sweeps() {
    let setup = Setup { attempts: 1, stored: true, sweeps: 1, ..Setup::crashed() };
    holds(setup, &[BOTH_COMMIT, CONFLICT, FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT, LATE]);
}

#[test]
fn holds_where_revisions_come_again() {
    holds(Setup::made_again(), &[CONFLICT, FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT, MADE_AGAIN]);
}

#[test]
fn holds_where_slots_are_retired() {
    holds(Setup::retired(), &[BOTH_COMMIT, CONFLICT, FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT, UNKNOWN]);
}

#[test]
fn holds_where_slots_are_retired_and_revisions_come_again() {
    holds(Setup::retired_and_used_on(), &[FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT, UNKNOWN]);
}

#[test]
fn finds_a_slot_used_under_a_later_epoch() {
    breaks(Setup::retired_and_used_on().with(|rules| rules.slot_serves_one_epoch = false), TRUE_REPORTS);
}

#[test]
fn holds_where_requests_are_sent_again() {
    let setup = Setup { sent_again: true, ..Setup::plain() };
    holds(setup.with(|rules| rules.own_slot_decides = true), &[BOTH_COMMIT, CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND]);
}

#[test]
fn holds_with_two_sweeps() {
    holds(Setup::swept_twice(), &[FLOOR_CONFLICT, FENCE_WINS, FENCE_LOSES, FOUND, SWEPT, UNKNOWN, MADE_AGAIN]);
}

#[test]
fn finds_a_sweep_that_looked_before_another_removed() {
    breaks(Setup::swept_twice().with(|rules| rules.raise_checks_turn = false), SERIAL);
}

#[test]
fn finds_a_missing_fence() {
    breaks(Setup::plain().with(|rules| rules.fence = false), TRUE_REPORTS);
}

#[test]
fn finds_a_slot_outside_the_commit() {
    breaks(Setup::plain().with(|rules| rules.slot_in_commit = false), TRUE_REPORTS);
}

#[test]
fn finds_dropped_checks() {
    breaks(Setup::plain().with(|rules| rules.read_checks = false), SERIAL);
}

#[test]
fn finds_reads_that_are_not_extended() {
    breaks(Setup::reads_apart().with(|rules| rules.extend = false), OPAQUE);
}

#[test]
fn finds_a_missing_floor_check() {
    breaks(Setup::swept().with(|rules| rules.floor_check = FloorCheck::Never), READABLE);
}

#[test]
fn finds_a_sweep_without_raising_the_floor() {
    breaks(Setup::swept().with(|rules| rules.raise = false), READABLE);
}

#[test]
fn finds_a_revision_that_comes_again() {
    breaks(Setup::made_again().with(|rules| rules.floor_check = FloorCheck::Never), SERIAL);
}

#[test]
fn finds_tombstones_seen_after_the_floor_was_raised() {
    breaks(Setup::made_again().with(|rules| rules.look_first = false), SERIAL);
}

#[test]
fn finds_what_was_read_taken_over_a_raised_floor() {
    breaks(Setup::made_again().with(|rules| rules.read_again = false), SERIAL);
}

#[test]
fn finds_slots_seen_after_the_floor_was_raised() {
    breaks(Setup::retired().with(|rules| rules.look_first = false), TRUE_REPORTS);
}

#[test]
fn finds_inline_commits_that_do_not_check_the_floor() {
    breaks(Setup::retired().with(|rules| rules.floor_check = FloorCheck::WhereNeeded), TRUE_REPORTS);
}

#[test]
fn finds_a_request_that_was_sent_again() {
    breaks(Setup { sent_again: true, ..Setup::plain() }, TRUE_REPORTS);
}

#[test]
fn finds_a_removal_that_takes_effect_twice() {
    breaks(Setup::made_again().with(|rules| rules.removal_takes_turn = false), SERIAL);
}
