use std::time::Duration;

use super::Stm;
use crate::error::Result;

impl Stm {
    /// Asks the coordinator, and each attached store of another realm, for an answer, and returns how long the slowest
    /// took: one round trip each, all at once.
    ///
    /// # Contract
    /// - It is sent once. It reports at once an outage that other operations would wait for, which is what a health
    ///   check needs.
    /// - An answer means that the server that takes writes can answer this client's next read. It does not tell whether
    ///   the client may write.
    /// - It changes nothing, and needs only the right to read.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): there is no connection, or no answer came within the store's own
    /// time-out or by the client's [deadline](super::StmBuilder::deadline), whichever is shorter.
    /// [`StoreLost`](crate::ErrorKind::StoreLost): the namespace was emptied or made anew, or commits were lost and no
    /// operation was told yet. [`Denied`](crate::ErrorKind::Denied), [`Closed`](crate::ErrorKind::Closed),
    /// [`Nested`](crate::ErrorKind::Nested).
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// let stm = avout_core::Stm::builder(local.coordinator(), local.store()).deadline(Some(Duration::from_secs(2))).build();
    /// match stm.ping().await {
    ///     Ok(took) => println!("well, after {took:?}"),
    ///     Err(error) => println!("ill: {error}"),
    /// }
    /// # stm.ping().await.map(drop) }
    /// ```
    pub async fn ping(&self) -> Result<Duration> {
        self.engine.begin("ping")?;
        self.engine.ping().await.map_err(|error| error.during("ping"))
    }
}
