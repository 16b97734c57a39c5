//! The ten promises that a store can break, and the laws that see it.

use std::collections::BTreeSet;

use avout_conformance::Verdict;

use crate::broken::Fault;
use crate::prove::{assert_broken, run, run_all};

/// A promise, what breaks it, and who sees that.
struct Promise {
    name: &'static str,
    broken: Fault,
    /// Each law, and why it sees it.
    seen_by: &'static [(&'static str, &'static str)],
}

const PROMISES: &[Promise] = &[
    Promise {
        name: "lost write: each second commit is acknowledged and not made",
        broken: Fault::LostWrite,
        seen_by: &[
            ("coordinator::an_acknowledged_commit_is_read_by_all", "it reads each key back after its commit"),
            ("coordinator::no_increment_is_lost", "it compares the count with the number of acknowledged increments"),
            ("stm::hello", "it reads what its transaction has written"),
            ("stm::counters_lose_nothing", "it compares the count with the number of transactions that returned"),
        ],
    },
    Promise {
        name: "stale read: each second read of the same keys gives what the client has read before",
        broken: Fault::StaleRead,
        seen_by: &[
            ("coordinator::an_acknowledged_commit_is_read_by_all", "it reads the same key again after each commit"),
            ("state_container::what_is_set_is_read_by_all", "it reads the state again after each set"),
            (
                "stm::reads_see_what_was_committed_before",
                "each of its transactions begins after another client's commit returned",
            ),
        ],
    },
    Promise {
        name: "unchecked read set: a commit compares what it writes, and not what was only read",
        broken: Fault::ChecksIgnored,
        seen_by: &[
            ("coordinator::a_failing_check_alone_conflicts", "its commit has a check that must fail, and nothing else"),
            ("coordinator::write_skew_is_impossible_with_checks", "both commits check what the other one writes"),
            ("stm::write_skew_is_impossible", "each transaction writes a ref that the others only read"),
            ("stm::ensure_prevents_write_skew_under_snapshot", "what `ensure` protects is compared by checks alone"),
            (
                "stm::or_else_protects_what_the_first_branch_read",
                "what the undone branch read is written by nobody in it",
            ),
        ],
    },
    Promise {
        name: "torn commit: the first put can be seen, and kept, without the others",
        broken: Fault::TornCommit,
        seen_by: &[
            (
                "coordinator::a_snapshot_never_shows_half_a_commit",
                "its reader looks while commits of two keys are made",
            ),
            (
                "coordinator::fifty_keys_commit_whole_or_not_at_all",
                "one of the later keys is stale, and the first must then stay",
            ),
            ("stm::transfers_keep_the_sum_in_every_body", "between the two halves of a transfer the sum is wrong"),
            ("stm::two_counters_are_never_apart", "its reader looks while both are changed together"),
        ],
    },
    Promise {
        name: "repeated commit: the commit before this one arrives a second time, whatever is there",
        broken: Fault::RepeatedCommit,
        seen_by: &[
            ("coordinator::no_increment_is_lost", "an old count comes back over a newer one"),
            ("coordinator::each_put_changes_the_revision", "the record changes with no put of the law's"),
            ("stm::counters_lose_nothing", "an old count comes back over a newer one"),
        ],
    },
    Promise {
        name: "early watch: the hint comes before the commit is made, and none after it",
        broken: Fault::EarlyWatchOnly,
        seen_by: &[
            ("coordinator::no_hint_comes_before_its_change", "it reads when it is told, and the change must be there"),
            (
                "watch::a_change_can_be_read_when_it_is_told",
                "who looks at the hint finds nothing new, and is not told again",
            ),
            ("stm::a_retry_wakes_by_another_client", "who waits looks too early, and waits on for ever"),
        ],
    },
    Promise {
        name: "lost watch: no hint comes",
        broken: Fault::LostWatch,
        seen_by: &[
            ("coordinator::a_watch_sees_another_clients_commit", "it waits for the hint of one commit"),
            ("coordinator::the_last_of_many_changes_is_seen", "it waits for a hint after the last commit"),
            ("watch::every_commit_is_told_once_in_order", "it waits for each change to be told"),
            ("stm::a_retry_waits_for_a_change_of_what_it_read", "who waits is never woken"),
        ],
    },
    Promise {
        name: "reused version: a client's values all have one name, and each takes the place of the one before",
        broken: Fault::VersionReused,
        seen_by: &[
            (
                "versioned_state_container::versions_that_differ_in_one_part_are_kept_apart",
                "it writes versions that differ in the sequence only",
            ),
            (
                "stm::nothing_is_left_but_what_the_record_points_at",
                "the versions that are held are not those that the record names",
            ),
        ],
    },
    Promise {
        name: "reused revision: a record that is as it was before has the revision of then",
        broken: Fault::RevisionsByContent,
        seen_by: &[("coordinator::each_put_changes_the_revision", "it puts the same record twice")],
    },
    Promise {
        name: "forgotten slot: a commit is kept without the slot that would tell of it",
        broken: Fault::SlotForgotten,
        seen_by: &[
            (
                "stm::a_commit_lost_after_it_took_effect_is_not_repeated",
                "without the slot it is taken for lost, and made again: the body runs twice",
            ),
            ("stm::commutes_are_applied_once", "the same, and a function is applied twice"),
            ("stm::counters_count_each_success_once", "the same under load"),
            (
                "stm::an_unknown_outcome_is_resolved_by_another_client",
                "the receipt names a slot that says nothing of the commit",
            ),
        ],
    },
    Promise {
        name: "swallowed error: what the store refused is answered as done",
        broken: Fault::ConflictSwallowed,
        seen_by: &[
            ("coordinator::a_put_on_an_old_revision_conflicts", "its commit must be refused"),
            (
                "state_container::cas_with_another_revision_changes_nothing",
                "a compare-and-set that must be refused is answered as done",
            ),
            (
                "stm::a_conflict_whose_reply_was_lost_is_found_out",
                "its first attempt must lose, and returns as if it had committed",
            ),
            ("stm::attempts_are_limited", "a transaction that loses each attempt returns as if it had committed"),
        ],
    },
];

/// Each broken promise with each of its laws.
pub(crate) fn cases() -> impl Iterator<Item = (Fault, &'static str)> {
    PROMISES.iter().flat_map(|promise| promise.seen_by.iter().map(|(law, _)| (promise.broken, *law)))
}

/// Whoever breaks a promise breaks each law that is named for it.
#[test]
fn a_broken_promise_is_seen() {
    assert!(PROMISES.iter().all(|promise| !promise.name.is_empty() && !promise.seen_by.is_empty()));
    assert_broken(&cases().collect::<Vec<_>>());
}

/// The same laws pass where no promise is broken.
#[test]
fn the_laws_of_promises_pass_where_none_is_broken() {
    let names: BTreeSet<&str> = cases().map(|(_, law)| law).collect();
    let cases: Vec<_> = names.into_iter().map(|law| (Fault::Nothing, law)).collect();
    let others = run_all(&cases, run, |verdict| *verdict != Verdict::Passed);
    assert!(others.is_empty(), "{others:#?}");
}
