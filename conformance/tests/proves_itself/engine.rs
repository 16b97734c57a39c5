//! Laws of transactions and watches, and what breaks them; those of locks are beside.

use crate::broken::Fault;
use crate::locks;
use crate::prove::assert_broken;

/// What breaks which laws of transactions and watches.
const BREAKS: &[(Fault, &[&str])] = &[
    (
        Fault::LostWrite,
        &[
            "stm::a_body_reads_what_it_has_commuted",
            "stm::an_error_about_a_write_is_of_the_moment_that_was_read",
            "stm::a_refusal_of_what_was_applied_again_is_of_the_moment_that_was_read",
            "stm::a_reservation_of_what_is_only_read_is_gone_with_the_commit",
            "stm::writes_are_seen_by_nobody_before_the_commit",
            "stm::ref_methods_are_transactions_of_their_own",
            "stm::a_transaction_of_many_refs_commits_as_one",
            "stm::two_commutes_of_one_ref_are_both_applied_again",
            "stm::a_destroyed_ref_is_not_found_by_anybody",
            "stm::a_destroyed_ref_is_made_again_as_another_type",
            "stm::on_commit_is_called_once_after_the_commit",
            "stm::one_of_conflicting_transactions_commits",
            "stm::a_coordinator_away_for_a_while_is_waited_for",
            "stm::a_corrupt_record_is_named_and_harms_no_other",
            "stm::a_corrupt_value_is_named_and_harms_no_other",
            "stm::a_snapshot_beyond_history_is_too_old",
            "stm::a_nested_transaction_breaks_nothing",
            "stm::opening_leaves_the_value",
            "stm::small_values_lie_in_the_record",
            "stm::a_lost_value_is_corrupt",
            "stm::a_change_before_the_wait_is_not_missed",
            "stm::or_else_keeps_what_was_before",
            "stm::values_come_back_as_they_are",
            "stm::json_values_come_back",
            "stm::a_refused_value_is_rejected_with_all_else",
            "stm::an_error_of_the_body_comes_back_as_it_is",
            "stm::an_error_type_of_the_application_comes_back",
            "stm::a_panic_of_the_body_goes_through",
            "stm::a_panic_of_a_commuted_function_goes_through",
            "stm::or_else_passes_errors_on",
            "stm::lists_what_exists_under_a_prefix",
            "stm::a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::over_two_stores_a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::with_slots_a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::a_retry_keeps_nothing_it_wrote",
            "stm::the_in_process_codec_needs_the_process",
            "stm::atoms_and_refs_of_one_name_are_apart",
            "stm::two_stores_change_as_one",
            "stm::a_tx_of_an_earlier_run_is_refused",
            "stm::operations_of_their_own_are_refused_inside_a_body",
            "stm::open_refuses_an_absent_ref",
            "stm::a_ref_is_opened_in_the_store_it_lies_in",
            "stm::a_floor_that_went_back_is_followed",
            "mixed::a_store_that_is_not_there_is_named",
            "sweep::a_live_client_whose_slot_was_retired_goes_on",
        ],
    ),
    (Fault::TornCommit, &["mixed::a_transaction_over_all_stores_is_seen_whole"]),
    (
        Fault::TornWhenDropped,
        &[
            "stm::a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::with_slots_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::with_stored_values_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::over_two_stores_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::a_dropped_client_leaves_its_commits_whole",
        ],
    ),
    (
        Fault::ChecksIgnored,
        &[
            "stm::a_commute_beside_a_read_protects_the_read",
            "stm::an_absent_ref_that_is_made_loses_its_opener",
            "stm::write_skew_of_vectors_is_impossible",
            "stm::or_else_protects_what_the_first_branch_read",
        ],
    ),
    (Fault::RevisionsIgnored, &["stm::no_update_is_lost_under_snapshot"]),
    (
        Fault::SlotForgotten,
        &[
            "stm::a_receipt_from_below_the_floor_tells_no_lie",
            "stm::a_resolved_commit_can_never_take_effect",
            "stm::slots_are_used_again",
        ],
    ),
    (Fault::PointOfTheFirstRead, &["stm::on_commit_of_a_reader_has_its_read_point"]),
    (Fault::ConflictSwallowed, &["stm::a_conflict_whose_reply_was_lost_is_found_out"]),
    (Fault::HistoryDropped, &["stm::history_gives_earlier_values", "stm::a_snapshot_is_one_point"]),
    (Fault::KeysFolded, &["stm::unusual_names_are_keys"]),
    (Fault::ListedByText, &["stm::lists_what_exists_under_a_prefix"]),
    (Fault::ForgottenOnReopening, &["stm::refs_outlive_their_clients"]),
    (Fault::LostCas, &["stm::atoms_are_made_and_opened_like_refs"]),
    (Fault::TornCommit, &["stm::two_stores_change_as_one"]),
    (
        Fault::LostValue,
        &[
            "stm::a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::over_two_stores_a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::with_slots_a_client_killed_anywhere_leaves_nothing_half_done",
        ],
    ),
    (
        Fault::DeleteIgnored,
        &[
            "stm::nothing_is_left_but_what_the_record_points_at",
            "stm::nothing_is_left_of_lost_attempts",
            "stm::nothing_is_left_of_a_refused_commit",
            "stm::nothing_is_left_of_a_ref_made_again_as_another_type",
        ],
    ),
    (
        Fault::LostWatch,
        &[
            "stm::a_retry_wakes_by_another_client",
            "stm::a_retry_wakes_when_its_ref_is_destroyed",
            "stm::or_else_waits_for_both_branches",
            "watch::what_does_not_commit_is_not_told",
            "watch::nothing_from_before_is_told",
            "watch::another_clients_commits_are_told",
            "watch::stored_values_are_told",
            "watch::destroying_and_making_again_are_told",
            "watch::a_watch_of_an_absent_ref_is_told_of_its_making",
            "watch::a_ref_made_again_as_another_type_is_told_as_a_mismatch",
            "watch::a_watch_survives_failing_watchers",
            "watch::a_watch_survives_an_outage",
            "watch::a_dropped_wait_loses_no_change",
            "watch::an_error_is_told_once_and_not_for_ever",
            "watch::a_named_watch_is_called_with_each_change",
            "watch::a_removed_watch_is_not_called_again",
            "watch::a_removed_watch_is_not_called_with_what_waits",
            "watch::a_watch_of_the_same_name_is_replaced",
            "watch::a_panic_in_a_watch_does_not_end_it",
            "watch::a_slow_watch_holds_up_no_other",
            "watch::a_dropped_handle_ends_its_watches",
            "watch::a_named_watch_does_not_spin_on_an_error",
        ],
    ),
    (Fault::EarlyWatchOnly, &["watch::a_change_can_be_read_when_it_is_told"]),
    (
        Fault::AtomWatchDeaf,
        &[
            "watch::an_atoms_last_value_is_always_told",
            "watch::an_atoms_values_never_go_back",
            "watch::an_atom_destroyed_and_made_again_is_told",
            "watch::an_atom_that_cannot_be_read_is_told_once",
            "watch::named_watches_of_atoms_work_alike",
        ],
    ),
];

/// Each fault with each of its laws.
pub(crate) fn cases() -> impl Iterator<Item = (Fault, &'static str)> {
    BREAKS.iter().chain(locks::BREAKS).flat_map(|(fault, names)| names.iter().map(|name| (*fault, *name)))
}

/// Each fault breaks each law that is named for it.
#[test]
fn each_fault_breaks_its_laws() {
    assert_broken(&cases().collect::<Vec<_>>());
}
