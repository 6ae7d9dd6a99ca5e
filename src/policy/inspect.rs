//! Which protocol the first bytes of a connection are read as, and what rules can ask about once they are.

use super::ambiguity::Ambiguity;
use super::http;
use super::request::Request;
use super::tls::{self, Hello};

/// How the first bytes of a service's connections are read: its `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and 1.1: the head of the first request.
    Http,
    /// TLS: the ClientHello. Nothing is decrypted.
    Tls,
    /// Nothing: the SYN is decided on, and all that is known is who connects to what.
    None,
}

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading<'a> {
    /// The beginning of something.
    Incomplete,
    /// Something to compare with rules. More bytes would not change it.
    Clear(Content<'a>),
    /// Nothing to compare with rules, whatever may follow.
    Unclear(Ambiguity),
}

/// What rules can ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Http(Request<'a>),
    Tls(Hello),
    Nothing,
}

impl Protocol {
    /// Those that work today.
    pub const ALL: [Self; 3] = [Self::Http, Self::Tls, Self::None];

    /// The word for it in the cluster file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// The matchers that ask about this protocol; all others work with any.
    pub(super) const fn matchers(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["host", "path", "method", "header"],
            Self::Tls => &["sni", "alpn"],
            Self::None => &[],
        }
    }

    /// Reads what is at the beginning of `bytes`, of which at most `bytes_max` are looked at: with that many it is never
    /// incomplete.
    pub(super) fn read(self, bytes: &[u8], bytes_max: usize) -> Reading<'_> {
        match self {
            Self::Http => http::read(bytes, bytes_max),
            Self::Tls => tls::read(bytes, bytes_max),
            Self::None => Reading::Clear(Content::Nothing),
        }
    }
}

impl<'a> Content<'a> {
    pub(super) fn http(&self) -> Option<&Request<'a>> {
        match self {
            Self::Http(request) => Some(request),
            Self::Tls(_) | Self::Nothing => None,
        }
    }

    pub(super) fn tls(&self) -> Option<&Hello> {
        match self {
            Self::Http(_) | Self::Nothing => None,
            Self::Tls(hello) => Some(hello),
        }
    }
}
