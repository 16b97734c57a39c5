use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// Reads the options of a backend's URL, `?name=value&name=value`, with the same rules and words for all backends.
///
/// Every error is [`InvalidInput`](ErrorKind::InvalidInput). It names the option and lists what is known, and never holds a value:
/// that may be a password.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use avout_core::backend::UrlReader;
///
/// const URL: UrlReader = UrlReader::new("shelf url", "timeout=<number>ms|s, floors=1..9");
///
/// # fn main() -> avout_core::Result<()> {
/// for (name, value) in UrlReader::pairs("timeout=250ms&floors=3") {
///     match name {
///         "timeout" => assert_eq!(URL.duration(name, value, Duration::ZERO..=Duration::MAX)?, Duration::from_millis(250)),
///         "floors" => assert_eq!(URL.number(name, value, 1..=9)?, 3),
///         _ => return Err(URL.unknown(name)),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UrlReader {
    operation: &'static str,
    known: &'static str,
}

impl UrlReader {
    /// `operation` is what errors name, such as `redis url`; `known` lists the options with their values.
    pub const fn new(operation: &'static str, known: &'static str) -> Self {
        Self { operation, known }
    }

    /// The options of a query, in their order. One without `=` has an empty value.
    pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The URL is wrong, in these words.
    pub fn invalid(&self, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidInput, message).during(self.operation)
    }

    /// There is no option of this name.
    pub fn unknown(&self, name: &str) -> Error {
        let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
        self.invalid(format!("unknown option {shown}; known are: {}", self.known))
    }

    /// The option has no such value.
    pub fn wrong_value(&self, name: &str) -> Error {
        self.invalid(format!("the value of the option {name} is none of: {}", self.known))
    }

    /// The text with its percent-encoding undone. `what` is for the error: `the namespace`.
    ///
    /// # Errors
    /// If that is not UTF-8.
    pub fn decode(&self, text: &str, what: &str) -> Result<String> {
        match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(self.invalid(format!("{what} is not UTF-8"))),
        }
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number<T: FromStr + PartialOrd>(&self, name: &str, value: &str, of: RangeInclusive<T>) -> Result<T> {
        let number = value.parse().ok().filter(|number| of.contains(number));
        number.ok_or_else(|| self.wrong_value(name))
    }

    /// A time within bounds, written as `250ms` or `3s`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn duration(&self, name: &str, value: &str, of: RangeInclusive<Duration>) -> Result<Duration> {
        let time = match value.strip_suffix("ms") {
            Some(number) => number.parse().ok().map(Duration::from_millis),
            None => value.strip_suffix('s').and_then(|number| number.parse().ok()).map(Duration::from_secs),
        };
        time.filter(|time| of.contains(time)).ok_or_else(|| self.wrong_value(name))
    }

    /// One of several words.
    ///
    /// # Errors
    /// If it is something else.
    pub fn choice<T: Copy>(&self, name: &str, value: &str, of: &[(&str, T)]) -> Result<T> {
        let chosen = of.iter().find(|(word, _)| *word == value);
        chosen.map(|(_, meant)| *meant).ok_or_else(|| self.wrong_value(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: UrlReader = UrlReader::new("shelf url", "floors=1..9");

    /// What is not within the rules is refused, and its value is not repeated.
    #[test]
    fn refuses_what_is_wrong() {
        let time = |text| URL.duration("wait", text, Duration::from_millis(10)..=Duration::from_secs(60));
        assert_eq!(time("10ms").expect("a time"), Duration::from_millis(10));
        assert_eq!(time("60s").expect("a time"), Duration::from_secs(60));
        for text in ["", "5", "s", "ms", "-1s", "1.5s", "9ms", "61s", "99999999999999999999s", "canary"] {
            let error = time(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
        for text in ["", "0", "10", "x", "-1"] {
            URL.number("floors", text, 1..=9).expect_err(text);
        }
        URL.choice("door", "ajar", &[("open", true), ("shut", false)]).expect_err("ajar");
        URL.decode("%ff", "the name").expect_err("not UTF-8");
        assert!(URL.unknown("a\nb").to_string().contains("unknown option a\\nb; known are: floors=1..9"));
    }

    /// Options come in their order, and empty ones are skipped.
    #[test]
    fn splits_options() {
        assert!(UrlReader::pairs("a=1&&b&c=x=y&").eq([("a", "1"), ("b", ""), ("c", "x=y")]));
        assert_eq!(UrlReader::pairs("").count(), 0);
    }
}
