//! The example `mixed` on the four stores that it is about.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use avout_conformance::server_tests;
use avout_conformance::servers::shared;
use support::{example, output};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

type Outcome = Result<(), Box<dyn Error>>;

/// A shop of its own on the servers that all tests share.
struct Shop {
    urls: [(&'static str, String); 4],
    _folder: TempDir,
}

impl Shop {
    async fn new(name: &str) -> Result<Self, Box<dyn Error>> {
        let folder = TempDir::new()?;
        let urls = [
            ("--coordinator", shared::zookeeper_url(name).await?),
            ("--stock", shared::mongo_url(name).await?),
            ("--quotas", shared::redis_url(name).await?),
            ("--audit", format!("sqlite:{}", folder.path().join("audit.db").display())),
        ];
        Ok(Self { urls, _folder: folder })
    }

    fn program(&self, options: &[&str]) -> Command {
        let mut command = example("mixed");
        for (option, url) in &self.urls {
            command.arg(option).arg(url);
        }
        command.args(options);
        command
    }

    async fn printed(&self, options: &[&str]) -> Result<String, Box<dyn Error>> {
        Ok(String::from_utf8(output(&mut self.program(options)).await.stdout)?)
    }

    /// How many orders another process finds, if the sums agree.
    async fn orders(&self) -> Result<usize, Box<dyn Error>> {
        let text = self.printed(&["--check"]).await?;
        let sums = text.trim().strip_prefix("the sums agree: ").ok_or_else(|| text.clone())?;
        let orders = sums.split(" in ").nth(1).and_then(|rest| rest.strip_suffix(" orders")).ok_or("a count")?;
        Ok(orders.parse()?)
    }
}

/// Tasks sell what there is and no more, and a second run goes on where the first one stopped.
async fn orders_are_placed_over_four_stores() -> Outcome {
    let shop = Shop::new("example_orders").await?;
    let text = shop.printed(&["--opening", "15", "--quota", "10"]).await?;
    assert!(!text.contains(" 0 refused") && !text.contains(" 0 for the"), "both refusals happen: {text}");
    let placed: usize = text.split(' ').next().ok_or("a count")?.parse()?;
    assert!(placed > 0, "{text}");
    assert_eq!(shop.orders().await?, placed);
    shop.printed(&["--orders", "10"]).await?;
    assert!(shop.orders().await? >= placed);
    Ok(())
}

/// A process that is killed while it places orders leaves each of them whole or not at all, and the next one goes on.
async fn a_killed_process_leaves_whole_orders() -> Outcome {
    let shop = Shop::new("example_killed").await?;
    // Whoever comes first makes the shop, and those that look know nothing of plenty.
    shop.printed(&["--opening", "1000000", "--quota", "1000000", "--orders", "0"]).await?;
    for round in 1..=3 {
        let before = if round == 1 { 0 } else { shop.orders().await? };
        let mut child = shop.program(&["--orders", "100000"]).stdout(Stdio::null()).spawn()?;
        let placing = async {
            while shop.orders().await? < before + 5 * round {
                sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, Box<dyn Error>>(())
        };
        timeout(Duration::from_secs(60), placing).await??;
        child.kill().await?;
        assert!(!child.wait().await?.success(), "it was killed, and had not ended before");
        assert!(shop.orders().await? >= before + 5 * round);
    }
    let before = shop.orders().await?;
    shop.printed(&["--orders", "3"]).await?;
    assert_eq!(shop.orders().await?, before + 4 * 3);
    Ok(())
}

server_tests![orders_are_placed_over_four_stores, a_killed_process_leaves_whole_orders];
