//! What servers answer to a client that knows nothing of avout.

use std::time::Duration;

use avout_redis::redis::{self, Value};
use tokio::time::{Instant, sleep, timeout};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_millis(700);

/// The answers to some commands, sent together over a connection of their own.
pub(crate) async fn ask_all(address: &str, commands: &[&[&str]]) -> Result<Vec<Value>, String> {
    let ask = async {
        let client = redis::Client::open(format!("redis://{address}")).map_err(|error| error.to_string())?;
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for words in commands {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            answers.push(command.query_async(&mut connection).await.map_err(|error| error.to_string())?);
        }
        Ok(answers)
    };
    timeout(LIMIT, ask).await.unwrap_or_else(|_| Err(format!("{address} does not answer")))
}

/// The answer to one command, an element a line.
pub(crate) async fn ask(address: &str, words: &[&str]) -> Result<String, String> {
    let answers = ask_all(address, &[words]).await?;
    Ok(answers.first().map(text).unwrap_or_default())
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".to_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// Asks until the answer will do.
pub(crate) async fn ask_until(address: &str, words: &[&str], holds: impl Fn(&str) -> bool) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let answer = ask(address, words).await.unwrap_or_else(|error| error);
        if holds(&answer) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("{address} goes on answering {words:?} with {answer}"));
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// What follows a name in a list of names and values, a line each.
pub(crate) fn field<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.lines().skip_while(|line| *line != name).nth(1)
}
