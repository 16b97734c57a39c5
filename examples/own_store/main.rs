//! Keeps a ref in a store of one's own, and changes it in one transaction with a ref of the coordinator's own store.
//!
//! `cargo run --example own_store [FOLDER [URL]]`
//!
//! Commits are ordered by one coordinator, here by default `mem:`; the values of the refs may lie in any number of
//! stores. `store.rs` is such a store, in under 80 lines, on top of `folder.rs`, which plays the part of a database and
//! its driver. The conformance suite tests it in `conformance/tests/own_store.rs`.

mod folder;
mod store;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use folder::Folder;
use store::Files;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (folder, _temporary) = match args.next() {
        Some(folder) => (PathBuf::from(folder), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let url = args.next().unwrap_or_else(|| "mem:".to_owned());

    let stm = avout::connect(url).await?;
    let files = Arc::new(Files(Folder::open(folder)?));
    let stock = stm.create_or_open_ref("/stock", 10_u32).await?;
    let orders = stm.create_or_open_ref("/orders", Vec::<String>::new()).in_store(&files).await?;
    let runs = stm.create_or_open_atom("/runs", 0_u32).in_store(&files).await?;

    // The number changes in the coordinator and the list in a file, both or neither.
    let (left, placed) = stm
        .dosync(async |tx| {
            let left = tx.alter(&stock, |left| left.saturating_sub(3)).await?;
            let placed = tx.update(&orders, |orders| {
                orders.push(format!("3 pieces, {left} left"));
                orders.len()
            });
            Ok((left, placed.await?))
        })
        .await?;
    println!("stock {left}, orders {:?}", orders.get().await?);

    // What is refused for the one is not done for the other.
    let refused = stm.dosync(async |tx| {
        tx.update(&orders, |orders| orders.push("a thousand pieces".to_owned())).await?;
        match tx.get(&stock).await?.checked_sub(1000) {
            Some(left) => tx.set(&stock, left).await,
            None => Err(avout::Error::abort("sold out")),
        }
    });
    let refused = refused.await.expect_err("there are not a thousand pieces");
    println!("refused: {}", refused.source().map_or_else(|| refused.to_string(), ToString::to_string));

    let kept = orders.get().await?.len();
    if kept != placed {
        return Err(format!("{kept} orders, though {placed} were placed").into());
    }
    println!("run {} on these files", runs.swap(|runs| runs + 1).await?);
    stm.close().await;
    Ok(())
}
