//! What breaks the laws of locks and the like.

use avout_core::Bug;

use crate::broken::Fault;
use crate::prove::Break;

/// Each break, and laws that it breaks.
pub(crate) const BREAKS: &[(Break, &[&str])] = &[
    (
        Break::Engine(Bug::LockForAll),
        &[
            "lock::one_holds_it_at_a_time",
            "lock::it_is_granted_in_the_order_of_requests",
            "lock::try_acquire_does_not_wait",
            "lock::a_timeout_ends_the_wait_and_leaves_nothing",
            "lock::lost_replies_leave_nothing_behind",
            "lock::readers_share_and_writers_do_not",
            "lock::a_waiting_writer_is_not_overtaken",
            "lock::a_downgrade_lets_readers_in_and_no_writer",
            "lock::a_semaphore_keeps_its_limit",
            "lock::a_wait_for_ones_own_guard_is_told_of",
            "lock::a_guard_that_was_given_away_is_named",
            "lock::each_long_wait_is_told_of",
            "lock::permits_are_changed_while_they_are_used",
            "lock::permits_grow_and_shrink_under_load",
        ],
    ),
    (
        Break::Engine(Bug::LastFirst),
        &[
            "lock::it_is_granted_in_the_order_of_requests",
            "lock::a_waiting_writer_is_not_overtaken",
            "lock::notifications_go_in_the_order_of_waits",
        ],
    ),
    (
        Break::Engine(Bug::TokensStand),
        &[
            "lock::one_holds_it_at_a_time",
            "lock::tokens_grow_over_its_destruction",
            "lock::a_wait_releases_the_lock_and_a_notification_ends_it",
            "lock::a_leader_is_followed_and_terms_grow",
        ],
    ),
    (Break::Engine(Bug::TokensBeginAgain), &["lock::tokens_grow_over_its_destruction"]),
    (
        Break::Engine(Bug::RequireIgnored),
        &["lock::a_required_commit_does_not_outlive_the_guard", "lock::require_is_for_the_guards_of_its_own_client"],
    ),
    (
        Break::Engine(Bug::GrantUntold),
        &[
            "lock::it_is_granted_in_the_order_of_requests",
            "lock::a_handover_costs_the_same_for_any_number_of_waiters",
            "lock::all_that_there_is_room_for_get_it_at_once",
            "lock::a_wait_given_up_in_an_outage_gives_the_lock_back",
        ],
    ),
    (
        Break::Engine(Bug::ReadsTwice),
        &[
            "lock::alone_it_is_two_commits",
            "lock::a_handover_costs_the_same_for_any_number_of_waiters",
            "lock::a_request_costs_the_same_for_any_number_of_waiters",
        ],
    ),
    (
        Break::Engine(Bug::DeadStay),
        &[
            "lock::a_dead_holder_is_followed_within_twice_the_ttl",
            "lock::a_dead_holder_is_followed_by_its_own_time",
            "lock::a_dead_waiter_is_passed_over",
            "lock::those_who_die_together_are_noticed_together",
            "lock::a_try_finds_a_dead_holder_in_the_end",
            "lock::whoever_dies_at_any_call_holds_nobody_up",
            "lock::permits_of_the_dead_come_back",
            "lock::whoever_dies_in_a_crowd_is_noticed",
            "lock::a_crowd_that_dies_at_once_is_followed",
            "lock::a_party_that_was_taken_for_dead_has_not_arrived",
            "lock::a_waiter_that_was_taken_for_dead_is_told",
            "lock::whoever_ends_a_session_removes_what_it_leaves",
            "lock::what_is_not_acknowledged_is_handed_out_again",
            "lock::a_close_in_an_outage_ends",
        ],
    ),
    (
        Break::Engine(Bug::LivingTakenForDead),
        &["lock::a_living_holder_keeps_it", "lock::an_idle_session_is_not_taken_for_dead"],
    ),
    (Break::Engine(Bug::BegunMeanwhile), &["lock::requests_that_begin_a_session_together_share_it"]),
    (
        Break::Engine(Bug::LossUnnoticed),
        &["lock::who_was_cut_off_notices_before_others_have_it", "lock::a_sweep_ends_no_session_that_lives"],
    ),
    (Break::Engine(Bug::RequestLostWithSession), &["lock::a_waiter_that_was_cut_off_waits_on"]),
    (
        Break::Engine(Bug::DropKeeps),
        &[
            "lock::a_dropped_guard_is_released",
            "lock::a_dropped_request_leaves_nothing",
            "lock::a_guard_that_moved_is_waited_for",
        ],
    ),
    (Break::Engine(Bug::ReleaseDropped), &["lock::a_dropped_release_goes_on"]),
    (
        Break::Engine(Bug::CloseAtOnce),
        &[
            "lock::what_a_closed_client_held_can_be_had_at_once",
            "lock::a_close_that_is_dropped_or_repeated_is_one_close",
            "lock::the_session_ends_with_the_client",
        ],
    ),
    (
        Break::Engine(Bug::DestroyAnyway),
        &["lock::it_is_not_destroyed_while_it_is_used", "lock::permits_are_changed_while_they_are_used"],
    ),
    (Break::Engine(Bug::AcquireNested), &["lock::it_is_not_acquired_inside_a_body"]),
    (
        Break::Engine(Bug::NotifiedStay),
        &["lock::a_wait_releases_the_lock_and_a_notification_ends_it", "lock::notifications_go_in_the_order_of_waits"],
    ),
    (
        Break::Engine(Bug::WaitEndless),
        &["lock::a_wait_ends_with_its_time", "lock::a_wait_that_timed_out_hands_on_nothing"],
    ),
    (
        Break::Engine(Bug::BarrierEarly),
        &[
            "lock::a_barrier_opens_with_the_last",
            "lock::a_barrier_opens_though_a_party_was_taken_for_dead",
            "lock::a_barrier_is_changed_while_it_is_waited_at",
        ],
    ),
    (Break::Engine(Bug::ErrorSwallowed), &["lock::requests_given_up_in_an_outage_are_not_made"]),
    (Break::Engine(Bug::DeadlineIgnored), &["lock::a_try_in_an_outage_does_not_say_that_it_is_not_free"]),
    (
        Break::Engine(Bug::RecordsKept),
        &["lock::a_client_that_is_closed_leaves_no_session", "lock::a_sweep_removes_what_dead_sessions_leave"],
    ),
    (Break::Backend(Fault::LostWatch), &["lock::leaders_are_followed_through_an_outage"]),
    (
        Break::Engine(Bug::OnceForgotten),
        &[
            "lock::once_is_once",
            "lock::once_forgets_no_recent_id",
            "lock::another_number_is_refused_everywhere",
            "lock::ids_are_remembered_when_their_number_changes",
        ],
    ),
    (
        Break::Backend(Fault::LostWatch),
        &[
            "lock::a_barrier_opens_with_the_last",
            "lock::a_latch_opens_at_zero",
            "lock::a_latch_is_changed_and_destroyed_while_it_is_waited_for",
        ],
    ),
    (
        Break::Backend(Fault::LostWrite),
        &[
            "lock::a_queue_is_first_in_first_out",
            "lock::a_queue_takes_part_in_transactions",
            "lock::a_queue_of_another_capacity_is_refused",
            "lock::a_slow_job_does_not_fill_a_queue",
            "lock::a_dropped_receive_leaves_its_value",
            "lock::a_hung_receiver_is_followed_whoever_looks",
            "lock::a_push_wakes_a_receiver_that_looked_too_early",
            "lock::a_value_that_cannot_be_read_is_told_and_stays",
            "lock::the_capacity_of_a_queue_changes_while_it_is_used",
            "lock::a_smaller_queue_keeps_what_is_in_it",
            "lock::those_who_wait_are_told_of_another_capacity",
            "lock::a_queue_is_destroyed_with_all_that_is_in_it",
            "lock::a_queue_is_destroyed_while_it_is_used",
            "lock::an_unreadable_value_is_skipped_by_its_number",
            "lock::an_unreadable_value_is_taken_off_as_bytes",
            "lock::a_queue_of_an_earlier_version_goes_on",
        ],
    ),
];
