//! What rules can ask about a request, in the one form they are compared in.
//!
//! The normal form exists for comparing only; the bytes that go to a server are the client's own.
//!
//! * **Path**: the request target up to the first `?`, percent-decoded once. `/a%20b?x=1` is `/a b`. Doubled slashes,
//!   letter case and a slash at the end stay as they are. What different servers would take for different paths has no
//!   normal form: an encoded slash or backslash, a `.` or `..` segment however spelled, control characters, a bad escape.
//! * **Host**: the name in small letters, without port and without a dot at its end.

use super::ambiguity::Ambiguity;
use super::body::Body;
use arrayvec::ArrayVec;
use std::borrow::Cow;

/// The head of a request, of whatever version of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// As sent; methods are case-sensitive (RFC 9110, section 9.1).
    pub(super) method: Cow<'a, str>,
    /// Normal form. `*` for a request about the server as a whole.
    pub(super) path: Cow<'a, [u8]>,
    /// What follows the first `?` of the target, as sent; none without one.
    pub(super) query: Option<Cow<'a, [u8]>>,
    /// Normal form; none when the client named no host.
    pub(super) host: Option<Cow<'a, str>>,
    pub(super) headers: Headers<'a>,
    pub(super) body: Body<'a>,
}

impl Request<'_> {
    /// The request as servers see it that take several slashes for one; none if that makes no difference.
    pub(super) fn with_slashes_merged(&self) -> Option<Self> {
        let is_double = |pair: &[u8]| pair == b"//";
        self.path.windows(2).any(is_double).then(|| {
            let mut path = self.path.to_vec();
            path.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
            Self { path: Cow::Owned(path), ..self.clone() }
        })
    }

    /// The values of a header field, as sent but for the white space around them; names are compared without case.
    pub(super) fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.values(name)
    }

    /// The values of a query parameter, decoded as forms are (`+` is a space). The name is given decoded.
    pub(super) fn query(&self, name: &str) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let query = self.query.as_deref().unwrap_or_default();
        query.split(|byte| *byte == b'&').filter_map(move |pair| {
            let (key, value) = split_at_first(pair, b'=').unwrap_or((pair, b""));
            (!pair.is_empty() && *form_decoded(key) == *name.as_bytes()).then(|| form_decoded(value))
        })
    }

    /// The values of a cookie, byte by byte (RFC 6265, section 4.2.1); names have letter case.
    pub(super) fn cookie(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let pairs = self.header("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
        pairs.filter_map(move |pair| {
            let (key, value) = split_at_first(pair, b'=')?;
            (key.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
        })
    }
}

/// Name and value.
type Field<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Fields of a head that are kept without allocating: browsers send about fifteen.
const FEW_FIELDS: usize = 24;

/// The fields of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers<'a> {
    few: ArrayVec<Field<'a>, FEW_FIELDS>,
    more: Vec<Field<'a>>,
}

impl<'a> Headers<'a> {
    /// Adds a field behind the others. Its value is kept without the white space around it.
    pub(super) fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, [u8]>>) {
        let value = match value.into() {
            Cow::Borrowed(value) => Cow::Borrowed(value.trim_ascii()),
            Cow::Owned(value) => Cow::Owned(value.trim_ascii().to_vec()),
        };
        if let Err(field) = self.few.try_push((name.into(), value)) {
            self.more.push(field.element());
        }
    }

    /// All of them, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.few.iter().chain(&self.more).map(|(name, value)| (&**name, &**value))
    }

    /// The values of the fields of a name, which has no case.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.few.iter().chain(&self.more).filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|field| &*field.1)
    }
}

fn split_at_first(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// A name or value of a query, decoded as the URL standard does it for forms: what is no escape stands for itself.
fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escaped = digit(at + 1).zip(digit(at + 2)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                decoded.push(escaped);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(decoded)
}

/// The normal form of an absolute path, its query cut off.
pub(super) fn normal_path(target: &str) -> Result<Cow<'_, [u8]>, Ambiguity> {
    let path = target.split('?').next().unwrap_or(target);
    let decoded = percent_decoded(path)?;
    for &byte in decoded.iter() {
        match byte {
            b'\\' => return Err(Ambiguity::PathSeparator),
            0..=0x1f | 0x7f => return Err(Ambiguity::PathUnreadable),
            _ => {}
        }
    }
    // Longer encodings than needed, which some decoders take for the character (RFC 3629, section 3).
    let is_overlong = |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, _] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    if decoded.windows(2).any(is_overlong) {
        return Err(Ambiguity::PathUnreadable);
    }
    // A segment may carry parameters (RFC 3986 3.3), which some servers cut off before they look at the dots.
    let is_dots = |segment: &[u8]| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or(segment);
        name == b"." || name == b".."
    };
    if decoded.split(|byte| *byte == b'/').any(is_dots) {
        return Err(Ambiguity::PathDots);
    }
    Ok(decoded)
}

fn percent_decoded(path: &str) -> Result<Cow<'_, [u8]>, Ambiguity> {
    if path.contains('#') {
        return Err(Ambiguity::PathUnreadable);
    }
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Ambiguity::PathUnreadable);
        };
        match u8::try_from(high * 16 + low) {
            Ok(b'/' | b'\\') => return Err(Ambiguity::PathSeparator),
            Ok(byte) => decoded.push(byte),
            Err(_) => return Err(Ambiguity::PathUnreadable),
        }
    }
    Ok(Cow::Owned(decoded))
}

/// A host with the port it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// Normal form.
    pub(super) host: Cow<'a, str>,
    /// As sent, if it was.
    pub(super) port: Option<u16>,
}

/// Reads `host[:port]` (RFC 9110 7.2). `Ok(None)` when it is empty, which a client may send that has no name for the
/// server; `Err` when it is neither.
pub(super) fn authority(text: &[u8]) -> Result<Option<Authority<'_>>, Ambiguity> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).map_err(|_| Ambiguity::HostUnreadable)?;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| Ambiguity::HostUnreadable)?)
        }
        Some(_) => return Err(Ambiguity::HostUnreadable),
    };
    let host = normal_host(host).ok_or(Ambiguity::HostUnreadable)?;
    Ok(Some(Authority { host, port }))
}

/// The normal form of a host name or address without port; `None` if it is neither.
pub(super) fn normal_host(host: &str) -> Option<Cow<'_, str>> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        return Some(Cow::Owned(format!("[{address}]")));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = name.split('.').all(|label| !label.is_empty())
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
    is_name.then(|| if has_capitals { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<String, Ambiguity> {
        normal_path(target).map(|path| String::from_utf8_lossy(&path).into_owned())
    }

    #[test]
    fn the_query_is_cut_off_and_escapes_are_decoded_once() {
        assert_eq!(path("/a?b=c?d"), Ok("/a".into()));
        assert_eq!(path("/a%20b%3Fc?d"), Ok("/a b?c".into()));
        assert_eq!(path("/%2541"), Ok("/%41".into()));
        assert_eq!(path("/r%C3%A4ksm%c3%b6rg%C3%A5s"), Ok("/räksmörgås".into()));
        assert_eq!(path("//a//"), Ok("//a//".into()));
    }

    #[test]
    fn paths_that_servers_read_differently_have_no_normal_form() {
        assert_eq!(path("/a%2Fb"), Err(Ambiguity::PathSeparator));
        assert_eq!(path("/a%5cb"), Err(Ambiguity::PathSeparator));
        assert_eq!(path("/a\\b"), Err(Ambiguity::PathSeparator));
        for dots in ["/..", "/../a", "/a/./b", "/a/%2e%2E/b", "/a/.%2e", "/a/..;x=1/b", "/."] {
            assert_eq!(path(dots), Err(Ambiguity::PathDots), "{dots}");
        }
        for unreadable in ["/%", "/%4", "/%zz", "/a%00b", "/a%0ab", "/a#b"] {
            assert_eq!(path(unreadable), Err(Ambiguity::PathUnreadable), "{unreadable}");
        }
    }

    #[test]
    fn dots_within_names_are_harmless() {
        assert_eq!(path("/a.b/..c/d../...?/../"), Ok("/a.b/..c/d../...".into()));
    }

    fn request<'a>(query: &'a str, cookies: &[&'a str]) -> Request<'a> {
        let mut headers = Headers::default();
        for cookie in cookies {
            headers.push("Cookie", cookie.as_bytes());
        }
        let query = Some(Cow::Borrowed(query.as_bytes()));
        Request { method: "GET".into(), path: Cow::Borrowed(b"/"), query, host: None, headers, body: Body::none() }
    }

    #[test]
    fn query_parameters_are_read_as_forms_are() {
        let request = request("a=1&b&c=x%20y+z&&a=%32&=e&d%3d=%zz%", &[]);
        let values = |name: &str| -> Vec<String> {
            request.query(name).map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
        };
        assert_eq!(values("a"), ["1", "2"]);
        assert_eq!(values("b"), [""]);
        assert_eq!(values("c"), ["x y z"]);
        assert_eq!(values("d="), ["%zz%"]);
        assert_eq!(values(""), ["e"], "an empty pair is none");
        assert!(values("x").is_empty());
    }

    #[test]
    fn cookies_are_read_from_every_field() {
        let request = request("", &["a=1; b=2;c=\"3\"", "a=4=5; d"]);
        let values = |name: &str| -> Vec<String> {
            request.cookie(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
        };
        assert_eq!(values("a"), ["1", "4=5"]);
        assert_eq!(values("b"), ["2"]);
        assert_eq!(values("c"), ["\"3\""]);
        assert!(values("d").is_empty() && values("A").is_empty());
    }

    #[test]
    fn hosts_lose_port_case_and_final_dot() {
        let host = |text: &str| authority(text.as_bytes()).map(|found| found.map(|found| (found.host.into_owned(), found.port)));
        assert_eq!(host("IMG.Example.com:8080"), Ok(Some(("img.example.com".into(), Some(8080)))));
        assert_eq!(host("example.com."), Ok(Some(("example.com".into(), None))));
        assert_eq!(host("[FD77::0:1]:80"), Ok(Some(("[fd77::1]".into(), Some(80)))));
        assert_eq!(host("[fd77::1]"), Ok(Some(("[fd77::1]".into(), None))));
        assert_eq!(host("a:"), Ok(Some(("a".into(), None))));
        assert_eq!(host(""), Ok(None));
    }

    #[test]
    fn hosts_with_other_characters_are_unreadable() {
        for text in ["a b", "a,b", "a/b", "u@a", "a:b", "a:99999", ":80", "[fd77::1", "[x]", "ä.example", "a:+1", "."] {
            assert_eq!(authority(text.as_bytes()), Err(Ambiguity::HostUnreadable), "{text}");
        }
    }
}
