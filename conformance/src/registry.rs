use crate::law::Law;
use crate::{
    coordinator, lock, losses, mixed, runtimes, state_container, stm, sweep, versioned_state_container, watch,
};

/// The files of laws, group by group.
///
/// A new law goes into the `laws!` table of its file. A new file is a module with such a table, which is
/// `pub(crate)` from the crate's root on, and one line here; its group is what its table says.
const FILES: &[&[Law]] = &[
    state_container::LAWS,
    state_container::changed::LAWS,
    state_container::keys::LAWS,
    versioned_state_container::LAWS,
    coordinator::LAWS,
    coordinator::read::LAWS,
    coordinator::commit::LAWS,
    coordinator::conflict::LAWS,
    coordinator::content::LAWS,
    coordinator::concurrent::LAWS,
    coordinator::watch::LAWS,
    coordinator::cancel::LAWS,
    coordinator::cut::LAWS,
    stm::basics::LAWS,
    stm::requests::LAWS,
    stm::opening::LAWS,
    stm::isolation::LAWS,
    stm::moments::LAWS,
    stm::commute::LAWS,
    stm::refusals::LAWS,
    stm::errors::LAWS,
    stm::limits::LAWS,
    stm::waiting::LAWS,
    stm::nesting::LAWS,
    stm::hooks::LAWS,
    stm::values::LAWS,
    stm::types::LAWS,
    stm::lost_replies::LAWS,
    stm::cancel::LAWS,
    stm::stores::LAWS,
    stm::floor::LAWS,
    stm::contention::LAWS,
    stm::reservations::LAWS,
    stm::queues::LAWS,
    stm::merging::LAWS,
    stm::combining::LAWS,
    stm::times::LAWS,
    sweep::values::LAWS,
    sweep::records::LAWS,
    mixed::laws::LAWS,
    watch::changes::LAWS,
    watch::named::LAWS,
    watch::atoms::LAWS,
    lock::mutex::LAWS,
    lock::liveness::LAWS,
    lock::cost::LAWS,
    lock::others::LAWS,
    runtimes::ended::LAWS,
    runtimes::others::LAWS,
    lock::crowds::LAWS,
    lock::outage::LAWS,
    lock::stalls::LAWS,
    lock::ended::LAWS,
    lock::queues::LAWS,
    lock::queue_upkeep::LAWS,
    lock::reentry::LAWS,
    lock::numbers::LAWS,
    lock::closing::LAWS,
    losses::LAWS,
];

/// All laws, in the order of their groups.
pub fn laws() -> impl Iterator<Item = &'static Law> {
    FILES.iter().copied().flatten()
}
