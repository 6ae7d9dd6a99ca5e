//! What a client sends, as it is or in words.

use crate::policy::{Explanation, Hello, Origin, Service};
use std::fmt::Write as _;

/// The first bytes of a connection.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// None: the SYN decides.
    Nothing,
    /// As they are.
    Raw(Vec<u8>),
    /// A request in words.
    Http {
        /// `GET`
        method: String,
        /// `/x`
        target: String,
        /// `HTTP/1.1`
        version: String,
        /// `Name: value`; with HTTP/1.1 the front-end address is the Host unless one is given here, as in a client that
        /// connects to an address.
        headers: Vec<String>,
        /// What follows the head. Its length is announced by a header unless one is given that does.
        body: Option<Vec<u8>>,
    },
    /// A TLS client's hello in words.
    Tls {
        /// The server name, if it names one.
        sni: Option<String>,
        /// The protocols it offers.
        alpn: Vec<String>,
    },
}

impl Bytes {
    pub(super) fn explain(&self, service: &Service, origin: Origin) -> Result<Explanation, String> {
        match self {
            Self::Raw(bytes) => Ok(service.explain(bytes, origin)),
            Self::Nothing => Ok(service.explain(&[], origin)),
            Self::Http { method, target, version, headers, body } => {
                let mut text = format!("{method} {target} {version}\r\n");
                let names = |wanted: &str| {
                    let name = |header: &String| header.split_once(':').map(|(name, _)| name.trim().to_ascii_lowercase());
                    headers.iter().any(|header| name(header).as_deref() == Some(wanted))
                };
                if !names("host") && version != "HTTP/1.0" {
                    let host = origin.frontend.map_or_else(|| "localhost".to_owned(), |frontend| frontend.to_string());
                    let _ = write!(text, "Host: {host}\r\n");
                }
                for header in headers {
                    let _ = write!(text, "{header}\r\n");
                }
                if let Some(body) = body
                    && !names("content-length")
                    && !names("transfer-encoding")
                {
                    let _ = write!(text, "Content-Length: {}\r\n", body.len());
                }
                text.push_str("\r\n");
                let mut bytes = text.into_bytes();
                bytes.extend_from_slice(body.as_deref().unwrap_or_default());
                Ok(service.explain(&bytes, origin))
            }
            Self::Tls { sni, alpn } => {
                let alpn = alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
                let hello = Hello::new(sni.as_deref(), alpn).map_err(|why| format!("no client can say this ({why})"))?;
                Ok(service.explain_hello(hello, origin))
            }
        }
    }
}
