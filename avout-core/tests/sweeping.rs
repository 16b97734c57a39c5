//! Who sweeps in the background, and how often. The time is simulated.

use std::time::Duration;

use avout_core::protocol::Floor;
use avout_core::{Coordinator, Result, Stm};
use avout_local::Local;

const HOUR: Duration = Duration::from_secs(3600);

async fn epoch(coordinator: &dyn Coordinator) -> Result<u64> {
    let floor = coordinator.read(&[Floor::key()], None).await?.entries.pop().flatten();
    Ok(Floor::from_entry(floor.as_ref())?.epoch)
}

/// However many clients there are, one of them sweeps once in one to two times of what is asked for; those that do not
/// sweep, were closed, were dropped or have read nothing do not.
#[tokio::test(start_paused = true)]
async fn one_of_all_clients_sweeps() -> Result<()> {
    for clients in [1, 2, 16] {
        let local = Local::new();
        let open = |every| {
            let stm = Stm::builder(local.coordinator(), local.store()).seed(clients).sweep_every(every).build();
            async move {
                stm.create_or_open_ref("/r", 0_u8).await?;
                Ok::<_, avout_core::Error>(stm)
            }
        };
        let never = open(None).await?;
        let _unused = Stm::new(local.coordinator(), local.store());
        open(Some(HOUR)).await?.close().await;
        drop(open(Some(HOUR)).await?);
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(epoch(&*never.coordinator()).await?, 0, "nobody sweeps");

        let mut sweepers = Vec::new();
        for n in 0..clients {
            let stm = Stm::builder(local.coordinator(), local.store()).seed(n).sweep_every(Some(HOUR)).build();
            stm.open_ref::<u8>("/r").await?;
            sweepers.push(stm);
        }
        tokio::time::sleep(24 * HOUR).await;
        let swept = epoch(&*never.coordinator()).await?;
        assert!((11..=24).contains(&swept), "{clients} clients have swept {swept} times in a day");

        let last = sweepers.pop().expect("there is one at least");
        sweepers.clear();
        last.close().await;
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(epoch(&*never.coordinator()).await?, swept, "all clients that sweep are gone or closed");
        assert_eq!(never.open_ref::<u8>("/r").await?.get().await?, 0);
    }
    Ok(())
}
