//! A type that serde cannot write.

use avout_core::{Result, Stm};

#[derive(Clone, serde::Deserialize)]
struct Account {
    balance: u64,
}

async fn open(stm: Stm) -> Result<()> {
    stm.create_or_open_ref("/account", Account { balance: 0 }).await?;
    stm.create_or_open_atom("/account", Account { balance: 0 }).await?;
    Ok(())
}

fn main() {}
