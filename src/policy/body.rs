//! The body of a request, as far as it is here.

use super::ambiguity::Ambiguity;
use super::http2;
use super::truth::Unknown;
use crate::limits::cluster_file::CHUNKS_MAX;
use std::borrow::Cow;

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    /// What came behind the head, no more than may be looked at.
    bytes: &'a [u8],
    /// How many of them may be looked at.
    bytes_max: usize,
    framing: Framing,
}

/// Where a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes; none without a body.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the end of this stream of HTTP/2; and so many bytes are in it, if that was said.
    Stream { stream: u32, length: Option<u64> },
    /// It is not looked at: it is compressed, or the client waits for an answer before it sends it.
    Unread,
}

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is not all here, and with less than so many octets more nothing will be known. Whether what is here is whole frames
    /// of HTTP/2, so that the client may be waiting for the server.
    Missing { octets: usize, is_at_frame: bool },
    /// It will not be read, whatever comes.
    Never,
    /// Servers may read it differently.
    Ambiguous(Ambiguity),
}

const fn missing(octets: usize) -> Stop {
    Stop::Missing { octets, is_at_frame: false }
}

impl<'a> Body<'a> {
    /// The body that begins with `bytes`, of which `bytes_max` may be looked at.
    pub(super) fn new(framing: Framing, bytes: &'a [u8], bytes_max: usize) -> Self {
        Self { bytes: bytes.get(..bytes_max).unwrap_or(bytes), bytes_max, framing }
    }

    /// That of a request which surely has none.
    pub(super) fn none() -> Self {
        Self::new(Framing::Length(0), &[], 0)
    }

    /// All of it. The answer depends only on the bytes up to its end, and is never taken back.
    pub(super) fn whole(&self) -> Result<Cow<'a, [u8]>, Unknown> {
        self.read().map_err(|stop| match stop {
            Stop::Missing { .. } => Unknown::SoFar,
            Stop::Never => Unknown::Forever,
            Stop::Ambiguous(why) => Unknown::Ambiguous(why),
        })
    }

    /// With fewer octets more than these, what is known of it stays as it is.
    pub(super) fn missing(&self) -> usize {
        let left = self.bytes_max.saturating_sub(self.bytes.len());
        match self.read() {
            Err(Stop::Missing { octets, .. }) => octets.clamp(1, left.max(1)),
            _ => 1,
        }
    }

    /// Whether a client that has sent so much of it may be waiting for the server. One of HTTP/1 sends it unasked.
    pub(super) fn awaits_server(&self) -> bool {
        matches!(self.read(), Err(Stop::Missing { is_at_frame: true, .. }))
    }

    fn read(&self) -> Result<Cow<'a, [u8]>, Stop> {
        let read = match self.framing {
            Framing::Unread => Err(Stop::Never),
            Framing::Length(length) => {
                let length = self.length(length)?;
                self.bytes.get(..length).map(Cow::Borrowed).ok_or(missing(length.saturating_sub(self.bytes.len())))
            }
            Framing::Chunked => dechunked(self.bytes).map(Cow::Owned),
            Framing::Stream { stream, length } => {
                let length = length.map(|length| self.length(length)).transpose()?;
                http2::data::body(self.bytes, stream, length).map(Cow::Owned)
            }
        };
        match read {
            Err(Stop::Missing { .. }) if self.bytes.len() >= self.bytes_max => Err(Stop::Never),
            read => read,
        }
    }

    /// A length that may be looked at.
    fn length(&self, length: u64) -> Result<usize, Stop> {
        usize::try_from(length).ok().filter(|length| *length <= self.bytes_max).ok_or(Stop::Never)
    }
}

/// Takes a body out of its chunks (RFC 9112, section 7.1). Extensions and anything unusual are left to servers: they differ
/// in how they read them.
fn dechunked(mut rest: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    for _ in 0..CHUNKS_MAX {
        let size = chunk_size(&mut rest)?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(..size).ok_or(missing(size.saturating_sub(rest.len())))?;
        body.extend_from_slice(chunk);
        rest = rest.get(size..).unwrap_or_default();
        take_line_end(&mut rest)?;
    }
    Err(Stop::Never)
}

/// One to six hexadecimal digits (more are more than may be looked at) and a CR LF.
fn chunk_size(rest: &mut &[u8]) -> Result<usize, Stop> {
    let mut size = 0_usize;
    let mut digits = 0;
    while let Some(digit) = rest.first().and_then(|byte| char::from(*byte).to_digit(16)) {
        digits += 1;
        if digits > 6 {
            return Err(Stop::Never);
        }
        size = size * 16 + usize::try_from(digit).unwrap_or(0);
        *rest = rest.get(1..).unwrap_or_default();
    }
    if rest.is_empty() {
        return Err(missing(1));
    }
    if digits == 0 {
        return Err(Stop::Never);
    }
    take_line_end(rest)?;
    Ok(size)
}

fn take_line_end(rest: &mut &[u8]) -> Result<(), Stop> {
    match rest {
        [b'\r', b'\n', behind @ ..] => {
            *rest = behind;
            Ok(())
        }
        [] | [b'\r'] => Err(missing(1)),
        _ => Err(Stop::Never),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(framing: Framing, bytes: &[u8], bytes_max: usize) -> Result<String, Unknown> {
        Body::new(framing, bytes, bytes_max).whole().map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn a_body_of_known_length_is_whole_when_that_much_is_here() {
        assert_eq!(whole(Framing::Length(3), b"abcd", 9), Ok("abc".into()));
        assert_eq!(whole(Framing::Length(3), b"ab", 9), Err(Unknown::SoFar));
        assert_eq!(whole(Framing::Length(3), b"ab", 2), Err(Unknown::Forever));
        assert_eq!(whole(Framing::Length(u64::MAX), b"", 9), Err(Unknown::Forever));
        assert_eq!(whole(Framing::Length(0), b"", 0), Ok(String::new()));
    }

    #[test]
    fn a_chunked_body_is_whole_with_its_last_chunk() {
        let chunks = b"3\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        let end = 27;
        for length in 0..end {
            assert_eq!(whole(Framing::Chunked, &chunks[..length], 99), Err(Unknown::SoFar), "{length}");
            assert_eq!(whole(Framing::Chunked, &chunks[..length], length), Err(Unknown::Forever), "{length}");
        }
        for length in end..=chunks.len() {
            assert_eq!(whole(Framing::Chunked, &chunks[..length], 99), Ok("abc0123456789".into()), "{length}");
        }
    }

    #[test]
    fn unusual_chunks_are_not_read() {
        for strange in
            ["\r\n", "x", "3;x=y\r\n", "3 \r\n", "+3\r\n", "0x3\r\n", "3\nabc", "3\r\nabcd\r\n", "3\r\nabc0\r\n", "0000003\r\n"]
        {
            assert_eq!(whole(Framing::Chunked, strange.as_bytes(), 99), Err(Unknown::Forever), "{strange:?}");
        }
        let many = "1\r\nx\r\n".repeat(CHUNKS_MAX) + "0\r\n\r\n";
        assert_eq!(whole(Framing::Chunked, many.as_bytes(), many.len()), Err(Unknown::Forever));
        assert_eq!(whole(Framing::Chunked, &many.as_bytes()[6..], many.len()), Ok("x".repeat(CHUNKS_MAX - 1)));
    }
}
