//! A password in a URL is shown nowhere, however it is written: in no error, no `Debug` and no log.
#![cfg(all(feature = "local", feature = "sql", feature = "zk", feature = "redis", feature = "mongo"))]

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout::{ErrorKind, Result};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Every place where a URL has a password, as `PW`. Nobody listens at the address.
const FORMS: &[&str] = &[
    "redis://app:PW@127.0.0.1:1/shop?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "redis://:PW@127.0.0.1:1/3/shop?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "redis://PW@127.0.0.1:1?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "rediss://app:PW@127.0.0.1:1/shop?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "redis+sentinel://app:PW@127.0.0.1:1,127.0.0.1:2/main/shop?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "redis+sentinel://127.0.0.1:1/main?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms&sentinel_password=PW",
    "redis+sentinel://127.0.0.1:1/main?sentinel_user=app&sentinel_password=PW&timeout=60ms&connect_timeout=60ms",
    "redis+cluster://app:PW@127.0.0.1:1,127.0.0.1:2/shop?timeout=60ms&connect_timeout=60ms&wait_timeout=50ms",
    "zk://app:PW@127.0.0.1:1,127.0.0.1:2/shop?timeout=60ms",
    "zk://app:PW@127.0.0.1:1/shop?auth=sasl&timeout=60ms",
    "mongodb://app:PW@127.0.0.1:1,127.0.0.1:2/shop?replicaSet=rs0&timeout=60ms",
    "mongodb://app:PW@127.0.0.1:1/shop?authSource=admin&timeout=60ms",
    "mongodb+srv://app:PW@cluster.invalid/shop?timeout=60ms",
    "sqlite://app:PW@127.0.0.1:1/shop",
];

/// What nothing else is called.
const SECRET: &str = "QZXJVKWM";

/// Passwords with it that look like another part of a URL.
const PASSWORDS: &[&str] = &[
    "1/QZXJVKWM",
    "1?QZXJVKWM",
    "1#QZXJVKWM",
    "1@QZXJVKWM",
    "QZXJVKWM/",
    "QZXJVKWM?",
    "QZXJVKWM#",
    "QZXJVKWM@",
    "1&QZXJVKWM",
    "QZXJVKWM&QZXJVKWM=QZXJVKWM",
    "1?db=QZXJVKWM",
    "1?timeout=QZXJVKWM",
    "1/QZXJVKWM/QZXJVKWM",
    "QZXJVKWM:QZXJVKWM",
    "@QZXJVKWM/QZXJVKWM",
    "1@QZXJVKWM?QZXJVKWM",
    "1@QZXJVKWM:QZXJVKWM/",
    "1@[QZXJVKWM",
    "%QZXJVKWM",
    "QZXJVKWM%ff",
    "%00QZXJVKWM",
    "QZXJVKWM,QZXJVKWM",
    "://QZXJVKWM",
    "QZXJVKWM\nQZXJVKWM",
    "1 QZXJVKWM",
    "1/?#QZXJVKWM",
    "12345?QZXJVKWM",
    "1/QZXJVKWM?x=@",
];

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that a program could print of an error.
fn shown(error: &avout::Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(" {source} {source:?}");
        next = source.source();
    }
    text
}

/// What reading the URL shows.
fn read(url: &str) -> String {
    fn show<T: Debug>(read: Result<T>) -> String {
        match read {
            Ok(options) => format!("{options:?} {options:#?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                shown(&error)
            }
        }
    }
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "zk" => show(avout::zk::Options::from_url(url)),
        "mongodb" | "mongodb+srv" => show(avout::mongo::Options::from_url(url)),
        "sqlite" => show(avout::sql::Options::from_url(url)),
        _ => show(avout::redis::Options::from_url(url)),
    }
}

/// Each character as its bytes are written in a URL.
fn encoded(password: &str) -> String {
    password.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The first four characters of the password, not only marks, that stand in the text together.
fn leak<'p>(text: &str, password: &'p str) -> Option<&'p str> {
    let starts: Vec<usize> = password.char_indices().map(|(at, _)| at).chain([password.len()]).collect();
    let mut fours = starts.windows(5).map(|four| &password[four[0]..four[4]]);
    fours.find(|four| four.contains(char::is_alphanumeric) && text.contains(four))
}

/// Whatever a password is made of, and whether or not it is percent-encoded, reading the URL shows no four characters of it.
#[test]
fn reading_a_url_shows_no_password() {
    // No character that messages have four of in a row.
    let passwords = "[G-Z/?#@:&=%+,;!*\\[\\]~\n]{1,24}";
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&passwords, |password| {
        for (form, written) in FORMS.iter().flat_map(|form| [(form, password.clone()), (form, encoded(&password))]) {
            let text = read(&form.replace("PW", &written));
            prop_assert_eq!(leak(&text, &password), None, "of {:?} in {}: {}", password, form, text);
        }
        Ok(())
    });
    ran.unwrap_or_else(|failed| panic!("{failed}"));
}

/// A password whose end cannot be told is refused with the advice to encode it.
#[test]
fn an_ambiguous_password_is_to_be_encoded() {
    for form in FORMS.iter().filter(|form| form.contains("PW@") && !form.starts_with("sqlite")) {
        for password in ["12345?QZXJVKWM", "1/QZXJVKWM", "1#QZXJVKWM", "1@2/QZXJVKWM"] {
            let text = read(&form.replace("PW", password));
            assert!(text.contains("percent-encoded"), "{form} with {password}: {text}");
        }
    }
}

/// Connecting, which fails here in each backend's own way, neither tells nor logs a part of a password.
#[tokio::test]
async fn connecting_shows_no_password() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone());
    subscriber.try_init().expect("no other subscriber in this program");
    for form in FORMS.iter().filter(|form| !form.starts_with("sqlite")) {
        for password in PASSWORDS {
            for written in [(*password).to_owned(), encoded(password)] {
                let url = form.replace("PW", &written);
                let text = match avout::open_within(&url, Duration::ZERO).await {
                    Ok(opened) => format!("{opened:?}"),
                    Err(error) => shown(&error),
                };
                let text = text + &log.take();
                assert_eq!(leak(&text, SECRET), None, "of {password:?} in {form}: {text}");
            }
        }
    }
    for url in
        ["mem://app:QZXJVKWM@h/x?QZXJVKWM", "QZXJVKWM://app", "redis:app:QZXJVKWM@h", "postgres://app:QZXJVKWM@h/x"]
    {
        let text = match avout::open_within(url, Duration::ZERO).await {
            Ok(opened) => format!("{opened:?}"),
            Err(error) => shown(&error),
        };
        assert_eq!(leak(&text, SECRET), None, "{url}: {text}");
    }
}
