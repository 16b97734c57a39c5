use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, io};

use avout_core::{Error, ErrorKind};
use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as TlsError};

/// Why a TLS connection does not come about, however often it is tried.
///
/// What may pass by itself is none: a connection that was cut in the handshake, or a server that fails within.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    why: Why,
    source: Option<TlsError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Authority,
    Name,
    Dates,
    Revoked,
    ServersCertificate,
    ClientsCertificate,
    Protocol,
}

/// What a driver writes of an error, in the words of rustls, by what follows `invalid peer certificate: `.
const OF_SERVERS: [(&str, Why); 9] = [
    ("NotValidForName", Why::Name),
    ("certificate not valid for name", Why::Name),
    ("Expired", Why::Dates),
    ("certificate expired", Why::Dates),
    ("NotValidYet", Why::Dates),
    ("certificate not valid yet", Why::Dates),
    ("UnknownIssuer", Why::Authority),
    ("BadSignature", Why::Authority),
    ("Revoked", Why::Revoked),
];

/// The same, by what follows `received fatal alert: `.
const OF_ALERTS: [(Alert, Why); 14] = [
    (Alert::BadCertificate, Why::ClientsCertificate),
    (Alert::UnsupportedCertificate, Why::ClientsCertificate),
    (Alert::CertificateRevoked, Why::ClientsCertificate),
    (Alert::CertificateExpired, Why::ClientsCertificate),
    (Alert::CertificateUnknown, Why::ClientsCertificate),
    (Alert::CertificateRequired, Why::ClientsCertificate),
    (Alert::NoCertificate, Why::ClientsCertificate),
    (Alert::UnknownCA, Why::ClientsCertificate),
    (Alert::AccessDenied, Why::ClientsCertificate),
    // What a server with TLS 1.2 answers to a client without a certificate.
    (Alert::HandshakeFailure, Why::ClientsCertificate),
    (Alert::UnrecognisedName, Why::Name),
    (Alert::ProtocolVersion, Why::Protocol),
    (Alert::InsufficientSecurity, Why::Protocol),
    (Alert::NoApplicationProtocol, Why::Protocol),
];

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TLS handshake was refused")
    }
}

impl StdError for Refused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl Refused {
    /// Looks through an error and its sources for one of these, or of rustls.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(known) = error.downcast_ref::<Self>() {
                return Some(known.clone());
            }
            if let Some(found) = error.downcast_ref::<TlsError>() {
                return Some(Self { why: why(found)?, source: Some(found.clone()) });
            }
            // What these hold is not their source.
            next = if let Some(error) = error.downcast_ref::<io::Error>() {
                error.get_ref().map(|inner| inner as &(dyn StdError + 'static))
            } else if let Some(error) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
                Some(&**error as &(dyn StdError + 'static))
            } else {
                error.source()
            };
        }
        None
    }

    /// The same of a driver's text, where it keeps no more of the error.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let known = |why| Some(Self { why, source: None });
        if let Some((_, rest)) = text.split_once("invalid peer certificate") {
            let found = OF_SERVERS.iter().find(|(sign, _)| rest.contains(sign));
            return known(found.map_or(Why::ServersCertificate, |(_, why)| *why));
        }
        let (_, alert) = text.split_once("received fatal alert: ")?;
        let alert = alert.strip_prefix("the peer ").unwrap_or(alert);
        known(OF_ALERTS.iter().find(|(known, _)| alert.starts_with(&format!("{known:?}")))?.1)
    }

    /// What the user is told: [`Denied`](ErrorKind::Denied), with what to do by the options `tls_ca`, `tls_cert` and `tls_key`.
    #[must_use]
    pub fn told(&self) -> Error {
        self.told_as("tls_ca", "tls_cert and tls_key")
    }

    /// The same where a driver's own options name the authorities and the client's certificate.
    #[must_use]
    pub fn told_as(&self, ca: &str, identity: &str) -> Error {
        let message = match self.why {
            // A signature that does not fit is one of another authority with the same name.
            Why::Authority => format!(
                "the server's certificate is signed by no authority that is trusted: name the file of the servers' authority with {ca}"
            ),
            Why::Name => {
                "the server's certificate is for another host: name the servers as their certificates do".to_owned()
            }
            Why::Dates => {
                "the server's certificate is expired or not valid yet: renew it, or set the clocks".to_owned()
            }
            Why::Revoked => {
                "the server's certificate was revoked by its authority: give the server another one".to_owned()
            }
            Why::ServersCertificate => "the server's certificate cannot be accepted".to_owned(),
            Why::ClientsCertificate => format!(
                "the server refuses this client's certificate, or asks for one: give one that the servers trust with {identity}"
            ),
            Why::Protocol => "the server has no version of TLS, or no cipher, that this client takes".to_owned(),
        };
        let error = Error::new(ErrorKind::Denied, message);
        match &self.source {
            Some(source) => error.with_source(source.clone()),
            None => error,
        }
    }
}

fn why(error: &TlsError) -> Option<Why> {
    Some(match error {
        TlsError::InvalidCertificate(certificate) => match certificate {
            Certificate::UnknownIssuer | Certificate::BadSignature => Why::Authority,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => Why::Name,
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => Why::Dates,
            Certificate::Revoked => Why::Revoked,
            _ => Why::ServersCertificate,
        },
        TlsError::NoCertificatesPresented => Why::ServersCertificate,
        TlsError::AlertReceived(alert) => OF_ALERTS.iter().find(|(known, _)| known == alert)?.1,
        TlsError::PeerIncompatible(_) => Why::Protocol,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each refusal is told in the same words, whether the driver keeps the error or writes it down, and says what to do.
    #[test]
    fn each_refusal_is_told() {
        let of = |error: Certificate| TlsError::InvalidCertificate(error);
        let context = Certificate::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("a").expect("a name"),
            presented: Vec::new(),
        };
        let table = [
            (of(Certificate::UnknownIssuer), "tls_ca"),
            (of(Certificate::BadSignature), "tls_ca"),
            (of(Certificate::NotValidForName), "for another host"),
            (of(context), "for another host"),
            (of(Certificate::Expired), "expired"),
            (of(Certificate::NotValidYet), "set the clocks"),
            (of(Certificate::Revoked), "revoked"),
            (of(Certificate::BadEncoding), "cannot be accepted"),
            (TlsError::AlertReceived(Alert::CertificateRequired), "tls_cert"),
            (TlsError::AlertReceived(Alert::UnknownCA), "tls_cert"),
            (TlsError::AlertReceived(Alert::HandshakeFailure), "tls_cert"),
            (TlsError::AlertReceived(Alert::ProtocolVersion), "no version of TLS"),
        ];
        for (error, says) in table {
            let text = error.to_string();
            let held = Arc::new(io::Error::other(error)) as Arc<dyn StdError + Send + Sync>;
            let refused = Refused::of(&io::Error::other(held)).expect("refused");
            let told = refused.told();
            assert_eq!(told.kind(), ErrorKind::Denied, "{text}");
            assert!(told.to_string().contains(says), "{text}: {told}");
            let read = Refused::of_text(&format!("Kind: I/O error: {text}, labels: {{}}")).expect(&text);
            assert_eq!(read.told().to_string(), told.to_string(), "{text}");
        }
    }

    /// What may pass is no refusal.
    #[test]
    fn what_may_pass_is_none() {
        for error in [TlsError::HandshakeNotComplete, TlsError::AlertReceived(Alert::InternalError)] {
            assert_eq!(Refused::of_text(&error.to_string()), None);
            assert_eq!(Refused::of(&io::Error::other(error)), None);
        }
        assert_eq!(Refused::of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
