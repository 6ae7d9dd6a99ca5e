//! What nodes say about their applications, and probes of the way through them.

use super::driver::*;
use baton::control::message::{HandoffId, Message, Offer, Refusal};
use baton::control::report::{Report, ServiceReport, Told};
use baton::flow::{FlowKey, NodeId};
use baton::handoff::probe::{ProbeEvent, ProbeSpec, Step};
use baton::handoff::{Output, PeerEvent, Why};
use baton::health::{Asker, Exchange};
use baton::limits;
use baton::policy::{HttpQuestion, Question};
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

fn report(health: Told, full: bool) -> Report {
    let web = ServiceReport { name: "web".into(), health, connections: 0 };
    Report { policy: [0; 32], full, services: vec![web] }
}

/// Node a, after b and c have said how their applications are.
fn node_with(reports: &[(NodeId, Report)], changes: &[(&str, &str)]) -> Node {
    let mut node = Node::of_file("a", changes, &[]);
    for (peer, report) in reports {
        node.engine.expect_reports(*peer);
        node.engine.handle_report(*peer, report, node.instant());
    }
    node
}

/// Who is asked first for a request of this path.
fn asked(node: &mut Node, port: u16, path: &str) -> Option<NodeId> {
    node.handshake_of(port);
    node.take();
    node.ask_of(port, &get(path));
    node.take().iter().find_map(|output| match output {
        Output::Message(peer, Message::Offer(_)) => Some(*peer),
        _ => None,
    })
}

fn passed_over(node: &Node, reason: &str) -> u64 {
    node.counter(&format!("fallbacks_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_peer_that_cannot_serve_is_passed_over_before_it_is_asked() {
    for (word, reason) in [(report(Told::Down, false), "peer_unhealthy"), (report(Told::Up, true), "peer_full")] {
        let mut node = node_with(&[(B, word), (C, report(Told::Up, false))], &[]);
        assert_eq!(asked(&mut node, PORT, "/both/x"), Some(C));
        assert_eq!(asked(&mut node, PORT + 1, "/images/x"), None, "nobody else may");
        assert_eq!((passed_over(&node, reason), node.counter("released_local_total")), (2, 1));
        node.engine.handle_report(B, &report(Told::Up, false), node.instant());
        assert_eq!(asked(&mut node, PORT + 2, "/both/x"), Some(B));
        assert_eq!(passed_over(&node, reason), 2);
    }
}

#[test]
fn a_peer_nobody_knows_about_is_asked_after_those_that_are_up() {
    let up = || report(Told::Up, false);
    let mut node = node_with(&[(B, report(Told::Unknown, false)), (C, up())], &[]);
    assert_eq!(asked(&mut node, PORT, "/both/x"), Some(C));
    assert_eq!(asked(&mut node, PORT + 1, "/images/x"), Some(B), "but it is asked");
    // A word grows old.
    let mut node = node_with(&[(B, up()), (C, up())], &[]);
    node.wait(limits::PEER_WORD_LIFETIME + milliseconds(1));
    node.engine.handle_report(C, &up(), node.instant());
    assert_eq!(asked(&mut node, PORT, "/both/x"), Some(C));
    assert_eq!(node.engine.node_state("web", B, node.instant()).unfit(), None);
}

#[test]
fn the_word_of_a_peer_ends_with_its_session() {
    let mut node = node_with(&[(B, report(Told::Down, false))], &[]);
    assert_eq!(asked(&mut node, PORT, "/images/x"), None);
    node.peer(B, PeerEvent::Down);
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    assert_eq!(asked(&mut node, PORT + 1, "/images/x"), Some(B), "of an earlier version now: it says nothing");
}

#[test]
fn a_local_application_that_is_down_is_passed_over_for_others_only() {
    let file = [("send_to: [b, c]", "send_to: [local, c]"), ("default: local", "health: { tcp: true }\n    default: local")];
    let mut node = node_with(&[], &file);
    assert_eq!(asked(&mut node, PORT, "/both/x"), None);
    node.engine.handle_own_health("web", Told::Down, 0, node.instant());
    assert_eq!(asked(&mut node, PORT + 1, "/both/x"), Some(C));
    assert_eq!(passed_over(&node, "local_unhealthy"), 1);
    assert_eq!(asked(&mut node, PORT + 2, "/elsewhere"), None);
    assert_eq!((passed_over(&node, "local_unhealthy"), node.counter("released_local_total")), (1, 2));
}

#[test]
fn a_probe_that_fails_passes_a_peer_over_only_where_it_counts() {
    let mut node = Node::new("a");
    node.engine.handle_probe_verdict("web", B, true);
    assert_eq!(asked(&mut node, PORT, "/both/x"), Some(C));
    assert_eq!(passed_over(&node, "probe_failed"), 1);
    node.engine.handle_probe_verdict("web", B, false);
    assert_eq!(asked(&mut node, PORT + 1, "/both/x"), Some(B));
}

// ---- Probes -------------------------------------------------------------------------------------------------------------

const TIMEOUT_MS: u64 = 700;

fn question() -> Question {
    Question::Http(HttpQuestion { path: "/healthz".into(), host: "h".into(), status: vec![200..=200], body: None })
}

fn probe(node: &mut Node, question: &Question) -> (HandoffId, Offer) {
    let spec = ProbeSpec {
        service: "web".into(),
        to: B,
        flow: FlowKey { client: client(512), frontend: frontend() },
        exchange: Exchange::new(question, Asker::Probe),
        timeout: milliseconds(TIMEOUT_MS),
    };
    let now = node.instant();
    let id = node.engine.begin_probe(spec, now);
    node.wait(milliseconds(0));
    // The driver hears outputs only after an input of its own.
    node.hear(C, Message::OwnedEnd);
    let said = node.take();
    let [Output::Message(B, Message::Offer(offer))] = said.as_slice() else { panic!("{said:?}") };
    (id, (**offer).clone())
}

/// What b's kernel sends, translated: from its ISN + 1 + `seq`, acknowledging so many octets.
fn answer(node: &mut Node, offer: &Offer, seq: u32, acknowledged: u32, flags: Flags, payload: &[u8]) {
    let spec = SegmentSpec::<ToClientWire> {
        source: frontend(),
        destination: client(512),
        seq: offer.frontend_isn.plus(1 + seq),
        ack: offer.client_isn.plus(1 + acknowledged),
        flags: Flags::ACK.with(flags),
        window: 500,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload,
    };
    let mut packet = spec.build().into_inner();
    let now = node.instant();
    assert!(node.engine.handle_probe_answer(&mut packet, now), "it is the probe's");
    node.hear(C, Message::OwnedEnd);
}

/// What goes to b through the overlay: sequence number from ISN + 1, flags, payload.
fn forwarded(node: &mut Node, offer: &Offer) -> Vec<(i32, Flags, Vec<u8>)> {
    let forwarded = |output: &Output| match output {
        Output::Forward(B, packet, Why::Probe) => {
            let segment = segment::<ToServerWire>(packet);
            assert!(segment.checksums_are_right());
            Some((segment.seq().since(&offer.client_isn.plus(1)), segment.flags(), segment.payload().to_vec()))
        }
        _ => None,
    };
    node.take().iter().filter_map(forwarded).collect()
}

fn events(node: &mut Node) -> Vec<ProbeEvent> {
    std::iter::from_fn(|| node.engine.poll_probe()).collect()
}

/// The step at which the one probe failed.
fn failed_at(node: &mut Node) -> Step {
    match events(node).as_slice() {
        [ProbeEvent::Verdict(_, Err(failure)), ProbeEvent::Over(_)] => failure.step,
        events => panic!("{events:?}"),
    }
}

#[test]
fn a_probe_takes_the_whole_way_and_its_last_octets_go_through_the_overlay() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    assert!(offer.probe && offer.first_flight.starts_with(b"GET /healthz") && offer.first_flight.ends_with(b"close\r\n"));
    node.hear(B, accept(id));
    let said = node.take();
    assert_eq!(commits(&said, B), [id]);
    assert!(!said.iter().any(|output| matches!(output, Output::Guard(_))), "there is no half here to guard");
    node.hear(B, Message::Delivered { id });
    let offered = offer.first_flight.len() as u32;
    assert_eq!(forwarded(&mut node, &offer), [(offered as i32, Flags::ACK, b"\r\n".to_vec())]);

    node.wait(milliseconds(5));
    answer(&mut node, &offer, 0, offered + 2, Flags(0), b"HTTP/1.1 200 OK\r\n\r\n");
    let [ProbeEvent::Verdict(of, Ok(took))] = events(&mut node)[..] else { panic!("no verdict") };
    assert_eq!((of, took), (id, milliseconds(5)));
    let last = forwarded(&mut node, &offer);
    assert!(last.last().is_some_and(|(_, flags, _)| flags.contains(Flags::FIN)), "{last:?}");
    answer(&mut node, &offer, 19, offered + 3, Flags::FIN, b"");
    assert_eq!(events(&mut node), [ProbeEvent::Over(id)]);
    assert_eq!((node.counter("probes_sent_total"), node.counter("offers_sent_total")), (1, 0));
}

#[test]
fn a_bad_answer_is_the_applications() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    let all = offer.first_flight.len() as u32 + 2;
    answer(&mut node, &offer, 0, all, Flags::FIN, b"HTTP/1.1 503 no\r\n\r\n");
    answer(&mut node, &offer, 20, all + 1, Flags(0), b"");
    assert_eq!(failed_at(&mut node), Step::Application);
}

#[test]
fn a_probe_that_fails_says_where() {
    let begin = || {
        let mut node = Node::new("a");
        let (id, offer) = probe(&mut node, &question());
        (node, id, offer)
    };
    let late = milliseconds(TIMEOUT_MS);

    let (mut node, id, _) = begin();
    node.wait(late);
    assert_eq!(failed_at(&mut node), Step::Offer);
    assert!(node.take().iter().any(|output| matches!(output, Output::Message(B, Message::Abort { id: of }) if *of == id)));

    let (mut node, _, _) = begin();
    node.peer(B, PeerEvent::Down);
    assert_eq!(failed_at(&mut node), Step::Offer);

    let (mut node, id, _) = begin();
    node.hear(B, Message::Refuse { id, reason: Refusal::ApplicationDown });
    assert_eq!(failed_at(&mut node), Step::Refused);

    let (mut node, id, _) = begin();
    node.hear(B, accept(id));
    node.wait(late);
    assert_eq!(failed_at(&mut node), Step::Delivery);

    let (mut node, id, offer) = begin();
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    node.wait(late);
    assert_eq!(failed_at(&mut node), Step::WayBack);
    let sent = forwarded(&mut node, &offer);
    assert!(sent.len() > 3, "sent again and again: {sent:?}");
    assert!(sent.last().is_some_and(|(_, flags, _)| flags.contains(Flags::RST)), "and given up");

    let (mut node, id, offer) = begin();
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, offer.first_flight.len() as u32, Flags(0), b"");
    node.wait(late);
    assert_eq!(failed_at(&mut node), Step::Overlay);

    let (mut node, id, offer) = begin();
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, offer.first_flight.len() as u32 + 2, Flags(0), b"");
    node.wait(late);
    assert_eq!(failed_at(&mut node), Step::Application);
}

#[test]
fn each_message_about_a_probe_is_heard_in_its_phase_and_once() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, Message::Delivered { id });
    assert_eq!(forwarded(&mut node, &offer), [], "nobody has accepted it yet");
    node.hear(B, accept(id));
    assert_eq!(commits(&node.take(), B), [id]);
    node.hear(B, accept(id));
    assert_eq!(commits(&node.take(), B), []);
    node.hear(B, Message::Delivered { id });
    assert_eq!(forwarded(&mut node, &offer).len(), 1);
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    assert_eq!(node.take(), []);
}

#[test]
fn a_probe_that_is_given_back_closed_or_reset_says_where() {
    let begin = || {
        let mut node = Node::new("a");
        let (id, offer) = probe(&mut node, &question());
        node.hear(B, accept(id));
        (node, id, offer)
    };
    for message in [|id| Message::Returned { id }, |id| Message::Closed { id }] {
        let (mut node, id, _) = begin();
        node.hear(B, message(id));
        assert_eq!(failed_at(&mut node), Step::Delivery);
    }
    let (mut node, _, offer) = begin();
    answer(&mut node, &offer, 0, 0, Flags::RST, b"");
    assert_eq!(failed_at(&mut node), Step::Delivery);
    let (mut node, id, offer) = begin();
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, 0, Flags::RST, b"");
    assert_eq!(failed_at(&mut node), Step::Application);
}

#[test]
fn what_has_octets_is_acknowledged_at_once_and_an_acknowledgement_is_not() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    let all = offer.first_flight.len() as u32 + 2;
    assert_eq!(forwarded(&mut node, &offer).len(), 1);
    answer(&mut node, &offer, 0, all, Flags(0), b"");
    assert_eq!(forwarded(&mut node, &offer), []);
    answer(&mut node, &offer, 0, all, Flags(0), b"HTTP/1.1 2");
    assert_eq!(forwarded(&mut node, &offer), [(all as i32, Flags::ACK, vec![])]);
    // All of ours is acknowledged: nothing is sent again.
    node.wait(limits::PROBE_REPEAT_INTERVAL * 2);
    assert_eq!(forwarded(&mut node, &offer), []);
    // A piece that is known by now says nothing new.
    answer(&mut node, &offer, 0, all, Flags(0), b"HTTP");
    assert_eq!((events(&mut node), forwarded(&mut node, &offer).len()), (vec![], 1));
}

#[test]
fn an_answer_that_ends_too_soon_is_no_good_one() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, offer.first_flight.len() as u32 + 2, Flags::FIN, b"HTTP/1.1 2");
    let said = events(&mut node);
    assert!(matches!(&said[..], [ProbeEvent::Verdict(_, Err(failure))] if failure.step == Step::Application), "{said:?}");
}

#[test]
fn a_peer_that_ends_first_has_not_yet_acknowledged_the_end_of_a_probe_of_tcp() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &Question::Tcp);
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, 0, Flags::FIN, b"");
    assert_eq!(events(&mut node), []);
    node.take();
    answer(&mut node, &offer, 1, 1, Flags(0), b"");
    assert!(matches!(events(&mut node)[..], [ProbeEvent::Verdict(_, Ok(_)), ProbeEvent::Over(_)]));
}

#[test]
fn a_probe_that_has_ended_waits_a_moment_for_the_other_side_and_sends_its_end_once() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &Question::Tcp);
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    node.take();
    answer(&mut node, &offer, 0, 1, Flags(0), b"");
    assert_eq!(events(&mut node).len(), 1, "the verdict");
    // What still comes is acknowledged behind the end that is acknowledged already.
    answer(&mut node, &offer, 0, 1, Flags(0), b"220 hello");
    assert_eq!(forwarded(&mut node, &offer), [(1, Flags::ACK, vec![])]);

    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    node.wait(milliseconds(TIMEOUT_MS / 2));
    let all = offer.first_flight.len() as u32 + 2;
    answer(&mut node, &offer, 0, all, Flags(0), b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(matches!(events(&mut node)[..], [ProbeEvent::Verdict(_, Ok(_))]));
    node.wait(limits::PROBE_CLOSE_TIMEOUT - milliseconds(1));
    assert_eq!(events(&mut node), []);
    node.wait(milliseconds(1));
    assert_eq!(events(&mut node), [ProbeEvent::Over(id)]);
}

#[test]
fn the_numbers_of_two_probes_lie_far_apart() {
    let mut node = Node::new("a");
    let (_, first) = probe(&mut node, &question());
    let (_, second) = probe(&mut node, &question());
    for distance in [second.client_isn.since(&first.client_isn), second.frontend_isn.since(&first.frontend_isn)] {
        assert!(distance.unsigned_abs() > 1 << 20, "{distance}");
    }
}

#[test]
fn steps_have_the_names_that_logs_and_status_know() {
    let steps = [Step::Offer, Step::Refused, Step::Delivery, Step::WayBack, Step::Overlay, Step::Application];
    assert_eq!(steps.map(Step::label), ["offer", "refused", "delivery", "way back", "overlay", "application"]);
}

#[test]
fn a_probe_of_tcp_is_answered_by_the_acknowledgement_of_its_end() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &Question::Tcp);
    assert!(offer.first_flight.is_empty());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    assert_eq!(forwarded(&mut node, &offer), [(0, Flags::ACK.with(Flags::FIN), Vec::new())]);
    answer(&mut node, &offer, 0, 1, Flags(0), b"");
    assert!(matches!(events(&mut node)[..], [ProbeEvent::Verdict(_, Ok(_))]));
    answer(&mut node, &offer, 0, 1, Flags::FIN, b"");
    assert_eq!(events(&mut node), [ProbeEvent::Over(id)]);
}

#[test]
fn what_nobody_sent_acknowledges_nothing_and_strangers_answers_are_not_a_probes() {
    let mut node = Node::new("a");
    let (id, offer) = probe(&mut node, &question());
    node.hear(B, accept(id));
    node.hear(B, Message::Delivered { id });
    answer(&mut node, &offer, 0, 9_000, Flags(0), b"");
    // Not what comes next, and a RST that is not exact.
    answer(&mut node, &offer, 50, 0, Flags(0), b"HTTP/1.1 200 OK\r\n\r\n");
    answer(&mut node, &offer, 7, 0, Flags::RST, b"");
    assert_eq!(events(&mut node), []);
    let stranger = SegmentSpec::<ToClientWire> { destination: client(513), seq: Seq::new(1), ..syn_ack(PORT) };
    let now = node.instant();
    assert!(!node.engine.handle_probe_answer(&mut stranger.build().into_inner(), now));
    assert!(!node.engine.handle_probe_answer(&mut [0; 30], now));
    // A peer other than the one that was asked has no say.
    node.hear(C, Message::Returned { id });
    assert_eq!(events(&mut node), []);
}

#[test]
fn an_owner_counts_probes_apart() {
    let mut node = Node::new("b");
    let offer = Offer { probe: true, ..offer(PORT) };
    node.established(&offer);
    assert_eq!((node.counter("probes_accepted_total"), node.counter("handoffs_accepted_total")), (1, 0));
    assert_eq!(node.engine.served().get("web"), Some(&1));
}
