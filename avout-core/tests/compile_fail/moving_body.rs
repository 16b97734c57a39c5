//! `move` gives a body that runs once what the next run needs.

use avout_core::{Ref, Result, Stm};

async fn deposit(stm: Stm, balance: Ref<u64>, amount: u64) -> Result<()> {
    stm.dosync(async move |tx| {
        let now = tx.get(&balance).await?;
        tx.set(&balance, now + amount).await
    })
    .await
}

fn main() {}
