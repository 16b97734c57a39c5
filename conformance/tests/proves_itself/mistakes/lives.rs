use std::collections::HashMap;
use std::time::Instant;

use avout_core::protocol::SessionId;

use super::mistake::Mistake;

/// Who is alive, as a server with leases knows it.
#[derive(Default)]
pub(super) struct Lives(pub(super) HashMap<SessionId, Life>);

pub(super) struct Life {
    /// `None`: it was ended.
    pub(super) until: Option<Instant>,
    pub(super) begins: u32,
}

impl Life {
    pub(super) fn is_over(&self, mistake: Mistake) -> bool {
        match self.until {
            None => true,
            Some(until) => mistake != Mistake::SessionEndless && Instant::now() >= until,
        }
    }
}
