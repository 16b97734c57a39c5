use std::collections::BTreeSet;
use std::sync::Arc;

use avout_core::backend::{Coordinator, Kind, Store};
use avout_core::protocol::{Commit, CommitOutcome, Floor, Put};
use avout_core::{Key, Result};

/// Deletes values that nothing points at and nothing will: raises the floor first, so that whoever wrote one under the
/// floor before can no longer commit, and then looks at values of older epochs only.
///
/// It ends with the first fault that it meets. Nothing is lost by that.
pub(super) async fn sweep(coordinator: &dyn Coordinator, stores: &[Arc<dyn Store>]) -> Result<()> {
    let floor = coordinator.read(&[Floor::key()], None).await?.entries.pop().flatten();
    let epoch = Floor::from_entry(floor.as_ref())?.epoch + 1;
    let record = Arc::new(Floor { epoch }.to_record());
    let put = Put { key: Floor::key(), revision: floor.map(|entry| entry.revision), record };
    let raise = Commit { puts: vec![put], ..Commit::default() };
    let CommitOutcome::Committed(_) = coordinator.commit(&raise).await? else {
        return Ok(());
    };
    for store in stores {
        for key in store.keys(Kind::Ref, &Key::prefix("/")?).await? {
            let container = store.versioned_state(&key);
            let versions = container.versions().await?;
            let entry = coordinator.read(std::slice::from_ref(&key), None).await?.entries.pop().flatten();
            let pointed: BTreeSet<_> = entry.iter().flat_map(|entry| entry.record.stored()).collect();
            for version in versions {
                if version.epoch < epoch && !pointed.contains(&(store.realm(), version)) {
                    container.delete_state_at(&version).await?;
                }
            }
        }
    }
    Ok(())
}
