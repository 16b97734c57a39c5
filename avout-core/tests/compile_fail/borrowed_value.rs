//! A text that is borrowed: a ref holds a `String`.

use avout_core::{Result, Stm};

async fn create(stm: Stm) -> Result<()> {
    stm.create_ref("/name", "hello").await?;
    Ok(())
}

fn main() {}
