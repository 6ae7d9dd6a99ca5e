//! BTCP: connections that are left to the kernel of their front-end, or replayed to it.

use super::driver::*;
use baton::control::message::Message;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerWire};
use std::time::Duration;

const PORT: u16 = 50_000;

#[test]
fn the_syn_ack_that_was_asked_for_is_kept_from_the_client_even_if_it_comes_late() {
    // How long after the connection was let go of without it; whether it is still taken for the one that was asked for.
    let patience = limits::LATE_SYN_ACK_LIFETIME;
    for (after, seq, absorbed) in [
        (Duration::ZERO, FRONTEND_ISN, true),
        (patience, FRONTEND_ISN, true),
        (patience + milliseconds(1), FRONTEND_ISN, false),
        (Duration::ZERO, FRONTEND_ISN + 1, false),
    ] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
        node.take();
        node.ask_of(PORT, &get("/"));
        assert_eq!(written(&node.take(), Why::RepeatedSyn).len(), 1);
        node.wait(limits::RELEASE_PATIENCE);
        assert_eq!(written(&node.take(), Why::Released).len(), 2);
        node.wait(after);
        let late = SegmentSpec { seq: Seq::new(seq), ..syn_ack(PORT) };
        let expected = if absorbed { Verdict::Drop(DropReason::SynAckAbsorbed) } else { Verdict::Write };
        assert_eq!(node.verdict(&late), expected, "{after:?} later");
        // One was asked for. More are the kernel's own, whose accept queue is full: the client acknowledges them.
        assert_eq!(node.verdict(&late), Verdict::Write);
        assert_eq!(node.states(), []);
    }
}

#[test]
fn the_ends_of_a_connection_whose_syn_ack_is_late_can_be_used_again_at_once() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
    node.ask_of(PORT, &get("/"));
    node.wait(limits::RELEASE_PATIENCE);
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    let (verdict, packet) = node.read(&SegmentSpec { seq: Seq::new(FRONTEND_ISN + 1_000), ..syn_ack(PORT) });
    assert_eq!((verdict, segment::<ToClientWire>(&packet).mss()), (Verdict::Write, Some(1_460 - OVERHEAD)));
    assert_eq!(node.states().len(), 1, "followed from its handshake on");
}

#[test]
fn a_loop_that_stood_still_leaves_undecided_connections_to_the_kernel() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /im");
    let id = node.offered(PORT + 1);
    assert_eq!(node.verdict(&syn(PORT + 2)), Verdict::Write);
    node.take();
    node.stall();
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).len(), 4);
    assert_eq!(node.counter("fallbacks_total{reason=\"stalled\"}"), 1);
    assert_eq!(node.verdict(&syn_ack(PORT + 2)), Verdict::Write);
    assert_eq!(node.states(), [], "the SYN, too, the kernel may have answered unseen");
}

#[test]
fn a_node_that_drains_leaves_all_that_the_kernel_knows_to_it() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /im");
    let id = node.offered(PORT + 1);
    assert_eq!(node.verdict(&syn(PORT + 2)), Verdict::Write);
    node.take();
    node.drain_node();
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).len(), 4);
    assert_eq!(node.counter("fallbacks_total{reason=\"draining\"}"), 1);
    node.engine.undrain();
    assert_eq!(node.verdict(&syn_ack(PORT + 2)), Verdict::Write);
    assert_eq!(node.states(), []);
}

#[test]
fn a_replay_to_self_takes_along_what_came_beyond_a_hole() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    let request = get("/");
    let beyond = octets(PORT, request.len() as u32 + 10, b"beyond");
    assert_eq!(node.verdict(&beyond), Verdict::Consumed);
    node.take();
    node.ask_of(PORT, &request);
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerWire>(&replay).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
    let [flight] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    assert_eq!(segment::<ToServerWire>(&flight).payload(), request);
    node.socket = SocketState::Open;
    let acknowledged = SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(1 + request.len() as u32), ..from_kernel(alias) };
    assert_eq!(node.verdict(&acknowledged), Verdict::Write);
    let [packet] = written(&node.take(), Why::Overtook).try_into().expect("one");
    let followed = segment::<ToServerWire>(&packet);
    assert_eq!((followed.destination(), followed.seq(), followed.payload()), (alias, beyond.seq, &b"beyond"[..]));
    assert_eq!(node.counter("replays_to_self_total"), 1);
}

#[test]
fn a_request_that_ends_before_it_is_whole_is_the_local_servers_at_once() {
    let fin = SegmentSpec { flags: Flags::ACK.with(Flags::FIN), ..octets(PORT, 0, b"GET /im") };
    let long = vec![b'x'; 16 << 10];
    for last in [fin, octets(PORT, 0, &long)] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.take();
        assert_eq!(node.verdict(&last), Verdict::Consumed);
        assert_eq!(written(&node.take(), Why::Released), [ack(PORT), last].map(|spec| spec.build().into_inner()));
    }
}

#[test]
fn a_client_that_heard_from_the_local_server_is_the_local_servers() {
    let mut node = Node::new("a");
    let id = node.offered(PORT);
    let early = SegmentSpec { ack: Seq::new(FRONTEND_ISN), ..ack(PORT) };
    assert_eq!(node.verdict(&early), Verdict::Drop(DropReason::BadAcknowledgement));
    assert_eq!(node.take(), []);
    let heard = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(2), ..octets(PORT, 40, &[]) };
    assert_eq!(node.verdict(&heard), Verdict::Consumed);
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).last(), Some(&heard.build().into_inner()));
    assert_eq!(node.counter("fallbacks_total{reason=\"kernel_went_on\"}"), 1);
}

#[test]
fn without_timestamps_only_a_hold_that_looks_like_a_long_way_is_hidden_from_the_kernel() {
    let bare = |spec: SegmentSpec<'static, ToServerWire>| SegmentSpec { timestamps: None, ..spec };
    let released = |hold, repeats: bool| {
        let mut node = Node::new("a");
        assert_eq!(node.verdict(&bare(syn(PORT))), Verdict::Write);
        for _ in 0..=u8::from(repeats) {
            assert_eq!(node.verdict(&SegmentSpec { timestamps: None, ..syn_ack(PORT) }), Verdict::Write);
        }
        assert_eq!(node.verdict(&bare(ack(PORT))), Verdict::Consumed);
        node.wait(hold);
        let request = get("/");
        assert_eq!(node.verdict(&SegmentSpec { payload: &request, ..bare(ack(PORT)) }), Verdict::Consumed);
        written(&node.take(), Why::Released).len() == 2
    };
    assert!(released(limits::UNTIMED_AFTER, false));
    assert!(!released(limits::UNTIMED_AFTER + milliseconds(1), false));
    assert!(released(limits::UNTIMED_AFTER + milliseconds(1), true), "a repeated SYN-ACK is not timed anyway");
}

#[test]
fn only_an_acknowledgement_that_could_be_the_clients_tells_that_the_kernel_went_on() {
    // The window its client gave, in the scale it gave.
    let window = 502 << 9;
    let ahead = limits::OCTETS_AHEAD_MAX as u32;
    let cases = [
        (1, 0, true),
        (window, 0, true),
        (window + 1, 0, false),
        (1, u32::MAX, true),
        (1, u32::MAX - 1, false),
        (1, ahead, true),
        (1, ahead + 1, false),
    ];
    for (acknowledged, offset, believed) in cases {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        let heard = SegmentSpec {
            seq: Seq::new(CLIENT_ISN).plus(1).plus(offset),
            ack: Seq::new(FRONTEND_ISN).plus(1 + acknowledged),
            ..ack(PORT)
        };
        let verdict = if believed { Verdict::Consumed } else { Verdict::Drop(DropReason::BadAcknowledgement) };
        assert_eq!(node.verdict(&heard), verdict, "{acknowledged} {offset}");
    }
}

#[test]
fn a_client_that_may_be_waiting_for_the_server_is_decided_for_after_a_while_and_two_round_trips() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    node.wait(milliseconds(30));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Consumed);
    // The preface of HTTP/2, and SETTINGS: no request.
    node.ask_of(PORT, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let decided = |node: &mut Node| written(&node.take(), Why::Replay).len();
    node.wait(limits::AWAITS_SERVER_MAX + milliseconds(2 * 30 - 1));
    assert_eq!(decided(&mut node), 0);
    node.wait(milliseconds(1));
    assert_eq!(decided(&mut node), 1, "to this node itself: early acknowledgements have parked it");
}

#[test]
fn the_kernel_may_learn_a_connection_from_a_request_that_is_all_there_is() {
    let upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n".to_vec();
    for (request, is_all) in [(get("/"), true), (upload, false)] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.take();
        node.ask_of(PORT, &request);
        let said = node.take();
        let [.., Output::Packet(first, Why::Released), last] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(first, &ack(PORT).build().into_inner(), "what completes the handshake teaches nothing");
        let expected = octets(PORT, 0, &request).build().into_inner();
        assert_eq!(matches!(last, Output::Local(packet, Why::Released) if *packet == expected), is_all, "{last:?}");
        assert_eq!(matches!(last, Output::Packet(packet, Why::Released) if *packet == expected), !is_all, "{last:?}");
    }
}
