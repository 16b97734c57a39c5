//! A ref that is opened without saying of which type.

use avout_core::{Result, Stm};

async fn open(stm: Stm) -> Result<()> {
    let account = stm.open_ref("/account").await?;
    account.get().await?;
    Ok(())
}

async fn open_only(stm: Stm) -> Result<()> {
    let account = stm.open_atom("/account").await?;
    Ok(())
}

fn main() {}
