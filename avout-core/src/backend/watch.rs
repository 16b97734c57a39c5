use async_trait::async_trait;

use crate::error::Result;

/// Why a [`Watcher`] woke its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At least one of the keys may have changed.
    Changed,
    /// The connection was lost for a while, and changes may have been missed.
    Lost,
}

/// Hints that keys have changed. After each the caller reads the keys again.
///
/// # Contract
/// - After any change of one of its keys that is committed after the watcher was made, by any client, `changed` returns
///   at least once, within the time that the backend states.
/// - Hints that are pending are merged into one: the caller reads the keys again after each, so a hundred hints would
///   cost a hundred reads. A hint without a change is allowed but should be rare.
/// - No hint comes before the change can be read.
/// - After a time without a connection it says [`Wake::Lost`], and works again.
#[async_trait]
pub trait Watcher: Send {
    /// Waits for the next hint. A change that came while nobody waited is remembered.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed) and [`StoreLost`](crate::ErrorKind::StoreLost) are
    /// final; after any other error the caller may wait again.
    ///
    /// # Cancel safety
    /// Safe: a hint is taken only when it is returned.
    async fn changed(&mut self) -> Result<Wake>;
}
