//! Control sessions between nodes: the real frames in order through a pipe that can stall and break. What is under them in
//! reality (TLS over TCP) gives just that, and keys for the overlay.
//!
//! A session is made of two ends. An end hears of it with the other end's Hello, and of its breaking at a time of its own;
//! what is said in between is lost, or arrives at an end that has another session by then, and is not heard.

use baton::control::frame::{Frame, FrameBuffer};
use baton::control::greeting::{Heartbeat, Hello, Versions};
use baton::control::message::{Epoch, Message};
use baton::control::seal::SessionKeys;
use baton::control::settings::Settings;
use std::collections::BTreeMap;

/// One session, from its first octet to its last.
pub struct Session {
    /// The lower one dialled.
    pub ends: [usize; 2],
    /// Octets pass.
    pub is_alive: bool,
    received: [FrameBuffer; 2],
    /// Nothing arrives at this end before that: octets stay in order.
    last_arrival: [u64; 2],
}

impl Session {
    /// Which of the two this node is.
    pub fn side(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }

    pub fn other(&self, node: usize) -> usize {
        self.ends[1 - self.side(node)]
    }

    /// When octets arrive that leave for `to` now.
    pub fn arrival(&mut self, to: usize, at: u64) -> u64 {
        let side = self.side(to);
        self.last_arrival[side] = self.last_arrival[side].max(at);
        self.last_arrival[side]
    }

    /// Octets have arrived: the frames among them.
    pub fn receive(&mut self, node: usize, octets: &[u8]) -> Vec<Frame> {
        let side = self.side(node);
        self.received[side].push(octets);
        let mut frames = Vec::new();
        while let Some(frame) = self.received[side].next_frame().expect("what one node wrote the other can read") {
            frames.push(frame);
        }
        frames
    }
}

/// All sessions there have been.
#[derive(Default)]
pub struct Sessions {
    by_number: BTreeMap<u64, Session>,
    next: u64,
    /// No octet arrives between these two before that.
    stalled_until: BTreeMap<(usize, usize), u64>,
}

impl Sessions {
    pub fn dial(&mut self, a: usize, b: usize) -> u64 {
        self.next += 1;
        let session = Session { ends: [a.min(b), a.max(b)], is_alive: true, received: Default::default(), last_arrival: [0, 0] };
        self.by_number.insert(self.next, session);
        self.next
    }

    pub fn get(&mut self, number: u64) -> &mut Session {
        self.by_number.get_mut(&number).expect("sessions are never forgotten")
    }

    pub fn stall(&mut self, a: usize, b: usize, until: u64) {
        let entry = self.stalled_until.entry((a.min(b), a.max(b))).or_default();
        *entry = until.max(*entry);
    }

    /// When octets arrive at `to` that leave now.
    pub fn arrival(&mut self, number: u64, to: usize, at: u64) -> u64 {
        let ends = self.get(number).ends;
        let stalled = self.stalled_until.get(&(ends[0], ends[1])).copied().unwrap_or(0);
        self.get(number).arrival(to, at.max(stalled))
    }

    /// Live sessions of a node.
    pub fn alive_of(&self, node: usize) -> Vec<u64> {
        let is_of = |session: &Session| session.is_alive && session.ends.contains(&node);
        self.by_number.iter().filter(|(_, session)| is_of(session)).map(|(number, _)| *number).collect()
    }

    /// The live session of two nodes.
    pub fn between(&self, a: usize, b: usize) -> Option<u64> {
        let ends = [a.min(b), a.max(b)];
        self.by_number.iter().find(|(_, session)| session.is_alive && session.ends == ends).map(|(number, _)| *number)
    }
}

/// The keys that both ends derive; `is_dialler` tells whose.
pub fn keys(number: u64, seed: u64, is_dialler: bool) -> SessionKeys {
    let key = |whose: u8| {
        let mut key = [whose; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key[8..16].copy_from_slice(&seed.to_be_bytes());
        key
    };
    let (send, receive) = if is_dialler { (key(1), key(2)) } else { (key(2), key(1)) };
    SessionKeys { session: (number as u32).wrapping_mul(0x9e37_79b1) ^ seed as u32, send, receive }
}

pub fn hello(node: &str, epoch: Epoch) -> Vec<u8> {
    let versions = Versions::SPOKEN;
    encode(&Frame::Hello(Hello { versions, cluster: "swarm".into(), node: node.into(), epoch, settings: Settings::USUAL }))
}

pub fn heartbeat(draining: bool) -> Vec<u8> {
    encode(&Frame::Heartbeat(Heartbeat { sent: 1, echo: 0, held: 0, draining, load: 0 }))
}

pub fn message(message: &Message) -> Vec<u8> {
    encode(&Frame::Message(message.clone()))
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut octets = Vec::new();
    frame.encode(&mut octets).expect("what the engine says can be written down");
    octets
}
