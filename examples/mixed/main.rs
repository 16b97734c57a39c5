//! An order service whose state lies in three stores: stock in MongoDB, quotas of customers in Redis, an audit list in SQLite.
//! ZooKeeper orders the commits.
//!
//! ```text
//! cargo run --example mixed                            # the same in memory, without any server
//! cargo run --example mixed --features full -- \
//!     --coordinator zk://127.0.0.1:2181/shop \
//!     --stock 'mongodb://127.0.0.1:27017/shop?replicaSet=rs0' \
//!     --quotas redis://127.0.0.1:6379/shop \
//!     --audit sqlite:audit.db
//! cargo run --example mixed -- --help
//! ```
//!
//! An order takes pieces from the stock and from the customer's quota, and adds a line to the list: all three or none of
//! them, whoever dies. `shop.rs` has the transaction; `docs/mixed.md` says why it is atomic.
//!
//! Several tasks place orders, until the stock or the quotas are used up, while another looks whether the three agree. They do at every
//! moment. A process may be killed, and `--check` of another one finds the sums as they must be.

mod args;
mod failure;
mod shop;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use args::Args;
use failure::Failure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shop::{CUSTOMERS, ITEMS, Order, Refusal, Shop};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => run(&args).await,
        Ok(None) => {
            println!("{}", args::HELP);
            Ok(())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let shop = Arc::new(Shop::open(args).await?);
    if !args.check {
        let placed = place_all(&shop, args).await?;
        println!(
            "{} orders placed, {} refused for want of stock, {} for the customer's quota",
            placed.orders, placed.out_of_stock, placed.over_quota
        );
    }
    let sums = shop.sums().await?;
    let pieces = sums.agreed()?;
    println!("the sums agree: {pieces} pieces in {} orders", sums.orders());
    shop.close().await;
    Ok(())
}

#[derive(Default)]
struct Placed {
    orders: usize,
    out_of_stock: usize,
    over_quota: usize,
}

/// Has several tasks place orders, and another look at the sums meanwhile.
async fn place_all(shop: &Arc<Shop>, args: &Args) -> Result<Placed, Failure> {
    let mut tasks = JoinSet::new();
    for task in 0..args.tasks {
        let (shop, orders) = (Arc::clone(shop), args.orders);
        tasks.spawn(async move { place(&shop, task, orders).await });
    }
    let auditor = async {
        loop {
            shop.sums().await?.agreed()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let work = async {
        let mut all = Placed::default();
        while let Some(placed) = tasks.join_next().await {
            let placed = placed??;
            all.orders += placed.orders;
            all.out_of_stock += placed.out_of_stock;
            all.over_quota += placed.over_quota;
        }
        Ok(all)
    };
    tokio::select! {
        all = work => all,
        Err::<(), Failure>(error) = auditor => Err(error),
    }
}

/// What one task does: orders of its own customer.
async fn place(shop: &Shop, task: usize, orders: usize) -> Result<Placed, Failure> {
    let mut random = StdRng::seed_from_u64(task as u64);
    let mut placed = Placed::default();
    for _ in 0..orders {
        let item = random.random_range(0..ITEMS.len());
        let order = Order { item, customer: task % CUSTOMERS.len(), pieces: random.random_range(1..=3) };
        match shop.place(order).await {
            Ok(()) => placed.orders += 1,
            Err(Refusal::OutOfStock { .. }) => placed.out_of_stock += 1,
            Err(Refusal::OverQuota { .. }) => placed.over_quota += 1,
            Err(error @ Refusal::State(_)) => return Err(error.into()),
        }
    }
    Ok(placed)
}
