//! Links to peers: which are neighbours, probed all the time, and packets that go there without the overlay.
//!
//! A peer is used over a link only while all of this holds: the route to it is direct; it answers ARP or neighbour discovery;
//! this host's firewall and reverse path filter let through what would come and go; and a packet like those of clients, sent
//! over the link a moment ago, came back through the overlay, where only the peer can have sent it.

mod trust;

use super::Node;
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::Engine;
use crate::limits;
use crate::policy::{Forward, Policy};
use crate::rewrite::Offload;
use crate::tun::link::{LinkPeer, LinkSockets, Neighbour, NotNeighbour};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;
use trust::Trust;

/// All links, and what is sent over them.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
    sockets: LinkSockets,
    due: Option<Instant>,
    /// Neighbours as the kernel's rules have them.
    installed: BTreeSet<[u8; 6]>,
    /// Clients, and whether they are reached through a peer.
    clients: HashMap<IpAddr, (bool, Instant)>,
    /// Connections that the kernel shall forget.
    forget: Vec<(NodeId, FlowKey)>,
    packet_bytes_max: usize,
    pub counters: LinkCounters,
}

/// What became of packets for links.
#[derive(Clone, Debug, Default)]
pub struct LinkCounters {
    /// Sent over a link by this process; each lets the kernel learn its connection.
    pub sent_packets: u64,
    /// Sent through the overlay because the client is on a peer, or behind one.
    pub client_on_peer: u64,
    /// Sent through the overlay because the link did not take them.
    pub send_failed: u64,
    /// Probes sent.
    pub probes_sent: u64,
    /// Probes that came back.
    pub probes_answered: u64,
    /// Links that were used and are not any more.
    pub lost: u64,
    /// Connections that the kernel was told to forget.
    pub unlearned: u64,
    /// Changes the kernel did not take.
    pub failures: u64,
    /// Packets that the kernel forwarded by itself.
    pub forwarded: u64,
    /// Times that all of those were dropped by a rule.
    pub held_up: u64,
}

#[derive(Debug)]
struct Link {
    peer: LinkPeer,
    /// The operator wants to know if it cannot be used.
    is_wanted: bool,
    neighbour: Result<Neighbour, NotNeighbour>,
    /// Whether the way was found free, and if not when to look again.
    way: Option<(Result<(), NotNeighbour>, Instant)>,
    trust: Trust,
    /// Services may use it; with another cluster file none may.
    is_allowed: bool,
    is_usable: bool,
    /// Said to be unusable since.
    complained: bool,
    began: Instant,
}

/// What `baton peers` shows of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// IPv4 or IPv6.
    pub family: &'static str,
    /// Whether clients' packets go over it.
    pub usable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The operator wants to know.
    pub is_wanted: bool,
}

/// The peers that services let this node reach without the overlay, or be reached by.
pub fn link_peers(policy: &Policy) -> Vec<LinkPeer> {
    let mut peers = Vec::new();
    for (index, node) in policy.nodes.iter().enumerate() {
        let peer = NodeId(index as u16);
        if peer == policy.node {
            continue;
        }
        for is_ipv4 in [true, false] {
            let mut received = Vec::new();
            let mut sends = None;
            for service in policy.services.iter().filter(|service| service.forward.may_use_link()) {
                let of_family = |endpoint: &Endpoint| endpoint.address.is_ipv4() == is_ipv4;
                let ends = service.frontends.iter().filter(|(_, endpoint)| of_family(endpoint));
                received.extend(ends.clone().map(|(_, endpoint)| *endpoint).filter(|it| policy.linked_from(*it) == Some(peer)));
                if service.server_port(peer).is_some() {
                    sends = sends.or_else(|| ends.map(|(_, endpoint)| *endpoint).find(|it| policy.may_use_link(*it)));
                }
            }
            let Some(next_hop) = next_hop(policy, peer, node.address, is_ipv4) else { continue };
            if sends.is_some() || !received.is_empty() {
                peers.push(LinkPeer { peer, next_hop, received, sends });
            }
        }
    }
    peers
}

/// An address of the peer's own of this family: that of the cluster file, or one of its front-ends.
fn next_hop(policy: &Policy, peer: NodeId, address: IpAddr, is_ipv4: bool) -> Option<IpAddr> {
    if address.is_ipv4() == is_ipv4 {
        return Some(address);
    }
    let frontends = policy.services.iter().flat_map(|service| &service.frontends);
    let mut own = frontends.filter(|(owner, end)| *owner == peer && end.address.is_ipv4() == is_ipv4);
    own.find(|(_, end)| !policy.is_shared_frontend(*end)).map(|(_, end)| end.address)
}

impl Links {
    /// Nothing is known yet.
    pub fn new(policy: &Policy, peers: Vec<LinkPeer>, packet_bytes_max: usize, now: Instant) -> Self {
        let is_wanted = |peer: &LinkPeer| {
            let sends = peer.sends.and_then(|frontend| policy.service_of(frontend));
            sends.is_some_and(|service| service.forward == Forward::Link)
        };
        let links: Vec<Link> = peers
            .into_iter()
            .map(|peer| Link {
                is_wanted: is_wanted(&peer),
                neighbour: Err(NotNeighbour::Silent(peer.next_hop)),
                way: None,
                trust: Trust::default(),
                is_allowed: true,
                is_usable: false,
                complained: false,
                began: now,
                peer,
            })
            .collect();
        Self {
            due: (!links.is_empty()).then_some(now),
            links,
            sockets: LinkSockets::default(),
            installed: BTreeSet::new(),
            clients: HashMap::new(),
            forget: Vec::new(),
            packet_bytes_max,
            counters: LinkCounters::default(),
        }
    }

    /// When probes are due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Links that clients' packets can go over now.
    pub fn usable(&self) -> usize {
        self.links.iter().filter(|link| link.is_usable).count()
    }

    /// Those, and all that services may send over; None if they may over none.
    pub fn all(&self) -> Option<(usize, usize)> {
        let total = self.links.iter().filter(|link| link.is_allowed && link.peer.sends.is_some()).count();
        (total > 0).then(|| (self.usable(), total))
    }

    /// What is known of the links to a peer.
    pub fn view(&self, peer: NodeId) -> Vec<View> {
        let links = self.links.iter().filter(|link| link.peer.peer == peer && link.peer.sends.is_some());
        links
            .map(|link| View {
                family: if link.peer.next_hop.is_ipv4() { "ipv4" } else { "ipv6" },
                usable: link.is_usable,
                reason: (!link.is_usable).then(|| link.reason()),
                is_wanted: link.is_wanted,
            })
            .collect()
    }
}

impl Link {
    fn is_of(&self, peer: NodeId, is_ipv4: bool) -> bool {
        self.peer.peer == peer && self.peer.next_hop.is_ipv4() == is_ipv4
    }

    fn reason(&self) -> String {
        match (&self.neighbour, &self.way) {
            (Err(reason), _) | (_, Some((Err(reason), _))) => reason.to_string(),
            _ if !self.is_allowed => "the cluster file says so now".to_owned(),
            _ if !self.trust.is_lost() && self.trust.unanswered() <= 1 => {
                "it was lost and has not answered for long enough".to_owned()
            }
            _ => format!("probes over the link do not come back (unanswered: {})", self.trust.unanswered()),
        }
    }
}

impl Node {
    /// Sends a client's packet to its owner over the link, or through the overlay.
    pub(super) fn send_on_link(&mut self, peer: NodeId, packet: &[u8], offload: &Offload, now: Instant) {
        if self.reaches_through_peer(packet, now) {
            // The peer's kernel would take it for a forgery of its own address, or it would come back.
            self.links.counters.client_on_peer += 1;
        } else {
            let links = &mut self.links;
            match links.sockets.send(peer, packet, offload, links.packet_bytes_max) {
                Ok(()) => {
                    links.counters.sent_packets += 1;
                    return;
                }
                Err(error) => {
                    log::debug!("link: peer={} packet not sent: {error}", peer.0);
                    links.counters.send_failed += 1;
                }
            }
        }
        self.send_on_overlay(peer, packet, offload);
    }

    /// Whether a client is a peer itself, or is reached through one.
    fn reaches_through_peer(&mut self, packet: &[u8], now: Instant) -> bool {
        let Some(client) = source(packet) else { return true };
        let clients = &mut self.links.clients;
        if let Some((answer, until)) = clients.get(&client)
            && *until > now
        {
            return *answer;
        }
        let through = self.policy.is_of_a_node(client)
            || self.host.capture().ethernet_towards(client).is_some_and(|ethernet| self.links.installed.contains(&ethernet));
        if clients.len() >= limits::LINK_CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(client, (through, now + limits::LINK_CLIENT_LIFETIME));
        through
    }

    /// A probe came back.
    pub(super) fn hear_link_answer(&mut self, peer: NodeId, is_ipv4: bool, number: u32) {
        let links = &mut self.links.links;
        let Some(link) = links.iter_mut().find(|link| link.is_of(peer, is_ipv4)) else { return };
        if !link.trust.hear(number) {
            return;
        }
        self.links.counters.probes_answered += 1;
        let (Ok(neighbour), Some((Ok(()), _))) = (&link.neighbour, &link.way) else { return };
        if link.is_usable || !link.is_allowed || !link.trust.suffices() {
            return;
        }
        if let Err(error) = self.host.capture().open_to_forward(&link.peer, neighbour.device) {
            log::warn!("link: peer={} cannot be opened: {error}", peer.0);
            self.links.counters.failures += 1;
            return;
        }
        link.is_usable = true;
        link.complained = false;
        let name = self.policy.nodes.get(usize::from(peer.0)).map_or("", |node| node.name.as_str());
        log::info!("link: peer={name} next_hop={} is a neighbour: clients' packets go there as they are", link.peer.next_hop);
        self.engine.handle_link(peer, is_ipv4, true);
    }

    /// The session with a peer is gone: perhaps it is, and its rules with it.
    pub(super) fn distrust_links(&mut self, peer: NodeId) {
        for index in 0..self.links.links.len() {
            if self.links.links[index].peer.peer == peer {
                self.stop_using(index);
            }
        }
    }

    fn stop_using(&mut self, index: usize) {
        let link = &mut self.links.links[index];
        if !std::mem::replace(&mut link.is_usable, false) {
            return;
        }
        self.links.counters.lost += 1;
        link.trust.lose();
        let (peer, is_ipv4) = (link.peer.peer, link.peer.next_hop.is_ipv4());
        let name = self.policy.nodes.get(usize::from(peer.0)).map_or("", |node| node.name.as_str());
        log::info!("link: peer={name} next_hop={} is not used any more: {}", link.peer.next_hop, link.reason());
        // First the kernel, then the engine: nobody forwards to where the engine does not want it.
        if let Err(error) = self.host.capture().close_to_forward(&link.peer) {
            log::warn!("link: peer={name} cannot be closed: {error}");
            self.links.counters.failures += 1;
        }
        self.engine.handle_link(peer, is_ipv4, false);
    }

    /// Looks at all neighbours, and probes the links to them.
    pub(super) fn probe_links(&mut self, now: Instant) {
        if self.links.due.is_none_or(|due| due > now) {
            return;
        }
        self.links.due = Some(now + limits::LINK_PROBE_INTERVAL);
        self.look_at_passage(now);
        let mut found = BTreeSet::new();
        for index in 0..self.links.links.len() {
            let peer = self.links.links[index].peer.clone();
            let neighbour = self.host.capture().look_for(&peer);
            if let Ok(neighbour) = &neighbour {
                found.insert(neighbour.ethernet);
            }
            let before = std::mem::replace(&mut self.links.links[index].neighbour, neighbour);
            if self.links.links[index].neighbour != before {
                self.links.links[index].way = None;
                self.stop_using(index);
                let closed = self.host.capture().close_link(&peer);
                self.count_link_failure(closed);
            }
            self.probe_link(index, now);
        }
        if found != self.links.installed {
            match self.host.capture().set_neighbours(&found) {
                Ok(()) => self.links.installed = found,
                Err(error) => self.count_link_failure(Err(std::io::Error::other(format!("{error:#}")))),
            }
            self.links.clients.clear();
        }
    }

    fn probe_link(&mut self, index: usize, now: Instant) {
        let link = &mut self.links.links[index];
        let peer = link.peer.clone();
        if let Ok(neighbour) = link.neighbour {
            let retry = |(result, again): &(Result<(), NotNeighbour>, Instant)| result.is_err() && *again <= now;
            if link.way.as_ref().is_none_or(retry) {
                let way = self.host.capture().check_way(&peer, neighbour.device);
                if let Err(reason) = &way {
                    log::warn!("link: next_hop={} {reason}", peer.next_hop);
                }
                self.links.links[index].way = Some((way, now + limits::LINK_FIREWALL_INTERVAL));
            }
            let link = &mut self.links.links[index];
            if let (Some(frontend), Some((Ok(()), _)), true) = (peer.sends, &link.way, link.is_allowed) {
                let number = link.trust.probe();
                if link.trust.is_lost() {
                    self.stop_using(index);
                }
                let opened = self.host.capture().open_to_send(&peer, neighbour.device);
                self.count_link_failure(opened);
                let probe = Engine::link_probe(frontend, number);
                let links = &mut self.links;
                if links.sockets.send(peer.peer, &probe, &Offload::NONE, links.packet_bytes_max).is_ok() {
                    links.counters.probes_sent += 1;
                }
            }
        }
        self.complain_of_link(index, now);
    }

    /// Whether what the kernel forwards by itself gets through this host's rules. Those were read before, but may be made at any
    /// time, and not all can be read.
    fn look_at_passage(&mut self, now: Instant) {
        let counted = match self.host.capture().link_passages() {
            Ok(counted) => counted,
            Err(error) => return self.count_link_failure(Err(error)),
        };
        for index in 0..self.links.links.len() {
            let link = &mut self.links.links[index];
            let is_ipv4 = link.peer.next_hop.is_ipv4();
            let Some((taken, passed)) = counted.get(&(link.peer.peer, is_ipv4)) else { continue };
            let passed = link.trust.count(*taken, *passed);
            // Without a way they pass into the TUN.
            self.links.counters.forwarded += if link.is_usable { passed } else { 0 };
            let (true, true, Ok(neighbour)) = (link.is_usable, link.trust.is_held_up(), &link.neighbour) else { continue };
            let (peer, device) = (link.peer.clone(), neighbour.device);
            self.links.counters.held_up += 1;
            // Perhaps what can be read says which rule it is; then it is read until it is gone.
            let read = self.host.capture().check_way(&peer, device);
            let link = &mut self.links.links[index];
            let wait = link.trust.leave_alone();
            let (reason, wait) = match read {
                Err(reason) => (reason, limits::LINK_FIREWALL_INTERVAL),
                Ok(()) => (NotNeighbour::HeldUp { again: wait.as_secs() }, wait),
            };
            log::warn!("link: next_hop={} {reason}", peer.next_hop);
            link.way = Some((Err(reason), now + wait));
            self.stop_using(index);
        }
    }

    /// The set of neighbours is empty: it was made anew.
    pub(super) fn forget_neighbours(&mut self, now: Instant) {
        self.links.installed.clear();
        self.links.clients.clear();
        self.links.due = self.links.due.map(|_| now);
    }

    /// An operator who wants a link is told once that there is none; a peer that is not up yet is no reason.
    fn complain_of_link(&mut self, index: usize, now: Instant) {
        let link = &mut self.links.links[index];
        let has_waited = now.saturating_duration_since(link.began) >= limits::PEER_SILENCE_MAX;
        if link.is_usable || !link.is_wanted || link.complained || !has_waited {
            return;
        }
        link.complained = true;
        let name = self.policy.nodes.get(usize::from(link.peer.peer.0)).map_or("", |node| node.name.as_str());
        log::warn!(
            "link: peer={name} next_hop={} cannot be reached without the overlay, which is used instead: {}; see `baton peers`",
            link.peer.next_hop,
            link.reason()
        );
    }

    fn count_link_failure(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            let level = if self.links.counters.failures == 0 { log::Level::Warn } else { log::Level::Debug };
            log::log!(level, "link: the kernel did not take a change: {error}; see `link_errors_total`");
            self.links.counters.failures += 1;
        }
    }

    /// The kernel shall not forward this connection any more; told at the end of the wake.
    pub(super) fn unlearn_later(&mut self, peer: NodeId, flow: FlowKey) {
        self.links.forget.push((peer, flow));
    }

    /// What was gathered.
    pub(super) fn unlearn(&mut self) {
        if self.links.forget.is_empty() {
            return;
        }
        let flows = std::mem::take(&mut self.links.forget);
        self.links.counters.unlearned += flows.len() as u64;
        let result = self.host.capture().unlearn(&flows);
        self.count_link_failure(result);
    }

    /// Other services are in force. Which peers may be on a link is fixed at the start.
    pub(super) fn review_links(&mut self) {
        let wanted = link_peers(&self.policy);
        let known: Vec<LinkPeer> = self.links.links.iter().map(|link| link.peer.clone()).collect();
        for index in 0..self.links.links.len() {
            let link = &mut self.links.links[index];
            let now_wanted = wanted.iter().find(|peer| peer.peer == link.peer.peer && peer.next_hop == link.peer.next_hop);
            link.is_allowed = now_wanted.is_some_and(|peer| peer.sends.is_some()) && link.peer.sends.is_some();
            if !link.is_allowed {
                // Its other end may not take packets from it any more.
                self.stop_using(index);
            }
        }
        let is_new = |peer: &LinkPeer| {
            let known = known.iter().find(|known| known.peer == peer.peer && known.next_hop == peer.next_hop);
            known.is_none_or(|known| {
                (known.sends.is_none() && peer.sends.is_some()) || peer.received.iter().any(|it| !known.received.contains(it))
            })
        };
        if wanted.iter().any(is_new) {
            log::warn!(
                "reload: which front-ends' packets may go over links changes with the next start; until then connections of \
                 new ones use the overlay"
            );
        }
    }
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)),
        6 => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?)),
        _ => None,
    }
}
