//! Packets that travel between nodes on one link as they are: what the kernel learns of them, forwards by itself, and takes.
//!
//! The sets are a cache in front of the TUN, as those of [`super::bypass`] are: what they do not hold is guarded, and comes to
//! the process. A SYN is never looked up, and deletes.

use super::{Family, MARK_GUARDED, Ruleset, TABLE, Words, elements, words};
use crate::flow::{Endpoint, NodeId};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Packets that go to a peer over a link: this, and the peer's number below it.
pub(in crate::tun) const MARK_LINK: u32 = 0x0ba7_0000;
/// The bits that say so.
pub(in crate::tun) const LINK_MASK: u32 = 0xffff_0000;
/// After every rule of others; those have small numbers by convention.
const LAST: i32 = 1_000_000;

/// Packets that travel between nodes on one link as they are.
#[derive(Clone, Copy, Debug)]
pub(in crate::tun) struct Links<'a> {
    /// Front-end addresses of peers whose clients' packets may come here.
    pub(in crate::tun) received: &'a [Endpoint],
    /// Peers that packets may go to.
    pub(in crate::tun) peers: &'a [(Family, NodeId)],
}

impl Links<'_> {
    fn peers_of(&self, family: Family) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(move |(of, _)| *of == family).map(|(_, peer)| *peer)
    }
}

/// The name of the set of all connections that the kernel forwards over links.
pub(in crate::tun) fn learned_set(family: Family) -> String {
    format!("learned{}", words(family).digit)
}

/// The same of those that go to one peer.
pub(in crate::tun) fn learned_set_of(family: Family, peer: NodeId) -> String {
    format!("learned{}_{}", words(family).digit, peer.0)
}

/// The name of the counter of packets that the kernel was about to forward to a peer by itself.
pub(in crate::tun) fn taken_counter(family: Family, peer: NodeId) -> String {
    format!("link_taken{}_{}", words(family).digit, peer.0)
}

/// The same of those that passed every rule for what is forwarded.
pub(in crate::tun) fn passed_counter(family: Family, peer: NodeId) -> String {
    format!("link_passed{}_{}", words(family).digit, peer.0)
}

/// The ends of a connection.
fn flow_of(family: Family) -> String {
    let ip = words(family).ip;
    format!("{ip} saddr . tcp sport . {ip} daddr . tcp dport")
}

/// The mark of what goes to a peer.
fn mark_of(peer: NodeId) -> u32 {
    MARK_LINK | u32::from(peer.0)
}

impl Ruleset<'_> {
    /// The transaction after which these are the Ethernet addresses of peers on links.
    pub(in crate::tun) fn replace_neighbours(neighbours: &BTreeSet<[u8; 6]>) -> String {
        let mut text = format!("flush set inet {TABLE} neighbours\n");
        let addresses = neighbours.iter().map(|address| {
            let octets: Vec<String> = address.iter().map(|octet| format!("{octet:02x}")).collect();
            octets.join(":")
        });
        let addresses: Vec<String> = addresses.collect();
        if !addresses.is_empty() {
            let _ = writeln!(text, "add element inet {TABLE} neighbours {{ {} }}", addresses.join(", "));
        }
        text
    }

    /// What goes to each peer is in a set of its own: nft 1.0 cannot write rules that change a map with such long keys. A set of
    /// all of them keeps what is in none from being looked for in each.
    pub(super) fn write_links(&self, text: &mut String) {
        let Some(links) = self.links else { return };
        let notrack = self.tracking.statement();
        text.push_str("  set neighbours { type ether_addr; }\n");
        for family in self.families() {
            let Words { digit, address, .. } = words(family);
            let flow = flow_of(family);
            let received = links.received.iter().filter(|frontend| Family::of(frontend.address) == family);
            let received = elements(received.map(|frontend| format!("{} . {}", frontend.address, frontend.port)));
            let _ = writeln!(text, "  set received{digit} {{ type {address} . inet_service; {received} }}");
            let peers = || links.peers_of(family);
            for set in std::iter::once(learned_set(family)).chain(peers().map(|peer| learned_set_of(family, peer))) {
                let _ = writeln!(
                    text,
                    "  set {set} {{ type {address} . inet_service . {address} . inet_service; flags dynamic,timeout; \
                     timeout {}s; size {}; }}",
                    crate::limits::LEARNED_TIMEOUT.as_secs(),
                    self.guards_max
                );
            }
            for peer in peers() {
                let (taken, passed) = (taken_counter(family, peer), passed_counter(family, peer));
                let _ = writeln!(text, "  counter {taken} {{ }}\n  counter {passed} {{ }}");
            }
            let learned = learned_set(family);
            let _ = writeln!(text, "  chain on_link{digit} {{");
            // A SYN begins anew: it is forwarded by nobody but the process.
            for set in peers().map(|peer| learned_set_of(family, peer)).chain([learned.clone()]) {
                let _ = writeln!(text, "    tcp flags & (syn | ack) == syn delete @{set} {{ {flow} }}");
            }
            text.push_str("    tcp flags & (syn | ack) == syn return\n    ether saddr @neighbours return\n");
            for peer in peers() {
                let (set, mark, taken) = (learned_set_of(family, peer), mark_of(peer), taken_counter(family, peer));
                let _ = writeln!(
                    text,
                    "    {flow} @{set} update @{set} {{ {flow} }} update @{learned} {{ {flow} }} {notrack}meta mark set {mark:#x} \
                     counter name {taken} accept"
                );
            }
            text.push_str("  }\n");
        }
        // A rule that drops what is forwarded may be anybody's, and made at any time: what does not come to here was dropped.
        let _ = writeln!(text, "  chain passed {{\n    type filter hook forward priority {LAST}; policy accept;");
        for family in self.families() {
            let version = words(family).version;
            let counters: Vec<String> = links
                .peers_of(family)
                .map(|peer| format!("{:#x} : \"{}\"", mark_of(peer), passed_counter(family, peer)))
                .collect();
            if !counters.is_empty() {
                let _ = writeln!(text, "    meta nfproto {version} counter name meta mark map {{ {} }}", counters.join(", "));
            }
        }
        text.push_str("  }\n");
    }

    /// In `prerouting`, before guards.
    pub(super) fn write_link_arrivals(&self, text: &mut String) {
        if self.links.is_none() {
            return;
        }
        let notrack = self.tracking.statement();
        for family in self.families() {
            let Words { digit, ip, unfragmented, .. } = words(family);
            for whole in unfragmented {
                // What a peer sends here of a client of its own. It begins nothing.
                let (flow, learned) = (flow_of(family), learned_set(family));
                let _ = writeln!(
                    text,
                    "    ether saddr @neighbours {whole} {ip} daddr . tcp dport @received{digit} \
                     tcp flags & (syn | ack) != syn {notrack}meta mark set {MARK_GUARDED:#x} return\n    \
                     {whole} {flow} @{learned} jump on_link{digit}"
                );
            }
        }
    }

    /// In `output`.
    pub(super) fn write_link_departures(&self, text: &mut String) {
        let Some(links) = self.links else { return };
        let notrack = self.tracking.statement();
        for family in self.families() {
            let Words { digit, ip, redirect, .. } = words(family);
            // What baton sends over a link teaches; a probe, from a front-end itself, does not.
            let (flow, learned) = (flow_of(family), learned_set(family));
            let _ = writeln!(
                text,
                "    meta mark & {LINK_MASK:#x} == {MARK_LINK:#x} {ip} saddr != @addresses{digit} update @{learned} {{ {flow} }}"
            );
            for peer in links.peers_of(family) {
                let (set, mark) = (learned_set_of(family, peer), mark_of(peer));
                let _ = writeln!(text, "    meta mark {mark:#x} {ip} saddr != @addresses{digit} update @{set} {{ {flow} }}");
            }
            // Who forwards to where a packet came from says that there is a shorter way. For these there is none. The
            // destination it is about has the same place in both versions' messages.
            for address in self.frontends_of(family).map(|frontend| frontend.address).collect::<BTreeSet<_>>() {
                let (bits, octets) = match address {
                    IpAddr::V4(address) => (32, address.octets().to_vec()),
                    IpAddr::V6(address) => (128, address.octets().to_vec()),
                };
                let octets: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
                let _ = writeln!(text, "    {redirect} @th,192,{bits} 0x{octets} drop");
            }
        }
        let _ = writeln!(text, "    meta mark & {LINK_MASK:#x} == {MARK_LINK:#x} {notrack}accept");
    }
}
