//! Links: whether a peer is really a neighbour, the ways to it, and packets that go there as they are.
//!
//! Knows nothing of connections. What it finds out is what the kernel knows; whether packets arrive only the peer can say.

use super::capture::Capture;
use super::family::Family;
use super::firewall::{Firewall, link_ways};
use super::nft::{self, MARK_LINK, Ruleset};
use super::steering::LinkWay;
use super::{learned, sysctl};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::rewrite::{Offload, Pieces};
use anyhow::Context;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A peer that may be on the same link, for one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPeer {
    /// The peer.
    pub peer: NodeId,
    /// An address of the peer on the link.
    pub next_hop: IpAddr,
    /// Front-end addresses of the peer's own whose clients' packets it may send here.
    pub received: Vec<Endpoint>,
    /// A front-end address of this node whose clients' packets may go there.
    pub sends: Option<Endpoint>,
}

/// A peer as a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The device that leads to it.
    pub device: u32,
    /// Its Ethernet address.
    pub ethernet: [u8; 6],
}

/// Why a peer is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotNeighbour {
    /// No route leads to it.
    #[error("no route leads to {0}")]
    NoRoute(IpAddr),
    /// Packets to it go through a router.
    #[error("{0} is behind a router")]
    Routed(IpAddr),
    /// Its address is this host's own.
    #[error("{0} is an address of this host")]
    Local(IpAddr),
    /// It has not answered, or its link is no Ethernet.
    #[error("{0} does not answer on the link (ARP, neighbour discovery), or the link is no Ethernet")]
    Silent(IpAddr),
    /// This host would drop what comes from there.
    #[error("strict reverse path filtering on {0} (rp_filter=1) could drop clients' packets from there; set it to 2")]
    ReversePath(String),
    /// This host's firewall drops what would be forwarded there.
    #[error("{0}")]
    Firewall(String),
    /// What is forwarded there does not get through this host.
    #[error(
        "this host drops what it forwards there, by a rule that cannot be read (iptables-legacy?); it is tried again after {again} s"
    )]
    HeldUp {
        /// Seconds.
        again: u64,
    },
    /// The kernel could not be asked.
    #[error("the kernel cannot be asked: {0}")]
    Unknown(String),
}

impl Capture {
    /// Whether a peer is a neighbour now, as the kernel knows it; the kernel is had to find out if it does not.
    pub fn look_for(&mut self, link: &LinkPeer) -> Result<Neighbour, NotNeighbour> {
        self.find(link).unwrap_or_else(|error| Err(NotNeighbour::Unknown(error.to_string())))
    }

    fn find(&mut self, link: &LinkPeer) -> io::Result<Result<Neighbour, NotNeighbour>> {
        let hop = link.next_hop;
        let Some(path) = self.routing.path(hop)? else { return Ok(Err(NotNeighbour::NoRoute(hop))) };
        if path.is_local {
            return Ok(Err(NotNeighbour::Local(hop)));
        }
        if path.gateway.is_some() {
            return Ok(Err(NotNeighbour::Routed(hop)));
        }
        let known = self.routing.neighbour(path.device, hop)?.and_then(|neighbour| neighbour.ethernet);
        let Some(ethernet) = known.filter(|ethernet| *ethernet != [0; 6]) else {
            self.routing.resolve(path.device, hop)?;
            return Ok(Err(NotNeighbour::Silent(hop)));
        };
        Ok(Ok(Neighbour { device: path.device, ethernet }))
    }

    /// Whether what comes from a neighbour, or is forwarded to it, gets through this host.
    pub fn check_way(&mut self, link: &LinkPeer, device: u32) -> Result<(), NotNeighbour> {
        let unknown = |error: &dyn std::fmt::Display| NotNeighbour::Unknown(error.to_string());
        let links = self.routing.links().map_err(|error| unknown(&error))?;
        let name = links.iter().find(|link| link.index == device).map_or_else(String::new, |link| link.name.clone());
        let family = Family::of(link.next_hop);
        if family == Family::V4 && !link.received.is_empty() && self.is_strict(&name, &links).map_err(|error| unknown(&error))? {
            return Err(NotNeighbour::ReversePath(name));
        }
        let firewall = match Firewall::read() {
            Ok(firewall) => firewall,
            // As at the start: what cannot be read is not held against anybody.
            Err(_) => return Ok(()),
        };
        for way in link_ways(link, &self.config.device, &self.ingress, &name) {
            if let Some(blocked) = way.blocked(&firewall) {
                return Err(NotNeighbour::Firewall(format!("{:#}", blocked.error)));
            }
        }
        Ok(())
    }

    /// For each peer that packets may go to, by the family (IPv4: true): those that the kernel was about to forward by itself,
    /// and those of them that passed every rule, since the rules were made.
    pub fn link_passages(&self) -> io::Result<BTreeMap<(NodeId, bool), (u64, u64)>> {
        let counters: BTreeMap<String, u64> = learned::counters()?.into_iter().collect();
        let count = |name: String| counters.get(&name).copied();
        let peers = self.config.linked_peers().into_iter();
        let passages = peers.filter_map(|(family, peer)| {
            let passage = (count(nft::taken_counter(family, peer))?, count(nft::passed_counter(family, peer))?);
            Some(((peer, family == Family::V4), passage))
        });
        Ok(passages.collect())
    }

    /// Whether packets of clients who are elsewhere than on this device would be dropped here. With one device only they are
    /// nowhere else.
    fn is_strict(&self, device: &str, links: &[super::routing::Link]) -> io::Result<bool> {
        let value = |device: &str| -> io::Result<u8> {
            let text = sysctl::read(&sysctl::of_device(Family::V4, device, "rp_filter"))?;
            Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
        };
        let others = links
            .iter()
            .any(|link| link.kind == super::routing::LinkKind::Other && link.name != device && link.name != self.config.device);
        Ok(others && value("all")?.max(value(device)?) == 1)
    }

    /// Lets these Ethernet addresses send packets of clients here, and no others; and nothing that comes from them is forwarded
    /// over a link again.
    pub fn set_neighbours(&mut self, neighbours: &BTreeSet<[u8; 6]>) -> anyhow::Result<()> {
        nft::apply(&Ruleset::replace_neighbours(neighbours)).context("changing the set of neighbours")
    }

    /// Opens the way for what baton itself sends to a neighbour.
    pub fn open_to_send(&mut self, link: &LinkPeer, device: u32) -> io::Result<()> {
        LinkWay::Send.open(link.peer, device, link.next_hop, &mut self.routing)
    }

    /// Lets the kernel forward to a neighbour what it has learned.
    pub fn open_to_forward(&mut self, link: &LinkPeer, device: u32) -> io::Result<()> {
        LinkWay::Forward.open(link.peer, device, link.next_hop, &mut self.routing)
    }

    /// What the kernel has learned comes to this process again.
    pub fn close_to_forward(&mut self, link: &LinkPeer) -> io::Result<()> {
        LinkWay::Forward.close(link.peer, Family::of(link.next_hop), &mut self.routing)
    }

    /// No way any more at all.
    pub fn close_link(&mut self, link: &LinkPeer) -> io::Result<()> {
        self.close_to_forward(link)?;
        LinkWay::Send.close(link.peer, Family::of(link.next_hop), &mut self.routing)
    }

    /// Makes the kernel forget connections; those it does not know are fine.
    pub fn unlearn(&mut self, flows: &[(NodeId, FlowKey)]) -> io::Result<()> {
        self.guards.unlearn(flows)
    }

    /// The Ethernet address that packets to this address go to; none if nobody is known there.
    pub fn ethernet_towards(&mut self, address: IpAddr) -> Option<[u8; 6]> {
        let path = self.routing.path(address).ok()??;
        let hop = match path.gateway {
            None => address,
            Some(gateway) => gateway.0?,
        };
        self.routing.neighbour(path.device, hop).ok()??.ethernet
    }
}

/// Sends packets over links as they are, whoever they are from.
#[derive(Debug, Default)]
pub struct LinkSockets {
    v4: Option<Marked>,
    v6: Option<Marked>,
    piece: Vec<u8>,
}

#[derive(Debug)]
struct Marked {
    socket: Socket,
    /// Of the packets it sends now.
    peer: Option<NodeId>,
}

impl LinkSockets {
    /// Sends a packet; what is left to do for it is done. Of a super-segment some pieces may have been sent when there is an
    /// error.
    pub fn send(&mut self, peer: NodeId, packet: &[u8], offload: &Offload, packet_bytes_max: usize) -> io::Result<()> {
        let destination = destination(packet).ok_or(io::ErrorKind::InvalidData)?;
        let (slot, domain) = if destination.is_ipv4() { (&mut self.v4, Domain::IPV4) } else { (&mut self.v6, Domain::IPV6) };
        let marked = match slot {
            Some(marked) => marked,
            None => slot.insert(Marked::open(domain)?),
        };
        marked.aim(peer)?;
        let to = SockAddr::from(SocketAddr::new(destination, 0));
        if *offload == Offload::NONE {
            return marked.socket.send_to(packet, &to).map(drop);
        }
        let mut pieces =
            Pieces::of(packet, offload, packet_bytes_max).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.piece.resize(packet_bytes_max.max(packet.len()), 0);
        while let Some(length) = pieces.write_next(&mut self.piece) {
            marked.socket.send_to(&self.piece[..length], &to)?;
        }
        Ok(())
    }
}

impl Marked {
    fn open(domain: Domain) -> io::Result<Self> {
        // IPPROTO_RAW: the packet brings its IP header (raw(7), ipv6(7)), and nothing is received.
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, peer: None })
    }

    fn aim(&mut self, peer: NodeId) -> io::Result<()> {
        if self.peer != Some(peer) {
            self.peer = None;
            self.socket.set_mark(MARK_LINK | u32::from(peer.0))?;
            self.peer = Some(peer);
        }
        Ok(())
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    let (family, at) = match packet.first()? >> 4 {
        4 => (Family::V4, 16),
        6 => (Family::V6, 24),
        _ => return None,
    };
    family.address_from(packet.get(at..)?)
}
