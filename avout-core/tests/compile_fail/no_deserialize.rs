//! A type that serde cannot read.

use avout_core::{Json, Result, Stm};

#[derive(Clone, serde::Serialize)]
struct Account {
    balance: u64,
}

async fn open(stm: Stm) -> Result<()> {
    stm.create_or_open_ref("/account", Account { balance: 0 }).codec(Json).await?;
    Ok(())
}

fn main() {}
