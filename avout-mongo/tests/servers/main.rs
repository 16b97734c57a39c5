//! What only real servers show: requests, faults, credentials, layouts.

mod failover;
mod layout;
mod lost;
mod sanity;
mod step_downs;
mod support;

use failover::{
    a_killed_primary_loses_nothing, a_killed_server_loses_nothing, a_primary_that_steps_down_loses_nothing,
    a_watch_goes_on_after_a_failover,
};
use layout::{
    a_dropped_namespace_is_lost, large_states_lie_in_chunks, other_layouts_are_refused,
    reads_are_of_any_moment_in_the_window, values_can_be_queried_as_documents,
};
use lost::{
    a_client_that_dies_leaves_nothing_half_done, a_commit_is_sent_once, a_lost_reply_is_found_out,
    a_lost_request_is_made_again, a_paused_server_is_waited_for, a_refused_commit_is_made_again,
    a_transaction_of_others_is_waited_for,
};
use sanity::{
    a_hello_is_three_requests, a_small_pool_serves_a_watch_and_requests, a_stand_alone_server_is_a_store,
    checks_and_writes_of_others_conflict, commits_of_different_keys_run_side_by_side,
    credentials_are_needed_and_never_shown, nobody_there_is_unavailable, tls_checks_the_certificate,
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
    tls_checks_the_certificate,
    large_states_lie_in_chunks,
    other_layouts_are_refused,
    reads_are_of_any_moment_in_the_window,
    values_can_be_queried_as_documents,
    a_dropped_namespace_is_lost,
    a_lost_reply_is_found_out,
    a_lost_request_is_made_again,
    a_commit_is_sent_once,
    a_refused_commit_is_made_again,
    a_client_that_dies_leaves_nothing_half_done,
    a_transaction_of_others_is_waited_for,
    a_paused_server_is_waited_for,
    a_killed_server_loses_nothing,
    a_killed_primary_loses_nothing,
    a_primary_that_steps_down_loses_nothing,
    a_watch_goes_on_after_a_failover,
    commits_are_as_quick_as_the_new_primary,
];
