//! Contention: who waits for whom, and for how long at most. It decides nothing else: a commit compares as ever, whether it
//! waited or not. See `docs/protocol.md#contention`.
//!
//! One ladder, the same for all: a transaction that was lost on a key waits in its queue in this process ([`queue`]), at last in the queues of all
//! that it touches, and then asks the transactions of all processes to wait for it ([`reserve`]). In memory a commit is so short that to race is faster
//! than to wait for a turn, as long as that ends ([`precedence`]).

mod backoff;
mod leases;
mod precedence;
mod queue;
mod reserve;
mod turn;

pub(super) use backoff::Backoff;
pub(super) use leases::Leases;
pub(super) use precedence::Precedence;
pub(super) use queue::Queues;
pub(super) use turn::{Loss, Turn};
