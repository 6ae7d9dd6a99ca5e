//! Reads the head of an HTTP/1.0 or 1.1 request (RFC 9112) from the first bytes of a connection.
//!
//! A request is read only if every server would read it alike: rules must not send it to one server for a host or path
//! that this server then sees differently. Everything else has a name ([`Ambiguity`]) and is left to the default.
//!
//! The answer depends only on the head: the same for any prefix that contains it, and never taken back when more bytes
//! arrive. What follows the head is looked at only if a rule asks for a field of the body.

use super::ambiguity::Ambiguity;
use super::body::{Body, Framing};
use super::inspect::{Content, Reading};
use super::request::{Authority, Headers, Request, authority, normal_path};
use crate::limits::cluster_file::HEADERS_MAX;
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// Reads the head at the beginning of `bytes`, of which at most `bytes_max` are looked at. Empty lines before the
/// request line are skipped (RFC 9112 2.2), and LF alone ends a line as CR LF does.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Reading<'_> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(seen, &mut fields) {
        Ok(httparse::Status::Partial) if seen.len() == bytes_max => Reading::Unclear(Ambiguity::TooLong),
        Ok(httparse::Status::Partial) => Reading::Incomplete,
        Ok(httparse::Status::Complete(length)) => request(&head, seen, length, bytes_max)
            .map_or_else(Reading::Unclear, |request| Reading::Clear(Content::Http(request))),
        Err(_) => Reading::Unclear(blame(seen)),
    }
}

/// Judges a head that httparse accepted: the first `length` of the bytes seen.
fn request<'a>(
    head: &httparse::Request<'_, 'a>,
    seen: &'a [u8],
    length: usize,
    bytes_max: usize,
) -> Result<Request<'a>, Ambiguity> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Ambiguity::NotHttp);
    };
    // RFC 9110, section 9.1, allows any token, but nginx for one does not.
    if !method.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')) {
        return Err(Ambiguity::MethodUnreadable);
    }
    let mut headers = Headers::default();
    for header in head.headers.iter() {
        if let Some(kind) = decisive(header.name)
            && (header.name.contains('_') || is_among_tabs(seen, header.value))
        {
            return Err(kind);
        }
        headers.push(header.name, header.value);
    }
    let query = target.split_once('?').map(|(_, query)| Cow::Borrowed(query.as_bytes()));
    let mut request =
        Request { method: method.into(), path: Cow::Borrowed(b"*"), query, host: None, headers, body: Body::none() };
    request.body = Body::new(framing(&request, version)?, &seen[length..], bytes_max - length);
    let named = host_field(head, version)?;
    if target == "*" {
        // RFC 9112, section 3.2.4: asterisk-form is for OPTIONS only.
        if method != "OPTIONS" {
            return Err(Ambiguity::TargetUnreadable);
        }
        request.host = named.map(|named| named.host);
    } else if target.starts_with('/') {
        request.path = normal_path(target)?;
        request.host = named.map(|named| named.host);
    } else {
        let (target_authority, default_port, path) = absolute_form(target)?;
        let agrees = |named: &Authority<'_>| {
            let port = |authority: &Authority<'_>| authority.port.unwrap_or(default_port);
            named.host == target_authority.host && port(named) == port(&target_authority)
        };
        // RFC 9112 3.2.2 prefers the target to Host, but not every server does.
        if named.is_some_and(|named| !agrees(&named)) {
            return Err(Ambiguity::HostContradicted);
        }
        request.path = if path.is_empty() || path.starts_with('?') { Cow::Borrowed(b"/") } else { normal_path(path)? };
        request.host = Some(target_authority.host);
    }
    Ok(request)
}

/// What a field is that servers must read alike, also those that take `_` for `-` as CGI does; by what it is counted when
/// they cannot.
fn decisive(name: &str) -> Option<Ambiguity> {
    let is = |expected: &str| {
        let same = |(byte, expected): (u8, u8)| byte.eq_ignore_ascii_case(&expected) || (byte == b'_' && expected == b'-');
        name.len() == expected.len() && name.bytes().zip(expected.bytes()).all(same)
    };
    match name.len() {
        4 if is("host") => Some(Ambiguity::HostUnreadable),
        14 if is("content-length") => Some(Ambiguity::LengthUnreadable),
        17 if is("transfer-encoding") => Some(Ambiguity::EncodingUnreadable),
        _ => None,
    }
}

/// Whether a tab stands before or behind a value, which is a slice of `seen`. It is white space (RFC 9110, section 5.6.3),
/// but part of the value for some servers.
fn is_among_tabs(seen: &[u8], value: &[u8]) -> bool {
    let start = (value.as_ptr() as usize).wrapping_sub(seen.as_ptr() as usize);
    let (Some(before), Some(behind)) = (seen.get(..start), seen.get(start.wrapping_add(value.len())..)) else { return false };
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    value.contains(&b'\t')
        || before.iter().rev().take_while(is_space).any(|byte| *byte == b'\t')
        || behind.iter().take_while(is_space).any(|byte| *byte == b'\t')
}

/// The length of a body must not depend on who reads the head (RFC 9112, section 6).
fn framing(request: &Request<'_>, version: u8) -> Result<Framing, Ambiguity> {
    let mut lengths = request.header("content-length");
    let mut encodings = request.header("transfer-encoding");
    let framing = match (lengths.next(), encodings.next()) {
        (Some(_), Some(_)) => return Err(Ambiguity::LengthAndEncoding),
        (Some(length), None) => {
            let length = body_length(length).ok_or(Ambiguity::LengthUnreadable)?;
            // Two that are alike may be taken for one, but not every server does (RFC 9112, section 6.3).
            if lengths.next().is_some() {
                return Err(Ambiguity::LengthContradicted);
            }
            Framing::Length(length)
        }
        (None, Some(encoding)) => {
            if version == 0 || encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguity::EncodingUnreadable);
            }
            Framing::Chunked
        }
        (None, None) => Framing::Length(0),
    };
    // RFC 9110, sections 8.4 and 10.1.1.
    let is_encoded = request.header("content-encoding").any(|encoding| !encoding.eq_ignore_ascii_case(b"identity"));
    let is_held_back = request.header("expect").next().is_some();
    let has_none = framing == Framing::Length(0);
    Ok(if !has_none && (is_encoded || is_held_back) { Framing::Unread } else { framing })
}

/// A length that fits into the 63 bits servers count in.
fn body_length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse::<u64>().ok().filter(|length| i64::try_from(*length).is_ok())
}

/// What the Host field says (RFC 9112 3.2).
fn host_field<'a>(head: &httparse::Request<'_, 'a>, version: u8) -> Result<Option<Authority<'a>>, Ambiguity> {
    let mut hosts =
        head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).map(|field| field.value.trim_ascii());
    match (hosts.next(), hosts.next()) {
        // RFC 9110, section 7.2, allows an empty one, but nginx for one does not.
        (Some(host), None) => authority(host)?.map(Some).ok_or(Ambiguity::HostUnreadable),
        (Some(_), Some(_)) => Err(Ambiguity::HostRepeated),
        (None, _) if version == 0 => Ok(None),
        (None, _) => Err(Ambiguity::HostMissing),
    }
}

/// Splits an absolute URI into authority, the port its scheme implies, and the rest.
fn absolute_form(target: &str) -> Result<(Authority<'_>, u16, &str), Ambiguity> {
    let (scheme, rest) = target.split_once("://").ok_or(Ambiguity::TargetUnreadable)?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(Ambiguity::TargetUnreadable),
    };
    let (named, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let named = authority(named.as_bytes())?.ok_or(Ambiguity::HostUnreadable)?;
    Ok((named, default_port, path))
}

/// Why httparse refuses these bytes.
///
/// The byte at fault is the last one of the shortest prefix that is refused. Looking at that prefix only, the answer
/// does not depend on how many bytes had arrived when the question was asked.
fn blame(bytes: &[u8]) -> Ambiguity {
    let refusal = |length: usize| {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        httparse::Request::new(&mut fields).parse(&bytes[..length]).err()
    };
    let (mut accepted, mut refused) = (0, bytes.len());
    while refused - accepted > 1 {
        let middle = accepted + (refused - accepted) / 2;
        if refusal(middle).is_some() { refused = middle } else { accepted = middle }
    }
    let byte_back = |back: usize| refused.checked_sub(back).and_then(|index| bytes.get(index));
    let is_in_first_line = !bytes[..refused.saturating_sub(1)].trim_ascii_start().contains(&b'\n');
    match (refusal(refused), byte_back(2), byte_back(1)) {
        (Some(httparse::Error::TooManyHeaders), ..) => Ambiguity::TooManyHeaders,
        (Some(httparse::Error::Version), ..) => Ambiguity::Version,
        (_, _, Some(0)) => Ambiguity::Nul,
        (_, Some(b'\r'), _) => Ambiguity::BareCarriageReturn,
        (_, Some(b'\n'), Some(b' ' | b'\t')) if !is_in_first_line => Ambiguity::FoldedHeader,
        _ => Ambiguity::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of these lines and nothing behind it.
    fn head(lines: &str) -> String {
        format!("{}\r\n\r\n", lines.replace('\n', "\r\n"))
    }

    fn kind(bytes: impl AsRef<[u8]>) -> Ambiguity {
        match read(bytes.as_ref(), 16_384) {
            Reading::Unclear(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_request(bytes: impl AsRef<[u8]>, method: &str, host: Option<&str>, path: &str) {
        match read(bytes.as_ref(), 16_384) {
            Reading::Clear(Content::Http(request)) => {
                assert_eq!(request.method, method);
                assert_eq!(request.host.as_deref(), host);
                assert_eq!(request.path, path.as_bytes());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_once_its_head_is_complete() {
        let whole = head("GET /a?b HTTP/1.1\nHost: Example.com:80\nX: y ");
        for length in 0..whole.len() {
            assert_eq!(read(&whole.as_bytes()[..length], 16_384), Reading::Incomplete, "{length}");
        }
        assert_request(&whole, "GET", Some("example.com"), "/a");
        assert_request(whole + "\0body\r\n folded", "GET", Some("example.com"), "/a");
    }

    #[test]
    fn header_names_have_no_case_and_values_no_surrounding_space() {
        let whole = head("GET / HTTP/1.1\nhOsT:x\nX-Shard: \t 7 \t");
        let Reading::Clear(Content::Http(request)) = read(whole.as_bytes(), 16_384) else { panic!() };
        assert_eq!(request.header("x-sHard").collect::<Vec<_>>(), [b"7"]);
    }

    #[test]
    fn http_1_0_needs_no_host() {
        assert_request(head("GET /a HTTP/1.0"), "GET", None, "/a");
        assert_request(head("GET /a HTTP/1.0\nHost: b"), "GET", Some("b"), "/a");
    }

    #[test]
    fn http_1_1_needs_exactly_one_host() {
        assert_eq!(kind(head("GET / HTTP/1.1")), Ambiguity::HostMissing);
        assert_eq!(kind(head("GET / HTTP/1.1\nHost: a\nHost: a")), Ambiguity::HostRepeated);
        assert_eq!(kind(head("GET / HTTP/1.1\nHost: a/b")), Ambiguity::HostUnreadable);
        assert_eq!(kind(head("GET / HTTP/1.1\nHost:")), Ambiguity::HostUnreadable);
    }

    #[test]
    fn empty_lines_before_the_request_are_skipped() {
        assert_request("\r\n\r\n".to_owned() + &head("GET / HTTP/1.1\nHost: a"), "GET", Some("a"), "/");
    }

    #[test]
    fn lines_may_end_with_lf_alone() {
        assert_request("GET / HTTP/1.1\nHost: a\n\n", "GET", Some("a"), "/");
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        assert_request(head("GET http://A.example/x?y HTTP/1.1\nHost: a.example"), "GET", Some("a.example"), "/x");
        assert_request(head("GET http://a:80 HTTP/1.1\nHost: a"), "GET", Some("a"), "/");
        assert_request(head("GET http://a?q HTTP/1.1\nHost: a:80"), "GET", Some("a"), "/");
        assert_request(head("GET HTTP://a/x HTTP/1.0"), "GET", Some("a"), "/x");
        assert_eq!(kind(head("GET http://a/x HTTP/1.1\nHost: b")), Ambiguity::HostContradicted);
        assert_eq!(kind(head("GET http://a:81/x HTTP/1.1\nHost: a")), Ambiguity::HostContradicted);
        assert_eq!(kind(head("GET http:///x HTTP/1.1\nHost: b")), Ambiguity::HostUnreadable);
        assert_eq!(kind(head("GET http://u@a/x HTTP/1.1\nHost: a")), Ambiguity::HostUnreadable);
    }

    #[test]
    fn other_targets_are_left_to_the_default() {
        assert_request(head("OPTIONS * HTTP/1.1\nHost: a"), "OPTIONS", Some("a"), "*");
        assert_eq!(kind(head("GET * HTTP/1.1\nHost: a")), Ambiguity::TargetUnreadable);
        assert_eq!(kind(head("CONNECT a:443 HTTP/1.1\nHost: a")), Ambiguity::TargetUnreadable);
        assert_eq!(kind(head("GET ftp://a/ HTTP/1.1\nHost: a")), Ambiguity::TargetUnreadable);
        assert_eq!(kind(head("GET images HTTP/1.1\nHost: a")), Ambiguity::TargetUnreadable);
    }

    #[test]
    fn paths_that_servers_read_differently_are_left_to_the_default() {
        assert_eq!(kind(head("GET /a%2fb HTTP/1.1\nHost: a")), Ambiguity::PathSeparator);
        assert_eq!(kind(head("GET /a/%2e%2e/b HTTP/1.1\nHost: a")), Ambiguity::PathDots);
        assert_eq!(kind(head("GET /a%zz HTTP/1.1\nHost: a")), Ambiguity::PathUnreadable);
    }

    #[test]
    fn a_body_of_disputable_length_is_left_to_the_default() {
        let with = |fields: &str| head(&format!("POST / HTTP/1.1\nHost: a\n{fields}"));
        assert_eq!(kind(with("Content-Length: 5\nTransfer-Encoding: chunked")), Ambiguity::LengthAndEncoding);
        assert_eq!(kind(with("Content-Length: 5\nContent-Length: 6")), Ambiguity::LengthContradicted);
        assert_eq!(kind(with("Content-Length: 5, 5")), Ambiguity::LengthUnreadable);
        assert_eq!(kind(with("Content-Length: +5")), Ambiguity::LengthUnreadable);
        assert_eq!(kind(with("Content-Length:")), Ambiguity::LengthUnreadable);
        assert_eq!(kind(with("Transfer-Encoding: chunked, identity")), Ambiguity::EncodingUnreadable);
        assert_eq!(kind(with("Transfer-Encoding: chunked\nTransfer-Encoding: x")), Ambiguity::EncodingUnreadable);
        assert_eq!(kind(head("POST / HTTP/1.0\nTransfer-Encoding: chunked")), Ambiguity::EncodingUnreadable);
        assert_eq!(kind(with("Content-Length: 5\nContent-Length: 5")), Ambiguity::LengthContradicted);
        assert_eq!(kind(with("Content-Length: 9223372036854775808")), Ambiguity::LengthUnreadable);
        assert_request(with("Transfer-Encoding: Chunked"), "POST", Some("a"), "/");
    }

    #[test]
    fn bytes_at_fault_are_named() {
        assert_eq!(kind("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"), Ambiguity::BareCarriageReturn);
        assert_eq!(kind("GET / HTTP/1.1\rHost: a"), Ambiguity::BareCarriageReturn);
        assert_eq!(kind("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"), Ambiguity::Nul);
        assert_eq!(kind("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"), Ambiguity::FoldedHeader);
        assert_eq!(kind("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n"), Ambiguity::FoldedHeader);
        assert_eq!(kind("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Ambiguity::FoldedHeader);
        assert_eq!(kind("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), Ambiguity::NotHttp);
        assert_eq!(kind("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Ambiguity::Version);
        assert_eq!(kind("GET / HTTP/1.2\r\n"), Ambiguity::Version);
    }

    #[test]
    fn what_cannot_become_http_is_known_at_its_first_byte() {
        assert_eq!(kind(b"\x16\x03\x01\x02"), Ambiguity::NotHttp);
        assert_eq!(kind(b"\0"), Ambiguity::Nul);
        assert_eq!(kind("GET /\r\n"), Ambiguity::NotHttp);
        assert_eq!(read(b"", 16_384), Reading::Incomplete);
        assert_eq!(read(b"SSH", 16_384), Reading::Incomplete);
    }

    #[test]
    fn a_head_must_fit_into_the_bytes_looked_at() {
        let whole = head("GET / HTTP/1.1\nHost: a");
        assert!(matches!(read(whole.as_bytes(), whole.len()), Reading::Clear(_)));
        assert_eq!(read(whole.as_bytes(), whole.len() - 1), Reading::Unclear(Ambiguity::TooLong));
        assert_eq!(read(&whole.as_bytes()[..10], 10), Reading::Unclear(Ambiguity::TooLong));
        assert_eq!(read(&whole.as_bytes()[..9], 10), Reading::Incomplete);
    }

    #[test]
    fn header_fields_are_counted() {
        let fields = |count: usize| head(&format!("GET / HTTP/1.1\nHost: a{}", "\nX: y".repeat(count)));
        assert_request(fields(HEADERS_MAX - 1), "GET", Some("a"), "/");
        assert_eq!(kind(fields(HEADERS_MAX)), Ambiguity::TooManyHeaders);
    }
}
