//! Reads the first request of an HTTP/2 connection in clear with prior knowledge (RFC 9113, section 3.3).
//!
//! A client may send its preface, SETTINGS and requests before the server has said anything, and most do. The first
//! header block decides. Nothing is answered in the server's place: a client that waits for the server's SETTINGS says
//! nothing to decide by ([`awaits_server`]).
//!
//! What a server must or may refuse, and what servers could read differently, has a name ([`Ambiguity`]). Values of
//! settings and of window updates are not judged: they say nothing about where a request goes.

pub(super) mod data;

use super::ambiguity::Ambiguity;
use super::body::{Body, Framing};
use super::hpack::{self, Unreadable};
use super::inspect::{Content, Reading};
use super::request::{Headers, Request, authority, normal_path};
use crate::limits::cluster_file::FRAMES_MAX;
use std::borrow::Cow;
use std::ops::Range;

/// What every client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEADER_LEN: usize = 9;
/// The largest payload until the other side allows more (section 4.2).
const PAYLOAD_LEN_MAX: usize = 1 << 14;

/// Types of frames (section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// Flags of HEADERS and CONTINUATION; END_STREAM is ACK for SETTINGS and PING.
mod flag {
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const ACK: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
    pub(super) const PRIORITY: u8 = 0x20;
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// The first header block, put together.
struct Block<'a> {
    stream: u32,
    octets: Cow<'a, [u8]>,
    ends_stream: bool,
    /// Where it ends.
    end: usize,
}

/// What the frames before the first header block amount to.
enum Frames<'a> {
    /// A block that is complete.
    Block(Block<'a>),
    /// None yet; whether every frame is whole, so that the client may have said all it wants to say.
    None { is_whole: bool },
}

/// Reads the request at the beginning of `bytes`, of which at most `bytes_max` are looked at. What HPACK has packed is
/// written into `text`.
pub(super) fn read<'a>(bytes: &'a [u8], bytes_max: usize, text: &'a mut Vec<u8>) -> Reading<'a> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    match frames(seen) {
        Ok(Frames::Block(block)) => match request(&block, &seen[block.end..], bytes_max - block.end, text) {
            Ok(request) => Reading::Clear(Content::Http(request)),
            Err(why) => Reading::Unclear(why),
        },
        Ok(Frames::None { .. }) if seen.len() == bytes_max => Reading::Unclear(Ambiguity::TooLong),
        Ok(Frames::None { .. }) => Reading::Incomplete,
        Err(why) => Reading::Unclear(why),
    }
}

/// Whether preface and SETTINGS are here and nothing is begun: the client may be waiting for the server's SETTINGS.
pub(super) fn awaits_server(bytes: &[u8]) -> bool {
    bytes.len() > PREFACE.len() && matches!(frames(bytes), Ok(Frames::None { is_whole: true }))
}

/// Walks the frames up to the end of the first header block.
fn frames(bytes: &[u8]) -> Result<Frames<'_>, Ambiguity> {
    let Some(mut rest) = bytes.strip_prefix(PREFACE) else {
        return if PREFACE.starts_with(bytes) { Ok(Frames::None { is_whole: false }) } else { Err(Ambiguity::Http2Frames) };
    };
    let mut begun: Option<Block<'_>> = None;
    for number in 0..FRAMES_MAX {
        let Some(frame) = frame(&mut rest, number == 0)? else {
            return Ok(Frames::None { is_whole: rest.is_empty() && begun.is_none() });
        };
        let is_last = frame.flags & flag::END_HEADERS != 0;
        match &mut begun {
            None if frame.kind == kind::HEADERS => {
                let ends_stream = frame.flags & flag::END_STREAM != 0;
                begun = Some(Block { stream: frame.stream, octets: fragment(&frame)?.into(), ends_stream, end: 0 });
            }
            None if frame.kind == kind::CONTINUATION => return Err(Ambiguity::Http2Frames),
            None => continue,
            // Section 6.10: nothing may come between the frames of a block.
            Some(block) if frame.kind == kind::CONTINUATION && frame.stream == block.stream => {
                block.octets.to_mut().extend_from_slice(frame.payload);
            }
            Some(_) => return Err(Ambiguity::Http2Frames),
        }
        if is_last && let Some(block) = begun {
            return Ok(Frames::Block(Block { end: bytes.len() - rest.len(), ..block }));
        }
    }
    Err(Ambiguity::TooLong)
}

/// Takes the next frame; none if it is not complete. What its header shows to be wrong is wrong at once.
fn frame<'a>(rest: &mut &'a [u8], is_first: bool) -> Result<Option<Frame<'a>>, Ambiguity> {
    let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
    let (length, kind, flags, stream) = header(*head);
    let is_right = length <= PAYLOAD_LEN_MAX
        && (kind == kind::SETTINGS || !is_first)
        && match kind {
            // No client may have streams before it opened one, nor push, nor answer what nobody asked.
            kind::DATA | kind::RST_STREAM | kind::PUSH_PROMISE | kind::GOAWAY => false,
            kind::SETTINGS => flags & flag::ACK == 0 && stream == 0 && length % 6 == 0,
            kind::PING => flags & flag::ACK == 0 && stream == 0 && length == 8,
            kind::PRIORITY => stream != 0 && length == 5,
            kind::WINDOW_UPDATE => stream == 0 && length == 4,
            // Section 5.1.1: a client's streams are odd.
            kind::HEADERS | kind::CONTINUATION => stream % 2 == 1,
            // Unknown types are ignored (section 4.1).
            _ => true,
        };
    if !is_right {
        return Err(Ambiguity::Http2Frames);
    }
    let Some((payload, behind)) = behind.split_at_checked(length) else { return Ok(None) };
    *rest = behind;
    Ok(Some(Frame { kind, flags, stream, payload }))
}

/// Length of the payload, type, flags and stream (section 4.1).
const fn header(octets: [u8; FRAME_HEADER_LEN]) -> (usize, u8, u8, u32) {
    let [a, b, c, kind, flags, d, e, f, g] = octets;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    // The first bit is reserved, and ignored.
    (length, kind, flags, u32::from_be_bytes([d & 0x7f, e, f, g]))
}

/// The part of the block in HEADERS, without padding and priority (section 6.2).
fn fragment<'a>(frame: &Frame<'a>) -> Result<&'a [u8], Ambiguity> {
    let payload = unpadded(frame.payload, frame.flags)?;
    let priority_len = if frame.flags & flag::PRIORITY != 0 { 5 } else { 0 };
    payload.get(priority_len..).ok_or(Ambiguity::Http2Frames)
}

/// A payload of DATA or HEADERS without its padding (section 6.1).
fn unpadded(payload: &[u8], flags: u8) -> Result<&[u8], Ambiguity> {
    if flags & flag::PADDED == 0 {
        return Ok(payload);
    }
    let (padding, payload) = payload.split_first().ok_or(Ambiguity::Http2Frames)?;
    let length = payload.len().checked_sub(usize::from(*padding)).ok_or(Ambiguity::Http2Frames)?;
    payload.get(..length).ok_or(Ambiguity::Http2Frames)
}

/// Decodes and judges a header block. Behind it may be its body, of which so many octets may be looked at.
fn request<'a>(block: &Block<'_>, behind: &'a [u8], bytes_max: usize, text: &'a mut Vec<u8>) -> Result<Request<'a>, Ambiguity> {
    let fields = hpack::decode(&block.octets, text).map_err(|why| match why {
        Unreadable::Malformed => Ambiguity::Http2HeaderBlock,
        Unreadable::TooManyFields => Ambiguity::TooManyHeaders,
        Unreadable::TooLarge => Ambiguity::TooLong,
    })?;
    let cookie = joined_cookies(&fields, text);
    let text: &'a [u8] = text;
    let part = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    let mut pseudo = Pseudo::default();
    let mut headers: Vec<(&'a str, &'a [u8])> = Vec::with_capacity(fields.len());
    for field in &fields {
        let (name, value) = (part(&field.name), part(&field.value));
        if !is_value(value) {
            return Err(Ambiguity::Http2FieldValue);
        }
        if let Some(name) = name.strip_prefix(b":") {
            // Section 8.3: before all others.
            if !headers.is_empty() {
                return Err(Ambiguity::Http2PseudoFields);
            }
            pseudo.set(name, value)?;
            continue;
        }
        let name = field_name(name).ok_or(Ambiguity::Http2FieldName)?;
        // Section 8.2.2.
        let is_of_connection = matches!(name, "connection" | "proxy-connection" | "keep-alive" | "transfer-encoding" | "upgrade");
        if is_of_connection || (name == "te" && value != b"trailers") {
            return Err(Ambiguity::Http2ConnectionField);
        }
        headers.push((name, value));
    }
    if let Some(cookie) = cookie {
        headers.retain(|(name, _)| *name != "cookie");
        headers.push(("cookie", part(&cookie)));
    }
    let framing = framing(&headers, block)?;
    pseudo.request(headers, Body::new(framing, behind, bytes_max))
}

/// Section 8.2.3: a client may send its cookies as several fields, which stand for one.
fn joined_cookies(fields: &[hpack::Field], text: &mut Vec<u8>) -> Option<Range<usize>> {
    let is_cookie = |field: &&hpack::Field| text.get(field.name.clone()) == Some(b"cookie");
    let cookies: Vec<&hpack::Field> = fields.iter().filter(is_cookie).collect();
    if cookies.len() < 2 {
        return None;
    }
    let start = text.len();
    for (number, field) in cookies.into_iter().enumerate() {
        if number > 0 {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_within(field.value.clone());
    }
    Some(start..text.len())
}

/// The fields that stand for the request line (section 8.3.1).
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
}

impl<'a> Pseudo<'a> {
    fn set(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Ambiguity> {
        let field = match name {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            // `:protocol` is for servers that said they know it (RFC 8441, section 4).
            _ => return Err(Ambiguity::Http2PseudoFields),
        };
        if field.replace(value).is_some() { Err(Ambiguity::Http2PseudoFields) } else { Ok(()) }
    }

    /// The request, compared as one of HTTP/1.1 is.
    fn request(self, headers: Vec<(&'a str, &'a [u8])>, body: Body<'a>) -> Result<Request<'a>, Ambiguity> {
        let method = self.method.and_then(token).ok_or(Ambiguity::Http2PseudoFields)?;
        if method == "CONNECT" {
            return Err(Ambiguity::TargetUnreadable);
        }
        let (Some(scheme), Some(path)) = (self.scheme, self.path) else { return Err(Ambiguity::Http2PseudoFields) };
        if !matches!(scheme, b"http" | b"https") {
            return Err(Ambiguity::TargetUnreadable);
        }
        let named = host(self.authority, &headers)?;
        let mut query = None;
        let path = match path {
            b"*" if method == "OPTIONS" => Cow::Borrowed(&b"*"[..]),
            [b'/', ..] => {
                let path = std::str::from_utf8(path).map_err(|_| Ambiguity::PathUnreadable)?;
                if path.contains([' ', '\t']) {
                    return Err(Ambiguity::PathUnreadable);
                }
                query = path.split_once('?').map(|(_, query)| Cow::Borrowed(query.as_bytes()));
                normal_path(path)?
            }
            _ => return Err(Ambiguity::TargetUnreadable),
        };
        let mut fields = Headers::default();
        for (name, value) in headers {
            fields.push(name, value);
        }
        Ok(Request { method: method.into(), path, query, host: Some(named), headers: fields, body })
    }
}

/// Section 8.3.1: who has both must say the same in both, and who has none says nothing a server could go by.
fn host<'a>(named: Option<&'a [u8]>, headers: &[(&'a str, &'a [u8])]) -> Result<Cow<'a, str>, Ambiguity> {
    let mut hosts = headers.iter().filter(|header| header.0 == "host").map(|header| header.1);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Ambiguity::HostRepeated);
    }
    let read = |text: Option<&'a [u8]>| text.map(|text| authority(text)?.ok_or(Ambiguity::HostUnreadable)).transpose();
    match (read(named)?, read(host)?) {
        (Some(named), Some(host)) if named != host => Err(Ambiguity::HostContradicted),
        (Some(named), _) | (None, Some(named)) => Ok(named.host),
        (None, None) => Err(Ambiguity::HostMissing),
    }
}

/// Where the body ends. What `content-length` says is what the frames carry (section 8.1.1).
fn framing(headers: &[(&str, &[u8])], block: &Block<'_>) -> Result<Framing, Ambiguity> {
    let values = |name: &'static str| headers.iter().filter(move |header| header.0 == name).map(|header| header.1);
    let mut said: Option<&[u8]> = None;
    for value in values("content-length") {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Ambiguity::LengthUnreadable);
        }
        if said.is_some_and(|said| said != value) {
            return Err(Ambiguity::LengthContradicted);
        }
        said = Some(value);
    }
    if block.ends_stream {
        let says_more = said.is_some_and(|said| said.iter().any(|digit| *digit != b'0'));
        return if says_more { Err(Ambiguity::LengthContradicted) } else { Ok(Framing::Length(0)) };
    }
    // RFC 9110, sections 8.4 and 10.1.1: as in HTTP/1.
    let is_encoded = values("content-encoding").any(|encoding| !encoding.eq_ignore_ascii_case(b"identity"));
    let is_held_back = values("expect").next().is_some();
    let length = said.map(|said| std::str::from_utf8(said).ok().and_then(|said| said.parse().ok()));
    Ok(match length {
        _ if is_encoded || is_held_back => Framing::Unread,
        // More digits than any number that a body can have.
        Some(None) => Framing::Unread,
        Some(Some(length)) => Framing::Stream { stream: block.stream, length: Some(length) },
        None => Framing::Stream { stream: block.stream, length: None },
    })
}

/// A token (RFC 9110, section 5.6.2).
fn token(text: &[u8]) -> Option<&str> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if text.is_empty() || !text.iter().all(is_token) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

/// A field name (section 8.2.1): without capital letters.
fn field_name(name: &[u8]) -> Option<&str> {
    token(name).filter(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase()))
}

/// Section 8.2.1, and other control characters as in HTTP/1 (RFC 9110, section 5.5).
fn is_value(value: &[u8]) -> bool {
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
    value.trim_ascii() == value && !value.iter().any(is_control)
}

#[cfg(test)]
mod tests;
