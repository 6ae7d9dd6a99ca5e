//! Connections that the local server serves leave the TUN: rules that learn their ends from packets, and sets of them.
//!
//! Everything here is a cache in front of the TUN. What the sets do not hold (any more) is captured as if they did not
//! exist, and the process, which keeps nothing of such a connection, gives it to the local stack. So they may be small,
//! forget, and be flushed by anybody.
//!
//! A packet teaches if the process wrote it into the TUN with the hop limit [`HOP_LIMIT_TEACHES`] **and** the kernel has a
//! whole socket for it at that moment: with a request alone (SYN-RECV) the client's next packet could overtake the
//! acknowledgement that completes the handshake. The way back into the TUN is a SYN, which is never looked up but deletes,
//! and the kernel's SYN-ACK, which deletes once more what a late packet of the connection before has taught in between.
//!
//! What leaves the TUN comes in by another device, past rules that others may have made about that. So it is tried first:
//! once in ten seconds a packet may go, and only when one has passed the host's input rules do others follow.

use super::{Family, MARK_CAPTURED, Ruleset, Words, words};
use crate::limits;
use std::fmt::Write as _;

/// No packet that came from the network has this hop limit when the process gets it: the way into the TUN has cost one. What
/// the process makes itself has another.
pub const HOP_LIMIT_TEACHES: u8 = 255;

/// Packets that taught.
pub(in crate::tun) const LOCAL_TAUGHT: &str = "local_taught";
/// Packets that should have taught, but the set was full.
pub(in crate::tun) const LOCAL_FULL: &str = "local_full";
/// Packets that did not go through the TUN.
pub(in crate::tun) const LOCAL_PASSED: &str = "local_passed";

/// The name of the set of one family.
pub(in crate::tun) fn local_set(family: Family) -> String {
    format!("local{}", words(family).digit)
}

/// Whether connections of the local server leave the TUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tun) enum Bypass {
    /// Once the kernel has learned them.
    Learned,
    /// They do not: nobody wants it, or the kernel lacks what it takes.
    Never,
}

impl Bypass {
    /// As it is wanted, until the kernel is asked.
    pub(in crate::tun) const fn wanted(wanted: bool) -> Self {
        if wanted { Self::Learned } else { Self::Never }
    }
}

/// After every rule of others; those have small numbers by convention.
const LAST: i32 = 1_000_000;

/// Client, its port, front-end, its port: of a packet that the client sent.
fn from_client(ip: &str) -> String {
    format!("{ip} saddr . tcp sport . {ip} daddr . tcp dport")
}

/// The same of a packet that goes to the client.
fn to_client(ip: &str) -> String {
    format!("{ip} daddr . tcp dport . {ip} saddr . tcp sport")
}

/// A way into the local stack that is not through the TUN.
const WAY: &str = "meta nfproto . iifname . tcp dport";

impl Ruleset<'_> {
    pub(super) fn write_bypass_sets(&self, text: &mut String) {
        if self.bypass == Bypass::Never {
            return;
        }
        for counter in [LOCAL_TAUGHT, LOCAL_FULL, LOCAL_PASSED] {
            let _ = writeln!(text, "  counter {counter} {{ }}");
        }
        for family in self.families() {
            let Words { digit, address, .. } = words(family);
            let _ = writeln!(
                text,
                "  set local{digit} {{ type {address} . inet_service . {address} . inet_service; flags dynamic,timeout; \
                 timeout {}s; size {}; }}",
                limits::LOCAL_FLOW_LIFETIME.as_secs(),
                limits::LOCAL_FLOWS_MAX
            );
        }
        let _ = writeln!(
            text,
            "  set direct {{ type nf_proto . ifname . inet_service; flags dynamic,timeout; timeout {}s; size {}; }}",
            limits::DIRECT_WAY_LIFETIME.as_secs(),
            limits::DIRECT_WAYS_MAX
        );
    }

    /// Chains that others jump to: `learn4` for what the process writes, `bypass4` for what would be captured.
    pub(super) fn write_bypass_chains(&self, text: &mut String) {
        if self.bypass == Bypass::Never {
            return;
        }
        let notrack = self.tracking.statement();
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            let ends = from_client(ip);
            let captured = format!("{notrack}meta mark set {MARK_CAPTURED:#x}");
            // A set that is full ends its rule.
            let _ = write!(
                text,
                "  chain learn{digit} {{\n    \
                     update @local{digit} {{ {ends} }} counter name {LOCAL_TAUGHT} return\n    \
                     counter name {LOCAL_FULL}\n  \
                   }}\n  \
                   chain bypass{digit} {{\n    \
                     tcp flags & (syn | ack) == syn delete @local{digit} {{ {ends} }} {captured} return\n    \
                     {ends} @local{digit} {WAY} @direct counter name {LOCAL_PASSED} {notrack}accept\n    \
                     {ends} @local{digit} limit rate 6/minute burst 1 packets counter name {LOCAL_PASSED} {notrack}accept\n    \
                     {captured}\n  \
                   }}\n"
            );
        }
        let _ = writeln!(text, "  chain arrived {{\n    type filter hook input priority {LAST}; policy accept;");
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            let ends = from_client(ip);
            let _ = write!(
                text,
                "    iifname @ingress{digit} tcp dport @alive {ends} @local{digit} update @local{digit} {{ {ends} }}\n    \
                     iifname @ingress{digit} tcp dport @alive {ends} @local{digit} {WAY} != @direct add @direct {{ {WAY} }}\n"
            );
        }
        text.push_str("  }\n");
    }

    /// In `from_tun`.
    pub(super) fn write_lessons(&self, text: &mut String) {
        if self.bypass == Bypass::Never {
            return;
        }
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            let hop_limit = match family {
                Family::V4 => "ip ttl",
                Family::V6 => "ip6 hoplimit",
            };
            let _ = writeln!(
                text,
                "    {hop_limit} {HOP_LIMIT_TEACHES} {ip} daddr . tcp dport @frontends{digit} tcp flags & (fin | syn | rst) == 0x0 \
                 socket wildcard 0 jump learn{digit}"
            );
        }
    }

    /// In `answers`, before the kernel's SYN-ACK is captured.
    pub(super) fn write_oblivion(&self, family: Family, text: &mut String) {
        if self.bypass == Bypass::Learned {
            let Words { digit, ip, .. } = words(family);
            let _ = writeln!(
                text,
                "    {ip} saddr . tcp sport @frontends{digit} tcp flags & (syn | ack) == (syn | ack) \
                 delete @local{digit} {{ {} }}",
                to_client(ip)
            );
        }
    }
}
