//! Tells protocols apart by the first bytes, for `inspect: auto`.
//!
//! | first bytes | protocol |
//! |---|---|
//! | 0x16, 3 | TLS: a record of handshake messages |
//! | a token, a space, a target, a space, `HTTP/` | HTTP/1, or the preface of HTTP/2 (which looks so on purpose) |
//! | `*` and a digit | Redis, if any rule asks about it: an array. Inline commands look like anything |
//! | others | none of them |
//!
//! No two of them share a beginning that is longer than what tells them apart, and an answer is never taken back.

use super::Protocol;

/// What is known of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    NotYet,
    Is(Protocol),
    /// None that is known.
    Other,
}

/// Methods are shorter, those of WebDAV too.
const METHOD_LEN_MAX: usize = 32;

/// Looks at the first bytes; at those of Redis only if somebody asks about it.
pub(super) fn tell(bytes: &[u8], with_redis: bool) -> Told {
    match bytes {
        [] | [0x16] => Told::NotYet,
        [0x16, 3, ..] => Told::Is(Protocol::Tls),
        [b'*'] if with_redis => Told::NotYet,
        [b'*', b'0'..=b'9', ..] if with_redis => Told::Is(Protocol::Redis),
        _ => request_line(bytes),
    }
}

/// `METHOD target HTTP/`, behind empty lines. Whether the rest of it is right is for those who read it.
fn request_line(bytes: &[u8]) -> Told {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [b'\r', b'\n', behind @ ..] | [b'\n', behind @ ..] => behind,
            [] | [b'\r'] => return Told::NotYet,
            _ => break,
        };
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_target = |byte: &u8| matches!(byte, b'!'..=b'~' | 0x80..);
    let method = rest.iter().position(|byte| !is_token(byte));
    if method.unwrap_or(rest.len()) > METHOD_LEN_MAX {
        return Told::Other;
    }
    let Some(rest) = behind(rest, method) else { return told(method) };
    let target = rest.iter().position(|byte| !is_target(byte));
    let Some(rest) = behind(rest, target) else { return told(target) };
    if rest.starts_with(b"HTTP/") {
        Told::Is(Protocol::Http)
    } else if b"HTTP/".starts_with(rest) {
        Told::NotYet
    } else {
        Told::Other
    }
}

/// What follows a word that ends here, if it is not empty and ends with a space.
fn behind(bytes: &[u8], end: Option<usize>) -> Option<&[u8]> {
    let end = end.filter(|end| *end > 0)?;
    bytes.get(end..)?.strip_prefix(b" ")
}

/// A word that does not end so ends otherwise, or not yet.
const fn told(end: Option<usize>) -> Told {
    match end {
        None => Told::NotYet,
        Some(_) => Told::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn assert_told(bytes: &[u8], expected: Told, at: usize) {
        for length in 0..=bytes.len() {
            let expected = if length < at { Told::NotYet } else { expected };
            assert_eq!(tell(&bytes[..length], true), expected, "{length} of {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn protocols_are_told_apart_as_soon_as_they_differ() {
        assert_told(b"GET / HTTP/1.1\r\n", Told::Is(Protocol::Http), 11);
        assert_told(b"\r\n\nGET / HTTP/1.1\r\n", Told::Is(Protocol::Http), 14);
        assert_told(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Told::Is(Protocol::Http), 11);
        assert_told(b"get /\xc3\xa9 HTTP/9", Told::Is(Protocol::Http), 13);
        assert_told(b"\x16\x03\x01\x02", Told::Is(Protocol::Tls), 2);
        assert_told(b"*2\r\n$3\r\nGET", Told::Is(Protocol::Redis), 2);
    }

    #[test]
    fn others_are_none_of_them_at_their_first_byte_that_is_not() {
        assert_told(b"SSH-2.0-OpenSSH_9.2\r\n", Told::Other, 20);
        assert_told(b"get key\r\n", Told::Other, 8);
        assert_told(b"GET /\r\n", Told::Other, 6);
        assert_told(b"GET  / HTTP/1.1\r\n", Told::Other, 5);
        assert_told(b"GET / HTTX", Told::Other, 10);
        assert_told(b"\x16\x02", Told::Other, 2);
        assert_told(b"\0", Told::Other, 1);
        assert_told(b" GET", Told::Other, 1);
        assert_told(b"\r\r", Told::Other, 2);
        assert_told(&[b'x'; 40], Told::Other, 33);
        assert_eq!(tell(b"*2\r\n", false), Told::Other);
    }

    proptest! {
        #[test]
        fn an_answer_is_never_taken_back(bytes in "[\r\nG*2\u{16}\u{3} /HTP]{0,24}", with_redis: bool) {
            let answers: Vec<Told> = (0..=bytes.len()).map(|length| tell(&bytes.as_bytes()[..length], with_redis)).collect();
            for pair in answers.windows(2) {
                prop_assert!(pair[0] == Told::NotYet || pair[0] == pair[1], "{answers:?}");
            }
        }
    }
}
