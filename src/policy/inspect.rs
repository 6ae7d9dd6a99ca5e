//! Which protocol the first bytes of a connection are read as, and what rules can ask about once they are.

use super::ambiguity::Ambiguity;
use super::auto::{self, Told};
use super::redis::{self, Command};
use super::request::Request;
use super::rule::Rule;
use super::subject::Origin;
use super::tls::{self, Hello};
use super::{Service, http, http2, proxy};
use std::net::IpAddr;

/// How the first bytes of a service's connections are read: its `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The first request of HTTP/1.0 and 1.1, or of HTTP/2 in clear with prior knowledge.
    Http,
    /// TLS: the ClientHello. Nothing is decrypted.
    Tls,
    /// Any protocol: the bytes themselves.
    Raw,
    /// The first command of Redis that says where it should go.
    Redis,
    /// Whichever of these the first bytes show.
    Auto,
    /// Nothing: the SYN is decided on, and all that is known is who connects to what.
    None,
}

/// What the first bytes are.
#[allow(clippy::large_enum_variant)] // One at a time, on the stack; a box would be an allocation for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading<'a> {
    /// The beginning of something.
    Incomplete,
    /// Something to compare with rules. More bytes would not change it, but for those of a body or of raw bytes.
    Clear(Content<'a>),
    /// Nothing to compare with rules, whatever may follow.
    Unclear(Ambiguity),
}

/// What rules can ask about.
#[allow(clippy::large_enum_variant)] // Likewise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Http(Request<'a>),
    Tls(Hello),
    Raw(Raw<'a>),
    Redis(Command<'a>),
    Nothing,
}

/// Bytes of no protocol that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether more would not be looked at.
    pub(super) is_all: bool,
}

impl Raw<'_> {
    /// The first of them as a person reads them.
    pub(super) fn shown(&self) -> String {
        let shown = self.bytes.get(..SHOWN_MAX).unwrap_or(self.bytes);
        format!("{}{}", shown.escape_ascii(), if shown.len() < self.bytes.len() { "…" } else { "" })
    }
}

/// Raw bytes that are shown.
const SHOWN_MAX: usize = 64;

/// What some rule asks about: with `inspect: auto`, what nobody asks about is not looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) raw: bool,
    pub(super) redis: bool,
}

impl Asked {
    pub(super) fn by(rules: &[Rule]) -> Self {
        let asks = |protocol: Protocol| {
            let mut matchers = rules.iter().flat_map(|rule| rule.when.matchers());
            matchers.any(|matcher| matcher.protocol() == Some(protocol))
        };
        Self { raw: asks(Protocol::Raw), redis: asks(Protocol::Redis) }
    }
}

impl Protocol {
    /// All of them; `Auto`, which has the matchers of the others, last.
    pub const ALL: [Self; 6] = [Self::Http, Self::Tls, Self::Raw, Self::Redis, Self::None, Self::Auto];

    /// The word for it in the cluster file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Raw => "raw",
            Self::Redis => "redis",
            Self::Auto => "auto",
            Self::None => "none",
        }
    }

    /// The matchers that ask about this protocol; all others work with any.
    pub(super) const fn matchers(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["host", "path", "method", "header", "query", "cookie", "json"],
            Self::Tls => &["sni", "alpn", "tls_version", "ech"],
            Self::Raw => &["starts_with", "bytes", "regex"],
            Self::Redis => &["command", "key"],
            Self::Auto | Self::None => &[],
        }
    }

    /// Whether a service that is read so can know what a matcher of this protocol asks.
    pub(super) fn knows(self, other: Self) -> bool {
        self == other || self == Self::Auto
    }

    /// Reads what is at the beginning of `bytes`, of which at most `bytes_max` are looked at: with that many it is never
    /// incomplete. What a client has packed is unpacked into `text`, which is empty.
    fn read<'a>(self, bytes: &'a [u8], bytes_max: usize, asked: Asked, text: &'a mut Vec<u8>) -> Reading<'a> {
        let seen = &bytes[..bytes.len().min(bytes_max)];
        let is_all = seen.len() == bytes_max;
        match self {
            Self::Http => read_http(bytes, bytes_max, text),
            Self::Tls => tls::read(bytes, bytes_max),
            Self::Raw => Reading::Clear(Content::Raw(Raw { bytes: seen, is_all })),
            Self::Redis => redis::read(bytes, bytes_max),
            Self::Auto => match auto::tell(seen, asked.redis) {
                Told::Is(protocol) => protocol.read(bytes, bytes_max, asked, text),
                Told::Other if asked.raw => Self::Raw.read(bytes, bytes_max, asked, text),
                Told::Other => Reading::Unclear(Ambiguity::UnknownProtocol),
                Told::NotYet if is_all => Reading::Unclear(Ambiguity::TooLong),
                Told::NotYet => Reading::Incomplete,
            },
            Self::None => Reading::Clear(Content::Nothing),
        }
    }

    /// Whether a client that sent these bytes, which are incomplete, may be waiting for the server to speak.
    fn awaits_server(self, bytes: &[u8], asked: Asked) -> bool {
        match self {
            Self::Http => http2::awaits_server(bytes),
            Self::Tls | Self::Raw | Self::None => false,
            Self::Redis => redis::awaits_server(bytes),
            Self::Auto => match auto::tell(bytes, asked.redis) {
                Told::Is(protocol) => protocol.awaits_server(bytes, asked),
                // `PING`, or the word of a protocol nobody knows.
                Told::Other | Told::NotYet => false,
            },
        }
    }
}

/// The preface of HTTP/2 is such that no request of HTTP/1 begins with it (RFC 9113, section 3.4).
fn read_http<'a>(bytes: &'a [u8], bytes_max: usize, text: &'a mut Vec<u8>) -> Reading<'a> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    let is_preface = seen.starts_with(http2::PREFACE) || (http2::PREFACE.starts_with(seen) && seen.len() < bytes_max);
    if is_preface { http2::read(bytes, bytes_max, text) } else { http::read(bytes, bytes_max) }
}

impl Service {
    /// Reads the first bytes of a connection, and whom they come from: behind a proxy, the client is who it says. Those that
    /// were raw are not asked again what they are.
    pub(super) fn read<'a>(&self, bytes: &'a [u8], origin: Origin, is_raw: bool, text: &'a mut Vec<u8>) -> (Reading<'a>, Origin) {
        let bytes_max = self.inspect_bytes_max;
        let protocol = if is_raw { Protocol::Raw } else { self.inspect };
        if !self.is_proxy(origin.client) {
            return (protocol.read(bytes, bytes_max, self.asked, text), origin);
        }
        match proxy::read(bytes, bytes_max) {
            Ok(Some(header)) => {
                let behind = bytes.get(header.len..).unwrap_or_default();
                let client = match header.source {
                    proxy::Source::Connection => origin.client,
                    proxy::Source::Address(address) => Some(address),
                    proxy::Source::Elsewhere => None,
                };
                (protocol.read(behind, bytes_max - header.len, self.asked, text), Origin { client, ..origin })
            }
            Ok(None) => (Reading::Incomplete, origin),
            Err(why) => (Reading::Unclear(why), origin),
        }
    }

    /// Whether connections of this client begin with a PROXY header; of one that is not known, whether all do.
    fn is_proxy(&self, client: Option<IpAddr>) -> bool {
        self.proxies.iter().any(|network| client.map_or(network.prefix_len() == 0, |client| network.contains(&client)))
    }

    /// Whether a client that has sent these bytes, which are incomplete, may be waiting for the server to speak.
    pub(super) fn awaits_more_than(&self, first_flight: &[u8], origin: Origin) -> bool {
        if !self.is_proxy(origin.client) {
            return self.inspect.awaits_server(first_flight, self.asked);
        }
        let Ok(Some(header)) = proxy::read(first_flight, self.inspect_bytes_max) else { return false };
        let behind = first_flight.get(header.len..).unwrap_or_default();
        // The proxy has spoken, and its client perhaps not.
        behind.is_empty() || self.inspect.awaits_server(behind, self.asked)
    }
}

impl<'a> Content<'a> {
    /// What it was read as.
    pub(super) const fn protocol(&self) -> Protocol {
        match self {
            Self::Http(_) => Protocol::Http,
            Self::Tls(_) => Protocol::Tls,
            Self::Raw(_) => Protocol::Raw,
            Self::Redis(_) => Protocol::Redis,
            Self::Nothing => Protocol::None,
        }
    }

    /// Whether a client that has sent this, which is not enough to decide by, may be waiting for the server to speak.
    pub(super) fn awaits_server(&self) -> bool {
        match self {
            Self::Http(request) => request.body.awaits_server(),
            // Where one of its messages ends is not known.
            Self::Raw(_) => true,
            Self::Tls(_) | Self::Redis(_) | Self::Nothing => false,
        }
    }

    pub(super) fn http(&self) -> Option<&Request<'a>> {
        match self {
            Self::Http(request) => Some(request),
            _ => None,
        }
    }

    pub(super) fn tls(&self) -> Option<&Hello> {
        match self {
            Self::Tls(hello) => Some(hello),
            _ => None,
        }
    }

    pub(super) fn raw(&self) -> Option<Raw<'a>> {
        match self {
            Self::Raw(raw) => Some(*raw),
            _ => None,
        }
    }

    pub(super) fn redis(&self) -> Option<&Command<'a>> {
        match self {
            Self::Redis(command) => Some(command),
            _ => None,
        }
    }
}
