//! Two sessions joined by memory, in virtual time.

#![allow(clippy::disallowed_methods)]

use super::*;
use crate::control::greeting::{Parting, Versions};
use crate::control::key::PrivateKey;
use crate::control::message::HandoffId;
use crate::control::report::{ServiceReport, Told};

const SETTINGS: Settings = Settings::USUAL;
const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// The keys of nodes a, b and c.
fn keys() -> [PrivateKey; 3] {
    std::array::from_fn(|_| PrivateKey::generate())
}

fn nodes(keys: &[PrivateKey; 3]) -> Vec<(String, [u8; 32])> {
    ["a", "b", "c"].iter().zip(keys).map(|(name, key)| ((*name).to_owned(), key.public_key())).collect()
}

fn profile(cluster: &str, node: NodeId, nodes: Vec<(String, [u8; 32])>, key: &PrivateKey) -> Profile {
    Profile::new(cluster.into(), node, nodes, key, Epoch(u64::from(node.0) + 10), SETTINGS).unwrap()
}

/// The dialler's and the listener's end of one connection.
struct Pair {
    profiles: [Profile; 2],
    sessions: [Session; 2],
    endings: [Option<Ending>; 2],
    now: Instant,
}

impl Pair {
    fn new(dialler: Profile, peer: NodeId, listener: Profile) -> Self {
        let now = Instant::now();
        let sessions = [Session::dial(&dialler, peer, false, now).unwrap(), Session::accept(&listener, false, now).unwrap()];
        Self { profiles: [dialler, listener], sessions, endings: [None, None], now }
    }

    /// a dials b, and both believe the same.
    fn agreed() -> Self {
        let keys = keys();
        let mut pair = Self::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("shop", B, nodes(&keys), &keys[1]));
        pair.settle();
        pair
    }

    /// Carries octets both ways until none are left.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in [0, 1] {
                let octets = self.sessions[from].outgoing(self.now).to_vec();
                self.sessions[from].advance(octets.len());
                moved |= !octets.is_empty();
                let to = 1 - from;
                if self.endings[to].is_none() {
                    self.endings[to] = self.sessions[to].handle_bytes(&octets, &self.profiles[to], self.now).err();
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn events(&mut self, end: usize) -> Vec<SessionEvent> {
        std::iter::from_fn(|| self.sessions[end].poll_event()).collect()
    }

    fn text(&self, end: usize) -> String {
        self.endings[end].as_ref().expect("the session has ended").to_string()
    }
}

fn up(events: &[SessionEvent]) -> (NodeId, Epoch, SessionKeys) {
    match events {
        [SessionEvent::Up { peer, epoch, keys, .. }, ..] => (*peer, *epoch, keys.clone()),
        events => panic!("not up: {events:?}"),
    }
}

#[test]
fn both_sides_come_up_with_the_same_keys_crosswise() {
    let mut pair = Pair::agreed();
    let (a, b) = (up(&pair.events(0)), up(&pair.events(1)));
    assert_eq!((a.0, a.1, b.0, b.1), (B, Epoch(11), A, Epoch(10)));
    assert_eq!(a.2.session, b.2.session);
    assert!(a.2.send == b.2.receive && a.2.receive == b.2.send && a.2.send != a.2.receive);
    assert_eq!((pair.sessions[0].version(), pair.sessions[1].version()), (Some(2), Some(2)));
}

#[test]
fn messages_arrive_in_order_however_large() {
    let mut pair = Pair::agreed();
    pair.events(1);
    let message = |serial| Message::Commit { id: HandoffId { epoch: Epoch(1), serial }, more: vec![serial as u8; 700_000] };
    for serial in 0..5 {
        pair.sessions[0].send(&message(serial)).unwrap();
    }
    assert!(pair.sessions[0].backlog() > 3_500_000);
    pair.settle();
    assert_eq!(pair.sessions[0].backlog(), 0);
    for (event, serial) in pair.events(1).into_iter().zip(0..) {
        assert!(matches!(event, SessionEvent::Message(received) if received == message(serial)));
    }
}

#[test]
fn octets_may_come_one_by_one() {
    let keys = keys();
    let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("shop", B, nodes(&keys), &keys[1]));
    for _ in 0..20 {
        for from in [0, 1] {
            let octets = pair.sessions[from].outgoing(pair.now).to_vec();
            pair.sessions[from].advance(octets.len());
            for octet in octets {
                pair.sessions[1 - from].handle_bytes(&[octet], &pair.profiles[1 - from], pair.now).unwrap();
            }
        }
    }
    assert!(pair.sessions.iter().all(Session::is_up));
}

#[test]
fn heartbeats_keep_a_session_up_measure_it_and_say_who_drains() {
    let mut pair = Pair::agreed();
    for _ in 0..20 {
        pair.now += PEER_HEARTBEAT_INTERVAL;
        for end in [0, 1] {
            assert!(pair.sessions[end].poll_timeout() <= pair.now);
            pair.sessions[end].handle_timeout(pair.now).unwrap();
        }
        pair.settle();
    }
    assert_eq!(pair.sessions[0].round_trip(), Some(Duration::ZERO));
    pair.events(1);
    pair.sessions[0].set_draining(true);
    pair.settle();
    assert!(matches!(pair.events(1).as_slice(), [SessionEvent::Draining(true)]));
    assert!(pair.sessions[1].peer_draining() && !pair.sessions[0].peer_draining());
}

#[test]
fn silence_ends_a_session_and_slow_authentication_too() {
    let mut pair = Pair::agreed();
    pair.now += PEER_SILENCE_MAX - Duration::from_millis(1);
    assert_eq!(pair.sessions[0].handle_timeout(pair.now), Ok(()));
    pair.now += Duration::from_millis(1);
    assert_eq!(pair.sessions[0].handle_timeout(pair.now), Err(Ending::Silent(PEER_SILENCE_MAX)));
    let mut silent = Session::accept(&pair.profiles[1], false, pair.now).unwrap();
    assert_eq!(silent.poll_timeout(), pair.now + AUTHENTICATION_TIMEOUT);
    assert!(matches!(silent.handle_timeout(pair.now + AUTHENTICATION_TIMEOUT), Err(Ending::TooSlow { .. })));
}

#[test]
fn a_stranger_is_refused_and_both_sides_learn_why() {
    let keys = keys();
    let stranger = PrivateKey::generate();
    let mut theirs = nodes(&keys);
    theirs[0].1 = stranger.public_key();
    let mut pair = Pair::new(profile("shop", A, theirs, &stranger), B, profile("shop", B, nodes(&keys), &keys[1]));
    pair.settle();
    assert!(matches!(pair.endings[1], Some(Ending::Refused(Refusing::UnknownKey { .. }))), "{:?}", pair.endings);
    assert!(matches!(pair.endings[0], Some(Ending::KeyRefused { .. })), "{:?}", pair.endings);
    let shown = public_key_to_text(&stranger.public_key());
    assert!(pair.text(0).contains(&shown) && pair.text(1).contains(&shown));
    assert!(pair.text(1).contains("`public_key`") && pair.events(1).is_empty());
}

#[test]
fn a_node_that_answers_with_another_key_is_refused_even_with_one_of_the_cluster() {
    let keys = keys();
    let c = NodeId(2);
    let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("shop", c, nodes(&keys), &keys[2]));
    pair.settle();
    assert!(matches!(pair.endings[0], Some(Ending::Refused(Refusing::OtherKey { .. }))), "{:?}", pair.endings);
    assert!(matches!(pair.endings[1], Some(Ending::KeyRefused { .. })), "{:?}", pair.endings);
}

#[test]
fn another_cluster_is_refused_and_both_sides_learn_why() {
    let keys = keys();
    let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("bank", B, nodes(&keys), &keys[1]));
    pair.settle();
    assert!(matches!(pair.endings[1], Some(Ending::Refused(Refusing::Cluster { .. }))));
    for end in [0, 1] {
        assert!(pair.text(end).contains("shop") && pair.text(end).contains("bank"), "{}", pair.text(end));
        assert!(pair.endings[end].as_ref().is_some_and(Ending::needs_attention));
    }
}

#[test]
fn a_name_that_is_not_the_keys_is_refused() {
    let keys = keys();
    let mut renamed = nodes(&keys);
    renamed[0].0 = "aa".into();
    let mut pair = Pair::new(profile("shop", A, renamed, &keys[0]), B, profile("shop", B, nodes(&keys), &keys[1]));
    pair.settle();
    assert!(matches!(&pair.endings[1], Some(Ending::Refused(Refusing::Name { said, .. })) if said == "aa"));
    assert!(matches!(&pair.endings[0], Some(Ending::Goodbye(Goodbye { reason: Parting::Name, .. }))));
}

fn report(connections: u32) -> Report {
    let web = ServiceReport { name: "web".into(), health: Told::Up, connections };
    Report { policy: [3; 32], full: false, services: vec![web] }
}

fn reports(events: &[SessionEvent]) -> Vec<u32> {
    let connections = |event: &SessionEvent| match event {
        SessionEvent::Report(report) => Some(report.services[0].connections),
        _ => None,
    };
    events.iter().filter_map(connections).collect()
}

#[test]
fn a_report_goes_with_every_heartbeat_and_at_once_when_it_is_urgent() {
    let mut pair = Pair::agreed();
    assert_eq!(reports(&pair.events(1)), [0; 0], "nothing to say yet");
    pair.sessions[0].set_report(Rc::new(report(1)), false);
    pair.settle();
    assert_eq!(reports(&pair.events(1)), [0; 0], "it waits for the heartbeat");
    for _ in 0..3 {
        pair.now += PEER_HEARTBEAT_INTERVAL;
        pair.sessions[0].handle_timeout(pair.now).unwrap();
        pair.settle();
        assert_eq!(reports(&pair.events(1)), [1]);
    }
    pair.sessions[0].set_report(Rc::new(report(2)), true);
    pair.settle();
    assert_eq!(reports(&pair.events(1)), [2]);
}

#[test]
fn a_peer_of_version_1_hears_no_report_and_may_not_say_one() {
    let keys = keys();
    let old = profile("shop", B, nodes(&keys), &keys[1]).with_versions(Versions { min: 1, max: 1 });
    let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, old);
    pair.settle();
    assert_eq!((pair.sessions[0].version(), pair.sessions[1].version()), (Some(1), Some(1)));
    pair.sessions[0].set_report(Rc::new(report(1)), true);
    pair.settle();
    assert_eq!(reports(&pair.events(1)), [0; 0]);
    assert!(pair.endings.iter().all(Option::is_none));
    // One that says it all the same breaks the protocol.
    let version = pair.sessions[1].phase;
    pair.sessions[1].phase = Phase::Up { peer: A, version: REPORT_SINCE };
    pair.sessions[1].set_report(Rc::new(report(1)), true);
    pair.settle();
    assert!(pair.text(0).contains("a report"), "{}", pair.text(0));
    assert_ne!(version, pair.sessions[1].phase);
}

#[test]
fn versions_without_overlap_are_refused_and_overlapping_ones_meet_at_the_highest() {
    let keys = keys();
    let with = |node: NodeId, min, max| {
        profile("shop", node, nodes(&keys), &keys[usize::from(node.0)]).with_versions(Versions { min, max })
    };
    let mut pair = Pair::new(with(A, 1, 1), B, with(B, 2, 3));
    pair.settle();
    assert!(matches!(pair.endings[1], Some(Ending::Refused(Refusing::Version { .. }))));
    assert!(pair.text(0).contains("version 1") && pair.text(0).contains("2 to 3"), "{}", pair.text(0));
    let mut pair = Pair::new(with(A, 1, 4), B, with(B, 2, 3));
    pair.settle();
    assert_eq!((pair.sessions[0].version(), pair.sessions[1].version()), (Some(3), Some(3)));
}

#[test]
fn the_node_whose_name_sorts_last_may_not_dial() {
    let keys = keys();
    let mut pair = Pair::new(profile("shop", B, nodes(&keys), &keys[1]), A, profile("shop", A, nodes(&keys), &keys[0]));
    pair.settle();
    assert!(matches!(pair.endings[1], Some(Ending::Refused(Refusing::Direction { .. }))));
    assert!(matches!(&pair.endings[0], Some(Ending::Goodbye(Goodbye { reason: Parting::Direction, .. }))));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_so() {
    for frame in [&[0, 0, 0, 0][..], &[0xff; 8], &[0, 0, 0, 1, 0x7f], &[0, 0, 0, 2, 0x19, 0]] {
        let mut pair = Pair::agreed();
        pair.sessions[0].plain.end().extend_from_slice(frame);
        pair.settle();
        assert!(matches!(pair.endings[1], Some(Ending::Undecodable(_))), "{:?}", pair.endings);
        assert!(matches!(&pair.endings[0], Some(Ending::Goodbye(Goodbye { reason: Parting::Protocol, .. }))));
    }
}

#[test]
fn what_is_not_tls_ends_the_session_without_panic() {
    let pair = Pair::agreed();
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        let mut session = Session::accept(&pair.profiles[1], false, pair.now).unwrap();
        let first = session.handle_bytes(octets, &pair.profiles[1], pair.now);
        assert!(first.is_err() || !session.is_authenticated());
    }
}

#[test]
fn a_damaged_record_ends_the_session_and_delivers_nothing() {
    let mut pair = Pair::agreed();
    pair.events(1);
    pair.sessions[0].send(&Message::OwnedEnd).unwrap();
    let mut octets = pair.sessions[0].outgoing(pair.now).to_vec();
    *octets.last_mut().unwrap() ^= 1;
    assert!(matches!(pair.sessions[1].handle_bytes(&octets, &pair.profiles[1], pair.now), Err(Ending::Tls(_))));
    assert!(pair.events(1).is_empty());
}

#[test]
fn a_goodbye_is_the_last_that_is_heard() {
    let mut pair = Pair::agreed();
    pair.events(1);
    pair.sessions[0].send(&Message::OwnedEnd).unwrap();
    pair.sessions[0].say_goodbye(Goodbye { reason: Parting::Stopping, text: String::new() });
    pair.settle();
    assert!(matches!(pair.events(1).as_slice(), [SessionEvent::Message(Message::OwnedEnd)]));
    assert_eq!(pair.text(1), "peer stops");
    assert!(!pair.endings[1].as_ref().unwrap().needs_attention());
}

#[test]
fn a_key_file_of_another_node_is_said_at_once() {
    let keys = keys();
    let error = Profile::new("shop".into(), A, nodes(&keys), &keys[1], Epoch(1), SETTINGS).unwrap_err().to_string();
    assert!(error.contains("node a") && error.contains("--key"), "{error}");
}

#[test]
fn a_round_trip_is_what_two_heartbeats_took_on_the_way() {
    let mut pair = Pair::agreed();
    let milliseconds = Duration::from_millis;
    let carry = |pair: &mut Pair, from: usize, takes: Duration| {
        let octets = pair.sessions[from].outgoing(pair.now).to_vec();
        pair.sessions[from].advance(octets.len());
        assert!(!octets.is_empty(), "a heartbeat is due");
        pair.now += takes;
        pair.sessions[1 - from].handle_bytes(&octets, &pair.profiles[1 - from], pair.now).unwrap();
    };
    pair.now += PEER_HEARTBEAT_INTERVAL;
    carry(&mut pair, 0, milliseconds(30));
    pair.now += milliseconds(200);
    carry(&mut pair, 1, milliseconds(20));
    assert_eq!(pair.sessions[0].round_trip(), Some(milliseconds(50)));
}

#[test]
fn a_session_that_nobody_authenticates_ends_in_time_and_not_before() {
    let keys = keys();
    let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("shop", B, nodes(&keys), &keys[1]));
    let opened = pair.now;
    assert!(!pair.sessions[0].is_authenticated());
    assert_eq!(pair.sessions[0].poll_timeout(), opened + AUTHENTICATION_TIMEOUT);
    assert_eq!(pair.sessions[0].handle_timeout(opened + AUTHENTICATION_TIMEOUT - Duration::from_millis(1)), Ok(()));
    let slow = Ending::TooSlow { what: "authentication", limit: AUTHENTICATION_TIMEOUT };
    assert_eq!(pair.sessions[0].handle_timeout(opened + AUTHENTICATION_TIMEOUT), Err(slow));
    pair.settle();
    assert!(pair.sessions.iter().all(Session::is_authenticated));
    assert!(pair.sessions.iter().all(|session| session.poll_timeout() > pair.now), "nothing is due");
}

#[test]
fn what_is_queued_is_counted_before_and_after_it_is_sealed() {
    let mut pair = Pair::agreed();
    let message = Message::Closed { id: HandoffId { epoch: Epoch(1), serial: 1 } };
    let mut frame = Vec::new();
    encode_message(&message, &mut frame).unwrap();
    assert_eq!(pair.sessions[0].backlog(), 0);
    pair.sessions[0].send(&message).unwrap();
    assert_eq!(pair.sessions[0].backlog(), frame.len());
    let sealed = pair.sessions[0].outgoing(pair.now).len();
    assert!(sealed > frame.len());
    pair.sessions[0].send(&message).unwrap();
    assert_eq!(pair.sessions[0].backlog(), sealed + frame.len());
}

#[test]
fn only_an_alert_about_our_key_says_that_it_is_refused() {
    let keys = keys();
    for (alert, is_about_the_key) in [(49, true), (42, true), (46, true), (48, true), (40, false), (70, false), (80, false)] {
        let mut pair = Pair::new(profile("shop", A, nodes(&keys), &keys[0]), B, profile("shop", B, nodes(&keys), &keys[1]));
        pair.sessions[0].outgoing(pair.now);
        // A fatal alert in a record of its own (RFC 8446, section 6).
        let ending = pair.sessions[0].handle_bytes(&[21, 3, 3, 0, 2, 2, alert], &pair.profiles[0], pair.now).unwrap_err();
        assert_eq!(matches!(ending, Ending::KeyRefused { .. }), is_about_the_key, "{ending}");
        assert_eq!(ending.is_refusal(), is_about_the_key);
    }
}
