//! What only real servers show: requests, faults, credentials, layouts.

mod failover;
mod layout;
mod leaks;
mod lost;
mod older_copy;
#[path = "../pairs/mod.rs"]
mod pairs;
mod readers;
mod restores;
mod sanity;
mod step_downs;
mod support;

use failover::{
    a_killed_primary_loses_nothing, a_killed_server_loses_nothing, a_primary_that_steps_down_loses_nothing,
    a_watch_goes_on_after_a_failover, the_loss_of_the_primary_is_told,
};
use layout::{
    a_dropped_namespace_is_lost, a_namespace_without_marks_is_marked, large_states_lie_in_chunks,
    other_layouts_are_refused, reads_are_of_any_moment_in_the_window, values_can_be_queried_as_documents,
};
use leaks::{
    a_state_that_is_being_written_outlives_a_sweep, a_sweep_removes_chunks_of_atoms_without_a_head,
    a_sweep_removes_chunks_without_a_head, checks_of_absent_keys_leave_nothing,
};
use lost::{
    a_client_that_dies_leaves_nothing_half_done, a_commit_is_sent_once, a_lost_reply_is_found_out,
    a_lost_request_is_made_again, a_paused_server_is_waited_for, a_refused_commit_is_made_again,
    a_reset_while_opening_is_survived, a_transaction_of_others_is_waited_for,
};
use older_copy::{
    a_commit_that_is_held_over_a_restore_is_not_made, a_loss_after_the_last_beat_is_told_to_who_committed,
    an_older_copy_is_a_loss, failovers_are_no_losses, what_was_read_in_a_lost_history_is_not_committed,
};
use readers::{
    a_client_that_reads_makes_and_marks_nothing, a_client_that_reads_notices_an_older_copy, the_role_read_is_enough,
};
use restores::a_copy_is_restored_under_running_clients;
use sanity::{
    a_hello_is_three_requests, a_missing_feature_is_named, a_missing_right_is_named,
    a_small_pool_serves_a_watch_and_requests, a_stand_alone_server_is_a_store, checks_and_writes_of_others_conflict,
    commits_of_different_keys_run_side_by_side, credentials_are_needed_and_never_shown,
    names_that_are_not_found_are_unavailable, nobody_there_is_unavailable, the_drivers_own_options_will_do,
    tls_checks_the_certificate, tokens_come_from_a_callback,
};
use step_downs::commits_are_as_quick_as_the_new_primary;

avout_conformance::server_tests![
    a_hello_is_three_requests,
    commits_of_different_keys_run_side_by_side,
    checks_and_writes_of_others_conflict,
    a_stand_alone_server_is_a_store,
    a_small_pool_serves_a_watch_and_requests,
    credentials_are_needed_and_never_shown,
    nobody_there_is_unavailable,
    a_missing_right_is_named,
    names_that_are_not_found_are_unavailable,
    tls_checks_the_certificate,
    the_drivers_own_options_will_do,
    a_missing_feature_is_named,
    tokens_come_from_a_callback,
    large_states_lie_in_chunks,
    other_layouts_are_refused,
    reads_are_of_any_moment_in_the_window,
    values_can_be_queried_as_documents,
    a_dropped_namespace_is_lost,
    a_namespace_without_marks_is_marked,
    a_lost_reply_is_found_out,
    a_lost_request_is_made_again,
    a_commit_is_sent_once,
    a_reset_while_opening_is_survived,
    a_refused_commit_is_made_again,
    a_client_that_dies_leaves_nothing_half_done,
    a_transaction_of_others_is_waited_for,
    a_paused_server_is_waited_for,
    a_killed_server_loses_nothing,
    a_killed_primary_loses_nothing,
    a_primary_that_steps_down_loses_nothing,
    a_watch_goes_on_after_a_failover,
    the_loss_of_the_primary_is_told,
    commits_are_as_quick_as_the_new_primary,
    a_sweep_removes_chunks_without_a_head,
    checks_of_absent_keys_leave_nothing,
    a_sweep_removes_chunks_of_atoms_without_a_head,
    a_state_that_is_being_written_outlives_a_sweep,
    an_older_copy_is_a_loss,
    what_was_read_in_a_lost_history_is_not_committed,
    a_commit_that_is_held_over_a_restore_is_not_made,
    a_loss_after_the_last_beat_is_told_to_who_committed,
    failovers_are_no_losses,
    a_client_that_reads_makes_and_marks_nothing,
    the_role_read_is_enough,
    a_client_that_reads_notices_an_older_copy,
    a_copy_is_restored_under_running_clients,
];
