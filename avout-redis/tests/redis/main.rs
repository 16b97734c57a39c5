//! What only Redis does: its requests, its settings, and faults of real servers.

mod failover;
mod faults;
mod load;
mod requests;
mod settings;
mod support;

avout_conformance::server_tests![
    requests::a_transaction_is_a_read_and_a_commit,
    requests::a_conflict_needs_no_read,
    requests::removed_scripts_are_loaded_again,
    settings::credentials_are_checked_and_not_shown,
    settings::the_listed_rights_are_enough,
    settings::a_lacking_right_is_found_when_opening,
    settings::a_policy_that_evicts_is_refused,
    settings::durability_is_checked_if_asked_for,
    settings::a_newer_format_is_refused,
    settings::foreign_keys_are_refused,
    settings::a_replica_is_refused,
    settings::tls_checks_the_certificate,
    faults::a_lost_reply_is_found_out,
    faults::a_lost_request_is_made_again,
    faults::a_full_memory_takes_no_writes,
    faults::a_paused_server_loses_nothing,
    faults::a_slow_server_is_waited_for,
    faults::an_emptied_server_is_told,
    faults::a_server_that_forgets_is_told_once,
    load::a_server_killed_under_load_keeps_what_it_acknowledged,
    load::scripts_flushed_under_load_change_nothing,
    failover::a_promotion_that_lost_commits_is_told_once,
    failover::what_replicas_have_confirmed_survives,
    failover::too_few_replicas_are_no_success,
    failover::sentinels_lead_to_the_new_master,
    failover::a_cluster_leads_to_the_new_master,
];
