//! What only Redis does: its requests, its settings, and faults of real servers.

mod backups;
mod cluster;
mod credentials;
mod failover;
mod faults;
mod histories;
mod links;
mod load;
mod losses;
mod replicas;
mod requests;
#[path = "../rights/mod.rs"]
mod rights;
mod sessions;
mod settings;
mod support;

use backups::*;
use cluster::*;
use credentials::*;
use failover::*;
use faults::*;
use histories::*;
use links::*;
use load::*;
use losses::*;
use replicas::*;
use requests::*;
use sessions::*;
use settings::*;

avout_conformance::server_tests![
    a_transaction_is_a_read_and_a_commit,
    reads_at_once_go_together,
    a_read_that_is_held_holds_up_no_others,
    a_conflict_needs_no_read,
    removed_scripts_are_loaded_again,
    changes_are_told_from_the_first_watch_on,
    a_first_watch_beside_a_writer_misses_nothing,
    a_watch_that_the_server_forgot_is_made_again,
    the_earlier_format_tells_of_all_changes,
    credentials_are_checked_and_not_shown,
    the_listed_rights_are_enough,
    a_lacking_right_is_found_when_opening,
    a_policy_that_evicts_is_refused,
    a_lacking_right_to_select_is_named,
    a_policy_that_comes_to_evict_is_noticed,
    a_namespace_that_lost_its_description_gets_it_back,
    huge_times_are_taken,
    durability_is_checked_if_asked_for,
    a_newer_format_is_refused,
    foreign_keys_are_refused,
    a_replica_is_refused,
    a_session_lives_by_its_renewals,
    a_session_that_the_server_forgot_is_lost,
    tls_asks_for_the_clients_certificate,
    tls_checks_the_certificate,
    a_lost_reply_is_found_out,
    a_lost_request_is_made_again,
    a_full_memory_takes_no_writes,
    a_paused_server_loses_nothing,
    a_slow_server_is_waited_for,
    a_deaf_watch_is_noticed_though_others_come_and_go,
    an_emptied_server_is_told,
    a_server_that_forgets_is_told_once,
    no_transaction_sees_two_histories,
    no_record_points_at_a_lost_value,
    each_client_is_told_of_a_loss_once,
    what_was_given_back_in_a_lost_history_is_free,
    every_watch_goes_on_after_a_loss,
    a_loss_is_an_event,
    a_server_killed_under_load_keeps_what_it_acknowledged,
    scripts_flushed_under_load_change_nothing,
    a_promotion_that_lost_commits_is_told_once,
    what_replicas_have_confirmed_survives,
    too_few_replicas_are_no_success,
    sentinels_lead_to_the_new_master,
    a_cluster_leads_to_the_new_master,
    a_reader_leaves_a_master_that_is_cut_from_its_peers,
    a_master_that_hangs_is_left_by_impatient_callers,
    a_server_that_hangs_is_left_without_a_word,
    a_master_without_replicas_is_left,
    a_master_without_replicas_brings_no_storm,
    confirmed_reads_are_not_late,
    a_master_that_was_cut_off_gives_no_late_reads,
    commits_wait_for_replicas_together,
    nothing_is_read_that_a_failover_may_lose,
    a_master_demoted_while_it_waits_is_left,
    a_majority_loses_nothing_in_a_failover,
    a_newcomer_waits_for_no_replica_that_is_away,
    confirmations_leave_a_master_that_hangs,
    confirmations_follow_the_new_master,
    several_commands_follow_the_new_master,
    any_node_leads_to_the_cluster_and_all_are_remembered,
    a_watch_alone_leaves_a_master_that_hangs,
    a_moving_slot_holds_up_nobody_longer_than_it_takes,
    a_slot_that_stays_half_moved_is_used,
    a_loss_in_the_middle_of_a_move_is_told,
    a_socket_of_the_machine_is_used,
    waiting_for_the_log_is_refused,
    credentials_that_change_are_asked_for,
    a_connection_without_its_user_is_made_anew,
    a_snapshot_is_restored_under_running_clients,
    a_log_is_restored_under_running_clients,
];
