//! Whether a client waits for the server now.

use super::inspect::{Content, Reading};
use super::subject::Origin;
use super::{Service, http2};

/// What a record of TLS begins with (RFC 8446, section 5.1), and octets of that.
const HANDSHAKE: u8 = 22;
const RECORD_HEADER_BYTES: usize = 5;

impl Service {
    /// Whether these first bytes are all that their client says before it hears the server: one request of HTTP/1 that has no
    /// body, or a ClientHello. A client that says more all the same (pipelining, early data) breaks nothing.
    pub fn is_whole(&self, first_flight: &[u8], origin: impl Into<Origin>) -> bool {
        let mut text = Vec::new();
        let Reading::Clear(content) = self.read(first_flight, origin.into(), false, &mut text).0 else { return false };
        match content {
            Content::Http(request) => {
                let has_body = request.header("transfer-encoding").next().is_some()
                    || request.header("content-length").any(|length| length != b"0");
                !has_body && first_flight.ends_with(b"\r\n\r\n") && !first_flight.starts_with(http2::PREFACE)
            }
            Content::Tls(_) => ends_with_a_record(first_flight),
            Content::Raw(_) | Content::Redis(_) | Content::Nothing => false,
        }
    }
}

/// Whether these are whole records of the handshake protocol and nothing else.
fn ends_with_a_record(mut bytes: &[u8]) -> bool {
    while let [HANDSHAKE, _, _, high, low, ..] = bytes {
        let length = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        let Some(rest) = bytes.get(length..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHOP, file};
    use super::*;

    fn is_whole(inspect: &str, bytes: &[u8]) -> bool {
        let rules = SHOP.find("    rules:").zip(SHOP.find("    default:")).expect("the shop has rules");
        let text = format!("{}    inspect: {inspect}\n{}", &SHOP[..rules.0], &SHOP[rules.1..]);
        file(&text).compile("a").unwrap_or_else(|error| panic!("{error}")).services[0].is_whole(bytes, Origin::default())
    }

    #[test]
    fn a_request_without_a_body_is_whole_at_its_end() {
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n", false),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ] {
            assert_eq!(is_whole("http", request.as_bytes()), expected, "{request:?}");
        }
    }

    #[test]
    fn of_what_is_no_request_nobody_knows() {
        assert!(!is_whole("raw", b"GET / HTTP/1.0\r\n\r\n"));
        assert!(!is_whole("redis", b"*1\r\n$4\r\nPING\r\n"));
    }
}
