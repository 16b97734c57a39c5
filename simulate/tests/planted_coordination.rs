//! The schedules of coordination find mistakes: each of these is planted, and found in time.

use avout_core::Bug;
use avout_simulate::{Failure, Simulation, coordination, coordination_of};

/// Within how many schedules a mistake must be found. One in ten has what it takes to show most of them.
const SCHEDULES: u64 = 5_000;

fn simulation(bug: Bug, kind: &str) -> Simulation {
    Simulation::new(SCHEDULES).threads(2).configure(move |stm| stm.planted(bug)).only(kind)
}

/// Looks for a mistake that all clients make, which must be told as this.
fn found(bug: Bug, kind: &str) {
    tell(simulation(bug, kind).find(coordination), kind);
}

/// The same in schedules of nothing but this primitive.
fn found_in(primitive: &'static str, bug: Bug, kind: &str) {
    tell(simulation(bug, kind).find(move |world| coordination_of(world, primitive)), kind);
}

fn tell(found: Option<Failure>, kind: &str) {
    let found = found.unwrap_or_else(|| panic!("it was not found as {kind}"));
    let Failure { seed, message, shortest, story } = found;
    println!("schedule {seed}: {message}");
    println!("the shortest, in {} lines: {shortest}\n{}", story.len(), story.join("\n"));
    assert!(shortest.starts_with(kind), "{shortest}");
}

#[test]
fn lock_for_all() {
    found(Bug::LockForAll, "exclusion: ");
}

#[test]
fn the_living_taken_for_dead() {
    found(Bug::LivingTakenForDead, "exclusion: ");
}

#[test]
fn last_come_first_served() {
    found(Bug::LastFirst, "order: request");
}

#[test]
fn tokens_that_do_not_grow() {
    found(Bug::TokensStand, "token: ");
}

#[test]
fn tokens_that_begin_again() {
    found(Bug::TokensBeginAgain, "token: ");
}

#[test]
fn writes_under_a_lost_guard() {
    found(Bug::RequireIgnored, "stale: ");
}

#[test]
fn the_dead_keep_what_they_have() {
    found(Bug::DeadStay, "stuck: ");
}

#[test]
fn a_guard_that_is_dropped_is_kept() {
    found(Bug::DropKeeps, "stuck: ");
}

#[test]
fn a_loss_that_nobody_is_told_of() {
    found(Bug::LossUnnoticed, "stuck: ");
}

#[test]
fn a_request_that_ends_with_its_session() {
    found(Bug::RequestLostWithSession, "unexpected error: asks");
}

#[test]
fn a_notification_that_wakes_nobody() {
    found(Bug::NotifiedStay, "condition: ");
}

#[test]
fn a_wait_without_its_end_in_time() {
    found(Bug::WaitEndless, "stuck: ");
}

#[test]
fn a_barrier_that_opens_early() {
    found(Bug::BarrierEarly, "barrier: ");
}

#[test]
fn what_is_done_once_is_forgotten() {
    found(Bug::OnceForgotten, "once: ");
}

/// What one client adds at the same time is committed as one, and counted twice.
#[test]
fn a_sum_with_additions_made_twice() {
    found(Bug::MergedTwice, "sum: ");
}

/// A commit whose reply was lost is made again.
#[test]
fn a_latch_counted_down_twice() {
    found_in("latch", Bug::FenceSkipped, "latch: ");
}

#[test]
fn a_lock_for_writers_that_all_have() {
    found_in("rw_lock", Bug::LockForAll, "exclusion: ");
}

#[test]
fn more_permits_than_there_are() {
    found_in("semaphore", Bug::LockForAll, "exclusion: ");
}

#[test]
fn two_leaders_at_a_time() {
    found_in("election", Bug::LivingTakenForDead, "exclusion: ");
}

/// A commit whose reply was lost is made again.
#[test]
fn a_value_pushed_twice() {
    found(Bug::FenceSkipped, "queue: ");
}
