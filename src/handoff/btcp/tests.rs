//! What reaches a connection that BTCP remembers, and what must not change it.

use crate::control::message::Epoch;
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::counters::DropReason;
use crate::handoff::{Engine, EngineConfig, Verdict};
use crate::limits;
use crate::policy::ClusterFile;
use crate::rewrite::{Flags, Offload, SegmentSpec, Seq, ToServerWire};
use std::rc::Rc;
use std::time::{Duration, Instant};

fn flow() -> FlowKey {
    FlowKey { client: Endpoint::new([192, 0, 2, 7].into(), 40_000), frontend: Endpoint::new([10, 77, 0, 1].into(), 80) }
}

/// An engine that has given up one connection of an earlier life.
fn with_lost_connection() -> (Engine, Instant) {
    #[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
    let now = Instant::now();
    let file = ClusterFile::parse("cluster.yaml", include_str!("../../../tests/sim/cluster.yaml")).expect("a good file");
    let policy = Rc::new(file.compile("a").expect("node a"));
    let config = EngineConfig { node: NodeId(0), epoch: Epoch(1), overlay_overhead: 56, mtu: 1_500, orphans: vec![flow()] };
    let mut engine = Engine::new(config, policy, now);
    let later = now + limits::ORPHAN_LIFETIME + Duration::from_secs(1);
    engine.handle_timeout(later);
    while engine.poll_output().is_some() {}
    (engine, later)
}

fn syn() -> Vec<u8> {
    syn_and(Flags(0))
}

fn syn_and(others: Flags) -> Vec<u8> {
    SegmentSpec::<ToServerWire> {
        source: flow().client,
        destination: flow().frontend,
        seq: Seq::new(1_000),
        ack: Seq::new(0),
        flags: Flags::SYN.with(others),
        window: 64_240,
        mss: Some(1_460),
        window_scale: None,
        sack_permitted: true,
        timestamps: None,
        traffic_class: 0,
        payload: &[],
    }
    .build()
    .into_inner()
}

fn states(engine: &Engine, now: Instant) -> Vec<&'static str> {
    engine.flows(now).iter().map(|flow| flow.state).collect()
}

#[test]
fn a_corrupt_syn_ends_no_lingering() {
    let (mut engine, now) = with_lost_connection();
    assert_eq!(states(&engine, now), ["lost"]);
    let mut corrupt = syn();
    corrupt[34] ^= 1;
    assert_eq!(engine.handle_tun(&mut corrupt, Offload::NONE, now), Verdict::Drop(DropReason::Checksum));
    assert_eq!(states(&engine, now), ["lost"]);
    assert_eq!(engine.poll_output(), None, "the guard stays, and the kernel gets nothing");

    assert_eq!(engine.handle_tun(&mut syn(), Offload::NONE, now), Verdict::Consumed);
    assert_eq!(states(&engine, now), [""; 0], "a SYN that arrived whole does");
}

#[test]
fn a_syn_that_begins_nothing_ends_no_lingering() {
    let (mut engine, now) = with_lost_connection();
    for others in [Flags::RST, Flags::FIN] {
        let _ = engine.handle_tun(&mut syn_and(others), Offload::NONE, now);
        assert_eq!(states(&engine, now), ["lost"], "{others}");
        while let Some(output) = engine.poll_output() {
            assert!(!matches!(output, crate::handoff::engine::Output::Unguard(_)), "{others}");
        }
    }
}
