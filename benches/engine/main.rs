//! What a packet and a connection cost, against how many connections, peers and rules there are: `cargo bench --bench engine`.
//!
//! Engines only, in memory; and, where the right to make a network namespace is there, what reading and writing a TUN takes.
//! Every number is the median of rounds that are interleaved with those of all others, so that whatever else the machine does
//! meets all of them. Quick, with a tenth of the connections, with `-- --quick`. A table for people, then one line of JSON.

#[allow(dead_code)]
#[path = "../policy/allocations.rs"]
mod allocations;
// Tests use more of it.
#[allow(dead_code)]
mod cluster;
mod tun;

use allocations::{Counting, live_bytes};
use baton::flow::{Endpoint, NodeId};
use baton::handoff::Verdict;
use baton::rewrite::Offload;
use cluster::{BEHIND_REQUEST, Cluster, from_client, from_kernel};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRONT: NodeId = NodeId(0);
/// Packets of one batch: their own octets stay in the cache, those of their connections need not.
const BATCH: usize = 1_000;

/// The median; the values are sorted.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A cluster with so many connections.
struct Line {
    connections: u32,
    peers: usize,
    rules: usize,
    cluster: Cluster,
    aliases: Vec<Endpoint>,
    /// Octets of memory of each connection, at both ends together.
    octets: f64,
    /// Connections made since, each of which is one more.
    added: u32,
    forward: Vec<f64>,
    deliver: Vec<f64>,
    answer: Vec<f64>,
    hand_off: Vec<f64>,
}

impl Line {
    fn new(connections: u32, peers: usize, rules: usize) -> Self {
        let mut cluster = Cluster::new(peers, rules);
        let before = live_bytes();
        let aliases: Vec<_> = (0..connections).map(|index| cluster.hand_off(index)).collect();
        let octets = (live_bytes() - before) as f64 - (aliases.capacity() * size_of::<Endpoint>()) as f64;
        // Deadlines of the handoffs themselves are behind those that are measured.
        cluster.pass_deadlines();
        Self {
            connections,
            peers,
            rules,
            cluster,
            aliases,
            octets: octets / f64::from(connections.max(1)),
            added: 0,
            forward: Vec::new(),
            deliver: Vec::new(),
            answer: Vec::new(),
            hand_off: Vec::new(),
        }
    }

    /// One batch of each kind of packet, of connections anywhere in the table; and some new connections.
    fn round(&mut self, random: &mut u64) {
        let chosen: Vec<u32> = (0..BATCH).map(|_| (next(random) % u64::from(self.connections)) as u32).collect();
        let Cluster { front, back, now } = &mut self.cluster;
        let mut packets: Vec<Vec<u8>> =
            chosen.iter().map(|index| from_client(*index, BEHIND_REQUEST, &[7; 60]).build().into_inner()).collect();
        self.forward.push(time(&mut packets, |packet| {
            assert!(matches!(front.handle_tun(packet, Offload::NONE, *now), Verdict::Forward(_)));
        }));
        self.deliver.push(time(&mut packets, |packet| {
            assert_eq!(back.handle_overlay(FRONT, packet, *now), Verdict::Write);
        }));
        let mut packets: Vec<Vec<u8>> = chosen
            .iter()
            .map(|index| from_kernel(*index, self.aliases[*index as usize], 0, &[8; 60]).build().into_inner())
            .collect();
        self.answer.push(time(&mut packets, |packet| {
            assert_eq!(back.handle_tun(packet, Offload::NONE, *now), Verdict::Write);
        }));
        let mut new: Vec<u32> = (0..20).map(|index| self.connections + self.added + index).collect();
        self.added += 20;
        let cluster = &mut self.cluster;
        self.hand_off.push(time(&mut new, |index| {
            black_box(cluster.hand_off(*index));
        }));
    }
}

#[allow(clippy::disallowed_methods)] // Time is what is measured.
fn time<T>(items: &mut [T], mut work: impl FnMut(&mut T)) -> f64 {
    let start = Instant::now();
    for item in &mut *items {
        work(item);
    }
    start.elapsed().as_nanos() as f64 / items.len() as f64
}

/// xorshift64: the same in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn main() {
    if tun::is_inside() {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 21 } else { 101 };
    let most = if quick { 100_000 } else { 1_000_000 };
    let mut lines: Vec<Line> = [1, 1_000, 10_000, 100_000, most].map(|connections| Line::new(connections, 1, 10)).into();
    if quick {
        lines.pop();
    }
    lines.extend([4, 16, 64].map(|peers| Line::new(1_000, peers, 10)));
    lines.extend([100, 1_000, 10_000].map(|rules| Line::new(1_000, 1, rules)));
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..rounds {
        for line in &mut lines {
            line.round(&mut random);
        }
    }
    let tun = tun::measure(rounds);
    report(&mut lines, tun);
}

fn report(lines: &mut [Line], tun: Option<(f64, f64)>) {
    println!(
        "{:>11} {:>5} {:>6} {:>10} {:>10} {:>10} {:>12} {:>11}",
        "connections", "peers", "rules", "forward ns", "deliver ns", "answer ns", "hand off ns", "octets each"
    );
    let mut json = Vec::new();
    for line in lines {
        let [forward, deliver, answer, hand_off] =
            [&mut line.forward, &mut line.deliver, &mut line.answer, &mut line.hand_off].map(|values| median(values));
        let Line { connections, peers, rules, octets, .. } = line;
        println!(
            "{connections:11} {peers:5} {rules:6} {forward:10.0} {deliver:10.0} {answer:10.0} {hand_off:12.0} {octets:11.0}"
        );
        json.push(serde_json::json!({
            "connections": connections, "peers": peers, "rules": rules, "forward_ns": forward, "deliver_ns": deliver,
            "answer_ns": answer, "hand_off_ns": hand_off, "octets_both_ends": octets,
        }));
    }
    println!();
    println!("forward: a client's packet at the front-end; deliver: the same at its owner; answer: the owner kernel's packet");
    println!("hand off: everything both engines do for one connection, packets built for it included");
    let mut ratios = serde_json::Value::Null;
    match tun {
        None => println!("TUN: not measured (needs `unshare -n`, as root)"),
        Some((read, write)) => {
            println!("TUN: a read {read:.0} ns, a write {write:.0} ns (a packet of 100 octets that the kernel then drops)");
            let of = |connections: u64, name: &str| {
                let line = json.iter().find(|line| line["connections"] == connections && line["peers"] == 1);
                line.and_then(|line| line[name].as_f64())
            };
            let most = json.iter().filter_map(|line| line["connections"].as_u64()).max().unwrap_or(0);
            let ratio = |name: &str, io: f64| Some((of(most, name)? + io) / (of(1_000, name)? + io));
            let (forward, deliver, answer) =
                (ratio("forward_ns", read), ratio("deliver_ns", write), ratio("answer_ns", read + write));
            if let (Some(forward), Some(deliver), Some(answer)) = (forward, deliver, answer) {
                println!(
                    "with {most} connections / with 1,000, TUN included: forward {forward:.2} (one read), deliver {deliver:.2} \
                     (one write), answer {answer:.2} (both)"
                );
                ratios = serde_json::json!({ "most": most, "forward": forward, "deliver": deliver, "answer": answer });
            }
        }
    }
    let tun = tun.map(|(read, write)| serde_json::json!({ "read_ns": read, "write_ns": write }));
    println!("{}", serde_json::json!({ "lines": json, "tun": tun, "ratios": ratios }));
}
