//! Connections that baton alone knows: their kernel's half is gone.

use super::driver::*;
use baton::control::message::Message;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, Offload, SegmentSpec, Seq, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

fn parked(node: &mut Node, port: u16) {
    node.handshake_of(port);
    node.wait(limits::HOLD_MAX);
    assert_eq!(written(&node.take(), Why::Purge).len(), 1);
    assert_eq!(node.states().last(), Some(&("parked", "inspect")));
}

#[test]
fn a_silent_client_is_parked_after_the_longest_hold_and_no_sooner() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX - milliseconds(1));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    let said = node.take();
    assert_eq!(said[0], Output::Guard(flow(PORT)), "first the guard");
    assert_eq!(said[1], Output::AskSocket { local: frontend(), remote: client(PORT) });
    assert_eq!(written(&said, Why::Purge).len(), 1);
}

#[test]
fn nobody_but_baton_acknowledges_what_a_parked_client_sends_again() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.ask_of(PORT, b"GET /images");
    node.take();
    assert_eq!(node.verdict(&octets(PORT, 0, b"GET /images")), Verdict::Consumed);
    let [packet] = written(&node.take(), Why::Repeated).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&packet).ack(), Seq::new(CLIENT_ISN).plus(1 + 11));
    // A bare acknowledgement asks for none.
    assert_eq!(node.verdict(&octets(PORT, 11, b"")), Verdict::Consumed);
    assert_eq!(node.take(), []);
    // Nor can it have heard of anybody else.
    let heard = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(2), ..ack(PORT) };
    assert_eq!(node.verdict(&heard), Verdict::Drop(DropReason::BadAcknowledgement));
}

#[test]
fn while_the_kernel_has_the_request_only_a_keep_alive_probe_is_answered() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /images");
    node.take();
    assert_eq!(node.verdict(&octets(PORT, 0, b"GET /images")), Verdict::Consumed);
    assert_eq!(node.take(), []);
    let probe = SegmentSpec { seq: Seq::new(CLIENT_ISN), ..ack(PORT) };
    assert_eq!(node.verdict(&probe), Verdict::Consumed);
    let [packet] = written(&node.take(), Why::Repeated).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&packet).ack(), Seq::new(CLIENT_ISN).plus(1), "nothing is acknowledged by it");
}

#[test]
fn a_parked_connection_goes_on_while_its_node_drains_and_is_served_here() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.drain_node();
    assert_eq!(node.take(), []);
    node.ask_of(PORT, &get("/images/cat"));
    assert_eq!(written(&node.take(), Why::Replay).len(), 1, "a replay to this node's own kernel");
    assert_eq!(node.counter("fallbacks_total{reason=\"draining\"}"), 1);
    assert_eq!(node.counter("offers_sent_total"), 0);
}

#[test]
fn what_was_parked_when_it_was_offered_stays_offered_whatever_happens_here() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.ask_of(PORT, &get("/images/cat"));
    node.take();
    node.drain_node();
    node.stall();
    node.replace_policy("a", &[("10.77.0.1:80", "10.77.0.1:81")]);
    assert_eq!(node.states(), [("offered", "inspect")]);
    assert_eq!(node.take(), []);
}

#[test]
fn a_replay_to_self_that_fails_ends_the_connection() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.ask_of(PORT, &get("/"));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerWire>(&replay).destination();
    let reset = SegmentSpec { flags: Flags::RST.with(Flags::ACK), ..kernel_syn_ack(alias) };
    assert_eq!(node.verdict(&reset), Verdict::Consumed);
    let [reset] = written(&node.take(), Why::Reset).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&reset).seq(), Seq::new(FRONTEND_ISN).plus(1));
    assert_eq!((node.counter("resets_total"), node.counter("first_flight_bytes")), (1, 0));
}

#[test]
fn a_process_that_ends_releases_what_the_kernel_knows_and_resets_what_only_it_knew() {
    let mut node = Node::new("a");
    parked(&mut node, 1);
    parked(&mut node, 2);
    parked(&mut node, 3);
    node.ask_of(2, b"GET /half");
    node.ask_of(3, &get("/images/cat"));
    let in_kernel = node.offered(4);
    node.handshake_of(5);
    node.ask_of(5, b"GET /half");
    node.take();
    assert_eq!(node.engine.live(), 4);
    node.reset_all();
    let said = node.take();
    let reset: Vec<_> =
        written(&said, Why::Reset).iter().map(|packet| segment::<ToClientWire>(packet).destination().port).collect();
    assert_eq!(reset, [1, 2, 3]);
    let released: Vec<_> =
        written(&said, Why::Released).iter().map(|packet| segment::<ToServerWire>(packet).source().port).collect();
    assert_eq!(released, [4, 4, 5, 5]);
    let aborted = |output: &&Output| matches!(output, Output::Message(B, Message::Abort { .. }));
    assert_eq!(said.iter().filter(aborted).count(), 2);
    assert!(said.contains(&Output::Message(B, Message::Abort { id: in_kernel })));
    assert_eq!((node.counter("first_flight_bytes"), node.counter("resets_total"), node.engine.live()), (0, 3, 0));
}

#[test]
fn a_kernel_that_went_on_is_not_parked() {
    let mut node = Node::new("a");
    node.socket = SocketState::Open;
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    let said = node.take();
    assert_eq!(written(&said, Why::Purge), Vec::<Vec<u8>>::new());
    assert_eq!(written(&said, Why::Released).len(), 1);
    assert_eq!(node.states(), []);
}

#[test]
fn a_replay_to_self_has_nowhere_else_to_go_and_is_delivered_with_patience() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.ask_of(PORT, &get("/"));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerWire>(&replay).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
    node.wait(limits::DELIVERY_PATIENCE - milliseconds(1));
    assert_eq!((node.counter("resets_total"), node.counter("handoffs_returned_total")), (0, 0));
    assert!(written(&node.take(), Why::FirstFlight).len() > 20);
    // Then it is over, for the client, too.
    node.wait(milliseconds(500));
    node.socket = SocketState::Absent;
    node.wait(milliseconds(500));
    assert_eq!(node.counter("resets_total"), 1);
    assert_eq!(node.counter("first_flight_bytes"), 0);
}

#[test]
fn a_super_segment_that_has_to_be_kept_is_cut_first() {
    let mut node = Node::new("a");
    parked(&mut node, PORT);
    node.ask_of(PORT, &get("/"));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerWire>(&replay).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
    let payload = [b'x'; 5_000];
    let super_segment = octets(PORT, 100, &payload).build().into_inner();
    let offload = Offload { segment_bytes: std::num::NonZeroU16::new(1_400), ..Offload::NONE };
    let read = |node: &mut Node| node.engine.handle_tun(&mut super_segment.clone(), offload, node.instant());
    assert_eq!(read(&mut node), Verdict::Cut, "nothing longer than the path takes is kept");
    // Once its kernel has left the handshake it takes all of it as it is.
    assert_eq!(node.verdict(&SegmentSpec { payload: b"220 hello", ..from_kernel(alias) }), Verdict::Write);
    assert_eq!(read(&mut node), Verdict::Write);
}
