//! How the laws get at the backend.

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};

pub(crate) struct Shelf;

#[async_trait]
impl Fixture for Shelf {
    /// What `AVOUT_TEST_REQUIRE` lists.
    fn name(&self) -> &str {
        "shelf"
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let opened = avout_shelf::open(namespace).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    // `available` says whether the server is there, and `remove` cleans up after a law. `cut_connections`, `lose_reply`, `stall`,
    // `resume` and `wipe` do harm, and `finish` ends what was started: `avout_conformance::servers` has what they need.
}
