//! The few segments that BTCP and UTCP originate and that carry nothing but flags.

use crate::flow::{Endpoint, FlowKey};
use crate::handoff::initial::ClientView;
use crate::rewrite::{Client, Flags, Leg, Segment, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire, Wire};

/// A RST to the client, at the sequence number it expects next.
pub fn reset(flow: &FlowKey, next: Seq<Wire>) -> Vec<u8> {
    bare::<ToClientWire>(flow.frontend, flow.client, next, Seq::new(0), Flags::RST)
}

/// A RST from the client, at the sequence number its server expects next.
pub fn reset_of_client(flow: &FlowKey, client: &ClientView) -> Vec<u8> {
    bare::<ToServerWire>(flow.client, flow.frontend, client.next, Seq::new(0), Flags::RST)
}

pub fn bare_reset(source: Endpoint, destination: Endpoint, seq: Seq<Client>) -> Vec<u8> {
    bare::<ToServerWire>(source, destination, seq, Seq::new(0), Flags::RST)
}

/// A segment with nothing but flags.
pub fn bare<L: Leg>(
    source: Endpoint,
    destination: Endpoint,
    seq: Seq<L::Sender>,
    ack: Seq<L::Receiver>,
    flags: Flags,
) -> Vec<u8> {
    SegmentSpec::<L> {
        source,
        destination,
        seq,
        ack,
        flags,
        window: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: &[],
    }
    .build()
    .into_inner()
}

/// The same SYN without its data.
pub fn without_payload(syn: &Segment<&mut [u8], ToServerWire>) -> Vec<u8> {
    SegmentSpec::<ToServerWire> {
        source: syn.source(),
        destination: syn.destination(),
        seq: syn.seq(),
        ack: Seq::new(0),
        flags: syn.flags(),
        window: syn.window(),
        mss: syn.mss(),
        window_scale: syn.window_scale(),
        sack_permitted: syn.sack_permitted(),
        timestamps: syn.timestamps().map(|(tsval, _)| (tsval, Timestamp::new(0))),
        traffic_class: syn.traffic_class(),
        payload: &[],
    }
    .build()
    .into_inner()
}
