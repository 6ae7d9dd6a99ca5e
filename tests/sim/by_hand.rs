//! Clients that are no TCP stack: scripts of packets, and clients that do odd things at random. What they read is what one
//! server wrote, whatever they do.

use super::host::answer;
use super::world::{ByHand, Family, Network, World};
use drill::odd::OddClient;
use drill::{Peer, Script, Setup, Step};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: u64 = 1_000_000;
const PORT: u16 = 50_000;
const PATHS: [(&str, &str); 2] = [("/images/x", "b"), ("/locally/", "a")];

/// The test and the world look at the same client.
struct Shared<T>(Rc<RefCell<T>>);

impl ByHand for Shared<OddClient> {
    fn receive(&mut self, packet: &[u8], now: u64) {
        self.0.borrow_mut().receive(packet, Duration::from_micros(now));
    }

    fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        self.0.borrow_mut().poll(Duration::from_micros(now))
    }

    fn poll_at(&self, _: u64) -> Option<u64> {
        self.0.borrow().poll_at().map(|at| at.as_micros() as u64)
    }
}

/// A script, and what became of it.
struct Scripted {
    peer: Peer,
    wakes_at: Option<u64>,
    result: Option<Result<(), String>>,
}

impl ByHand for Shared<Scripted> {
    fn receive(&mut self, packet: &[u8], now: u64) {
        self.0.borrow_mut().peer.receive(packet, Duration::from_micros(now));
    }

    fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        let this = &mut *self.0.borrow_mut();
        let mut packets = Vec::new();
        while this.result.is_none() {
            match this.peer.step(Duration::from_micros(now)) {
                Step::Send(packet) => packets.push(packet),
                Step::Ask(app) => panic!("{app:?}: the server here does what it does"),
                Step::WaitUntil(until) => {
                    this.wakes_at = Some(until.as_micros() as u64);
                    break;
                }
                Step::Done(result) => this.result = Some(result.map_err(|failure| failure.to_string())),
            }
        }
        packets
    }

    fn poll_at(&self, now: u64) -> Option<u64> {
        let this = self.0.borrow();
        if this.result.is_some() { None } else { this.wakes_at.filter(|at| *at > now) }
    }
}

fn ends(family: Family) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(family.client(), PORT), SocketAddr::new(family.node(0), 80))
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.0\r\n\r\n").into_bytes()
}

/// One seed; what the client did, for whoever looks for a reason.
fn odd(seed: u64, loss_permille: u64) {
    let family = Family::BOTH[seed as usize % 2];
    let (path, name) = PATHS[seed as usize / 2 % 2];
    let octets = 1_000 + (seed as usize * 7_919) % 60_000;
    let mut world = World::new(seed, Network { loss_permille, ..Network::of(family) }, octets);
    let (client, server) = ends(family);
    let client = OddClient::new(seed, client, server, request(path));
    let client = Rc::new(RefCell::new(if loss_permille == 0 { client } else { client.on_a_lossy_network() }));
    world.by_hand = Some(Box::new(Shared(client.clone())));
    world.run_until(300 * SECOND, |_| client.borrow().is_finished());
    let client = client.borrow();
    let said = world.nodes.iter().map(|node| node.server.requests.as_slice()).collect::<Vec<_>>().concat();
    let last = world.trace.iter().rev().take(8).rev().cloned().collect::<Vec<_>>().join("\n");
    let why = || format!("seed {seed}, loss {loss_permille}: {}\n{last}\n", client.trace.join(", "));
    assert_eq!(client.complaint, None, "{}", why());
    assert!(!client.was_reset(), "{}: reset", why());
    assert!(client.is_finished(), "{}: not finished, {} octets came", why(), client.received().len());
    assert_eq!(said, [request(path)], "{}: what the applications read", why());
    // With losses the handoff may fail, and a request with urgent octets stays where it is: the local server answers.
    let is_sure = loss_permille == 0 && !client.said_urgent;
    let answers = if is_sure { vec![answer(name, octets)] } else { vec![answer(name, octets), answer("a", octets)] };
    let differs_at = answers[0].iter().zip(client.received()).position(|(said, read)| said != read);
    let lengths = (answers[0].len(), client.received().len());
    let is_an_answer = answers.iter().any(|answer| answer == client.received());
    assert!(
        is_an_answer,
        "{}: another answer, of lengths {lengths:?}, from {differs_at:?} on; {:?} {:?}",
        why(),
        world.fallbacks(0),
        world.said
    );
    if is_sure {
        assert_eq!(world.counter(0, "handoffs_committed_total"), u64::from(name == "b"), "{}", why());
    }
}

#[test]
fn odd_clients_read_what_one_server_wrote() {
    for seed in 0..80 {
        odd(seed, 0);
    }
}

#[test]
fn odd_clients_on_a_lossy_network_read_what_one_server_wrote() {
    for seed in 0..40 {
        odd(seed, 30);
    }
}

/// Scripts that do not depend on Linux: the server is the usual one here, and answers as soon as it has the request.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "segments that overlap, and the server closes first",
        "// RFC 9293, 3.10.7.4\n\
         +0 < S 0:0(0) win 20000 <mss 1000>\n\
         +0 > S. 0:0(0) ack 1 <...>\n\
         +.01 < . 1:1(0) ack 1 win 20000\n\
         +0 < P. 10:20(10) ack 1 win 20000\n\
         +0 < P. 1:15(14) ack 1 win 20000\n\
         +0 < P. 5:27(22) ack 1 win 20000\n\
         // Of the hole tells who holds the request, and its kernel once more when it is given it.\n\
         +0 >? . 1:1(0) ack 1\n\
         +0 >? . 1:1(0) ack 1\n\
         +0 >? . 1:1(0) ack 20\n\
         +0 >? . 1:1(0) ack 27\n\
         +0 > ... 1:END(LENGTH) ack 27 <...>\n\
         +0 >? F. END:END(0) ack 27\n\
         +.01 < . 27:27(0) ack NEXT win 20000\n\
         +0 < F. 27:27(0) ack NEXT win 20000\n\
         +0 > . NEXT:NEXT(0) ack 28 <...>\n",
    ),
    (
        "the FIN comes with the request",
        "// RFC 9293, 3.6.1\n\
         +0 < S 0:0(0) win 20000 <mss 1000>\n\
         +0 > S. 0:0(0) ack 1 <...>\n\
         +.01 < . 1:1(0) ack 1 win 20000\n\
         +0 < FP. 1:27(26) ack 1 win 20000\n\
         +0 >? . 1:1(0) ack 27\n\
         +0 >? . 1:1(0) ack 28\n\
         +0 > ... 1:END(LENGTH) <...>\n\
         +0 >? . NEXT:NEXT(0) ack 27\n\
         +0 >? . NEXT:NEXT(0) ack 28\n\
         +.01 < . 28:28(0) ack NEXT win 20000\n",
    ),
    (
        "simultaneous close",
        "// RFC 9293, 3.6, figure 13\n\
         +0 < S 0:0(0) win 20000 <mss 1000>\n\
         +0 > S. 0:0(0) ack 1 <...>\n\
         +.01 < P. 1:27(26) ack 1 win 20000\n\
         +0 >? . 1:1(0) ack 27\n\
         +0 > ... 1:END(LENGTH) ack 27 <...>\n\
         +0 >? F. END:END(0) ack 27\n\
         +0 < F. 27:27(0) ack END win 20000\n\
         +0 > ... NEXT:NEXT(0) ack 28 <...>\n\
         +0 < . 28:28(0) ack NEXT win 20000\n",
    ),
];

fn play(what: &str, text: &str, path: &str, name: &str, family: Family) -> Result<(), String> {
    let body = 600;
    let whole = answer(name, body);
    let length = whole.len();
    let numbers = [("LENGTH", length), ("END", length + 1), ("NEXT", length + 2)];
    let text = numbers.iter().fold(text.to_owned(), |text, (word, number)| text.replace(word, &number.to_string()));
    let script = Script::parse(what, &text);
    let script = Arc::new(script.map_err(|wrong| wrong.to_string())?);
    let mut world = World::new(7, Network::of(family), body);
    let (client, server) = ends(family);
    let setup = Setup {
        client,
        server,
        router: server.ip(),
        stream: request(path).into(),
        answer: whole.into(),
        server_mss: 1_404,
        isn: 0xffff_fff0,
    };
    let peer = Peer::new(script, setup);
    let scripted = Rc::new(RefCell::new(Scripted { peer, wakes_at: None, result: None }));
    world.by_hand = Some(Box::new(Shared(scripted.clone())));
    world.run_until(60 * SECOND, |_| scripted.borrow().result.is_some());
    let result = scripted.borrow_mut().result.take();
    result.unwrap_or_else(|| Err("not over after a minute".to_owned()))
}

#[test]
fn scripts_hold_whoever_serves() {
    for family in Family::BOTH {
        for (what, text) in SCRIPTS {
            for (path, name) in PATHS {
                if let Err(failure) = play(what, text, path, name, family) {
                    panic!("{what}, {path}, {family:?}: {failure}");
                }
            }
        }
    }
}

#[test]
fn a_script_that_expects_something_else_fails() {
    let (what, text) = SCRIPTS[0];
    let wrongs = [
        ("ack 28 <...>", "ack 27 <...>", "ack: expected"),
        ("> S. 0:0(0)", "> SE. 0:0(0)", "flags: expected"),
        ("1:END(LENGTH)", "END:END(0)", "seq: expected"),
    ];
    for (from, to, complaint) in wrongs {
        assert!(text.contains(from));
        let played = play(what, &text.replacen(from, to, 1), "/images/x", "b", Family::V4);
        assert!(played.as_ref().is_err_and(|failure| failure.contains(complaint)), "{to}: {played:?}");
    }
}
