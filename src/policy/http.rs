//! Reads the head of an HTTP/1.0 or 1.1 request (RFC 9112) from the first bytes of a connection.
//!
//! A request is read only if every server would read it alike: rules must not send it to one server for a host or path
//! that this server then sees differently. Everything else has a name ([`Ambiguity`]) and is left to the default.
//!
//! The answer depends only on the head: the same for any prefix that contains it, and never taken back when more bytes
//! arrive. What follows the head is not looked at.

use super::ambiguity::Ambiguity;
use super::bounds::HEADERS_MAX;
use super::request::{Authority, Request, authority, normal_path};
use std::borrow::Cow;

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// The beginning of a head.
    Incomplete,
    /// A request.
    Request(Request<'a>),
    /// Not a request to compare with rules.
    Unclear(Ambiguity),
}

/// Reads the head at the beginning of `bytes`, of which at most `bytes_max` are looked at. Empty lines before the
/// request line are skipped (RFC 9112 2.2), and LF alone ends a line as CR LF does.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Head<'_> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(seen) {
        Ok(httparse::Status::Partial) if seen.len() == bytes_max => {
            Head::Unclear(Ambiguity::TooLong)
        }
        Ok(httparse::Status::Partial) => Head::Incomplete,
        Ok(httparse::Status::Complete(_)) => {
            request(&head).map_or_else(Head::Unclear, Head::Request)
        }
        Err(_) => Head::Unclear(blame(seen)),
    }
}

/// Judges a head that httparse accepted.
fn request<'a>(head: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Ambiguity> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Ambiguity::NotHttp);
    };
    let headers = head
        .headers
        .iter()
        .map(|header| (header.name, header.value.trim_ascii()))
        .collect();
    let mut request = Request {
        method,
        path: Cow::Borrowed(b"*"),
        host: None,
        headers,
    };
    check_framing(&request, version)?;
    let named = host_field(&request, version)?;
    if target == "*" {
        // RFC 9112 3.2.4: asterisk-form is for OPTIONS only.
        if method != "OPTIONS" {
            return Err(Ambiguity::TargetUnreadable);
        }
        request.host = named.map(|named| named.host);
    } else if target.starts_with('/') {
        request.path = normal_path(target)?;
        request.host = named.map(|named| named.host);
    } else {
        let (target_authority, default_port, path) = absolute_form(target)?;
        let agrees = |named: &Authority| {
            let port = |authority: &Authority| authority.port.unwrap_or(default_port);
            named.host == target_authority.host && port(named) == port(&target_authority)
        };
        // RFC 9112 3.2.2 prefers the target to Host, but not every server does.
        if named.is_some_and(|named| !agrees(&named)) {
            return Err(Ambiguity::HostContradicted);
        }
        request.path = if path.is_empty() || path.starts_with('?') {
            Cow::Borrowed(b"/")
        } else {
            normal_path(path)?
        };
        request.host = Some(target_authority.host);
    }
    Ok(request)
}

/// The length of a body must not depend on who reads the head (RFC 9112 6).
fn check_framing(request: &Request<'_>, version: u8) -> Result<(), Ambiguity> {
    let mut length: Option<&[u8]> = None;
    for value in request.header("content-length") {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Ambiguity::LengthUnreadable);
        }
        if length.is_some_and(|length| length != value) {
            return Err(Ambiguity::LengthContradicted);
        }
        length = Some(value);
    }
    let mut encodings = request.header("transfer-encoding");
    let Some(encoding) = encodings.next() else {
        return Ok(());
    };
    if length.is_some() {
        return Err(Ambiguity::LengthAndEncoding);
    }
    if version == 0 || encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
        return Err(Ambiguity::EncodingUnreadable);
    }
    Ok(())
}

/// What the Host field says (RFC 9112 3.2).
fn host_field(request: &Request<'_>, version: u8) -> Result<Option<Authority>, Ambiguity> {
    let mut hosts = request.header("host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => authority(host),
        (Some(_), Some(_)) => Err(Ambiguity::HostRepeated),
        (None, _) if version == 0 => Ok(None),
        (None, _) => Err(Ambiguity::HostMissing),
    }
}

/// Splits an absolute URI into authority, the port its scheme implies, and the rest.
fn absolute_form(target: &str) -> Result<(Authority, u16, &str), Ambiguity> {
    let (scheme, rest) = target
        .split_once("://")
        .ok_or(Ambiguity::TargetUnreadable)?;
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
        httparse::Request::new(&mut fields)
            .parse(&bytes[..length])
            .err()
    };
    let (mut accepted, mut refused) = (0, bytes.len());
    while refused - accepted > 1 {
        let middle = accepted + (refused - accepted) / 2;
        if refusal(middle).is_some() {
            refused = middle
        } else {
            accepted = middle
        }
    }
    let byte_back = |back: usize| refused.checked_sub(back).and_then(|index| bytes.get(index));
    let is_in_first_line = !bytes[..refused.saturating_sub(1)]
        .trim_ascii_start()
        .contains(&b'\n');
    match (refusal(refused), byte_back(2), byte_back(1)) {
        (Some(httparse::Error::TooManyHeaders), ..) => Ambiguity::TooManyHeaders,
        (Some(httparse::Error::Version), ..) => Ambiguity::Version,
        (_, _, Some(0)) => Ambiguity::Nul,
        (_, Some(b'\r'), _) => Ambiguity::BareCarriageReturn,
        (_, Some(b'\n'), Some(b' ' | b'\t')) if !is_in_first_line => Ambiguity::FoldedHeader,
        _ => Ambiguity::NotHttp,
    }
}
