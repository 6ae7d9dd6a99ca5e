//! Holes in a request that is held: reported as the client's server would (RFC 5681, section 3.2; RFC 2018, section 4).

use super::driver::*;
use baton::handoff::{Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

fn after(offset: u32) -> Seq<baton::rewrite::Client> {
    Seq::new(CLIENT_ISN).plus(1 + offset)
}

/// Up to where all is here, and the blocks behind the hole.
type Report = (Seq<baton::rewrite::Client>, Vec<(u32, u32)>);

/// What the client is told of a hole.
fn reports(node: &mut Node) -> Vec<Report> {
    let blocks_of = |packet: &Vec<u8>| {
        let told = segment::<ToClientWire>(packet);
        assert!(told.checksums_are_right());
        assert_eq!((told.flags(), told.seq().raw(), told.payload().len()), (Flags::ACK, FRONTEND_ISN + 1, 0));
        let from = CLIENT_ISN.wrapping_add(1);
        let blocks = told.sack_blocks().map(|(left, right)| (left.raw().wrapping_sub(from), right.raw().wrapping_sub(from)));
        (told.ack(), blocks.collect())
    };
    written(&node.take(), Why::Hole).iter().map(blocks_of).collect()
}

#[test]
fn each_segment_beyond_a_hole_is_reported_at_once() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.take();
    assert_eq!(node.verdict(&octets(PORT, 10, b"0123456789")), Verdict::Consumed);
    assert_eq!(reports(&mut node), [(after(0), vec![(10, 20)])]);
    assert_eq!(node.verdict(&octets(PORT, 30, b"0123456789")), Verdict::Consumed);
    assert_eq!(reports(&mut node), [(after(0), vec![(30, 40), (10, 20)])]);
    assert_eq!(node.verdict(&octets(PORT, 20, b"0123456789")), Verdict::Consumed);
    assert_eq!(reports(&mut node), [(after(0), vec![(10, 40)])]);
    // The kernel still has its half: that nothing was acknowledged is what allows that.
    assert_eq!(node.states(), [("undecided", "inspect")]);
}

#[test]
fn what_fills_the_hole_is_no_hole() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    let request = get("/images/cat");
    node.take();
    assert_eq!(node.verdict(&octets(PORT, 4, &request[4..])), Verdict::Consumed);
    assert_eq!(reports(&mut node).len(), 1);
    assert_eq!(node.verdict(&octets(PORT, 0, &request[..4])), Verdict::Consumed);
    assert_eq!(reports(&mut node), []);
    assert_eq!(node.states(), [("offered", "inspect")], "and the request is decided");
}

#[test]
fn without_sack_the_acknowledgement_alone_is_repeated() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&SegmentSpec { sack_permitted: false, ..syn(PORT) }), Verdict::Write);
    assert_eq!(node.verdict(&SegmentSpec { sack_permitted: false, ..syn_ack(PORT) }), Verdict::Write);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Consumed);
    node.take();
    for offset in [10, 20, 30] {
        assert_eq!(node.verdict(&octets(PORT, offset, b"0123456789")), Verdict::Consumed);
        assert_eq!(reports(&mut node), [(after(0), vec![])]);
    }
}

#[test]
fn octets_in_order_that_no_kernel_has_yet_are_not_reported_as_missing() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /images");
    node.take();
    assert_eq!(node.verdict(&octets(PORT, 20, b"beyond")), Verdict::Consumed);
    assert_eq!(reports(&mut node), [], "the client would send again what is here");
    // With the early acknowledgement the hole is told, too.
    node.wait(limits::EARLY_ACKNOWLEDGEMENT_AFTER);
    let [packet] = written(&node.take(), Why::EarlyAcknowledgement).try_into().expect("one");
    let told = segment::<ToClientWire>(&packet);
    assert_eq!((told.ack(), told.sack_blocks().collect::<Vec<_>>()), (after(11), vec![(after(20), after(26))]));
    // Parked and acknowledged: at once again.
    assert_eq!(node.verdict(&octets(PORT, 26, b"more")), Verdict::Consumed);
    assert_eq!(reports(&mut node), [(after(11), vec![(20, 30)])]);
}

#[test]
fn a_report_echoes_the_last_timestamp_that_came_in_order() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.take();
    let beyond = octets(PORT, 10, b"0123456789");
    let (tsval, tsecr) = beyond.timestamps.expect("they have some");
    let later = SegmentSpec { timestamps: Some((Timestamp::new(tsval.raw() + 50), tsecr)), ..beyond };
    assert_eq!(node.verdict::<ToServerWire>(&later), Verdict::Consumed);
    let [packet] = written(&node.take(), Why::Hole).try_into().expect("one");
    let told = segment::<ToClientWire>(&packet);
    assert_eq!(told.timestamps(), Some((Timestamp::new(FRONTEND_TSVAL), ack(PORT).timestamps.expect("it has some").0)));
}

#[test]
fn who_echoes_a_later_clock_has_heard_the_local_server() {
    // What came first is gone: the kernel acknowledged it, while this process hung.
    let echo = |echoed: u32| Some((Timestamp::new(CLIENT_TSVAL + 9), Timestamp::new(echoed)));
    for (echoed, is_the_servers) in [(FRONTEND_TSVAL + 1, true), (FRONTEND_TSVAL, false), (0, false)] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.take();
        let beyond = SegmentSpec { timestamps: echo(echoed), ..octets(PORT, 10, b"0123456789") };
        assert_eq!(node.verdict(&beyond), Verdict::Consumed);
        assert_eq!(node.counter("fallbacks_total{reason=\"kernel_went_on\"}"), u64::from(is_the_servers), "{echoed}");
        let outputs = node.take();
        assert_eq!(written(&outputs, Why::Hole).len(), usize::from(!is_the_servers), "{echoed}");
        assert_eq!(
            written(&outputs, Why::Released).iter().filter(|packet| packet.ends_with(b"0123456789")).count(),
            usize::from(is_the_servers)
        );
    }
}
