//! Which protocol the first bytes of a connection are read as, and what rules can ask about once they are.

use super::ambiguity::Ambiguity;
use super::request::Request;
use super::tls::{self, Hello};
use super::{http, http2};

/// How the first bytes of a service's connections are read: its `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The first request of HTTP/1.0 and 1.1, or of HTTP/2 in clear with prior knowledge.
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
            Self::Http => &["host", "path", "method", "header", "query", "cookie", "json"],
            Self::Tls => &["sni", "alpn"],
            Self::None => &[],
        }
    }

    /// Reads what is at the beginning of `bytes`, of which at most `bytes_max` are looked at: with that many it is never
    /// incomplete. What a client has packed is unpacked into `text`, which is empty.
    pub(super) fn read<'a>(self, bytes: &'a [u8], bytes_max: usize, text: &'a mut Vec<u8>) -> Reading<'a> {
        match self {
            Self::Http => read_http(bytes, bytes_max, text),
            Self::Tls => tls::read(bytes, bytes_max),
            Self::None => Reading::Clear(Content::Nothing),
        }
    }

    /// Whether a client that sent this, which is not enough, may be waiting for the server to speak.
    pub(super) fn awaits_server(self, bytes: &[u8]) -> bool {
        match self {
            Self::Http => http2::awaits_server(bytes),
            Self::Tls | Self::None => false,
        }
    }
}

/// The preface of HTTP/2 is such that no request of HTTP/1 begins with it (RFC 9113, section 3.4).
fn read_http<'a>(bytes: &'a [u8], bytes_max: usize, text: &'a mut Vec<u8>) -> Reading<'a> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    let is_preface = seen.starts_with(http2::PREFACE) || (http2::PREFACE.starts_with(seen) && seen.len() < bytes_max);
    if is_preface { http2::read(bytes, bytes_max, text) } else { http::read(bytes, bytes_max) }
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
