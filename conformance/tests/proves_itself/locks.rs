//! What breaks the laws of locks and the like.

use crate::broken::Fault;

/// Each fault, and laws that it breaks.
pub(crate) const BREAKS: &[(Fault, &[&str])] = &[
    (Fault::LostWatch, &["lock::leaders_are_followed_through_an_outage"]),
    (
        Fault::LostWatch,
        &[
            "lock::a_barrier_opens_with_the_last",
            "lock::a_latch_opens_at_zero",
            "lock::a_latch_is_changed_and_destroyed_while_it_is_waited_for",
        ],
    ),
    (
        Fault::LostWrite,
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
