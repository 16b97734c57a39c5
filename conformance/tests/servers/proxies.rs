//! A proxy breaks connections where it says it does.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use avout_conformance::servers::{Action, Direction, Framing, Protocol, Proxy, Redis, ZooKeeper, shared};

use super::support::{Outcome, ask, connect, eventually, hear, tests, zookeeper_session};

tests![
    a_cut_resets_and_refuses,
    a_request_that_is_cut_is_not_applied,
    a_reply_that_is_cut_was_applied,
    a_reset_loses_one_reply_and_one_connection,
    what_is_held_arrives_when_it_is_released,
    a_protocol_of_ones_own_has_its_messages,
    four_letter_words_go_through,
    lost_messages_are_lost_one_way,
    a_delay_takes_its_time_and_no_more,
    a_hook_sees_whole_messages,
];

async fn redis(key: &str) -> Result<(&'static Redis, Proxy, TcpStream), Box<dyn std::error::Error>> {
    let redis = shared::redis().await?;
    redis.command(0, &["DEL", key]).await?;
    let proxy = redis.proxy(0).await?;
    let stream = connect(proxy.address())?;
    Ok((redis, proxy, stream))
}

/// A request in Redis's protocol.
fn request(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect::<Vec<_>>();
    format!("*{}\r\n{}", words.len(), words.concat())
}

/// Whatever goes on, it ends at the cut; afterwards nobody listens, until it is healed at the same address.
async fn a_cut_resets_and_refuses() -> Outcome {
    let (_, proxy, mut stream) = redis("cut").await?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    assert_eq!((proxy.open_connections(), proxy.connections()), (1, 1));
    proxy.cut().await;
    assert_eq!(proxy.open_connections(), 0);
    assert_eq!(hear(&mut stream).expect_err("it is refused").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(connect(proxy.address()).expect_err("it is refused").kind(), std::io::ErrorKind::ConnectionRefused);
    for _ in 0..3 {
        proxy.heal().await?;
        assert_eq!(ask(&mut connect(proxy.address())?, "PING\r\n")?, "+PONG\r\n");
        proxy.cut().await;
    }
    proxy.heal().await?;
    let mut stream = connect(proxy.address())?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    proxy.heal().await?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    let address = proxy.address();
    drop(proxy);
    assert!(!matches!(hear(&mut stream), Ok(text) if !text.is_empty()));
    eventually("nobody listens", || connect(address).is_err()).await;
    Ok(())
}

/// The request that was picked never reaches the server; those before it do.
async fn a_request_that_is_cut_is_not_applied() -> Outcome {
    let (redis, proxy, mut stream) = redis("request").await?;
    proxy.cut_on_request(|request| request.windows(3).any(|word| word == b"two"));
    assert_eq!(ask(&mut stream, &request(&["SET", "request", "one"]))?, "+OK\r\n");
    assert!(ask(&mut stream, &request(&["SET", "request", "two"])).is_err());
    proxy.is_cut().await;
    assert_eq!(redis.command(0, &["GET", "request"]).await?, "one");
    Ok(())
}

/// The request that was picked is applied, and its reply is not heard.
async fn a_reply_that_is_cut_was_applied() -> Outcome {
    let (redis, proxy, mut stream) = redis("reply").await?;
    proxy.cut_on_reply_to(|request| request.windows(3).any(|word| word == b"two"));
    assert_eq!(ask(&mut stream, &request(&["SET", "reply", "one"]))?, "+OK\r\n");
    assert!(ask(&mut stream, &request(&["SET", "reply", "two"])).is_err());
    proxy.is_cut().await;
    assert_eq!(redis.command(0, &["GET", "reply"]).await?, "two");
    proxy.heal().await?;
    let mut stream = connect(proxy.address())?;
    proxy.cut_on_next_reply();
    assert!(ask(&mut stream, &request(&["SET", "reply", "three"])).is_err());
    proxy.is_cut().await;
    assert_eq!(redis.command(0, &["GET", "reply"]).await?, "three");
    Ok(())
}

/// The request is applied whose reply is lost with its connection; others go on, and a new one is made at once.
async fn a_reset_loses_one_reply_and_one_connection() -> Outcome {
    let (redis, proxy, mut stream) = redis("reset").await?;
    let mut other = connect(proxy.address())?;
    assert_eq!(ask(&mut other, "PING\r\n")?, "+PONG\r\n");
    proxy.reset_on_next_reply();
    let lost = ask(&mut stream, &request(&["SET", "reset", "one"]));
    assert_eq!(lost.expect_err("it is lost").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(redis.command(0, &["GET", "reset"]).await?, "one");
    assert_eq!(ask(&mut other, "PING\r\n")?, "+PONG\r\n");
    let mut stream = connect(proxy.address())?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    proxy.reset_beyond(Direction::Request, 14);
    for _ in 0..2 {
        assert_eq!(ask(&mut stream, "PING\r\n")?.len(), 7);
    }
    assert!(ask(&mut stream, "PING\r\n").is_err(), "it is beyond the bytes that may pass");
    Ok(())
}

/// What is held back is neither lost nor refused, and arrives in its order when it is released.
async fn what_is_held_arrives_when_it_is_released() -> Outcome {
    let (redis, proxy, mut stream) = redis("held").await?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    proxy.hold();
    assert!(ask(&mut stream, &request(&["SET", "held", "one"])).is_err(), "an answer, though all is held");
    assert_eq!(redis.command(0, &["EXISTS", "held"]).await?.trim(), "0");
    let mut other = connect(proxy.address())?;
    assert!(ask(&mut other, "PING\r\n").is_err(), "an answer, though all is held");
    proxy.release();
    assert_eq!(hear(&mut stream)?, "+OK\r\n");
    assert_eq!(hear(&mut other)?, "+PONG\r\n");
    assert_eq!(redis.command(0, &["GET", "held"]).await?, "one");
    Ok(())
}

/// A line is a message.
#[derive(Debug)]
struct Lines;

impl Framing for Lines {
    fn message(&self, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
    }
}

/// A protocol that the suite does not know is cut between its messages, and of pipelined requests the right one's reply is lost.
async fn a_protocol_of_ones_own_has_its_messages() -> Outcome {
    let redis = shared::redis().await?;
    let proxy = Proxy::speaking(Protocol::Framed(&Lines), redis.node(0).address()).await?;
    let mut stream = connect(proxy.address())?;
    proxy.cut_on_reply_to(|request| request == b"ECHO c\r\n");
    let _ = ask(&mut stream, "PING\r\nPING\r\nECHO c\r\nPING\r\n");
    proxy.is_cut().await;
    Ok(())
}

/// What is not in ZooKeeper's protocol goes through as it is, and what is in it too.
async fn four_letter_words_go_through() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let proxy = zk.proxy(0).await?;
    assert!(ask(&mut TcpStream::connect(proxy.address())?, "ruok")?.contains("imok"));
    assert!(zookeeper_session(proxy.address())? > 0);
    Ok(())
}

/// What is lost one way does not stop the other.
async fn lost_messages_are_lost_one_way() -> Outcome {
    let (redis, proxy, mut stream) = redis("lost").await?;
    proxy.lose_replies();
    assert!(ask(&mut stream, &request(&["SET", "lost", "one"])).is_err());
    assert_eq!(redis.command(0, &["GET", "lost"]).await?, "one");
    proxy.heal().await?;
    assert!(hear(&mut stream).is_err(), "a connection that lost something goes on");
    let mut stream = connect(proxy.address())?;
    proxy.lose_requests();
    assert!(ask(&mut stream, &request(&["SET", "lost", "two"])).is_err());
    assert_eq!(redis.command(0, &["GET", "lost"]).await?, "one");
    Ok(())
}

/// A delay is added to each message, not to each after the other.
async fn a_delay_takes_its_time_and_no_more() -> Outcome {
    let (_, proxy, mut stream) = redis("delay").await?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    proxy.delay(Duration::from_millis(200));
    let start = Instant::now();
    std::io::Write::write_all(&mut stream, "PING\r\n".repeat(50).as_bytes())?;
    let mut heard = String::new();
    while heard.len() < 50 * "+PONG\r\n".len() {
        heard.push_str(&hear(&mut stream)?);
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&took), "{took:?}");
    Ok(())
}

/// A hook is asked about each message, however it came in pieces, and decides.
async fn a_hook_sees_whole_messages() -> Outcome {
    let (redis, proxy, mut stream) = redis("hook").await?;
    let (seen, heard) = std::sync::mpsc::channel();
    proxy.hook(move |direction, message| {
        let text = String::from_utf8_lossy(message).into_owned();
        let action = if text.contains("secret") { Action::Drop } else { Action::Pass };
        let _ = seen.send((direction, text));
        action
    });
    let (set, long) = (request(&["SET", "hook", "secret"]), request(&["SET", "hook", &"x".repeat(100_000)]));
    std::io::Write::write_all(&mut stream, set.as_bytes())?;
    for part in long.as_bytes().chunks(9_999) {
        std::io::Write::write_all(&mut stream, part)?;
    }
    assert_eq!(hear(&mut stream)?, "+OK\r\n");
    let expected = [(Direction::Request, set), (Direction::Request, long), (Direction::Reply, "+OK\r\n".to_owned())];
    assert!(heard.try_iter().eq(expected));
    assert_eq!(redis.command(0, &["STRLEN", "hook"]).await?, "100000");
    Ok(())
}
