//! A type that cannot be cloned.

use avout_core::{Result, Stm};

#[derive(serde::Serialize, serde::Deserialize)]
struct Account {
    balance: u64,
}

async fn open(stm: Stm) -> Result<()> {
    stm.create_or_open_ref("/account", Account { balance: 0 }).await?;
    Ok(())
}

fn main() {}
