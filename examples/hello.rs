//! Counts its runs, in a SQLite file in this folder: run it twice.
//!
//! `cargo run --example hello [URL]`

#[tokio::main]
async fn main() -> avout::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:hello.db".to_owned());
    let stm = avout::connect(url).await?;
    let count = stm.create_or_open_ref("/count", 0_i64).await?;
    let log = stm.create_or_open_ref("/log", Vec::<i64>::new()).await?;

    stm.dosync(async |tx| {
        let n = tx.alter(&count, |n| n + 1).await?;
        tx.alter(&log, |mut log| {
            log.push(n);
            log
        })
        .await
    })
    .await?;

    println!("count {}, log {:?}", count.get().await?, log.get().await?);
    Ok(())
}
