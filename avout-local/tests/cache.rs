//! What a client keeps in memory of values in a store of the same process.

use std::sync::{Arc, Weak};

use avout_core::backend::Store as _;
use avout_core::{Result, Stm};
use avout_local::Local;

/// A client keeps no value of a store in memory that this no longer has: the values are not bytes, and nobody knows how large
/// they are.
#[tokio::test]
async fn values_are_let_go_with_their_store() -> Result<()> {
    const VALUES: usize = 62;
    const SIZE: usize = 1 << 20;
    let (local, beside) = (Local::new(), Local::new());
    let client = || Stm::builder(local.coordinator(), local.store()).cache_bytes(SIZE as u64).build();
    let (writer, reader) = (client(), client());
    let store = beside.store();
    for stm in [&writer, &reader] {
        stm.attach(&store);
    }
    let mut read: Vec<Weak<Vec<u8>>> = Vec::new();
    for n in 0..VALUES {
        writer.create_ref(format!("/{n}"), vec![n as u8; SIZE]).in_store(&store).await?;
        let r = reader.open_ref::<Vec<u8>>(format!("/{n}")).await?;
        for _ in 0..2 {
            let value = reader.dosync(async |tx| tx.get_arc(&r).await).await?;
            assert_eq!((value.len(), value[0]), (SIZE, n as u8));
            read.push(Arc::downgrade(&value));
        }
        store.versioned_state(r.key()).destroy().await?;
    }
    let held = read.iter().filter(|value| value.strong_count() > 0).count();
    assert!(held <= 1, "{held} of {VALUES} values are held");
    Ok(())
}
