//! A validated TCP segment in its IP packet, read and rewritten in place.

use crate::flow::Endpoint;
use crate::rewrite::coordinates::{Client, Local, Seq, Timestamp, Wire};
use std::marker::PhantomData;

/// One direction on one side of baton: which coordinate systems a segment's numbers are in.
pub trait Leg: Copy {
    /// Space of the sequence number and the TSval.
    type Sender: Copy;
    /// Space of the acknowledgement number and the TSecr.
    type Receiver: Copy;
}
/// From the client, as it arrived: acknowledges [`Wire`] numbers.
#[derive(Clone, Copy, Debug)]
pub enum ToServerWire {}
/// From the client, as the owner's kernel must see it.
#[derive(Clone, Copy, Debug)]
pub enum ToServerLocal {}
/// From the owner's kernel, as it came out of it.
#[derive(Clone, Copy, Debug)]
pub enum ToClientLocal {}
/// To the client, as the client must see it.
#[derive(Clone, Copy, Debug)]
pub enum ToClientWire {}
impl Leg for ToServerWire {
    type Sender = Client;
    type Receiver = Wire;
}
impl Leg for ToServerLocal {
    type Sender = Client;
    type Receiver = Local;
}
impl Leg for ToClientLocal {
    type Sender = Local;
    type Receiver = Client;
}
impl Leg for ToClientWire {
    type Sender = Wire;
    type Receiver = Client;
}

/// TCP flags (RFC 9293, section 3.1), the low byte of the flags field. The ninth flag (AE, formerly NS) has its own accessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub u8);
#[allow(missing_docs)]
impl Flags {
    pub const FIN: Self = Self(0x01);
    pub const SYN: Self = Self(0x02);
    pub const RST: Self = Self(0x04);
    pub const PSH: Self = Self(0x08);
    pub const ACK: Self = Self(0x10);
    pub const URG: Self = Self(0x20);
    pub const ECE: Self = Self(0x40);
    pub const CWR: Self = Self(0x80);
    pub const fn contains(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }
    pub const fn intersects(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }
}

/// Why bytes are not a TCP segment we can handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than its own lengths say, or lengths that contradict each other.
    Truncated,
    /// Neither IPv4 nor IPv6.
    Version,
    /// Not TCP (for IPv6: after walking extension headers).
    Protocol,
    /// An IP fragment.
    Fragment,
    /// A TCP option list that runs over its end.
    Options,
}

/// A TCP segment inside its IP packet, validated once; `B` is `&[u8]`, `&mut [u8]` or `Vec<u8>`.
#[derive(Debug, Clone)]
pub struct Segment<B, L: Leg> {
    bytes: B,
    leg: PhantomData<L>,
}

impl<B: AsRef<[u8]>, L: Leg> Segment<B, L> {
    /// Validates lengths, version and options. Bytes behind the IP total length are ignored. Checksums are not verified here.
    pub fn parse(bytes: B) -> Result<Self, Malformed> { let _ = bytes; todo!() }
    /// Reads the same bytes as another leg, for packets whose direction is known only after a look-up.
    pub fn reinterpret<M: Leg>(self) -> Segment<B, M> { todo!() }
    /// The packet, exactly IP total length long.
    pub fn packet(&self) -> &[u8] { todo!() }
    /// The underlying buffer.
    pub fn into_inner(self) -> B { todo!() }
    /// Sender's end.
    pub fn source(&self) -> Endpoint { todo!() }
    /// Receiver's end.
    pub fn destination(&self) -> Endpoint { todo!() }
    /// Flags, without AE.
    pub fn flags(&self) -> Flags { todo!() }
    /// The AE flag (RFC 9768; formerly NS).
    pub fn accurate_ecn(&self) -> bool { todo!() }
    /// Sequence number.
    pub fn seq(&self) -> Seq<L::Sender> { todo!() }
    /// Acknowledgement number; meaningless without ACK.
    pub fn ack(&self) -> Seq<L::Receiver> { todo!() }
    /// The window field, unscaled.
    pub fn window(&self) -> u16 { todo!() }
    /// Payload.
    pub fn payload(&self) -> &[u8] { todo!() }
    /// Octets of sequence space: payload, plus one each for SYN and FIN.
    pub fn seq_len(&self) -> u32 { todo!() }
    /// Sequence number after this segment.
    pub fn seq_end(&self) -> Seq<L::Sender> { self.seq().plus(self.seq_len()) }
    /// MSS option.
    pub fn mss(&self) -> Option<u16> { todo!() }
    /// Window scale option.
    pub fn window_scale(&self) -> Option<crate::rewrite::WindowScale> { todo!() }
    /// SACK-permitted option.
    pub fn sack_permitted(&self) -> bool { todo!() }
    /// TSval and TSecr.
    pub fn timestamps(&self) -> Option<(Timestamp<L::Sender>, Timestamp<L::Receiver>)> { todo!() }
    /// Whether an option of this kind is present (TFO 34, MPTCP 30, MD5 19, AO 29).
    pub fn has_option(&self, kind: u8) -> bool { let _ = kind; todo!() }
    /// Type of service / traffic class byte (DSCP and ECN).
    pub fn traffic_class(&self) -> u8 { todo!() }
    /// Whether IP (v4) header and TCP checksums are right.
    pub fn checksums_are_right(&self) -> bool { todo!() }
}

/// Setters. Every one of them keeps the TCP checksum (and the IPv4 header checksum) right by RFC 1624 incremental update.
impl<B: AsRef<[u8]> + AsMut<[u8]>, L: Leg> Segment<B, L> {
    /// Rewrites source address and port (same family; panics in debug builds otherwise).
    pub fn set_source(&mut self, to: Endpoint) { let _ = to; todo!() }
    /// Rewrites destination address and port.
    pub fn set_destination(&mut self, to: Endpoint) { let _ = to; todo!() }
    /// Rewrites the sequence number.
    pub fn set_seq(&mut self, to: Seq<L::Sender>) { let _ = to; todo!() }
    /// Rewrites the acknowledgement number.
    pub fn set_ack(&mut self, to: Seq<L::Receiver>) { let _ = to; todo!() }
    /// Rewrites the window field.
    pub fn set_window(&mut self, to: u16) { let _ = to; todo!() }
    /// Rewrites flags (not AE).
    pub fn set_flags(&mut self, to: Flags) { let _ = to; todo!() }
    /// Clears the AE flag.
    pub fn clear_accurate_ecn(&mut self) { todo!() }
    /// Lowers the MSS option to at most `limit`; does nothing when there is none (then the peer uses 536 or 1220).
    pub fn clamp_mss(&mut self, limit: u16) { let _ = limit; todo!() }
    /// Rewrites the timestamp option's values, if there is one.
    pub fn set_timestamps(&mut self, tsval: Timestamp<L::Sender>, tsecr: Timestamp<L::Receiver>) { let _ = (tsval, tsecr); todo!() }
    /// Overwrites every option of this kind with no-operation bytes; whether there was one.
    pub fn blank_option(&mut self, kind: u8) -> bool { let _ = kind; todo!() }
    /// Maps both edges of every SACK block (they are numbers of the receiver's space: the bytes it sent).
    pub fn map_sack(&mut self, map: impl Fn(Seq<L::Receiver>) -> Seq<L::Receiver>) { let _ = map; todo!() }
}
