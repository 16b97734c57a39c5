//! The few words of each server's protocol that it takes to see whether it answers.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// ZooKeeper's answer to a command of four letters.
pub(super) fn four_letters(address: SocketAddr, word: &str) -> std::io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Redis's answer to a command: strings as they are, errors with their `-`, arrays a line for each element.
pub(super) fn redis(address: SocketAddr, words: &[&str]) -> std::io::Result<String> {
    let mut stream = connect(address)?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    redis_reply(&mut BufReader::new(stream))
}

fn redis_reply(input: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).unwrap_or(("", ""));
    let length = || rest.parse::<i64>().map_err(std::io::Error::other);
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Ok(line.to_owned()),
        "$" => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(String::new()) };
            let mut bytes = vec![0; length + 2];
            input.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let elements = (0..length()?).map(|_| redis_reply(input)).collect::<Result<Vec<_>, _>>()?;
            Ok(elements.join("\n"))
        }
        _ => Err(std::io::Error::other(format!("no reply of Redis: {line:?}"))),
    }
}
