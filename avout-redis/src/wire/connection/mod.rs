//! One connection: making it, encrypting it, noticing that it answers nothing, and which of them carries a request.

mod dial;
mod gather;
mod home;
mod lanes;
mod link;
mod pace;
mod pulse;

pub(crate) use dial::{Dialer, Listener, Wire, unreachable_at};
pub(crate) use gather::read_cells;
pub(crate) use home::Home;
pub(crate) use lanes::{Lane, Lanes};
pub(crate) use link::{Detour, Found, Link};
pub(crate) use pace::Pace;
