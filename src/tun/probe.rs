//! Whether the host's own firewall lets pass what capture sends past it.
//!
//! Reading somebody's rules tells little; packets tell. Before anything is captured one packet per front-end takes the
//! way of a client's packet from the TUN to the local stack, and one the way of an answer from the TUN to the network.
//! Both are counted and dropped after all other rules have seen them, so no application and no client ever does.

use super::device::Device;
use super::family::Family;
use super::firewall::remedy;
use super::nft::{self, TABLE};
use super::routing::Routing;
use crate::doctor::refusal;
use crate::flow::Endpoint;
use anyhow::Context;
use etherparse::PacketBuilder;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// After every rule of others; those have small numbers by convention.
const LAST: i32 = 1_000_000;
const HOP_LIMIT: u8 = 64;
/// The discard port: no client comes from there.
const CLIENT_PORT: u16 = 9;
const WINDOW: u16 = 1024;
/// Neighbours of a front-end differ from it in one of the low bits.
const NEIGHBOUR_BITS: u32 = 8;
/// The index of `lo` in every namespace (LOOPBACK_IFINDEX): where routes to the host's own addresses lead.
const LOOPBACK: u32 = 1;
/// The kernel handles a written packet within microseconds, a busy one within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// One packet, and the rule that counts it.
struct Probe {
    /// In the rule's comment, and in the refusal.
    name: String,
    hook: Hook,
    condition: String,
    packet: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    Input,
    Postrouting,
}

impl Hook {
    const BOTH: [Self; 2] = [Self::Input, Self::Postrouting];

    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Postrouting => "postrouting",
        }
    }
}

/// Sends the probes: both ways of own front-ends, and the answers that others' get from here. An error names what did not
/// pass, and the remedy.
pub(super) fn run(device: &Device, routing: &mut Routing, frontends: &[Endpoint], answered: &[Endpoint]) -> anyhow::Result<()> {
    let mut probes = Vec::new();
    for frontend in frontends {
        probes.extend(probes_of(device.name(), routing, *frontend)?);
    }
    for frontend in answered {
        let answers = probes_of(device.name(), routing, *frontend)?.into_iter().filter(|probe| probe.hook == Hook::Postrouting);
        probes.extend(answers);
    }
    nft::apply(&rules(&probes)).context("installing the rules of the probe")?;
    let passed = observe(device, &probes);
    nft::apply(&no_rules()).context("removing the rules of the probe")?;
    let passed = passed?;
    let blocked: Vec<&Probe> = probes.iter().filter(|probe| !passed.contains(&probe.name)).collect();
    let Some(first) = blocked.first() else { return Ok(()) };
    let device = device.name();
    match first.hook {
        Hook::Input => Err(refusal(
            format!("this host drops packets {} (a firewall that accepts from some devices only?)", first.name),
            remedy::input(device),
        )),
        Hook::Postrouting => Err(refusal(
            format!("this host drops packets {} (a forward chain with policy drop?)", first.name),
            remedy::forward(device),
        )),
    }
}

fn probes_of(device: &str, routing: &mut Routing, frontend: Endpoint) -> anyhow::Result<Vec<Probe>> {
    let client = Endpoint::new(client_address(routing, frontend)?, CLIENT_PORT);
    let ip = if frontend.address.is_ipv4() { "ip" } else { "ip6" };
    let mut probes = vec![Probe {
        name: format!("from {device} to {frontend}"),
        hook: Hook::Input,
        condition: format!(
            "iifname \"{device}\" {ip} saddr {} {ip} daddr {} tcp sport {CLIENT_PORT} tcp dport {}",
            client.address, frontend.address, frontend.port
        ),
        packet: segment(client, frontend, Flags::Syn),
    }];
    // Where no route leads, no client can be answered either, but that may be so for now only.
    if routing.path(client.address)?.is_some() {
        probes.push(Probe {
            name: format!("from {device} to a client of {frontend}"),
            hook: Hook::Postrouting,
            condition: format!(
                "oifname != \"{device}\" {ip} saddr {} {ip} daddr {} tcp sport {} tcp dport {CLIENT_PORT}",
                frontend.address, client.address, frontend.port
            ),
            packet: segment(frontend, client, Flags::SynAck),
        });
    }
    Ok(probes)
}

/// An address a client might have: a documentation address (RFC 5737, RFC 3849) when a route leads there, otherwise a
/// neighbour of the front-end's, or of another address of this host. None of them is this host itself.
fn client_address(routing: &mut Routing, frontend: Endpoint) -> anyhow::Result<IpAddr> {
    let documented: IpAddr = match Family::of(frontend.address) {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    if routing.path(documented)?.is_some_and(|path| path.device != LOOPBACK) {
        return Ok(documented);
    }
    let neighbour = |near: IpAddr, bit: u32| -> IpAddr {
        match near {
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) ^ (1 << bit)).into(),
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) ^ (1 << bit)).into(),
        }
    };
    // Of the front-end, or of any address of this host: the front-end's may stand alone.
    let hosts = routing.addresses()?.into_iter().map(|host| host.address);
    let same_family = hosts.filter(|host| host.is_ipv4() == frontend.address.is_ipv4() && !host.is_loopback());
    for near in std::iter::once(frontend.address).chain(same_family) {
        for bit in 1..NEIGHBOUR_BITS {
            if routing.path(neighbour(near, bit))?.is_some_and(|path| path.device != LOOPBACK) {
                return Ok(neighbour(near, bit));
            }
        }
    }
    Ok(neighbour(frontend.address, 1))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    Syn,
    SynAck,
}

fn segment(from: Endpoint, to: Endpoint, flags: Flags) -> Vec<u8> {
    let ip = match (from.address, to.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT),
        _ => unreachable!("the client's address is made from the front-end's"),
    };
    let tcp = ip.tcp(from.port, to.port, 0, WINDOW).syn();
    let tcp = if flags == Flags::SynAck { tcp.ack(1) } else { tcp };
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[]).expect("a vector takes every packet, and an empty payload always fits");
    bytes
}

/// The chains lie in our own table: should the process die now, the next start removes them with all others.
fn rules(probes: &[Probe]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for hook in Hook::BOTH {
        let name = hook.name();
        let _ = writeln!(text, "  chain probe_{name} {{\n    type filter hook {name} priority {LAST}; policy accept;");
        for probe in probes.iter().filter(|probe| probe.hook == hook) {
            let _ = writeln!(text, "    {} counter drop comment \"{}\"", probe.condition, probe.name);
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

fn no_rules() -> String {
    let mut text = String::new();
    for hook in Hook::BOTH {
        let name = hook.name();
        let _ = writeln!(text, "flush chain inet {TABLE} probe_{name}\ndelete chain inet {TABLE} probe_{name}");
    }
    text
}

/// Writes the packets and gives the names of those that were counted.
#[allow(clippy::disallowed_methods)] // start-up of the shell: nothing runs yet that could be held up
fn observe(device: &Device, probes: &[Probe]) -> anyhow::Result<Vec<String>> {
    for probe in probes {
        device.send(&probe.packet).with_context(|| format!("sending a probe {}", probe.name))?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut passed = Vec::new();
        for hook in Hook::BOTH {
            passed.extend(nft::counted(&format!("probe_{}", hook.name()))?);
        }
        if passed.len() >= probes.len() || Instant::now() >= deadline {
            return Ok(passed);
        }
        std::thread::sleep(PATIENCE / 25);
    }
}
