//! Reads the ClientHello of a TLS connection (RFC 8446, section 4.1.2) from its first bytes. Nothing is decrypted: the
//! certificate and the keys are the server's, and TLS ends there.
//!
//! The records are walked here, so that it is known whether the hello is complete before anything is parsed, and the
//! answer depends on the bytes up to its end only. What the hello says is read by rustls, which refuses what servers
//! would refuse or could read differently: repeated extensions, lengths that contradict each other, two server names.
//!
//! With Encrypted Client Hello (ECH) the outer hello is all there is to see: the public name of the client-facing server.

use super::ambiguity::Ambiguity;
use super::inspect::{Content, Reading};
use crate::limits::cluster_file::HELLO_BYTES_MAX;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use std::borrow::Cow;
use std::fmt;

/// What a ClientHello says that rules can ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Small letters, no dot at the end.
    sni: Option<String>,
    /// In the client's order.
    alpn: Vec<Vec<u8>>,
    version: Version,
    has_ech: bool,
}

/// A version of TLS, as it is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u16);

impl Version {
    /// TLS 1.3.
    pub const TLS_1_3: Self = Self(0x0304);
    const TLS_1_2: Self = Self(0x0303);
    /// Those that rules can ask for.
    pub(super) const KNOWN: [Self; 4] = [Self(0x0301), Self(0x0302), Self::TLS_1_2, Self::TLS_1_3];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0301..=0x03ff => write!(f, "1.{}", self.0 - 0x0301),
            other => write!(f, "0x{other:04x}"),
        }
    }
}

impl Hello {
    /// The hello of a client that names this server and offers these protocols. `Err` for what no client may send as a
    /// server name; an address counts as none (RFC 6066, section 3, allows no addresses, but some clients send them).
    pub fn new(sni: Option<&str>, alpn: Vec<Vec<u8>>) -> Result<Self, Ambiguity> {
        let sni = match sni.map(ServerName::try_from) {
            Some(Ok(ServerName::DnsName(name))) => Some(normal_name(name.as_ref())),
            Some(Ok(ServerName::IpAddress(_))) | None => None,
            Some(_) => return Err(Ambiguity::SniUnreadable),
        };
        Ok(Self { sni, alpn, version: Version::TLS_1_3, has_ech: false })
    }

    /// The highest version offered; where the hello was not read from bytes, that of today's clients.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether there is an encrypted hello, or GREASE that cannot be told from it.
    pub fn has_ech(&self) -> bool {
        self.has_ech
    }

    /// The server name, in small letters and without a dot at its end.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// The protocols offered (RFC 7301), in the client's order.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        self.alpn.iter().map(Vec::as_slice)
    }

    /// The protocols as a person reads them; `None` if there are none.
    pub(super) fn alpn_text(&self) -> Option<String> {
        let names: Vec<String> = self.alpn().map(|name| name.escape_ascii().to_string()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// The form names are compared in (RFC 6066, section 3: ASCII, case does not matter, no dot at the end).
pub(super) fn normal_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Content types of a record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// Type of a handshake message (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;
/// All versions have it; what follows it must be ignored (RFC 8446, section 5.1, `legacy_record_version`).
const MAJOR_VERSION: u8 = 3;
const RECORD_HEADER_LEN: usize = 5;
const MESSAGE_HEADER_LEN: usize = 4;
/// Longest plaintext fragment (RFC 8446, section 5.1).
const FRAGMENT_LEN_MAX: usize = 1 << 14;

/// Reads the hello at the beginning of `bytes`, of which at most `bytes_max` are looked at.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Reading<'_> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    match whole_message(seen, bytes_max) {
        Ok(None) if seen.len() == bytes_max => Reading::Unclear(Ambiguity::TooLong),
        Ok(None) => Reading::Incomplete,
        Ok(Some(message)) => parse(&message).map_or_else(Reading::Unclear, |hello| Reading::Clear(Content::Tls(hello))),
        Err(why) => Reading::Unclear(why),
    }
}

/// Takes the first handshake message out of its records; none if it is not complete yet. It must be a ClientHello and
/// have its records for itself: nothing may follow it before the server has answered.
fn whole_message(bytes: &[u8], bytes_max: usize) -> Result<Option<Cow<'_, [u8]>>, Ambiguity> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        let is_first = rest.len() == bytes.len();
        // What is no record is so from its first byte on, also if the others are not here yet.
        let is_alien = |at: usize, expected: u8| rest.get(at).is_some_and(|byte| *byte != expected);
        if is_alien(0, HANDSHAKE) || is_alien(1, MAJOR_VERSION) {
            return Err(if is_first { Ambiguity::NotTls } else { Ambiguity::HelloMalformed });
        }
        let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER_LEN) else { return Ok(None) };
        let fragment_len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // RFC 8446, section 5.1: no fragments of handshake messages without content.
        if fragment_len == 0 || fragment_len > FRAGMENT_LEN_MAX {
            return Err(Ambiguity::HelloMalformed);
        }
        let fragment = &behind[..behind.len().min(fragment_len)];
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Ambiguity::NotTls);
        }
        let message_len = match *message {
            [_, a, b, c, ..] => Some(MESSAGE_HEADER_LEN + usize::from_be_bytes([0, 0, 0, 0, 0, a, b, c])),
            _ => None,
        };
        if message_len.is_some_and(|len| len > HELLO_BYTES_MAX || RECORD_HEADER_LEN + len > bytes_max) {
            return Err(Ambiguity::TooLong);
        }
        let taken_with_this_record = message.len() - fragment.len() + fragment_len;
        if message_len.is_some_and(|len| taken_with_this_record > len) {
            return Err(Ambiguity::HelloMalformed);
        }
        if fragment.len() < fragment_len {
            return Ok(None);
        }
        if message_len == Some(message.len()) {
            return Ok(Some(message));
        }
        rest = &behind[fragment_len..];
    }
}

/// Reads a whole message.
fn parse(message: &[u8]) -> Result<Hello, Ambiguity> {
    let mut acceptor = Acceptor::default();
    for fragment in message.chunks(FRAGMENT_LEN_MAX) {
        // Cannot be more: a chunk has no more bytes than a fragment may have.
        let length = u16::try_from(fragment.len()).unwrap_or(u16::MAX).to_be_bytes();
        let record = [&[HANDSHAKE, MAJOR_VERSION, 1, length[0], length[1]], fragment].concat();
        let mut unread = record.as_slice();
        while !unread.is_empty() {
            if acceptor.read_tls(&mut unread).map_err(|_| Ambiguity::TooLong)? == 0 {
                break;
            }
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                let hello = Hello::new(hello.server_name(), alpn)?;
                return Ok(Hello { version: version(message), has_ech: extension(message, EXT_ECH).is_some(), ..hello });
            }
            Err((error, _alert)) => return Err(blame(&error)),
        }
    }
    Err(Ambiguity::HelloMalformed)
}

/// Extensions that rustls does not tell about (RFC 8446, section 4.2.1, and RFC 9849, section 5).
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const EXT_ECH: u16 = 0xfe0d;

/// The highest version a hello that rustls has read offers. Values that only keep servers flexible (GREASE, RFC 8701) and
/// drafts are none.
fn version(message: &[u8]) -> Version {
    let Some(versions) = extension(message, EXT_SUPPORTED_VERSIONS) else {
        // RFC 8446, appendix D.1: without the extension, TLS 1.2 at most.
        let legacy = message.get(MESSAGE_HEADER_LEN..MESSAGE_HEADER_LEN + 2).map_or(0, two);
        return Version(legacy.min(Version::TLS_1_2.0));
    };
    let offered = versions.get(1..).unwrap_or_default().chunks_exact(2).map(two);
    Version(offered.filter(|version| version >> 8 == u16::from(MAJOR_VERSION)).max().unwrap_or(0))
}

fn two(octets: &[u8]) -> u16 {
    octets.iter().fold(0, |number, octet| number << 8 | u16::from(*octet))
}

/// The content of an extension of a hello (RFC 8446, section 4.1.2); none if it is not there.
fn extension(message: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(MESSAGE_HEADER_LEN + 2 + 32..)?;
    // Session id, cipher suites, compression methods.
    for octets in [1, 2, 1] {
        let (length, behind) = rest.split_at_checked(octets)?;
        rest = behind.get(usize::from(two(length))..)?;
    }
    rest = rest.get(2..)?;
    while let Some((header, behind)) = rest.split_at_checked(4) {
        let (content, behind) = behind.split_at_checked(usize::from(two(&header[2..])))?;
        if two(&header[..2]) == kind {
            return Some(content);
        }
        rest = behind;
    }
    None
}

/// What a refusal by rustls means.
fn blame(error: &rustls::Error) -> Ambiguity {
    match error {
        rustls::Error::PeerIncompatible(_) => Ambiguity::HelloObsolete,
        rustls::Error::PeerMisbehaved(rustls::PeerMisbehaved::ServerNameMustContainOneHostName)
        | rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidServerName) => Ambiguity::SniUnreadable,
        _ => Ambiguity::HelloMalformed,
    }
}
