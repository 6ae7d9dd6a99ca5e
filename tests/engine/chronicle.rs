//! What is told of a connection that is over, for the connection log, and how outcomes are counted.

use super::driver::*;
use super::on_syn;
use baton::control::message::{Message, Refusal};
use baton::handoff::Verdict;
use baton::handoff::chronicle::{End, Octets, Outcome, Record};
use baton::handoff::counters::Fallback;
use baton::rewrite::{Flags, SegmentSpec, Seq};

const PORT: u16 = 50_000;

fn watched() -> Node {
    let mut node = Node::new("a");
    node.engine.want_records();
    node
}

fn record(node: &mut Node) -> Record {
    let record = node.engine.poll_record().expect("a record");
    assert!(node.engine.poll_record().is_none(), "told once");
    record
}

/// Handed off to b 70 ms after its handshake, decided after 20 of them; the client has sent so many octets.
fn told_of(node: &mut Node) -> (baton::control::message::HandoffId, u64) {
    node.handshake_of(PORT);
    node.take();
    node.wait(milliseconds(20));
    let request = get("/both/1");
    node.ask_of(PORT, &request);
    let offer = |node: &mut Node| {
        let offered = node.take().into_iter().find_map(|output| match output {
            baton::handoff::Output::Message(_, Message::Offer(offer)) => Some(offer.id),
            _ => None,
        });
        offered.expect("offered")
    };
    let first = offer(node);
    node.wait(milliseconds(10));
    node.hear(B, Message::Refuse { id: first, reason: Refusal::Full });
    let second = offer(node);
    node.wait(milliseconds(40));
    node.hear(C, accept(second));
    (second, request.len() as u64)
}

#[test]
fn a_record_tells_who_served_whom_with_how_many_octets_and_how_long_all_took() {
    let mut node = watched();
    let (id, asked) = told_of(&mut node);
    let sent = asked as u32;
    node.wait(milliseconds(5));
    assert_eq!(node.verdict(&octets(PORT, sent, b"more")), Verdict::Forward(C));
    node.wait(milliseconds(25));
    let answered = |acknowledged: u32, flags: Flags| SegmentSpec {
        ack: Seq::new(FRONTEND_ISN).plus(1 + acknowledged),
        flags: Flags::ACK.with(flags),
        ..octets(PORT, sent + 4, b"")
    };
    assert_eq!(node.verdict(&answered(1_000, Flags(0))), Verdict::Forward(C));
    node.wait(milliseconds(100));
    // Its FIN, then the acknowledgement of the server's.
    assert_eq!(node.verdict(&answered(1_500, Flags::FIN)), Verdict::Forward(C));
    let last = SegmentSpec { seq: Seq::new(CLIENT_ISN).plus(1 + sent + 5), ..answered(1_501, Flags(0)) };
    assert_eq!(node.verdict(&last), Verdict::Forward(C));
    assert!(node.engine.poll_record().is_none());
    node.hear(C, Message::Closed { id });

    let record = record(&mut node);
    assert_eq!((record.flow, &*record.service, record.rule.as_deref()), (flow(PORT), "web", Some("both")));
    assert_eq!((record.server, record.outcome, record.end), (Some(C), Outcome::HandedOff, End::Closed));
    assert_eq!(record.fallbacks(), [(Some(B), Fallback::RefusedFull)]);
    assert!(record.summary().is_some_and(|summary| format!("{summary:?}").contains("/both/1")));
    let since = |time| Some(milliseconds(time));
    assert_eq!(
        (record.until_decided(), record.until_committed(), record.until_first_answer()),
        (since(20), since(70), since(100))
    );
    assert_eq!(record.duration(node.instant()), since(200));
    assert_eq!(record.octets(), Some(Octets { from_client: asked + 4, to_client: 1_500 }));
}

#[test]
fn a_reset_of_the_client_is_told_and_octets_are_counted_without_ends_that_never_came() {
    let mut node = watched();
    let (id, asked) = told_of(&mut node);
    let sent = asked as u32;
    let reset = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(11), ..octets(PORT, sent, b"") };
    assert_eq!(node.verdict(&reset), Verdict::Forward(C));
    assert_eq!(node.verdict(&SegmentSpec { flags: Flags::RST.with(Flags::ACK), ..reset }), Verdict::Forward(C));
    node.hear(C, Message::Closed { id });
    let record = record(&mut node);
    assert_eq!((record.end, record.octets()), (End::ResetByClient, Some(Octets { from_client: asked, to_client: 10 })));
}

#[test]
fn what_the_server_is_not_known_to_have_ended_counts_to_the_last_octet() {
    let mut node = watched();
    let (_, asked) = told_of(&mut node);
    let fin = SegmentSpec {
        ack: Seq::new(FRONTEND_ISN).plus(11),
        flags: Flags::ACK.with(Flags::FIN),
        ..octets(PORT, asked as u32, b"")
    };
    assert_eq!(node.verdict(&fin), Verdict::Forward(C));
    node.reset_all();
    let record = record(&mut node);
    assert_eq!(record.octets(), Some(Octets { from_client: asked, to_client: 10 }), "the client's FIN is no octet");
}

#[test]
fn what_the_local_server_got_is_told_without_octets() {
    let mut node = watched();
    node.handshake_of(PORT);
    node.wait(milliseconds(7));
    node.ask_of(PORT, &get("/elsewhere"));
    let record = record(&mut node);
    assert_eq!((record.outcome, record.end, record.octets()), (Outcome::Local, End::Released, None));
    assert_eq!((record.until_decided(), record.until_committed()), (Some(milliseconds(7)), None));
    assert_eq!((record.until_first_answer(), record.fallbacks()), (None, &[][..]));
}

#[test]
fn of_a_connection_that_its_owner_opened_no_octets_are_known_before_the_client_goes_on() {
    let mut node = on_syn::node("a");
    node.engine.want_records();
    let id = on_syn::opened(&mut node);
    node.hear(B, Message::Closed { id });
    let record = record(&mut node);
    assert_eq!((record.server, record.outcome, record.rule.as_deref()), (Some(B), Outcome::HandedOff, Some("images")));
    assert_eq!((record.duration(node.instant()), record.octets()), (Some(milliseconds(0)), None));
}

#[test]
fn nothing_is_kept_for_records_that_nobody_wants() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    node.hear(B, Message::Closed { id });
    assert!(node.engine.poll_record().is_none());
}

#[test]
fn outcomes_are_counted_by_service_rule_server_and_what_became_of_it() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    // That may yet be given back.
    node.handed_off(PORT + 1);
    node.hear(B, Message::Delivered { id });
    node.handshake_of(PORT + 2);
    node.ask_of(PORT + 2, &get("/elsewhere"));
    let outcomes: Vec<_> = node.engine.counters().into_iter().filter(|(name, _)| name.starts_with("outcomes_total")).collect();
    let expected = [
        ("outcomes_total{service=\"web\",rule=\"default\",node=\"a\",outcome=\"local\"}", 1),
        ("outcomes_total{service=\"web\",rule=\"images\",node=\"b\",outcome=\"handed_off\"}", 1),
    ];
    assert_eq!(outcomes, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn outcomes_and_ends_have_the_names_that_dashboards_and_logs_know() {
    use Outcome::{Abandoned, HandedOff, Local, Replayed, Reset};
    let names = [HandedOff, Local, Replayed, Abandoned, Reset].map(Outcome::label);
    assert_eq!(names, ["handed_off", "local", "replayed", "abandoned", "reset"]);
    let ends = [End::Released, End::Closed, End::ResetByClient, End::OwnerLost, End::NoServer, End::ByPolicy, End::Stopped];
    let names = ["released", "closed", "reset_by_client", "owner_lost", "no_server", "reset_by_policy", "stopped"];
    assert_eq!(ends.map(End::label), names);
}

#[test]
fn how_long_decisions_and_handoffs_take_is_told() {
    let mut node = Node::new("a");
    told_of(&mut node);
    let told = node.engine.histograms().map(|(name, times)| (name, times.count(), times.sum()));
    // From the first octet, which has the whole request here; and from the decision to the commit.
    assert_eq!(told, [("decision_seconds", 1, milliseconds(0)), ("handoff_seconds", 1, milliseconds(50))]);
}
