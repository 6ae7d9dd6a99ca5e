//! What a replay says to the kernel, and what it wants to hear.

use super::*;
use crate::control::message::{OfferedTimestamps, WindowScales};
use crate::handoff::engine::EngineConfig;
use crate::policy::ClusterFile;

fn end(last: u8, port: u16) -> Endpoint {
    Endpoint::new([192, 0, 2, last].into(), port)
}

fn alias() -> Endpoint {
    Endpoint::new([198, 18, 0, 1].into(), 80)
}

pub(super) fn offer() -> Offer {
    Offer {
        id: HandoffId { epoch: Epoch(1), serial: 1 },
        flow: FlowKey { client: end(1, 50_000), frontend: end(2, 80) },
        service: "web".into(),
        client_isn: Seq::new(1_000),
        frontend_isn: Seq::new(7_000_000),
        client_mss: 1_460,
        window_scales: Some(WindowScales { client: WindowScale::new(9), frontend: WindowScale::new(7) }),
        sack: true,
        timestamps: Some(OfferedTimestamps { client: Timestamp::new(500), frontend: Timestamp::new(90_000) }),
        ecn: true,
        syn_window: 64_240,
        window: 502,
        round_trip: Duration::from_millis(20),
        acknowledged_early: false,
        probe: false,
        first_flight: vec![b'x'; 3_000],
    }
}

/// A kernel's SYN-ACK that grants all the offer wants.
fn syn_ack() -> SegmentSpec<'static, ToClientLocal> {
    SegmentSpec {
        source: alias(),
        destination: end(1, 50_000),
        seq: Seq::new(42),
        ack: Seq::new(1_001),
        flags: Flags::SYN.with(Flags::ACK).with(Flags::ECE),
        window: 65_160,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(3), Timestamp::new(500))),
        traffic_class: 0,
        payload: &[],
    }
}

fn broken(offer: &Offer, syn_ack: &SegmentSpec<'_, ToClientLocal>) -> Option<&'static str> {
    let mut packet = syn_ack.build().into_inner();
    broken_promise(offer, &Segment::parse(packet.as_mut_slice()).expect("a whole segment"))
}

/// An offer whose client was promised window scale `promised`.
fn scaled(promised: u8) -> Offer {
    let scales = WindowScales { client: WindowScale::new(9), frontend: WindowScale::new(promised) };
    Offer { window_scales: Some(scales), ..offer() }
}

fn learned(offer: &Offer) -> Learned {
    let mut packet = syn_ack().build().into_inner();
    Learned::of(offer, alias(), &Segment::parse(packet.as_mut_slice()).expect("a whole segment"))
}

fn delivering(offer: Offer, acknowledged: usize, began: Instant) -> Delivering {
    Delivering {
        learned: learned(&offer),
        course: Course::new(offer.frontend_isn.plus(1)),
        offer: Box::new(offer),
        overtaking: Overtaking::default(),
        acknowledged,
        began,
        has_left_syn_received: false,
    }
}

#[test]
fn the_replayed_syn_is_the_clients_with_exactly_the_options_that_were_granted() {
    let syn = Segment::<_, ToServerLocal>::parse(replayed_syn(&offer(), alias())).expect("a whole segment");
    assert_eq!((syn.source(), syn.destination()), (end(1, 50_000), alias()));
    assert_eq!((syn.seq(), syn.window(), syn.mss()), (Seq::new(1_000), 64_240, Some(1_460)));
    assert_eq!(syn.flags(), Flags::SYN.with(Flags::ECE).with(Flags::CWR));
    assert_eq!(syn.window_scale(), Some(WindowScale::new(9)));
    assert!(syn.sack_permitted());
    assert_eq!(syn.timestamps().map(|(tsval, tsecr)| (tsval.raw(), tsecr.raw())), Some((500, 0)));

    let plain = Offer { window_scales: None, sack: false, timestamps: None, ecn: false, ..offer() };
    let syn = Segment::<_, ToServerLocal>::parse(replayed_syn(&plain, alias())).expect("a whole segment");
    assert_eq!(syn.flags(), Flags::SYN);
    assert_eq!((syn.window_scale(), syn.sack_permitted(), syn.timestamps()), (None, false, None));
}

#[test]
fn a_kernel_must_grant_everything_the_client_was_promised() {
    let all = syn_ack();
    assert_eq!(broken(&offer(), &all), None);
    assert_eq!(broken(&offer(), &SegmentSpec { sack_permitted: false, ..all.clone() }), Some("tcp_sack"));
    assert_eq!(broken(&offer(), &SegmentSpec { timestamps: None, ..all.clone() }), Some("tcp_timestamps"));
    assert_eq!(broken(&offer(), &SegmentSpec { window_scale: None, ..all.clone() }), Some("tcp_window_scaling"));
    assert_eq!(broken(&offer(), &SegmentSpec { flags: Flags::SYN.with(Flags::ACK), ..all }), Some("tcp_ecn"));
}

#[test]
fn what_nobody_promised_nobody_must_grant() {
    let all = syn_ack();
    let no_ecn = Flags::SYN.with(Flags::ACK);
    let nothing = SegmentSpec { sack_permitted: false, timestamps: None, window_scale: None, flags: no_ecn, ..all.clone() };
    let modest = Offer { window_scales: None, sack: false, timestamps: None, ecn: false, ..offer() };
    assert_eq!(broken(&modest, &nothing), None);
    assert_eq!(broken(&Offer { sack: false, ..offer() }, &SegmentSpec { sack_permitted: false, ..all.clone() }), None);
    assert_eq!(broken(&Offer { timestamps: None, ..offer() }, &SegmentSpec { timestamps: None, ..all.clone() }), None);
    assert_eq!(broken(&Offer { window_scales: None, ..offer() }, &SegmentSpec { window_scale: None, ..all.clone() }), None);
    assert_eq!(broken(&Offer { ecn: false, ..offer() }, &SegmentSpec { flags: no_ecn, ..all }), None);
}

#[test]
fn a_promised_unit_larger_than_an_eighth_of_the_first_window_is_not_kept() {
    assert_eq!(broken(&scaled(12), &syn_ack()), None, "4,096 octets of 65,160");
    assert_eq!(broken(&scaled(13), &syn_ack()), Some("tcp_rmem"), "8,192 octets of 65,160 can hardly be counted in");
    let tiny = SegmentSpec { window: 4_096, window_scale: Some(WindowScale::NONE), ..syn_ack() };
    assert_eq!((broken(&scaled(9), &tiny), broken(&scaled(10), &tiny)), (None, Some("tcp_rmem")));
}

#[test]
fn a_unit_that_the_kernel_counts_in_itself_is_kept_whatever_the_window() {
    let scale = |shift| SegmentSpec { window_scale: Some(WindowScale::new(shift)), ..syn_ack() };
    assert_eq!(broken(&scaled(14), &scale(14)), None, "nothing is rounded");
    assert_eq!(broken(&scaled(13), &scale(14)), None);
    assert_eq!(broken(&scaled(14), &scale(13)), Some("tcp_rmem"));
    assert_eq!(broken(&scaled(7), &SegmentSpec { window: 500, ..scale(7) }), None);
}

#[test]
fn the_first_flight_echoes_exactly_the_kernels_own_timestamp() {
    let began = a_moment();
    let packets = delivering(offer(), 0, began).segments(end(1, 50_000), alias(), 0);
    assert_eq!(packets.len(), 3, "3,000 octets in segments of 1,448");
    let mut next = Seq::new(1_001);
    for (index, packet) in packets.iter().enumerate() {
        let segment = Segment::<_, ToServerLocal>::parse(packet.as_slice()).expect("a whole segment");
        assert_eq!(segment.seq(), next);
        assert_eq!(segment.ack(), Seq::new(43));
        assert_eq!(segment.window(), 502);
        assert_eq!(segment.timestamps().map(|(tsval, tsecr)| (tsval.raw(), tsecr.raw())), Some((500, 3)));
        assert_eq!(segment.flags().contains(Flags::PSH), index == 2, "pushed at the end");
        next = segment.seq_end();
    }
    assert_eq!(next, Seq::new(1_001 + 3_000));
}

#[test]
fn a_redelivery_begins_where_the_kernel_stopped_acknowledging() {
    let packets = delivering(offer(), 2_900, a_moment()).segments(end(1, 50_000), alias(), 2_900);
    let segment = Segment::<_, ToServerLocal>::parse(packets[0].as_slice()).expect("a whole segment");
    assert_eq!((packets.len(), segment.seq(), segment.payload().len()), (1, Seq::new(1_001 + 2_900), 100));
}

#[test]
fn what_a_client_adds_to_the_flight_is_delivered_alone() {
    const TEXT: &str = "
cluster: test
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 192.0.2.2, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 192.0.2.3, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  web: { frontends: { a: '192.0.2.2:80', b: '192.0.2.3:80' }, default: local }
";
    let now = a_moment();
    let config = EngineConfig { node: NodeId(1), epoch: Epoch(2), overlay_overhead: 60, mtu: 1_500, orphans: Vec::new() };
    let policy = ClusterFile::parse("test.yaml", TEXT).expect("valid").compile("b").expect("node b");
    let mut ctx = Context::new(&config, policy.into(), now);
    let mut utcp = Utcp::new(1);
    let slot = utcp.connections.insert(Connection {
        id: offer().id,
        flow: offer().flow,
        ingress: NodeId(0),
        alias: alias(),
        client_isn: offer().client_isn,
        serial: 1,
        since: now,
        alarm: Alarm::default(),
        is_counted: true,
        state: State::Delivering(Box::new(delivering(offer(), 0, now))),
    });
    utcp.by_flow.insert(slot, |slot| utcp.connections[slot].flow);

    let mut add = |payload: &[u8], after: u32| {
        let mut packet = SegmentSpec::<ToServerWire> {
            source: end(1, 50_000),
            destination: end(2, 80),
            seq: Seq::new(1_001 + after),
            ack: Seq::new(7_000_001),
            flags: Flags::ACK,
            window: 502,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload,
        }
        .build()
        .into_inner();
        let verdict =
            utcp.handle_client(NodeId(0), Segment::parse(packet.as_mut_slice()).expect("a whole segment"), &mut ctx, now);
        assert_eq!(verdict, Verdict::Consumed);
        let Some(Output::Packet(packet, Why::FirstFlight)) = ctx.outputs.pop_front() else { panic!("nothing delivered") };
        assert_eq!(ctx.outputs.len(), 0, "nothing but what is new");
        let segment = Segment::<_, ToServerLocal>::parse(packet).expect("a whole segment");
        (segment.seq().raw(), segment.payload().to_vec())
    };
    assert_eq!(add(b"more", 3_000), (4_001, b"more".to_vec()));
    assert_eq!(add(b"and more", 3_004), (4_005, b"and more".to_vec()));
}

#[test]
fn an_empty_flight_is_one_bare_acknowledgement() {
    let packets = delivering(Offer { first_flight: Vec::new(), ..offer() }, 0, a_moment()).segments(end(1, 50_000), alias(), 0);
    let segment = Segment::<_, ToServerLocal>::parse(packets[0].as_slice()).expect("a whole segment");
    assert_eq!((packets.len(), segment.flags(), segment.seq_len()), (1, Flags::ACK, 0));
}

#[test]
fn the_shifts_map_the_kernels_first_numbers_onto_the_front_ends() {
    let shifts = learned(&offer()).shifts;
    assert_eq!(shifts.seq.to_wire(Seq::new(42)), Seq::new(7_000_000));
    let timestamps = shifts.timestamps.expect("both sides use them");
    assert_eq!(timestamps.to_wire(Timestamp::new(3)), Timestamp::new(90_000), "the front-end's clock goes on");
}

#[test]
fn segments_that_overtake_their_commit_are_kept_within_bounds() {
    let mut overtaking = Overtaking::default();
    let kept = (0..1_000).filter(|_| overtaking.keep(vec![0; 1_500])).count();
    assert_eq!(kept, limits::OVERTAKING_SEGMENTS_MAX);
    let mut overtaking = Overtaking::default();
    let kept = (0..10).filter(|_| overtaking.keep(vec![0; 60_000])).count();
    assert_eq!(kept, limits::OVERTAKING_BYTES_MAX / 60_000);
}

#[allow(clippy::disallowed_methods)] // Any moment will do.
fn a_moment() -> Instant {
    Instant::now()
}
