//! What happened, as a number, as text, and as packets to look at.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/node/pcapng.rs"]
mod pcapng;

use pcapng::{Direction, Record};
use std::path::Path;

/// Where a packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Between a client and the network.
    Client(usize),
    /// At a node's TUN, kernel's side.
    Kernel(usize),
}

#[derive(Default)]
pub struct Trace {
    hash: u64,
    /// Set when somebody wants to read it.
    pub lines: Option<Vec<String>>,
    packets: Vec<(u64, Place, Direction, Vec<u8>)>,
    /// What each client was given: when, and the packet.
    pub to_clients: Vec<(u64, usize, Vec<u8>)>,
}

impl Trace {
    pub fn kept(is_kept: bool) -> Self {
        Self { lines: is_kept.then(Vec::new), ..Self::default() }
    }

    /// The number for all that has happened.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    pub fn mix(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
    }

    pub fn say(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>11.6} {}", now as f64 / 1e6, text()));
        }
    }

    pub fn packet(&mut self, now: u64, place: Place, is_inbound: bool, packet: &[u8]) {
        self.mix(&now.to_be_bytes());
        self.mix(packet);
        if self.lines.is_some() {
            let direction = if is_inbound { Direction::Inbound } else { Direction::Outbound };
            self.packets.push((now, place, direction, packet.to_vec()));
        }
    }

    /// All packets, one interface for each client and each node.
    pub fn write_pcap(&self, path: &Path, clients: usize, nodes: usize) -> std::io::Result<()> {
        let mut out = Vec::new();
        pcapng::section_header(&mut out, "baton's simulator");
        for client in 0..clients {
            pcapng::interface(&mut out, &format!("client{client}"), "between a client and the network");
        }
        for name in &super::bytes::NAMES[..nodes] {
            pcapng::interface(&mut out, &format!("kernel-{name}"), "between a node's process and its kernel");
        }
        for (time, place, direction, packet) in &self.packets {
            let interface = match place {
                Place::Client(client) => *client,
                Place::Kernel(node) => clients + node,
            };
            let record = Record { interface: interface as u32, time: time * 1_000, direction: *direction, packet, comment: "" };
            pcapng::packet(&mut out, &record);
        }
        std::fs::write(path, out)
    }
}
