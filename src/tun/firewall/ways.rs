//! The ways that packets take through a host with baton, hook by hook.

use super::{Back, Firewall, Judgement, Packet, remedy};
use crate::doctor::refusal;
use crate::flow::Endpoint;
use crate::tun::capture::CaptureConfig;
use crate::tun::family::Family;
use crate::tun::link::LinkPeer;
use crate::tun::nft::Ingress;
use ipnet::IpNet;

/// What a blocked way means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tun) enum Consequence {
    /// Local connections would break: no start.
    BreaksLocalConnections,
    /// Handoffs to this node fail, and others serve.
    BreaksHandoffs,
}

/// One way, with the packet that takes it at each hook.
#[derive(Debug)]
pub(in crate::tun) struct Way {
    pub(in crate::tun) name: String,
    pub(in crate::tun) consequence: Consequence,
    hooks: Vec<(&'static str, Packet)>,
    remedy: String,
}

impl Way {
    /// None when packets pass.
    pub(in crate::tun) fn blocked(&self, firewall: &Firewall) -> Option<Blocked> {
        let mut doubt = None;
        for (hook, packet) in &self.hooks {
            let (certain, what) = match firewall.judge(hook, packet) {
                Judgement::Passes => continue,
                Judgement::Dropped(chain) => (true, format!("the firewall drops packets {}: chain {chain}", self.name)),
                Judgement::MayBeDropped(chain) => (false, format!("the firewall may drop packets {}: chain {chain}", self.name)),
            };
            let blocked = Blocked { certain, error: refusal(what, &self.remedy) };
            if certain {
                return Some(blocked);
            }
            doubt.get_or_insert(blocked);
        }
        doubt
    }
}

/// Why a way is blocked, or may be.
pub(in crate::tun) struct Blocked {
    pub(in crate::tun) certain: bool,
    pub(in crate::tun) error: anyhow::Error,
}

/// All ways that rules can be read for. `tracked` says whether our packets are seen by connection tracking.
pub(in crate::tun) fn ways(config: &CaptureConfig, ingress: &[Ingress], tracked: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    let device = &config.device;
    let state = (!tracked).then_some("untracked");
    let packet = |family| Packet {
        family,
        protocol: "tcp",
        from_device: None,
        to_device: None,
        source: None,
        destination: None,
        source_port: None,
        destination_port: None,
        back: Back::Other,
        state,
    };
    for frontend in &config.frontends {
        let family = Family::of(frontend.address);
        for ingress in ingress.iter().filter(|ingress| ingress.family == family) {
            let to_frontend = Packet {
                destination: Some(frontend.address),
                destination_port: Some(frontend.port),
                from_device: Some(ingress.name.clone()),
                back: Back::OtherByMark,
                ..packet(family)
            };
            let to_tun = Packet { to_device: Some(device.clone()), ..to_frontend.clone() };
            ways.push(Way {
                name: format!("for {frontend} from {} to {device}", ingress.name),
                consequence: Consequence::BreaksLocalConnections,
                hooks: vec![("prerouting", to_frontend), ("forward", to_tun.clone()), ("postrouting", to_tun)],
                remedy: remedy::forward(device),
            });
            let answer = Packet {
                source: Some(frontend.address),
                source_port: Some(frontend.port),
                from_device: Some(device.clone()),
                to_device: Some(ingress.name.clone()),
                ..packet(family)
            };
            ways.push(Way {
                name: format!("of {frontend} from {device} to {}", ingress.name),
                consequence: Consequence::BreaksLocalConnections,
                hooks: vec![("forward", answer.clone()), ("postrouting", answer)],
                remedy: remedy::forward(device),
            });
        }
        let from_tun = Packet {
            destination: Some(frontend.address),
            destination_port: Some(frontend.port),
            from_device: Some(device.clone()),
            ..packet(family)
        };
        ways.push(Way {
            name: format!("from {device} to {frontend}"),
            consequence: Consequence::BreaksLocalConnections,
            hooks: vec![("prerouting", from_tun.clone()), ("input", from_tun)],
            remedy: remedy::input(device),
        });
    }
    for (prefix, port) in config.aliases.iter().flat_map(|prefix| config.server_ports.iter().map(move |port| (prefix, *port))) {
        ways.extend(alias_ways(device, prefix, port, &packet));
    }
    ways.extend(config.control.map(|control| control_way(control, ingress, &packet)));
    ways
}

/// What is forwarded over a link to a peer, and what a peer forwards here, over this device.
pub(in crate::tun) fn link_ways(link: &LinkPeer, tun: &str, ingress: &[Ingress], device: &str) -> Vec<Way> {
    let family = Family::of(link.next_hop);
    let forwarded = |frontend: Endpoint, from: &str, to: &str| Packet {
        family,
        protocol: "tcp",
        from_device: Some(from.to_owned()),
        to_device: Some(to.to_owned()),
        source: None,
        destination: Some(frontend.address),
        source_port: None,
        destination_port: Some(frontend.port),
        back: Back::OtherByMark,
        state: Some("untracked"),
    };
    let way = |frontend: Endpoint, from: &str, to: &str| {
        let packet = forwarded(frontend, from, to);
        let arrives = Packet { to_device: None, ..packet.clone() };
        Way {
            name: format!("for {frontend} from {from} to {to}"),
            consequence: Consequence::BreaksHandoffs,
            hooks: vec![("prerouting", arrives), ("forward", packet.clone()), ("postrouting", packet)],
            remedy: remedy::forward(to),
        }
    };
    let from = ingress.iter().filter(|ingress| ingress.family == family);
    let sent = link.sends.into_iter().flat_map(|frontend| from.clone().map(move |ingress| way(frontend, &ingress.name, device)));
    let received = link.received.iter().map(|frontend| way(*frontend, device, tun));
    sent.chain(received).collect()
}

/// Handed-off connections live on aliases.
fn alias_ways(device: &str, prefix: &IpNet, port: u16, packet: &impl Fn(Family) -> Packet) -> [Way; 2] {
    let family = Family::of_prefix(prefix);
    let alias = Some(prefix.addr());
    let incoming =
        Packet { destination: alias, destination_port: Some(port), from_device: Some(device.to_owned()), ..packet(family) };
    let outgoing = Packet { source: alias, source_port: Some(port), to_device: Some(device.to_owned()), ..packet(family) };
    [
        Way {
            name: format!("from {device} to the aliases {prefix} port {port}"),
            consequence: Consequence::BreaksHandoffs,
            hooks: vec![("prerouting", incoming.clone()), ("input", incoming)],
            remedy: remedy::input(device),
        },
        Way {
            name: format!("from the aliases {prefix} port {port} to {device}"),
            consequence: Consequence::BreaksHandoffs,
            hooks: vec![("output", outgoing.clone()), ("postrouting", outgoing)],
            remedy: remedy::output(device),
        },
    ]
}

/// What the nodes say to each other: a first packet from one of them.
fn control_way(control: Endpoint, ingress: &[Ingress], packet: &impl Fn(Family) -> Packet) -> Way {
    let family = Family::of(control.address);
    let devices = ingress.iter().filter(|ingress| ingress.family == family).map(|ingress| ingress.name.clone());
    let first = |device, protocol| Packet {
        protocol,
        from_device: Some(device),
        destination: Some(control.address),
        destination_port: Some(control.port),
        back: Back::SameDevice,
        state: Some("new"),
        ..packet(family)
    };
    let hooks = devices.flat_map(|device| [first(device.clone(), "tcp"), first(device, "udp")]).map(|packet| ("input", packet));
    Way {
        name: format!("from other nodes to {control}"),
        consequence: Consequence::BreaksHandoffs,
        hooks: hooks.collect(),
        remedy: remedy::peers(control.port),
    }
}
