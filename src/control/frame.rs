//! Frames: a length of four octets, a type octet, the fields.

use crate::control::greeting::{GOODBYE, Goodbye, HEARTBEAT, HELLO, Heartbeat, Hello, SETTINGS};
use crate::control::message::Message;
use crate::control::report::{REPORT, Report};
use crate::control::settings::Settings;
use crate::control::wire::{DecodeError, EncodeError};
use crate::limits::MESSAGE_BYTES_MAX;

const LENGTH_OCTETS: usize = 4;

/// Anything one node says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Opens a session.
    Hello(Hello),
    /// Keeps it open.
    Heartbeat(Heartbeat),
    /// The sender's kernel has been given other settings since Hello.
    Settings(Settings),
    /// What the sender says about itself.
    Report(Report),
    /// Closes it.
    Goodbye(Goodbye),
    /// The handoff protocol.
    Message(Message),
}

impl Frame {
    /// Appends the whole frame; on error nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Hello(hello) => framed(HELLO, out, |out| hello.encode(out)),
            Self::Heartbeat(heartbeat) => framed(HEARTBEAT, out, |out| {
                heartbeat.encode(out);
                Ok(())
            }),
            Self::Settings(settings) => framed(SETTINGS, out, |out| {
                settings.encode(out);
                Ok(())
            }),
            Self::Report(report) => framed(REPORT, out, |out| report.encode(out)),
            Self::Goodbye(goodbye) => framed(GOODBYE, out, |out| {
                goodbye.encode(out);
                Ok(())
            }),
            Self::Message(message) => encode_message(message, out),
        }
    }

    fn decode(type_octet: u8, body: &[u8]) -> Result<Self, DecodeError> {
        match type_octet {
            HELLO => Hello::decode(body).map(Self::Hello),
            HEARTBEAT => Heartbeat::decode(body).map(Self::Heartbeat),
            SETTINGS => Settings::decode_changed(body).map(Self::Settings),
            REPORT => Report::decode(body).map(Self::Report),
            GOODBYE => Goodbye::decode(body).map(Self::Goodbye),
            type_octet => Message::decode(type_octet, body).map(Self::Message),
        }
    }
}

/// Appends the frame of a message; on error nothing is appended.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    framed(message.type_octet(), out, |out| message.encode(out))
}

fn framed(
    type_octet: u8,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_OCTETS]);
    out.push(type_octet);
    let written = body(out).and_then(|()| match out.len() - start - LENGTH_OCTETS {
        length if length <= MESSAGE_BYTES_MAX => Ok(length as u32),
        length => Err(EncodeError::MessageTooLong(length)),
    });
    match written {
        Ok(length) => out[start..start + LENGTH_OCTETS].copy_from_slice(&length.to_be_bytes()),
        Err(_) => out.truncate(start),
    }
    written.map(|_| ())
}

/// Octets of a stream until they make a frame. Holds at most one incomplete frame and what one read added to it.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    octets: Vec<u8>,
    read: usize,
}

impl FrameBuffer {
    /// Adds what was received.
    pub fn push(&mut self, octets: &[u8]) {
        if self.read > 0 {
            self.octets.drain(..self.read);
            self.read = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// The next complete frame. After an error the stream has no meaning any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let rest = &self.octets[self.read..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_OCTETS>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let octets = match usize::try_from(length) {
            Ok(0) => return Err(DecodeError::EmptyFrame),
            Ok(octets) if octets <= MESSAGE_BYTES_MAX => octets,
            _ => return Err(DecodeError::FrameTooLong(length)),
        };
        let Some((&type_octet, body)) = rest.get(..octets).and_then(<[u8]>::split_first) else { return Ok(None) };
        let frame = Frame::decode(type_octet, body)?;
        self.read += LENGTH_OCTETS + octets;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Epoch, HandoffId};
    use proptest::prelude::*;

    fn closed(serial: u64) -> Frame {
        Frame::Message(Message::Closed { id: HandoffId { epoch: Epoch(9), serial } })
    }

    proptest! {
        #[test]
        fn frames_come_out_in_order_however_the_stream_is_cut(count in 1u64..20, cuts in 1usize..40) {
            let mut stream = Vec::new();
            for serial in 0..count {
                closed(serial).encode(&mut stream).unwrap();
            }
            let (mut buffer, mut frames) = (FrameBuffer::default(), Vec::new());
            for piece in stream.chunks(cuts) {
                buffer.push(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            prop_assert_eq!(frames, (0..count).map(closed).collect::<Vec<_>>());
        }

        #[test]
        fn any_stream_ends_without_panic(stream in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = FrameBuffer::default();
            buffer.push(&stream);
            while let Ok(Some(_)) = buffer.next_frame() {}
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_at_its_length() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes());
        assert_eq!(buffer.next_frame(), Err(DecodeError::FrameTooLong(MESSAGE_BYTES_MAX as u32 + 1)));
        let mut buffer = FrameBuffer::default();
        buffer.push(&[0, 0, 0, 0]);
        assert_eq!(buffer.next_frame(), Err(DecodeError::EmptyFrame));
    }

    #[test]
    fn a_frame_may_be_as_long_as_it_may_be_read_and_no_longer() {
        let body = |octets: usize| {
            let mut out = b"before".to_vec();
            let written = framed(1, &mut out, |out| {
                out.resize(out.len() + octets, 0);
                Ok(())
            });
            (written, out.len())
        };
        // The type counts.
        assert_eq!(body(MESSAGE_BYTES_MAX - 1), (Ok(()), 6 + LENGTH_OCTETS + MESSAGE_BYTES_MAX));
        assert_eq!(body(MESSAGE_BYTES_MAX), (Err(EncodeError::MessageTooLong(MESSAGE_BYTES_MAX + 1)), 6));
        let mut buffer = FrameBuffer::default();
        buffer.push(&(MESSAGE_BYTES_MAX as u32).to_be_bytes());
        assert_eq!(buffer.next_frame(), Ok(None), "the rest may come");
    }

    #[test]
    fn a_message_that_cannot_be_written_leaves_no_trace() {
        let mut out = b"before".to_vec();
        let id = HandoffId { epoch: Epoch(1), serial: 1 };
        assert!(encode_message(&Message::Commit { id, more: vec![0; MESSAGE_BYTES_MAX] }, &mut out).is_err());
        assert_eq!(out, b"before");
    }
}
