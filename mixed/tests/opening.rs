//! A store that cannot be reached for a moment is opened all the same, on real servers.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use avout::{ErrorKind, Stm};
use avout_conformance::servers;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

type Outcome<T = ()> = Result<T, Box<dyn StdError>>;

avout_conformance::server_tests![
    connections_that_are_reset_are_made_again,
    a_server_that_comes_late_is_waited_for,
    what_does_not_pass_is_told_at_once,
];

/// A server's address that resets the first connections.
async fn resetting(server: SocketAddr, times: usize) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((mut client, _)) = listener.accept().await else { return };
            if connection < times {
                // Data that nobody reads makes the system reset it.
                let _ = client.readable().await;
                drop(client);
                continue;
            }
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(address)
}

/// The same URL with another address.
fn at(url: &str, address: SocketAddr) -> Outcome<(SocketAddr, String)> {
    let (scheme, rest) = url.split_once("://").ok_or("a URL has a scheme")?;
    let (host, path) = rest.split_once('/').ok_or("a URL has a path")?;
    Ok((host.parse()?, format!("{scheme}://{address}/{path}")))
}

async fn works(stm: &Stm) -> Outcome {
    let value = stm.create_or_open_ref("/value", 0_u8).await?;
    value.set(7).await?;
    assert_eq!(value.get().await?, 7);
    Ok(())
}

fn namespace() -> String {
    format!("opening_{:016x}", rand::random::<u64>())
}

/// Redis, ZooKeeper and MongoDB behind an address that resets the first five connections: each is opened.
async fn connections_that_are_reset_are_made_again() -> Outcome {
    let namespace = namespace();
    let urls = [
        servers::shared::redis_url(&namespace).await?,
        servers::shared::zookeeper_url(&namespace).await?,
        servers::shared::mongo_url(&namespace).await?,
    ];
    for url in urls {
        let (server, _) = at(&url, SocketAddr::from(([127, 0, 0, 1], 1)))?;
        let (_, url) = at(&url, resetting(server, 5).await?)?;
        let begun = Instant::now();
        let stm = avout::connect(&url).await.map_err(|error| format!("{url}: {error:?}"))?;
        works(&stm).await?;
        assert!(begun.elapsed() < Duration::from_secs(15), "{url}: {:?}", begun.elapsed());
        stm.close().await;
    }
    Ok(())
}

/// A server that is started a little later than its client is waited for; one that never comes is given up after some seconds.
async fn a_server_that_comes_late_is_waited_for() -> Outcome {
    let redis = servers::Redis::single().await?;
    redis.node(0).kill().await?;
    let url = redis.url(&namespace());
    let (opened, started) = tokio::join!(avout::connect(&url), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis.node(0).start().await
    });
    started?;
    works(&opened?).await?;
    redis.node(0).kill().await?;
    let begun = Instant::now();
    let error = avout::open_within(&url, Duration::from_secs(1)).await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

/// What trying again does not change is told at once.
async fn what_does_not_pass_is_told_at_once() -> Outcome {
    let url = servers::shared::redis_url(&namespace()).await?;
    let begun = Instant::now();
    for (url, kind) in [
        (url.replace("redis://", "redis://nobody:wrong@"), ErrorKind::Denied),
        (format!("{url}?no_such_option=1"), ErrorKind::InvalidInput),
    ] {
        let error = avout::connect(&url).await.expect_err("it cannot be opened");
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    Ok(())
}
