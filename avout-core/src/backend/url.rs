use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// Reads the options of a backend's URL, `?name=value&name=value`, with the same rules and words for all backends.
///
/// Every error is [`InvalidInput`](ErrorKind::InvalidInput). It names known options only, and repeats no part of the
/// URL: any part may belong to a password whose `/`, `?`, `#`, `@` or `&` was not percent-encoded.
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

/// The longest time that an option of a backend takes: a day. Longer times are taken as a day.
pub const LONGEST_TIME: Duration = Duration::from_secs(24 * 3600);

/// The part of a URL after `scheme://`, still percent-encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UrlParts<'u> {
    /// The part before the `@`: a user, and a password after a colon.
    pub credentials: Option<(&'u str, Option<&'u str>)>,
    /// The hosts with their ports, and commas between.
    pub hosts: &'u str,
    /// The part after the first `/`.
    pub path: &'u str,
    /// The part after the first `?`.
    pub query: &'u str,
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

    /// Takes apart the part of a URL after `scheme://`.
    ///
    /// # Errors
    /// If there is a `#`, or an `@` after the first `/` or `?`: a password was not percent-encoded, and no rule tells
    /// where it ends.
    pub fn split<'u>(&self, rest: &'u str) -> Result<UrlParts<'u>> {
        let (rest_of_hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest_of_hosts.split_once('/').unwrap_or((rest_of_hosts, ""));
        if rest.contains('#') || rest[authority.len()..].contains('@') {
            return Err(self.invalid(
                "a user, a password, a name or a value in a URL is percent-encoded: \
                / is %2F, ? is %3F, # is %23, @ is %40, & is %26",
            ));
        }
        // A host has no @, so the last one ends the password.
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => {
                let (user, password) = user.split_once(':').map_or((user, None), |(user, pass)| (user, Some(pass)));
                (Some((user, password)), hosts)
            }
            None => (None, authority),
        };
        Ok(UrlParts { credentials, hosts, path, query })
    }

    /// The host of `host`, `host:port` or `[address]:port`, without brackets, and the port.
    ///
    /// # Errors
    /// If it has another form.
    pub fn address<'u>(&self, text: &'u str) -> Result<(&'u str, Option<u16>)> {
        let wrong = || self.invalid("a host is a name or an address, followed by nothing, or by a colon and its port");
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?),
        };
        if host.is_empty() {
            return Err(self.invalid("there is no host"));
        }
        if host.contains(|c: char| "/?#@[],".contains(c) || c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        Ok((host, port))
    }

    /// An error: the URL is wrong, in these words.
    pub fn invalid(&self, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidInput, message).during(self.operation)
    }

    /// An error: there is no option of this name. The name is not repeated, as it may be the rest of a password.
    pub fn unknown(&self, name: &str) -> Error {
        let meant = self.similar(name).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
        let known = self.known;
        self.invalid(format!("unknown option{meant}: known are {known}; a ? or & within a password, a name or a value is percent-encoded as %3F or %26"))
    }

    /// The known option that contains this name or is contained in it, ignoring case and dashes.
    fn similar(&self, name: &str) -> Option<&'static str> {
        let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
        let name = plain(name);
        let near = |known: &&str| known.len() > 2 && (plain(known).contains(&name) || name.contains(&plain(known)));
        let options = self.known.split(", ").map(|option| option.split_once('=').map_or(option, |(name, _)| name));
        let words = options.filter_map(|option| option.split_whitespace().next_back());
        words.filter(|_| name.len() > 2).find(near)
    }

    /// An error: the value is not valid for the option.
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
    /// If it is not a number, or out of bounds.
    pub fn number<T: FromStr + PartialOrd>(&self, name: &str, value: &str, of: RangeInclusive<T>) -> Result<T> {
        let number = value.parse().ok().filter(|number| of.contains(number));
        number.ok_or_else(|| self.wrong_value(name))
    }

    /// A time within bounds, written as `250ms` or `3s`.
    ///
    /// # Errors
    /// If it is not a time, or out of bounds.
    pub fn duration(&self, name: &str, value: &str, of: RangeInclusive<Duration>) -> Result<Duration> {
        let time = match value.strip_suffix("ms") {
            Some(number) => number.parse().ok().map(Duration::from_millis),
            None => value.strip_suffix('s').and_then(|number| number.parse().ok()).map(Duration::from_secs),
        };
        time.filter(|time| of.contains(time)).ok_or_else(|| self.wrong_value(name))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&self, name: &str, value: &str) -> Result<bool> {
        self.choice(name, value, &[("true", true), ("false", false)])
    }

    /// One of several words.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn choice<T: Copy>(&self, name: &str, value: &str, of: &[(&str, T)]) -> Result<T> {
        let chosen = of.iter().find(|(word, _)| *word == value);
        chosen.map(|(_, meant)| *meant).ok_or_else(|| self.wrong_value(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: UrlReader = UrlReader::new("shelf url", "floors=1..9");

    /// An invalid value is refused, and not repeated.
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
        let text = URL.unknown("canary").to_string();
        assert!(text.contains("unknown option: known are floors=1..9") && !text.contains("canary"), "{text}");
        assert!(URL.unknown("Floor").to_string().contains("did you mean floors?"));
    }

    /// A URL is split at its marks, and the last `@` before the path ends the password.
    #[test]
    fn splits_urls() {
        let parts = |credentials, hosts, path, query| UrlParts { credentials, hosts, path, query };
        for (text, expected) in [
            ("h", parts(None, "h", "", "")),
            ("h:1,i/a/b?c=/d?", parts(None, "h:1,i", "a/b", "c=/d?")),
            ("u@h?c", parts(Some(("u", None)), "h", "", "c")),
            ("u:p:q@r@h/a", parts(Some(("u", Some("p:q@r"))), "h", "a", "")),
            (":@h", parts(Some(("", Some(""))), "h", "", "")),
            ("", parts(None, "", "", "")),
        ] {
            assert!(URL.split(text).expect(text) == expected, "{text}");
        }
    }

    /// A password that was not encoded is refused if its end cannot be told, and no part of it is repeated.
    #[test]
    fn refuses_passwords_that_were_not_encoded() {
        for text in ["u:1/canary@h", "u:1?canary@h", "u:1#canary@h", "u:1@2/canary@h/a?b", "h/a#canary", "h?a=canary@b"]
        {
            let Err(error) = URL.split(text) else { panic!("{text} is taken apart") };
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("percent-encoded") && !shown.contains("canary"), "{shown}");
        }
    }

    /// A host may have a port after a colon, and nothing else.
    #[test]
    fn reads_hosts() {
        assert_eq!(URL.address("h").expect("a host"), ("h", None));
        assert_eq!(URL.address("[::1]:7").expect("a host"), ("::1", Some(7)));
        for text in ["", ":1", "h:", "h:canary", "h:1:2", "h:65536", "[h", "a b", "u:p@h", "u@h", "h\n"] {
            let error = URL.address(text).expect_err(text);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    /// Options come in their order, and empty ones are skipped.
    #[test]
    fn splits_options() {
        assert!(UrlReader::pairs("a=1&&b&c=x=y&").eq([("a", "1"), ("b", ""), ("c", "x=y")]));
        assert_eq!(UrlReader::pairs("").count(), 0);
    }
}
