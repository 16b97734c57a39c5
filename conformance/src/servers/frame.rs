//! Where one message of a protocol ends, and which reply belongs to which request.

use std::fmt;

/// The protocol that goes through a [`Proxy`](super::Proxy), so that it sees whole messages.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Protocol {
    /// Any, TLS too. A message is then whatever arrives at once: mostly, but not surely, what was sent at once.
    Any,
    /// ZooKeeper's client protocol.
    ZooKeeper,
    /// Redis's, version 2 or 3.
    Redis,
    /// MongoDB's.
    Mongo,
    /// Another one, by its rules.
    Framed(&'static dyn Framing),
}

/// The rules of a protocol that the suite does not know.
///
/// # Examples
/// HTTP/2, whose frames have their length in three bytes and the number of their stream in four:
/// ```
/// use avout_conformance::servers::{Framing, Protocol};
///
/// #[derive(Debug)]
/// struct Http2;
///
/// impl Framing for Http2 {
///     fn message(&self, bytes: &[u8]) -> Option<usize> {
///         const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
///         if bytes.starts_with(b"PRI") {
///             return Some(PREFACE.len());
///         }
///         let [a, b, c] = *bytes.first_chunk::<3>()?;
///         Some(9 + u32::from_be_bytes([0, a, b, c]) as usize)
///     }
///
///     fn request_id(&self, message: &[u8]) -> Option<[u8; 4]> {
///         message.get(5..9)?.try_into().ok()
///     }
///
///     fn reply_id(&self, message: &[u8]) -> Option<[u8; 4]> {
///         self.request_id(message)
///     }
/// }
///
/// let protocol = Protocol::Framed(&Http2);
/// # let _ = protocol;
/// ```
pub trait Framing: fmt::Debug + Send + Sync + 'static {
    /// The length of the message that begins with these bytes, which may not be all of it; `None` if more of it is needed to
    /// tell.
    fn message(&self, bytes: &[u8]) -> Option<usize>;

    /// What a request is known by in its reply. `None`, which is the default: replies come in the order of requests.
    fn request_id(&self, message: &[u8]) -> Option<[u8; 4]> {
        let _ = message;
        None
    }

    /// The request that a reply answers, by its id.
    fn reply_id(&self, message: &[u8]) -> Option<[u8; 4]> {
        let _ = message;
        None
    }

    /// Whether the server said it unasked.
    fn is_push(&self, message: &[u8]) -> bool {
        let _ = message;
        false
    }
}

/// No sensible message is longer; the connection is another protocol's.
const LONGEST: usize = 128 << 20;

impl Protocol {
    /// The length of the first message; `None` if it is not complete, or the bytes are of another protocol.
    pub(super) fn message(self, bytes: &[u8]) -> Option<usize> {
        let length = |length: usize| Some(length).filter(|length| *length <= bytes.len());
        let head = || bytes.first_chunk::<4>();
        match self {
            Self::Any => length(bytes.len()).filter(|length| *length > 0),
            Self::ZooKeeper => length(usize::try_from(u32::from_be_bytes(*head()?)).ok()? + 4),
            Self::Mongo => length(usize::try_from(u32::from_le_bytes(*head()?)).ok()?),
            Self::Redis => redis(bytes, 0, 0),
            Self::Framed(framing) => length(framing.message(bytes)?).filter(|length| *length > 0),
        }
    }

    /// Whether bytes that are no complete message never become one: then they are passed on as they come.
    pub(super) fn is_foreign(self, bytes: &[u8]) -> bool {
        let length = match (self, bytes.first_chunk::<4>()) {
            (Self::ZooKeeper, Some(head)) => u32::from_be_bytes(*head),
            (Self::Mongo, Some(head)) => u32::from_le_bytes(*head).wrapping_sub(16).saturating_add(16),
            _ => 16,
        };
        bytes.len() > LONGEST || usize::try_from(length).is_ok_and(|length| length > LONGEST)
    }

    /// What a request is known by in its reply; `None` if replies come in the order of requests.
    pub(super) fn request_id(self, message: &[u8]) -> Option<[u8; 4]> {
        match self {
            Self::ZooKeeper | Self::Mongo => message.get(4..8)?.try_into().ok(),
            Self::Framed(framing) => framing.request_id(message),
            Self::Any | Self::Redis => None,
        }
    }

    /// The request that a reply answers.
    pub(super) fn reply_id(self, message: &[u8]) -> Option<[u8; 4]> {
        let at = match self {
            Self::ZooKeeper => 4..8,
            Self::Mongo => 8..12,
            Self::Framed(framing) => return framing.reply_id(message),
            Self::Any | Self::Redis => return None,
        };
        message.get(at)?.try_into().ok()
    }

    /// Whether a request ends the talk in messages: what follows is a replica's copy.
    pub(super) fn is_last(self, message: &[u8]) -> bool {
        matches!(self, Self::Redis)
            && message.get(..32.min(message.len())).is_some_and(|head| head.windows(7).any(|word| word == b"\nPSYNC\r"))
    }

    /// Whether the server said it unasked.
    pub(super) fn is_push(self, message: &[u8]) -> bool {
        match self {
            Self::Redis => message.first() == Some(&b'>'),
            Self::Framed(framing) => framing.is_push(message),
            _ => false,
        }
    }
}

/// The end of the message that begins at `at`.
fn redis(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let end = at + line + 2;
    let count = || std::str::from_utf8(&rest[1..line]).ok()?.parse::<i64>().ok();
    let elements = match rest.first()? {
        b'$' | b'=' | b'!' => {
            let end = usize::try_from(count()?).map_or(end, |length| end.saturating_add(length).saturating_add(2));
            return Some(end).filter(|end| *end <= bytes.len());
        }
        b'*' | b'~' | b'>' => count()?,
        b'%' => count()?.checked_mul(2)?,
        _ => 0,
    };
    // Deeper than any reply of a script is.
    if depth > 64 {
        return None;
    }
    (0..elements).try_fold(end, |end, _| redis(bytes, end, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message is seen when its last byte is there, and not before.
    #[test]
    fn a_message_ends_where_it_ends() {
        let messages: [(Protocol, &[u8]); 8] = [
            (Protocol::ZooKeeper, b"\0\0\0\x05abcde"),
            (Protocol::Mongo, b"\x11\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0x"),
            (Protocol::Redis, b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n"),
            (Protocol::Redis, b"*2\r\n:1\r\n*2\r\n$-1\r\n+OK\r\n"),
            (Protocol::Redis, b"%1\r\n+k\r\n~1\r\n#t\r\n"),
            (Protocol::Redis, b"PING\r\n"),
            (Protocol::Redis, b"*-1\r\n"),
            (Protocol::Any, b"x"),
        ];
        for (protocol, message) in messages {
            for cut in 0..message.len() {
                assert_eq!(protocol.message(&message[..cut]), None, "{protocol:?} {cut}");
                assert!(!protocol.is_foreign(&message[..cut]), "{protocol:?} {cut}");
            }
            assert_eq!(protocol.message(message), Some(message.len()), "{protocol:?}");
            if !matches!(protocol, Protocol::Any) {
                assert_eq!(protocol.message(&[message, b"more"].concat()), Some(message.len()), "{protocol:?}");
            }
        }
        assert!(Protocol::ZooKeeper.is_foreign(b"srvr"));
    }
}
