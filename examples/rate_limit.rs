//! At most three at a time, over all tasks and processes that use the same URL.
//!
//! `cargo run --example rate_limit [URL]`
//!
//! Run it several times at once with `sqlite:rate.db` to see that they share the three places.

use std::time::Duration;

use tokio::task::JoinSet;

const AT_ONCE: u32 = 3;
const REQUESTS: u32 = 12;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".to_owned());
    let stm = avout::connect(url).await?;
    let places = stm.semaphore("/rate_limit", AT_ONCE)?;
    let served = stm.counter("/rate_limit/served").await?;
    let before = served.get().await?;
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let (places, served) = (places.clone(), served.clone());
        requests.spawn(async move {
            let place = places.acquire().await?;
            let busy = places.status().await?.held;
            // What is limited would be done here.
            tokio::time::sleep(Duration::from_millis(20)).await;
            served.add(1).await?;
            place.release().await?;
            Ok::<_, avout::Error>(busy)
        });
    }
    let mut most = 0;
    while let Some(ended) = requests.join_next().await {
        most = most.max(ended??);
    }
    let requests = served.get().await? - before;
    println!("{requests} requests served, at most {most} at a time");
    stm.close().await;
    Ok(())
}
