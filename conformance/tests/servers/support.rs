use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(super) type Outcome = Result<(), Box<dyn Error>>;

/// The table of a file's tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn tests() -> Vec<avout_conformance::servers::ServerTest> {
            vec![$(avout_conformance::servers::ServerTest::new(stringify!($name), $name)),*]
        }
    };
}
pub(super) use tests;

/// Waits until it holds, for at most 30 s.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A connection on which a missing answer shows after 300 ms.
pub(super) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    Ok(stream)
}

/// What comes back; empty at the connection's orderly end.
pub(super) fn ask(stream: &mut TcpStream, words: &str) -> std::io::Result<String> {
    stream.write_all(words.as_bytes())?;
    hear(stream)
}

pub(super) fn hear(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Whether a process runs.
pub(super) fn runs(pid: u32) -> bool {
    std::process::Command::new("kill")
        .args(["-0", &pid.to_string()])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// ZooKeeper's request for a session of 10 s, and the length of the answer. To grant one is a write.
pub(super) fn zookeeper_session(address: SocketAddr) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    let mut request = vec![0, 0, 0, 44];
    request.extend([0; 12]);
    request.extend(10_000_i32.to_be_bytes());
    request.extend([0; 8]);
    request.extend(16_i32.to_be_bytes());
    request.extend([0; 16]);
    stream.write_all(&request)?;
    stream.read(&mut [0; 64])
}
