//! The control channel on loopback, with real sockets and bounded real time.
//!
//! ```text
//!   node a 127.p.t.1 ---dials---> node b 127.p.t.2        p: of this process, t: of this test
//! ```

#![allow(clippy::disallowed_methods)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use baton::control::channel::{Channel, ChannelConfig, ChannelEvent, PeerView, Settings};
use baton::control::greeting::Versions;
use baton::control::key::{PrivateKey, public_key_to_text};
use baton::control::message::{Epoch, HandoffId, Message};
use baton::control::profile::Profile;
use baton::control::session::Session;
use baton::flow::NodeId;
use baton::limits::{PEER_SILENCE_MAX, UNAUTHENTICATED_MAX};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const SETTINGS: Settings = Settings::USUAL;
/// Long enough for a loaded machine; nothing here should take more than a fraction.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps warnings, so that tests see what an operator sees.
struct Log;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            assert_ne!(record.level(), log::Level::Error, "an ERROR is our bug: {}", record.args());
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

/// How many warnings contain all of `parts`.
fn warned(parts: &[&str]) -> usize {
    WARNINGS.lock().unwrap().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

/// Addresses and keys of a cluster of its own for each test.
struct Cluster {
    name: String,
    octet: u8,
    /// Key files' texts.
    keys: [String; 2],
}

impl Cluster {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let _ = log::set_logger(&Log).map(|()| log::set_max_level(log::LevelFilter::Trace));
        let keys = std::array::from_fn(|_| PrivateKey::generate().to_text());
        Self { name: name.into(), octet: NEXT.fetch_add(1, Ordering::Relaxed), keys }
    }

    /// Below the ephemeral ports, on addresses nobody else uses.
    fn address(&self, host: u8) -> SocketAddr {
        let process = 10 + (std::process::id() % 200) as u8;
        (Ipv4Addr::new(127, process, self.octet, host), 20_000 + (std::process::id() % 10_000) as u16).into()
    }

    fn key(&self, node: NodeId) -> PrivateKey {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, &self.keys[usize::from(node.0)]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        PrivateKey::read(&path).unwrap()
    }

    fn config(&self, node: NodeId, epoch: u64) -> ChannelConfig {
        let nodes = [("a", A, 1), ("b", B, 2)]
            .map(|(name, node, host)| (name.to_owned(), self.address(host), self.key(node).public_key()));
        ChannelConfig {
            cluster: self.name.clone(),
            node,
            nodes: nodes.into(),
            key: self.key(node),
            epoch: Epoch(epoch),
            settings: SETTINGS,
            first_token: 100,
        }
    }

    fn start(&self, node: NodeId, epoch: u64) -> Node {
        Node::start(self.config(node, epoch))
    }

    /// a in life 1 and b in life 2, with a session.
    fn start_both(&self) -> (Node, Node) {
        let (mut a, mut b) = (self.start(A, 1), self.start(B, 2));
        run(&mut [&mut a, &mut b], "both are up", |nodes| nodes.iter().all(|node| node.is_up()));
        (a, b)
    }
}

/// One node's loop, as the shell runs it.
struct Node {
    poll: mio::Poll,
    channel: Channel,
    events: Vec<ChannelEvent>,
}

impl Node {
    fn start(config: ChannelConfig) -> Self {
        let poll = mio::Poll::new().unwrap();
        let channel = Channel::start(config, poll.registry(), Instant::now()).unwrap();
        Self { poll, channel, events: Vec::new() }
    }

    fn turn(&mut self) {
        self.turn_without_asking();
        self.collect();
        self.flush();
    }

    /// A turn in which nobody asks what happened.
    fn turn_without_asking(&mut self) {
        let mut ready = mio::Events::with_capacity(64);
        self.poll.poll(&mut ready, Some(Duration::from_millis(2))).unwrap();
        let now = Instant::now();
        for event in &ready {
            assert!(self.channel.owns(event.token()));
            self.channel.handle_event(event, self.poll.registry(), now);
        }
        if self.channel.poll_timeout().is_some_and(|at| at <= now) {
            self.channel.handle_timeout(self.poll.registry(), now);
        }
        self.channel.flush(self.poll.registry(), now);
    }

    fn flush(&mut self) {
        self.channel.flush(self.poll.registry(), Instant::now());
        self.collect();
    }

    fn collect(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.channel.poll_event()));
    }

    fn peer(&self) -> PeerView {
        self.channel.peers().remove(0)
    }

    fn is_up(&self) -> bool {
        self.peer().state == "up"
    }

    fn is_refused(&self) -> bool {
        self.peer().state == "refused"
    }

    fn downs(&self) -> Vec<&str> {
        let mut downs = Vec::new();
        for event in &self.events {
            if let ChannelEvent::Down { reason, .. } = event {
                downs.push(reason.as_str());
            }
        }
        downs
    }

    /// Lives of the peer that came up.
    fn lives(&self) -> Vec<u64> {
        let life = |event: &ChannelEvent| if let ChannelEvent::Up { epoch, .. } = event { Some(epoch.0) } else { None };
        self.events.iter().filter_map(life).collect()
    }

    /// Serials of the messages that arrived.
    fn serials(&self) -> Vec<u64> {
        let serial = |event: &ChannelEvent| match event {
            ChannelEvent::Message { message: Message::Closed { id } | Message::Commit { id, .. }, .. } => Some(id.serial),
            _ => None,
        };
        self.events.iter().filter_map(serial).collect()
    }

    /// What the peer has told of its kernel.
    fn settings(&self) -> Vec<Settings> {
        let settings = |event: &ChannelEvent| match event {
            ChannelEvent::Up { settings, .. } | ChannelEvent::Settings { settings, .. } => Some(settings.clone()),
            _ => None,
        };
        self.events.iter().filter_map(settings).collect()
    }

    fn drainings(&self) -> Vec<bool> {
        let draining = |event: &ChannelEvent| match event {
            ChannelEvent::Draining { draining, .. } => Some(*draining),
            _ => None,
        };
        self.events.iter().filter_map(draining).collect()
    }
}

/// Turns the nodes' loops until something is so.
fn run(nodes: &mut [&mut Node], what: &str, mut until: impl FnMut(&[&mut Node]) -> bool) {
    let start = Instant::now();
    while !until(nodes) {
        let views = || nodes.iter().map(|node| node.peer()).collect::<Vec<_>>();
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}: {:?}", views());
        nodes.iter_mut().for_each(|node| node.turn());
    }
}

fn run_for(nodes: &mut [&mut Node], time: Duration) {
    let start = Instant::now();
    run(nodes, "time has passed", |_| start.elapsed() >= time);
}

fn closed(serial: u64) -> Message {
    Message::Closed { id: HandoffId { epoch: Epoch(1), serial } }
}

fn commit(serial: u64, octets: usize) -> Message {
    Message::Commit { id: HandoffId { epoch: Epoch(1), serial }, more: vec![7; octets] }
}

#[test]
fn a_session_comes_up_and_carries_messages_both_ways_in_order() {
    let (mut a, mut b) = Cluster::new("both").start_both();
    assert_eq!((a.lives(), b.lives()), (vec![2], vec![1]));
    for serial in 0..100 {
        assert!(a.channel.send(B, &commit(serial, 100_000)));
        assert!(b.channel.send(A, &closed(serial)));
    }
    run(&mut [&mut a, &mut b], "all is there", |nodes| nodes.iter().all(|node| node.serials().len() == 100));
    let order: Vec<_> = (0..100).collect();
    assert!(a.serials() == order && b.serials() == order);
    assert!(!a.channel.send(A, &closed(1)), "there is no session with ourselves");
    assert_eq!(a.peer().version, Some(2));
}

#[test]
fn a_session_comes_up_over_ipv6() {
    let cluster = Cluster::new("six");
    let configs = [(A, 1), (B, 2)].map(|(node, epoch)| {
        let mut config = cluster.config(node, epoch);
        for (port, (_, address, _)) in (0..).zip(&mut config.nodes) {
            *address = (std::net::Ipv6Addr::LOCALHOST, address.port() + port).into();
        }
        config
    });
    let [mut a, mut b] = configs.map(Node::start);
    run(&mut [&mut a, &mut b], "both are up", |nodes| nodes.iter().all(|node| node.is_up()));
}

#[test]
fn a_pair_has_one_session_and_heartbeats_keep_it() {
    let (mut a, mut b) = Cluster::new("one").start_both();
    run_for(&mut [&mut a, &mut b], PEER_SILENCE_MAX + Duration::from_millis(700));
    for node in [&a, &b] {
        assert!(node.is_up() && node.downs().is_empty());
        assert_eq!(node.peer().sessions, 1);
        assert!(node.peer().round_trip.is_some_and(|time| time < Duration::from_secs(1)));
    }
}

#[test]
fn draining_is_told_now_and_at_the_next_session() {
    let cluster = Cluster::new("drain");
    let (mut a, mut b) = cluster.start_both();
    a.channel.set_draining(true);
    run(&mut [&mut a, &mut b], "b knows that a drains", |nodes| nodes[1].peer().draining);
    drop(b);
    let mut b = cluster.start(B, 3);
    run(&mut [&mut a, &mut b], "the new b knows too", |nodes| nodes[1].peer().draining);
    a.channel.set_draining(false);
    run(&mut [&mut a, &mut b], "b knows that a is back", |nodes| !nodes[1].peer().draining);
    assert_eq!(b.drainings(), [true, false]);
}

#[test]
fn an_unknown_key_is_refused_and_both_sides_say_so() {
    let cluster = Cluster::new("key");
    let stranger = PrivateKey::generate();
    let text = public_key_to_text(&stranger.public_key());
    let mut config = cluster.config(A, 1);
    config.nodes[0].2 = stranger.public_key();
    config.key = stranger;
    let (mut a, mut b) = (Node::start(config), cluster.start(B, 2));
    run(&mut [&mut a, &mut b], "both say refused", |nodes| nodes.iter().all(|node| node.is_refused()));
    run_for(&mut [&mut a, &mut b], Duration::from_millis(800));
    assert_eq!(warned(&["peer=unknown", &text, "put it as its `public_key`"]), 1, "b warns once of all attempts");
    assert_eq!(warned(&["peer=b", "refused by the peer", &text, "correct `public_key` of a"]), 1, "so does a");
    assert!(a.lives().is_empty() && b.lives().is_empty());
}

#[test]
fn a_peer_with_another_key_than_pinned_is_not_spoken_to() {
    let cluster = Cluster::new("pinned");
    let mut config = cluster.config(A, 1);
    config.nodes[1].2 = PrivateKey::generate().public_key();
    let pinned = public_key_to_text(&config.nodes[1].2);
    let (mut a, mut b) = (Node::start(config), cluster.start(B, 2));
    run(&mut [&mut a, &mut b], "both say refused", |nodes| nodes.iter().all(|node| node.is_refused()));
    assert_eq!(warned(&["peer=b", &pinned, "correct `public_key` of b"]), 1);
    assert!(b.lives().is_empty());
}

#[test]
fn another_cluster_is_refused_and_both_sides_say_so() {
    let cluster = Cluster::new("cluster-one");
    let mut config = cluster.config(A, 1);
    config.cluster = "cluster-two".into();
    let (mut a, mut b) = (Node::start(config), cluster.start(B, 2));
    run(&mut [&mut a, &mut b], "both say refused", |nodes| nodes.iter().all(|node| node.is_refused()));
    for peer in ["peer=a", "peer=b"] {
        assert_eq!(warned(&[peer, "cluster-one", "cluster-two", "same cluster file"]), 1, "{peer}");
    }
    assert!(a.lives().is_empty() && b.lives().is_empty());
}

#[test]
fn a_version_without_overlap_is_refused_and_both_sides_learn_why() {
    let cluster = Cluster::new("version");
    let mut b = cluster.start(B, 2);
    let nodes = cluster.config(A, 1).nodes.into_iter().map(|(name, _, key)| (name, key)).collect();
    let profile = Profile::new("version".into(), A, nodes, &cluster.key(A), Epoch(1), SETTINGS).unwrap();
    let profile = profile.with_versions(Versions { min: 700, max: 701 });
    let mut session = Session::dial(&profile, B, false, Instant::now()).unwrap();
    let mut stream = TcpStream::connect(cluster.address(2)).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut ending, mut buffer) = (None, [0; 4_096]);
    run(&mut [&mut b], "the newer node knows", |_| {
        let octets = session.outgoing(Instant::now()).to_vec();
        stream.write_all(&octets).unwrap();
        session.advance(octets.len());
        match stream.read(&mut buffer) {
            Ok(octets) => ending = session.handle_bytes(&buffer[..octets], &profile, Instant::now()).err(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        ending.is_some()
    });
    let text = ending.unwrap().to_string();
    assert!(text.contains("700 to 701") && text.contains("version 1 to 2") && text.contains("update the older"), "{text}");
    assert_eq!(warned(&["peer=a", "700 to 701"]), 1);
    assert!(b.is_refused());
}

#[test]
fn a_restarted_peer_has_a_new_session_after_the_old_one_is_down() {
    let cluster = Cluster::new("restart");
    let (a, mut b) = cluster.start_both();
    drop(a);
    let mut a = cluster.start(A, 9);
    run(&mut [&mut a, &mut b], "the new life is up", |nodes| nodes[1].lives() == [1, 9]);
    assert!(matches!(
        b.events.as_slice(),
        [ChannelEvent::Up { .. }, ChannelEvent::Down { .. }, ChannelEvent::Up { epoch: Epoch(9), .. }]
    ));
}

#[test]
fn a_new_session_replaces_one_that_still_lives_and_nothing_of_the_old_comes_after() {
    let cluster = Cluster::new("replace");
    let (mut old, mut b) = cluster.start_both();
    assert!(old.channel.send(B, &closed(1)));
    run(&mut [&mut old, &mut b], "the old session works", |nodes| nodes[1].serials() == [1]);
    // The same node on another address, while nobody has noticed that its old life is over.
    let mut config = cluster.config(A, 9);
    config.nodes[0].1 = cluster.address(3);
    let mut new = Node::start(config);
    run(&mut [&mut new, &mut b], "the new life is up", |nodes| nodes[0].is_up() && nodes[1].lives() == [1, 9]);
    assert_eq!(b.downs(), ["replaced by a newer session"]);
    assert!(old.channel.send(B, &closed(2)));
    old.flush();
    assert!(new.channel.send(B, &closed(3)));
    run(&mut [&mut new, &mut b], "the new session works", |nodes| nodes[1].serials().len() > 1);
    run_for(&mut [&mut new, &mut b], Duration::from_millis(100));
    assert_eq!(b.serials(), [1, 3]);
    run(&mut [&mut old], "the old life knows", |nodes| !nodes[0].is_up());
    assert!(old.downs()[0].contains("two processes hold the same key"), "{:?}", old.downs());
}

#[test]
fn a_message_for_an_earlier_life_does_not_reach_the_next_one() {
    let cluster = Cluster::new("life");
    let (a, mut b) = cluster.start_both();
    drop(a);
    let mut a = cluster.start(A, 9);
    run(&mut [&mut a], "the new life is up", |nodes| {
        b.turn_without_asking();
        nodes[0].is_up() && b.peer().sessions == 2
    });
    assert!(!b.channel.send(A, &closed(1)), "b's engine knows only of the first life");
    run(&mut [&mut a, &mut b], "b's engine is told", |nodes| nodes[1].lives() == [1, 9]);
    assert!(b.channel.send(A, &closed(2)));
    run(&mut [&mut a, &mut b], "the message is there", |nodes| !nodes[0].serials().is_empty());
    assert_eq!(a.serials(), [2]);
}

#[test]
fn a_peer_that_hangs_is_down_after_two_seconds_and_up_again_when_it_goes_on() {
    let (mut a, mut b) = Cluster::new("hang").start_both();
    let start = Instant::now();
    run(&mut [&mut a], "a misses b", |nodes| !nodes[0].is_up());
    let off = start.elapsed().abs_diff(PEER_SILENCE_MAX);
    assert!(off < Duration::from_millis(600), "{off:?} from two seconds");
    assert!(a.downs()[0].starts_with("silent for"), "{:?}", a.downs());
    run(&mut [&mut a, &mut b], "both are up again", |nodes| nodes.iter().all(|node| node.is_up() && node.lives().len() == 2));
}

#[test]
fn a_node_that_slept_itself_hears_what_waited_before_it_judges() {
    let (mut a, mut b) = Cluster::new("sleep").start_both();
    let start = Instant::now();
    // a's heartbeats leave, so b is content; but a does not read for longer than a peer may be silent.
    while start.elapsed() < PEER_SILENCE_MAX + Duration::from_millis(300) {
        a.flush();
        b.turn();
    }
    a.channel.handle_timeout(a.poll.registry(), Instant::now());
    a.collect();
    assert!(a.downs().is_empty() && b.downs().is_empty(), "{:?} {:?}", a.downs(), b.downs());
}

#[test]
fn a_session_whose_backlog_passes_its_limit_is_closed() {
    let (mut a, mut b) = Cluster::new("backlog").start_both();
    let taken = (0..1_000).take_while(|serial| a.channel.send(B, &commit(*serial, 1_000_000))).count();
    assert!((60..=70).contains(&taken), "{taken}");
    assert!(!a.channel.send(B, &closed(1)), "there is no session any more");
    a.collect();
    assert!(a.downs()[0].contains("octets wait to be written"), "{:?}", a.downs());
    run(&mut [&mut a, &mut b], "a dials again", |nodes| nodes.iter().all(|node| node.lives().len() == 2));
}

#[test]
fn a_node_that_stops_says_goodbye() {
    let (mut a, mut b) = Cluster::new("goodbye").start_both();
    a.channel.close(a.poll.registry());
    assert!(a.channel.poll_timeout().is_none());
    run(&mut [&mut b], "b knows", |nodes| !nodes[0].is_up());
    assert_eq!(b.downs(), ["peer stops"]);
}

#[test]
fn a_peer_that_is_not_there_is_dialled_with_growing_waits() {
    let cluster = Cluster::new("absent");
    let mut a = cluster.start(A, 1);
    let (mut errors, mut last) = (0, Instant::now());
    let start = last;
    run(&mut [&mut a], "three seconds have passed", |nodes| {
        let peer = nodes[0].peer();
        if peer.state == "waiting" && peer.since != last {
            errors += 1;
            last = peer.since;
        }
        start.elapsed() > Duration::from_secs(3)
    });
    assert!((2..=8).contains(&errors), "{errors}");
    let error = a.peer().error.unwrap();
    assert!(error.contains("cannot connect"), "{error}");
    let mut b = cluster.start(B, 2);
    run(&mut [&mut a, &mut b], "it came up late", |nodes| nodes.iter().all(|node| node.is_up()));
}

#[test]
fn strangers_that_say_nothing_neither_keep_a_node_out_nor_stay() {
    let cluster = Cluster::new("strangers");
    let mut b = cluster.start(B, 2);
    let mut strangers = Vec::new();
    for _ in 0..UNAUTHENTICATED_MAX + 20 {
        strangers.push(TcpStream::connect(cluster.address(2)).unwrap());
        b.turn();
    }
    assert_eq!(warned(&["connections that show no key", "firewall"]), 1);
    let mut a = cluster.start(A, 1);
    run(&mut [&mut a, &mut b], "the node is let in", |nodes| nodes.iter().all(|node| node.is_up()));
    run_for(&mut [&mut a, &mut b], Duration::from_millis(3_300));
    for stream in &mut strangers {
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        match stream.read(&mut [0; 100]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("a stranger is still there: {other:?}"),
        }
    }
    assert!(a.downs().is_empty() && b.downs().is_empty());
}

#[test]
fn rubbish_on_the_port_disturbs_nobody() {
    let cluster = Cluster::new("rubbish");
    let (mut a, mut b) = cluster.start_both();
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 5_000], &[0x16, 3, 3, 0x40, 0, 1, 2, 3]] {
        let mut stream = TcpStream::connect(cluster.address(2)).unwrap();
        let _ = stream.write_all(octets);
        run_for(&mut [&mut a, &mut b], Duration::from_millis(30));
    }
    assert!(a.is_up() && b.is_up() && b.downs().is_empty());
}

#[test]
fn settings_are_told_when_a_session_opens_and_when_they_change() {
    let cluster = Cluster::new("settings");
    let mut config = cluster.config(B, 2);
    config.settings.sack = false;
    let (mut a, mut b) = (cluster.start(A, 1), Node::start(config));
    // Before the session is up, perhaps after Hello was said: told all the same.
    let early = Settings { ecn: 1, ..SETTINGS };
    a.channel.set_settings(&early);
    run(&mut [&mut a, &mut b], "both are up", |nodes| nodes.iter().all(|node| node.is_up()));
    assert_eq!(a.settings(), [Settings { sack: false, ..SETTINGS }]);
    run(&mut [&mut a, &mut b], "b knows", |nodes| nodes[1].settings().last() == Some(&early));
    b.channel.set_settings(&SETTINGS);
    run(&mut [&mut a, &mut b], "a knows", |nodes| nodes[0].settings().last() == Some(&SETTINGS));
    assert!(a.downs().is_empty() && b.downs().is_empty());
}

#[test]
fn an_occupied_port_is_said_at_start() {
    let cluster = Cluster::new("occupied");
    let _first = cluster.start(B, 2);
    let poll = mio::Poll::new().unwrap();
    let error = Channel::start(cluster.config(B, 3), poll.registry(), Instant::now()).unwrap_err().to_string();
    let address = cluster.address(2);
    assert!(error.contains(&format!("{} port {}", address.ip(), address.port())) && error.contains("overlay.port"), "{error}");
}
