//! Laws of transactions and watches, and what breaks them; those of locks are beside.

use avout_core::Bug;

use crate::broken::Fault;
use crate::locks;
use crate::prove::{Break, assert_broken};

/// What breaks which laws of transactions and watches.
const BREAKS: &[(Break, &[&str])] = &[
    (
        Break::Engine(Bug::OwnWritesUnseen),
        &[
            "stm::a_body_reads_what_it_has_written",
            "stm::a_body_finds_nothing_that_it_has_destroyed",
            "stm::get_many_takes_tuples_slices_and_vectors",
            "stm::get_arc_is_the_value",
            "stm::clones_of_a_handle_are_one_ref",
        ],
    ),
    (
        Break::Backend(Fault::LostWrite),
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
    (
        Break::Engine(Bug::FloorNotRaised),
        &[
            "sweep::a_client_asleep_before_its_commit_points_at_nothing_that_is_gone",
            "sweep::a_commit_that_arrives_after_the_sweep_does_not_take_effect",
        ],
    ),
    (
        Break::Engine(Bug::PointersIgnored),
        &[
            "sweep::a_value_in_use_stays",
            "sweep::commits_go_on_beside_sweeps",
            "mixed::a_client_killed_in_any_store_leaves_nothing_half_done",
        ],
    ),
    (
        Break::Engine(Bug::ValuesKept),
        &[
            "sweep::an_orphan_is_gone_after_a_sweep",
            "mixed::one_sweep_cleans_all_stores",
            "sweep::what_cannot_be_swept_is_told_and_left",
            "sweep::background_sweeps_go_on_and_end_with_their_clients",
        ],
    ),
    (
        Break::Engine(Bug::RecordsKept),
        &[
            "sweep::slots_of_dead_clients_are_retired",
            "sweep::a_slot_that_was_retired_is_not_fenced_anew",
            "sweep::destroyed_refs_are_gone_and_can_be_made_again",
            "sweep::a_late_removal_takes_no_ref_that_was_made_again",
            "sweep::sweeps_at_once_do_no_harm",
            "sweep::a_sweep_dropped_anywhere_does_no_harm",
        ],
    ),
    (Break::Engine(Bug::LateForgotten), &["sweep::a_closed_client_leaves_no_slots"]),
    (Break::Backend(Fault::TornCommit), &["mixed::a_transaction_over_all_stores_is_seen_whole"]),
    (Break::Engine(Bug::StoresInTurn), &["mixed::all_stores_are_written_at_the_same_time"]),
    (Break::Engine(Bug::OthersValuesTaken), &["sweep::values_of_another_coordinator_stay"]),
    (
        Break::Engine(Bug::FenceSkipped),
        &[
            "sweep::a_lost_reply_is_decided_rightly_beside_sweeps",
            "sweep::a_fenced_commit_stays_fenced_though_slots_were_retired",
        ],
    ),
    (Break::Engine(Bug::SkippedUnsaid), &["sweep::a_watch_is_told_of_a_ref_that_was_swept"]),
    (
        Break::Engine(Bug::SnapshotNotExtended),
        &[
            "stm::a_lost_body_has_seen_one_moment",
            "stm::a_reader_whose_history_was_trimmed_runs_again",
            "stm::a_long_reader_runs_once_by_history",
        ],
    ),
    (
        Break::Backend(Fault::TornWhenDropped),
        &[
            "stm::a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::with_slots_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::with_stored_values_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::over_two_stores_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::a_dropped_client_leaves_its_commits_whole",
        ],
    ),
    (
        Break::Engine(Bug::FenceSkipped),
        &[
            "stm::with_lost_replies_a_transaction_dropped_anywhere_is_whole_or_nothing",
            "stm::a_commit_lost_after_it_took_effect_is_not_repeated",
            "stm::a_commit_that_hangs_alone_is_found_out",
            "stm::a_late_commit_takes_effect_once_or_never",
            "stm::lost_fences_are_found_out",
            "stm::commutes_are_applied_once",
            "stm::counters_count_each_success_once",
            "stm::values_in_stores_survive_lost_replies",
            "stm::making_refs_survives_lost_replies",
        ],
    ),
    (
        Break::Engine(Bug::AttemptWasted),
        &[
            "stm::a_commute_does_not_run_the_body_again",
            "stm::a_commute_without_fresh_entries_does_not_run_the_body_again",
            "stm::concurrent_commutes_lose_nothing_and_run_once",
            "stm::a_commit_lost_before_it_took_effect_is_made_again",
            "stm::a_blind_write_over_history_commits",
            "stm::stats_agree_with_the_requests",
            "stm::an_extended_reader_sees_the_newest",
            "stm::a_conflict_with_fresh_entries_costs_no_read",
            "stm::a_conflict_without_fresh_entries_costs_one_read",
        ],
    ),
    (Break::Engine(Bug::CommuteUnchecked), &["stm::a_commute_that_is_read_is_protected"]),
    (
        Break::Backend(Fault::ChecksIgnored),
        &[
            "stm::a_commute_beside_a_read_protects_the_read",
            "stm::an_absent_ref_that_is_made_loses_its_opener",
            "stm::write_skew_of_vectors_is_impossible",
            "stm::or_else_protects_what_the_first_branch_read",
        ],
    ),
    (
        Break::Engine(Bug::ValidatorsSkipped),
        &[
            "stm::a_commute_applied_again_is_validated",
            "stm::a_refused_value_is_rejected_with_all_else",
            "stm::a_validator_that_panics_is_a_refusal",
            "stm::a_refused_first_value_makes_no_ref",
            "stm::validators_belong_to_the_handle",
        ],
    ),
    (
        Break::Engine(Bug::ErrorSwallowed),
        &[
            "stm::a_commute_of_a_ref_destroyed_meanwhile_is_not_found",
            "stm::an_error_of_the_moment_that_was_read_is_told_at_once",
            "stm::limits_of_the_coordinator_are_checked_before_sending",
            "stm::values_too_large_for_the_store_are_refused",
        ],
    ),
    (Break::Backend(Fault::RevisionsIgnored), &["stm::no_update_is_lost_under_snapshot"]),
    (
        Break::Engine(Bug::FloorUnchecked),
        &["stm::an_attempt_from_below_the_floor_is_run_again", "stm::values_are_written_under_the_floors_epoch"],
    ),
    (
        Break::Backend(Fault::SlotForgotten),
        &[
            "stm::a_receipt_from_below_the_floor_tells_no_lie",
            "stm::a_resolved_commit_can_never_take_effect",
            "stm::slots_are_used_again",
        ],
    ),
    (Break::Backend(Fault::PointOfTheFirstRead), &["stm::on_commit_of_a_reader_has_its_read_point"]),
    (
        Break::Engine(Bug::AbortHooksSkipped),
        &[
            "stm::hooks_of_lost_attempts_say_abort",
            "stm::hooks_of_a_failed_transaction_say_abort",
            "stm::hooks_of_a_refused_commit_say_abort",
            "stm::hooks_of_a_late_body_say_abort",
        ],
    ),
    (Break::Engine(Bug::CommitHooksAnyway), &["stm::hooks_of_a_failed_transaction_say_abort"]),
    (
        Break::Engine(Bug::UnknownToldAsFailure),
        &[
            "stm::no_hook_is_called_while_the_outcome_is_unknown",
            "stm::a_conflict_on_its_own_slot_that_nothing_decides_is_unknown",
            "stm::a_receipt_is_resolved_from_its_text",
            "stm::a_resolved_commit_can_never_take_effect",
            "stm::a_commit_that_hangs_is_given_up_at_the_deadline",
            "stm::a_fence_that_hangs_is_given_up_at_the_deadline",
        ],
    ),
    (Break::Engine(Bug::SnapshotChecksReads), &["stm::write_skew_is_possible_under_snapshot"]),
    (
        Break::Engine(Bug::DeadlineIgnored),
        &[
            "stm::a_deadline_ends_a_body_that_hangs",
            "stm::a_deadline_ends_a_transaction_that_is_always_lost",
            "stm::a_coordinator_away_for_good_is_unavailable",
            "stm::a_coordinator_that_hangs_is_given_up_at_the_deadline",
            "stm::a_store_away_for_a_while_is_waited_for",
            "stm::a_store_that_hangs_is_given_up_at_the_deadline",
            "stm::handles_keep_the_deadline_of_the_client",
            "stm::a_retry_ends_at_the_deadline",
            "stm::a_retry_ends_at_the_deadline_though_watches_fail",
            "stm::a_commute_that_waits_for_another_keeps_its_deadline",
        ],
    ),
    (Break::Engine(Bug::AttemptsUnlimited), &["stm::attempts_are_limited"]),
    (Break::Backend(Fault::ConflictSwallowed), &["stm::a_conflict_whose_reply_was_lost_is_found_out"]),
    (
        Break::Engine(Bug::HistoryUnused),
        &[
            "stm::a_long_reader_runs_once_by_history",
            "stm::a_reader_of_stored_values_runs_once_by_history",
            "stm::a_destroyed_ref_is_there_at_an_earlier_moment",
        ],
    ),
    (Break::Backend(Fault::HistoryDropped), &["stm::history_gives_earlier_values", "stm::a_snapshot_is_one_point"]),
    (Break::Engine(Bug::OthersRefsTaken), &["stm::refs_of_another_client_are_refused"]),
    (Break::Backend(Fault::KeysFolded), &["stm::unusual_names_are_keys"]),
    (Break::Backend(Fault::ListedByText), &["stm::lists_what_exists_under_a_prefix"]),
    (Break::Backend(Fault::ForgottenOnReopening), &["stm::refs_outlive_their_clients"]),
    (Break::Backend(Fault::LostCas), &["stm::atoms_are_made_and_opened_like_refs"]),
    (
        Break::Engine(Bug::RetryAtOnce),
        &[
            "stm::a_swallowed_retry_waits_all_the_same",
            "stm::a_retry_waits_for_a_change_of_what_it_read",
            "stm::a_retry_of_nothing_is_refused",
            "stm::a_retry_survives_lost_watches",
        ],
    ),
    (
        Break::Engine(Bug::ReadsTwice),
        &[
            "stm::a_cold_hello_is_a_read_each_and_one_commit",
            "stm::get_many_is_one_read",
            "mixed::a_transaction_costs_a_write_for_each_foreign_store_and_one_commit",
            "stm::prefetch_leaves_no_more_reads",
            "stm::a_second_read_of_a_ref_is_free",
            "stm::a_read_only_transaction_makes_no_commit",
            "stm::a_blind_set_is_one_read_and_one_commit",
            "stm::a_lone_get_is_one_read",
            "stm::opening_an_existing_ref_is_one_read",
            "stm::making_a_ref_is_one_read_and_one_commit",
            "stm::a_conflict_with_fresh_entries_costs_no_read",
            "stm::a_conflict_without_fresh_entries_costs_one_read",
        ],
    ),
    (Break::Engine(Bug::FloorTakenLate), &["stm::merged_commutes_from_below_the_floor_are_run_again"]),
    (Break::Engine(Bug::BasesUndoubted), &["stm::no_error_rests_on_what_a_blind_set_left"]),
    (Break::Engine(Bug::LeftForgotten), &["stm::a_blind_set_after_another_is_one_commit"]),
    (Break::Engine(Bug::LeftOutlivesFloor), &["stm::what_a_blind_set_left_is_of_no_use_under_another_floor"]),
    (Break::Backend(Fault::TornCommit), &["stm::two_stores_change_as_one"]),
    (
        Break::Backend(Fault::LostValue),
        &[
            "stm::a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::over_two_stores_a_client_killed_anywhere_leaves_nothing_half_done",
            "stm::with_slots_a_client_killed_anywhere_leaves_nothing_half_done",
        ],
    ),
    (
        Break::Backend(Fault::DeleteIgnored),
        &[
            "stm::nothing_is_left_but_what_the_record_points_at",
            "stm::nothing_is_left_of_lost_attempts",
            "stm::nothing_is_left_of_a_refused_commit",
            "stm::nothing_is_left_of_a_ref_made_again_as_another_type",
        ],
    ),
    (
        Break::Backend(Fault::LostWatch),
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
    (
        Break::Engine(Bug::BranchKept),
        &[
            "stm::or_else_undoes_the_first_branch",
            "stm::or_else_undoes_the_hooks_of_the_first_branch",
            "stm::or_else_nests",
        ],
    ),
    (
        Break::Engine(Bug::ToldAgain),
        &["watch::many_fast_updates_are_each_told", "watch::every_commit_is_told_once_in_order"],
    ),
    (Break::Engine(Bug::SkippedUnsaid), &["watch::what_history_no_longer_holds_is_said_to_be_skipped"]),
    (Break::Backend(Fault::EarlyWatchOnly), &["watch::a_change_can_be_read_when_it_is_told"]),
    (
        Break::Backend(Fault::AtomWatchDeaf),
        &[
            "watch::an_atoms_last_value_is_always_told",
            "watch::an_atoms_values_never_go_back",
            "watch::an_atom_destroyed_and_made_again_is_told",
            "watch::an_atom_that_cannot_be_read_is_told_once",
            "watch::named_watches_of_atoms_work_alike",
        ],
    ),
    (
        Break::Engine(Bug::ReservationIgnored),
        &[
            "stm::a_long_transaction_commits_among_short_ones_of_another_client",
            "stm::a_reservation_of_the_dead_holds_others_up_for_a_lease",
            "stm::a_reservation_is_gone_with_the_commit",
            "stm::a_reservation_of_what_is_only_read_holds_up_nobody_who_reads_it",
            "stm::a_slow_reader_of_a_ref_without_history_has_its_turn",
        ],
    ),
    (Break::Engine(Bug::ReservationEndless), &["stm::a_reservation_of_the_dead_holds_others_up_for_a_lease"]),
    (Break::Engine(Bug::QueueSkipped), &["stm::those_who_lost_to_each_other_queue"]),
    (Break::Engine(Bug::HandOverLost), &["stm::those_who_lost_to_each_other_queue"]),
    (Break::Engine(Bug::TurnKept), &["stm::those_who_lost_to_each_other_queue"]),
    (Break::Engine(Bug::QueueEndless), &["stm::a_turn_that_does_not_end_is_passed_by"]),
    (
        Break::Engine(Bug::Apart),
        &[
            "stm::concurrent_commutes_are_merged_and_each_counts_once",
            "stm::concurrent_swaps_are_combined_and_each_counts_once",
            "stm::a_commute_that_waits_for_another_keeps_its_deadline",
        ],
    ),
    (Break::Engine(Bug::MergedTwice), &["stm::concurrent_commutes_are_merged_and_each_counts_once"]),
    (Break::Engine(Bug::RefusalShared), &["stm::a_merged_commute_fails_alone"]),
    (
        Break::Engine(Bug::WaitersForgotten),
        &["stm::a_dropped_commute_holds_up_no_other", "stm::concurrent_commutes_are_merged_and_each_counts_once"],
    ),
    (Break::Engine(Bug::SwapOnOldValue), &["stm::concurrent_swaps_are_combined_and_each_counts_once"]),
    (Break::Engine(Bug::SwapFailureShared), &["stm::a_combined_swap_fails_alone"]),
    (
        Break::Engine(Bug::SwapLossHidden),
        &["stm::a_dropped_swap_holds_up_no_other", "stm::combined_swaps_give_way_to_another_client"],
    ),
    (Break::Engine(Bug::OpeningNotRepeated), &["stm::making_or_opening_looks_again_when_the_outcome_is_unknown"]),
    (
        Break::Engine(Bug::LossSwallowed),
        &[
            "losses::a_loss_is_told_once_to_a_users_operation",
            "losses::what_goes_on_in_the_background_is_told_of_no_loss",
            "losses::each_watch_is_told_of_a_loss_and_goes_on",
            "losses::an_attempt_that_began_before_a_loss_commits_nothing",
            "losses::a_snapshot_from_before_a_loss_is_of_no_use",
        ],
    ),
    (Break::Engine(Bug::SessionUndoubted), &["losses::a_guard_is_given_only_in_a_session_that_the_store_knows"]),
    (
        Break::Engine(Bug::ReadonlyForgotten),
        &["readonly::a_client_that_reads_writes_nothing", "readonly::a_client_may_be_told_to_read_only"],
    ),
    (Break::Engine(Bug::PingUnsent), &["ping::a_ping_is_one_request_that_changes_nothing"]),
    (Break::Engine(Bug::HintsTrusted), &["losses::a_lost_hint_holds_up_nobody"]),
    (Break::Engine(Bug::Unfair), &["stm::a_long_transaction_commits_among_short_ones_of_its_own_client"]),
];

/// Each break with each of its laws.
pub(crate) fn cases() -> impl Iterator<Item = (Break, &'static str)> {
    BREAKS.iter().chain(locks::BREAKS).flat_map(|(broken, names)| names.iter().map(|name| (*broken, *name)))
}

/// Each mistake breaks each law that is named for it.
#[test]
fn each_mistake_breaks_its_laws() {
    assert_broken(&cases().collect::<Vec<_>>());
}
