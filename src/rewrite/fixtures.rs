//! Packets for the unit tests of this module.

use super::build::SegmentSpec;
use super::checksum;
use super::coordinates::Seq;
use super::ip::{Family, Upper};
use super::segment::{Flags, Leg, ToServerWire, field};
use crate::flow::Endpoint;

pub(super) fn client() -> Endpoint {
    Endpoint::new([192, 0, 2, 7].into(), 40_000)
}

pub(super) fn server() -> Endpoint {
    Endpoint::new([198, 51, 100, 1].into(), 80)
}

pub(super) fn client_v6() -> Endpoint {
    Endpoint::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into(), 40_000)
}

pub(super) fn server_v6() -> Endpoint {
    Endpoint::new([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1].into(), 80)
}

pub(super) fn spec<L: Leg>(source: Endpoint, destination: Endpoint) -> SegmentSpec<'static, L> {
    SegmentSpec {
        source,
        destination,
        seq: Seq::new(1_000),
        ack: Seq::new(5_000),
        flags: Flags::ACK,
        window: 502,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: b"hello",
    }
}

pub(super) fn packet() -> Vec<u8> {
    spec::<ToServerWire>(client(), server()).build().into_inner()
}

pub(super) fn packet_v6() -> Vec<u8> {
    spec::<ToServerWire>(client_v6(), server_v6()).build().into_inner()
}

/// `packet_v6()` with extension headers in front of TCP; `first` announces them.
pub(super) fn extended(first: u8, headers: &[u8]) -> Vec<u8> {
    let mut packet = packet_v6();
    packet[6] = first;
    packet.splice(40..40, headers.iter().copied());
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// An IPv4 segment with this option list (a multiple of four octets) and right checksums.
pub(super) fn with_options(options: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let mut bytes = packet();
    bytes.splice(40..40, options.iter().copied());
    let length = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    bytes[20 + field::DATA_OFFSET] = 0x50 + ((options.len() / 4) << 4) as u8;
    bytes[10..12].fill(0);
    let sum = checksum::of(&bytes[..20]).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes[36..38].fill(0);
    let sum = checksum::with_pseudo_header(client().address, server().address, Upper::Tcp.number(Family::V4), &bytes[20..]);
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes
}
