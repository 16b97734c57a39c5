//! A body that gives away what it captured can run only once.

use avout_core::{Ref, Result, Stm};

async fn rename(stm: Stm, name: Ref<String>, new: String) -> Result<()> {
    stm.dosync(async |tx| tx.set(&name, new).await).await
}

fn main() {}
