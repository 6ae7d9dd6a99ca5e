//! The body of an HTTP/2 request, from the frames behind its header block.
//!
//! Frames of other streams may come between: they are passed over, as all requests of a connection go where the first one
//! goes. What breaks RFC 9113 here is for the server to refuse; the body is then none that a rule could ask about.

use super::super::ambiguity::Ambiguity;
use super::super::body::Stop;
use super::{FRAME_HEADER_LEN, PAYLOAD_LEN_MAX, flag, header, kind, unpadded};
use crate::limits::cluster_file::CHUNKS_MAX;

/// What a client may send of all bodies before the server has said anything (section 6.9.2).
const WINDOW: usize = 65_535;

/// Puts the body of a stream together, which ends with END_STREAM. `length` is what its `content-length` said.
pub(in crate::policy) fn body(bytes: &[u8], of: u32, length: Option<usize>) -> Result<Vec<u8>, Stop> {
    if length.is_some_and(|length| length > WINDOW) {
        return Err(Stop::Never);
    }
    let mut body = Vec::new();
    let mut rest = bytes;
    // All octets of DATA count, padding too (section 6.9.1).
    let mut window = WINDOW;
    // A header block of another stream (section 6.10: nothing may come between its frames).
    let mut open_block = None;
    for _ in 0..CHUNKS_MAX {
        let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEADER_LEN>() else {
            let octets = FRAME_HEADER_LEN - rest.len();
            return Err(Stop::Missing { octets, is_at_frame: rest.is_empty() && open_block.is_none() });
        };
        let (len, kind, flags, stream) = header(*head);
        let is_right = len <= PAYLOAD_LEN_MAX
            && (open_block.is_none() || kind == kind::CONTINUATION)
            && match kind {
                kind::DATA | kind::HEADERS => stream % 2 == 1,
                kind::CONTINUATION => open_block == Some(stream),
                kind::RST_STREAM => stream != of && stream != 0 && len == 4,
                kind::SETTINGS => flags & flag::ACK == 0 && stream == 0 && len % 6 == 0,
                kind::PING => flags & flag::ACK == 0 && stream == 0 && len == 8,
                kind::PRIORITY => stream != 0 && len == 5,
                kind::WINDOW_UPDATE => len == 4,
                kind::PUSH_PROMISE | kind::GOAWAY => false,
                _ => true,
            };
        if !is_right {
            return Err(Stop::Never);
        }
        if kind == kind::DATA {
            window = window.checked_sub(len).ok_or(Stop::Never)?;
        }
        let Some((payload, behind)) = behind.split_at_checked(len) else {
            return Err(Stop::Missing { octets: len - behind.len(), is_at_frame: false });
        };
        rest = behind;
        let ends_stream = flags & flag::END_STREAM != 0;
        match kind {
            kind::DATA if stream == of => body.extend_from_slice(unpadded(payload, flags).map_err(|_| Stop::Never)?),
            // Trailers, with which a body ends (section 8.1).
            kind::HEADERS if stream == of && !ends_stream => return Err(Stop::Never),
            kind::HEADERS if stream == of => {}
            kind::HEADERS | kind::CONTINUATION => {
                open_block = (flags & flag::END_HEADERS == 0).then_some(stream);
                continue;
            }
            _ => continue,
        }
        // Section 8.1.1: a server may go by the one or by the other.
        if length.is_some_and(|length| body.len() > length || (ends_stream && body.len() < length)) {
            return Err(Stop::Ambiguous(Ambiguity::LengthContradicted));
        }
        if ends_stream {
            return Ok(body);
        }
    }
    Err(Stop::Never)
}
