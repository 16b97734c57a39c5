//! Laws of backends, and the faults that break them.

use crate::broken::Fault;
use crate::prove::assert_broken;

/// Each fault with the laws that it must break.
const BREAKS: &[(Fault, &[&str])] = &[
    (Fault::AwayAfterCut, &["coordinator::answers_again_after_a_cut"]),
    (Fault::DeafAfterCut, &["coordinator::a_watch_outlives_a_cut"]),
    (
        Fault::NewRealmForEachClient,
        &[
            "state_container::stores_have_nothing_in_common",
            "coordinator::capabilities_are_constant_and_the_same_for_all_clients",
        ],
    ),
    (
        Fault::OneNamespaceForAll,
        &["coordinator::namespaces_have_nothing_in_common", "state_container::stores_have_nothing_in_common"],
    ),
    (
        Fault::ForgottenOnReopening,
        &[
            "state_container::survives_reopening",
            "versioned_state_container::survives_reopening",
            "coordinator::survives_reopening",
        ],
    ),
    (Fault::ResolvesAnything, &["coordinator::resolves_no_foreign_receipt"]),
    (
        Fault::KeysFolded,
        &[
            "coordinator::hostile_keys_are_kept_apart",
            "state_container::hostile_keys_are_kept_apart",
            "versioned_state_container::hostile_keys_are_kept_apart",
        ],
    ),
    (
        Fault::KeysCut,
        &[
            "coordinator::hostile_keys_are_kept_apart",
            "state_container::hostile_keys_are_kept_apart",
            "versioned_state_container::hostile_keys_are_kept_apart",
        ],
    ),
    (
        Fault::StaleRead,
        &["coordinator::an_acknowledged_commit_is_read_by_all", "state_container::what_is_set_is_read_by_all"],
    ),
    (Fault::StaleAtOnce, &["coordinator::an_answer_at_once_is_like_any_other"]),
    (Fault::TornRead, &["coordinator::a_snapshot_never_shows_half_a_commit"]),
    (Fault::DoubleKeysDropped, &["coordinator::a_key_asked_twice_is_answered_twice"]),
    (Fault::AbsentLeftOut, &["coordinator::absent_reads_as_none"]),
    (Fault::PointOfTheFirstRead, &["coordinator::an_acknowledged_commit_is_read_by_all"]),
    (
        Fault::PointAhead,
        &[
            "coordinator::no_keys_ask_for_the_point_alone",
            "coordinator::points_grow",
            "coordinator::a_snapshot_shows_what_was_current_at_its_point",
        ],
    ),
    (Fault::AtRefused, &["coordinator::ignores_at_without_native_snapshots"]),
    (Fault::SnapshotsClaimed, &["coordinator::reads_as_of_an_earlier_point"]),
    (Fault::HistoryDropped, &["coordinator::records_come_back_equal"]),
    (Fault::RecordsCut, &["coordinator::takes_records_up_to_its_limit", "coordinator::takes_commits_up_to_its_limits"]),
    (
        Fault::SharedValuesCopied,
        &[
            "state_container::shared_values_come_back_as_they_are",
            "versioned_state_container::shared_values_come_back_as_they_are",
            "coordinator::shared_values_come_back_as_they_are",
        ],
    ),
    (Fault::RepliesMixedUp, &["coordinator::a_dropped_read_leaves_the_client_usable"]),
    (
        Fault::LostWrite,
        &[
            "coordinator::puts_what_is_absent_and_replaces_what_is_as_expected",
            "coordinator::an_acknowledged_commit_is_read_by_all",
            "coordinator::no_increment_is_lost",
        ],
    ),
    (
        Fault::TornCommit,
        &[
            "coordinator::a_snapshot_never_shows_half_a_commit",
            "coordinator::transfers_keep_the_total",
            "coordinator::fifty_keys_commit_whole_or_not_at_all",
        ],
    ),
    (Fault::TornWhenDropped, &["coordinator::a_dropped_commit_is_whole_or_nothing"]),
    (Fault::RepeatedCommit, &["coordinator::no_increment_is_lost", "coordinator::each_put_changes_the_revision"]),
    (
        Fault::ChecksIgnored,
        &[
            "coordinator::write_skew_is_impossible_with_checks",
            "coordinator::a_failing_check_alone_conflicts",
            "coordinator::a_failing_check_stops_the_puts",
            "coordinator::a_check_for_absence_is_kept",
        ],
    ),
    (
        Fault::AbsenceIgnored,
        &[
            "coordinator::a_put_of_a_present_key_as_absent_conflicts",
            "coordinator::of_racing_creators_one_wins",
            "coordinator::a_check_for_absence_is_kept",
        ],
    ),
    (
        Fault::RevisionsIgnored,
        &["coordinator::a_put_on_an_old_revision_conflicts", "coordinator::a_put_with_another_keys_revision_conflicts"],
    ),
    (Fault::DeletesBlind, &["coordinator::a_delete_of_what_is_not_as_expected_conflicts"]),
    (
        Fault::DeletesIgnored,
        &[
            "coordinator::deletes_what_is_as_expected",
            "coordinator::a_put_on_an_absent_key_with_a_revision_conflicts",
            "coordinator::lists_what_has_a_record_and_nothing_else",
        ],
    ),
    (Fault::ChecksWrite, &["coordinator::checks_alone_commit_and_change_nothing"]),
    (
        Fault::PointsByClient,
        &[
            "coordinator::points_follow_real_time",
            "coordinator::points_grow",
            "coordinator::an_entry_has_the_point_of_its_commit",
        ],
    ),
    (Fault::RevisionsReversed, &["coordinator::revisions_are_parallel_to_the_puts"]),
    (Fault::RevisionsByContent, &["coordinator::each_put_changes_the_revision"]),
    (Fault::RevisionsBeginAgain, &["coordinator::a_deleted_keys_revisions_never_return"]),
    (Fault::ConflictForAnyCommit, &["coordinator::disjoint_commits_all_succeed"]),
    (
        Fault::ConflictNamesAll,
        &["coordinator::a_conflict_names_stale_keys_only", "coordinator::fifty_keys_commit_whole_or_not_at_all"],
    ),
    (Fault::ConflictNamesOne, &["coordinator::a_conflict_names_stale_keys_only"]),
    (
        Fault::ConflictWithOldEntries,
        &["coordinator::a_conflicts_fresh_entries_are_right", "coordinator::a_commit_on_fresh_entries_succeeds"],
    ),
    (
        Fault::ConflictAppliesTheRest,
        &["coordinator::a_failing_check_stops_the_puts", "coordinator::fifty_keys_commit_whole_or_not_at_all"],
    ),
    (Fault::ConflictTriedAgain, &["coordinator::a_conflict_has_no_effect_later"]),
    (
        Fault::LostWatch,
        &[
            "coordinator::the_last_of_many_changes_is_seen",
            "coordinator::a_watch_sees_its_own_clients_commit",
            "coordinator::a_change_before_the_first_wait_is_not_lost",
        ],
    ),
    (Fault::OwnChangesOnly, &["coordinator::a_watch_sees_another_clients_commit"]),
    (Fault::OthersChangesOnly, &["coordinator::a_watch_sees_its_own_clients_commit"]),
    (Fault::EarlyWatch, &["coordinator::no_hint_comes_before_its_change"]),
    (
        Fault::WaitingOnly,
        &[
            "coordinator::a_change_before_the_first_wait_is_not_lost",
            "coordinator::many_watchers_of_one_key_are_all_woken",
        ],
    ),
    (Fault::FirstKeyOnly, &["coordinator::a_watch_sees_each_of_its_keys"]),
    (Fault::OneWatcherOnly, &["coordinator::many_watchers_of_one_key_are_all_woken"]),
    (
        Fault::OneHintOnly,
        &["coordinator::a_watch_sees_each_of_its_keys", "coordinator::a_watch_sees_another_clients_commit"],
    ),
    (Fault::PutsOnly, &["coordinator::a_watch_sees_a_record_made_and_deleted"]),
    (
        Fault::HintTakenByDroppedWait,
        &["coordinator::a_dropped_wait_loses_no_hint", "state_container::a_dropped_wait_loses_no_hint"],
    ),
    (Fault::DroppedWatcherEndsAll, &["coordinator::dropped_watchers_disturb_no_others"]),
    (
        Fault::ListedByText,
        &["state_container::keys_are_listed_by_kind_and_prefix", "coordinator::lists_by_whole_parts_sorted"],
    ),
    (
        Fault::ListedBackwards,
        &["coordinator::lists_by_whole_parts_sorted", "state_container::keys_are_listed_by_kind_and_prefix"],
    ),
    (Fault::ListWithoutOwn, &["coordinator::lists_its_own_keys_under_the_root"]),
    (Fault::ListWithoutTombstones, &["coordinator::lists_what_has_a_record_and_nothing_else"]),
    (Fault::PagesOverlap, &["coordinator::a_page_begins_behind_a_key", "state_container::a_page_begins_behind_a_key"]),
    (
        Fault::InitClobbers,
        &[
            "state_container::absent_is_none_and_init_gives_no_state",
            "state_container::init_keeps_the_state",
            "versioned_state_container::absent_is_none_and_init_gives_no_value",
        ],
    ),
    (Fault::LostSet, &["state_container::what_is_set_is_read_by_all"]),
    (Fault::LostCas, &["state_container::no_concurrent_cas_is_lost"]),
    (
        Fault::CasIgnoresRevision,
        &[
            "state_container::cas_with_another_revision_changes_nothing",
            "state_container::cas_on_an_absent_state_expects_none",
        ],
    ),
    (
        Fault::CasIgnoresAbsence,
        &["state_container::cas_expects_absence_with_none", "state_container::of_racing_creators_one_wins"],
    ),
    (
        Fault::StaleCasWrites,
        &[
            "state_container::cas_with_another_revision_changes_nothing",
            "state_container::cas_on_an_absent_state_expects_none",
        ],
    ),
    (
        Fault::StaleCasForgetsWhatItFound,
        &[
            "state_container::cas_expects_absence_with_none",
            "state_container::cas_with_another_revision_changes_nothing",
        ],
    ),
    (Fault::CasRefusesOthersRevision, &["state_container::cas_expects_the_current_revision"]),
    (Fault::StateRevisionsBeginAgain, &["state_container::a_revision_never_returns"]),
    (
        Fault::DestroyIgnored,
        &[
            "state_container::destroy_removes_and_is_idempotent",
            "versioned_state_container::destroy_removes_all_and_is_idempotent",
            "state_container::containers_of_one_key_are_views_of_one_state",
        ],
    ),
    (
        Fault::DestroyRefusesTwice,
        &[
            "state_container::destroy_removes_and_is_idempotent",
            "versioned_state_container::destroy_removes_all_and_is_idempotent",
        ],
    ),
    (
        Fault::StatesCut,
        &["state_container::values_of_all_sizes_come_back", "versioned_state_container::values_of_all_sizes_come_back"],
    ),
    (
        Fault::LimitNotKept,
        &[
            "state_container::a_value_over_the_limit_is_refused",
            "versioned_state_container::a_value_over_the_limit_is_refused",
        ],
    ),
    (
        Fault::AtomWatchDeaf,
        &[
            "state_container::a_watch_sees_the_first_state_and_a_destroy",
            "state_container::a_watch_sees_the_writes_of_any_client",
        ],
    ),
    (Fault::AtomWatchHearsOwnOnly, &["state_container::a_watch_sees_the_writes_of_any_client"]),
    (
        Fault::AtomWatchBeginsLate,
        &[
            "state_container::a_watch_is_in_place_when_it_is_given",
            "state_container::a_change_before_the_first_wait_is_not_lost",
        ],
    ),
    (Fault::AtomWatchWakesOneOnly, &["state_container::many_watchers_of_one_state_are_all_woken"]),
    (Fault::AtomHintEarly, &["state_container::no_hint_comes_before_its_change"]),
    (
        Fault::KindsMixed,
        &[
            "state_container::an_atom_and_a_ref_under_one_key_are_two_things",
            "state_container::keys_are_listed_by_kind_and_prefix",
        ],
    ),
    (Fault::OverwrittenValue, &["versioned_state_container::another_value_never_takes_the_place_of_the_first"]),
    (
        Fault::RepeatRefused,
        &[
            "versioned_state_container::writing_again_the_same_changes_nothing",
            "versioned_state_container::a_concurrent_repeat_is_no_error",
        ],
    ),
    (
        Fault::DeleteIgnored,
        &[
            "versioned_state_container::delete_removes_one_and_is_idempotent",
            "versioned_state_container::many_are_deleted_at_once_and_no_others",
        ],
    ),
    (
        Fault::DeleteTakesAll,
        &[
            "versioned_state_container::delete_removes_one_and_is_idempotent",
            "versioned_state_container::many_are_deleted_at_once_and_no_others",
        ],
    ),
    (Fault::VersionsUnordered, &["versioned_state_container::versions_are_listed_in_order"]),
    (Fault::VersionPartIgnored, &["versioned_state_container::versions_that_differ_in_one_part_are_kept_apart"]),
    (
        Fault::LostValue,
        &[
            "versioned_state_container::what_is_written_is_found_by_all",
            "versioned_state_container::concurrent_writes_all_stay",
        ],
    ),
    (Fault::DestroyTakesThoseUnder, &["versioned_state_container::destroy_removes_all_and_is_idempotent"]),
    (Fault::ListsEmptied, &["state_container::what_holds_nothing_is_not_listed"]),
];

/// Each fault with each of its laws.
pub(crate) fn cases() -> impl Iterator<Item = (Fault, &'static str)> {
    BREAKS.iter().flat_map(|(fault, names)| names.iter().map(|name| (*fault, *name)))
}

/// Each fault breaks each law that is named for it.
#[test]
fn each_fault_breaks_its_laws() {
    assert_broken(&cases().collect::<Vec<_>>());
}
