//! What a choice or a canary goes by: a piece of the request, or the client's address.

use super::rendezvous;
use crate::limits::cluster_file::JSON_POINTER_BYTES_MAX;
use crate::policy::Protocol;
use crate::policy::json::{Found, Pointer};
use crate::policy::subject::{Origin, Subject};
use crate::policy::truth::Unknown;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// A piece of what a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Key {
    /// `path`: the normal form that rules compare.
    Path,
    /// `host`: likewise.
    Host,
    /// `query:x`: the first parameter of this name, decoded as forms are.
    Query(String),
    /// `header:x`: the first field of this name, in small letters.
    Header(String),
    /// `cookie:x`: the first cookie of this name.
    Cookie(String),
    /// `json:/x`: a text or number at this place of the body.
    Json(Pointer),
    /// `client`: the address; of an IPv6 address the first 64 bits, since a client changes the others as it likes (RFC 8981).
    Client,
    /// `sni`
    Sni,
    /// `key`: the first key of the command that decides, with Redis.
    Redis,
}

/// Why a key cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum KeyError {
    /// There is no such kind.
    Unknown,
    /// `header` without a name.
    NameMissing,
    /// A name no header field or cookie can have.
    NameUnreadable,
    /// `path:x`
    TakesNoName,
}

/// What a key was for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySeen {
    /// As the file writes it: `cookie:session`.
    pub key: String,
    /// What the client sent there; none if it sent no such thing, and its address was taken instead.
    pub value: Option<String>,
    /// [`rendezvous::hash`] of the one or the other; none if not even the address is known.
    pub hash: Option<u64>,
}

impl Key {
    /// How the kinds are written.
    pub(in crate::policy) const KINDS: &'static str =
        "path, host, query:NAME, header:NAME, cookie:NAME, json:/NAME, client, sni, key";

    /// Reads it as the file writes it.
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, KeyError> {
        let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let named = |make: fn(String) -> Self| match name {
            None | Some("") => Err(KeyError::NameMissing),
            Some(name) if !name.bytes().all(is_token) => Err(KeyError::NameUnreadable),
            Some(name) => Ok(make(name.to_owned())),
        };
        let unnamed = |key: Self| if name.is_none() { Ok(key) } else { Err(KeyError::TakesNoName) };
        match kind {
            "path" => unnamed(Self::Path),
            "host" => unnamed(Self::Host),
            "client" => unnamed(Self::Client),
            "sni" => unnamed(Self::Sni),
            "key" => unnamed(Self::Redis),
            "json" => {
                let pointer = name.filter(|name| name.len() <= JSON_POINTER_BYTES_MAX).map(Pointer::new);
                pointer.ok_or(KeyError::NameMissing)?.map(Self::Json).ok_or(KeyError::NameUnreadable)
            }
            // Compared decoded, so that it may be anything.
            "query" => match name {
                None | Some("") => Err(KeyError::NameMissing),
                Some(name) if name.chars().any(char::is_control) => Err(KeyError::NameUnreadable),
                Some(name) => Ok(Self::Query(name.to_owned())),
            },
            // Names of fields have no case (RFC 9110, section 5.1), those of cookies have (RFC 6265, section 4.2.2).
            "header" => named(|name| Self::Header(name.to_ascii_lowercase())),
            "cookie" => named(Self::Cookie),
            _ => Err(KeyError::Unknown),
        }
    }

    /// The protocol that has it; none if any has.
    pub(in crate::policy) const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Path | Self::Host | Self::Query(_) | Self::Header(_) | Self::Cookie(_) | Self::Json(_) => Some(Protocol::Http),
            Self::Sni => Some(Protocol::Tls),
            Self::Redis => Some(Protocol::Redis),
            Self::Client => None,
        }
    }

    /// The JSON field it is, if it is one.
    pub(in crate::policy) const fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Json(pointer) => Some(pointer),
            _ => None,
        }
    }

    /// What the client sent there; none if it sent no such thing, or something that nobody can read.
    fn value<'a>(&self, subject: &'a Subject<'_>) -> Result<Option<Cow<'a, [u8]>>, Unknown> {
        let http = subject.http();
        let value = match self {
            Self::Path => http.map(|request| Cow::Borrowed(&*request.path)),
            Self::Host => http.and_then(|request| request.host.as_deref()).map(|host| Cow::Borrowed(host.as_bytes())),
            Self::Query(name) => http.and_then(|request| request.query(name).next()),
            Self::Header(name) => http.and_then(|request| request.header(name).next()).map(Cow::Borrowed),
            Self::Cookie(name) => http.and_then(|request| request.cookie(name).next()).map(Cow::Borrowed),
            Self::Redis => subject.content.redis().and_then(|command| command.key).map(Cow::Borrowed),
            Self::Json(pointer) => match subject.json(pointer) {
                Ok(Found::Text(text)) => Some(Cow::Borrowed(text.as_bytes())),
                Ok(Found::Other | Found::Absent) | Err(Unknown::Forever) => None,
                Err(why) => return Err(why),
            },
            Self::Sni => subject.tls().and_then(|hello| hello.sni()).map(|name| Cow::Borrowed(name.as_bytes())),
            Self::Client => None,
        };
        Ok(value)
    }

    /// Its hash; none if the client sent no such thing. It may not be known yet.
    pub(in crate::policy) fn hash(&self, subject: &Subject<'_>) -> Result<Option<u64>, Unknown> {
        match self {
            Self::Client => Ok(Self::hash_of_client(subject.origin)),
            _ => Ok(self.value(subject)?.map(|value| rendezvous::hash(&value))),
        }
    }

    /// Its hash, or else that of the client's address.
    pub(in crate::policy) fn hash_or_client(&self, subject: &Subject<'_>) -> Result<Option<u64>, Unknown> {
        Ok(self.hash(subject)?.or_else(|| Self::hash_of_client(subject.origin)))
    }

    /// The hash of the client's address, if it is known.
    pub(in crate::policy) fn hash_of_client(origin: Origin) -> Option<u64> {
        origin.client.map(|client| match client {
            IpAddr::V4(address) => rendezvous::hash(&address.octets()),
            IpAddr::V6(address) => rendezvous::hash(&address.octets()[..8]),
        })
    }

    /// What the client sent there, for people; `subject` is nothing if that was not read.
    pub(in crate::policy) fn seen(&self, subject: Option<&Subject<'_>>, origin: Origin) -> Option<String> {
        match self {
            Self::Client => origin.client.map(|client| client.to_string()),
            _ => self.value(subject?).ok()?.map(|value| String::from_utf8_lossy(&value).into_owned()),
        }
    }
}

/// As the file writes it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("path"),
            Self::Host => f.write_str("host"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Json(pointer) => write!(f, "json:{}", pointer.text()),
            Self::Client => f.write_str("client"),
            Self::Sni => f.write_str("sni"),
            Self::Redis => f.write_str("key"),
        }
    }
}
