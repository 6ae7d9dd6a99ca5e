//! Packets and messages, as a world looks at them.

use super::super::offload;
use super::{MTU, has_offload};
use baton::control::message::Message;
use baton::rewrite::{Flags, Offload, Segment, ToServerWire};
use std::net::IpAddr;

/// What a client with accurate ECN (RFC 9768) has in its SYN.
pub(super) fn ask_for_accurate_ecn(packet: &mut [u8]) {
    if let Ok(mut syn) = Segment::<_, ToServerWire>::parse(&mut *packet)
        && syn.flags() == Flags::SYN
    {
        syn.set_flags(Flags::SYN.with(Flags::ECE).with(Flags::CWR));
        set_accurate_ecn(packet);
    }
}

/// Sets AE, the lowest bit of the octet of the data offset, in a packet with nothing between IP header and TCP.
pub(super) fn set_accurate_ecn(packet: &mut [u8]) {
    let tcp = if packet[0] >> 4 == 4 { &mut packet[20..] } else { &mut packet[40..] };
    tcp[12] |= 1;
    let sum = u32::from(!u16::from_be_bytes([tcp[16], tcp[17]])) + 0x0100;
    tcp[16..18].copy_from_slice(&(!((sum + (sum >> 16)) as u16)).to_be_bytes());
}

pub(super) fn as_given_to_a_device(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Offload)> {
    if has_offload() { offload::joined(packets) } else { packets.into_iter().map(|packet| (packet, Offload::NONE)).collect() }
}

/// What the engine kept or made leaves nothing to do for anybody.
pub(super) fn assert_plain(packet: &[u8]) {
    assert!(packet.len() <= MTU, "it does not fit the path");
    let segment = Segment::<_, ToServerWire>::parse(packet).expect("the engine makes and keeps TCP only");
    assert!(segment.checksums_are_right(), "its checksum is wrong");
}

pub(super) fn is_alias(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [198, 18],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 0xba70, 0, 0],
    }
}

pub(super) fn source(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 { address::<4>(packet, 12).into() } else { address::<16>(packet, 8).into() }
}

pub(super) fn destination(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 { address::<4>(packet, 16).into() } else { address::<16>(packet, 24).into() }
}

pub(super) fn address<const OCTETS: usize>(packet: &[u8], at: usize) -> [u8; OCTETS] {
    packet[at..at + OCTETS].try_into().expect("as many octets as asked for")
}

pub(super) fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Offer(_) => "offer",
        Message::Accept(_) => "accept",
        Message::Refuse { .. } => "refuse",
        Message::Commit { .. } => "commit",
        Message::Abort { .. } => "abort",
        Message::Delivered { .. } => "delivered",
        Message::Returned { .. } => "returned",
        Message::Closed { .. } => "closed",
        Message::Owned { .. } => "owned",
        Message::OwnedEnd => "owned-end",
        Message::Settled { .. } => "settled",
        Message::Disowned { .. } => "disowned",
        Message::SynRefused { .. } => "syn-refused",
        Message::WhoOwns { .. } => "who-owns",
        Message::Owner { .. } => "owner",
    }
}
