//! What must hold between the parts of a file.

use super::alias;
use super::cluster::Overlay;
use super::report::Problems;
use super::service::ReadService;
use super::yaml::Place;
use super::{Forward, Limits, Node, Service, Target};
use crate::flow::{Endpoint, NodeId};
use crate::limits::ALIASES_PER_FRONTEND;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// No two services have the same front-end address; and no two nodes, unless the SYN decides: only then can a connection
/// whose packets arrive at several nodes be told from others.
pub(super) fn frontends_are_unique(services: &[ReadService], problems: &mut Problems) {
    let mut owners: HashMap<Endpoint, (&str, Vec<NodeId>)> = HashMap::new();
    for read in services {
        for (node, endpoint, place) in &read.frontend_places {
            let Some((owner, nodes)) = owners.get_mut(endpoint) else {
                owners.insert(*endpoint, (&read.service.name, vec![*node]));
                continue;
            };
            let is_shared = *owner == read.service.name && read.service.decides_on_syn() && !nodes.contains(node);
            nodes.push(*node);
            if is_shared {
                continue;
            }
            let message = format!("the front-end address {endpoint} is already one of service `{owner}`");
            let remedy = if *owner == read.service.name && !read.service.decides_on_syn() {
                "an address belongs to one service and one node; remove one of them (several nodes can share one only with \
                 `inspect: none`)"
            } else {
                "an address belongs to one service and one node; remove one of them"
            };
            problems.error(place, message, remedy);
        }
    }
}

/// Every family of front-end addresses has an alias prefix of its own, large enough and of otherwise unused addresses.
pub(super) fn aliases_suffice(
    overlay: &Overlay,
    overlay_place: &Place,
    services: &[ReadService],
    nodes: &[(Node, Place)],
    problems: &mut Problems,
) {
    let aliases = &overlay.aliases;
    let endpoints = || services.iter().flat_map(|read| read.service.frontends.iter().map(|frontend| frontend.1));
    let numbered = alias::numbered(endpoints());
    for (is_ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
        let count = numbered.iter().filter(|(endpoint, _)| endpoint.address.is_ipv4() == is_ipv4).count();
        let prefix = aliases.iter().find(|(prefix, _)| prefix.network().is_ipv4() == is_ipv4);
        match prefix {
            None if count > 0 && overlay.all_aliases => {
                let example = if is_ipv4 { "198.18.0.0/16" } else { "fd00:ba70::/64" };
                let message = format!("there are {family} front-end addresses, but no alias prefix of that family");
                problems.error(overlay_place, message, format!("add a prefix that nothing else uses, such as {example}"));
            }
            Some((prefix, place)) if alias::capacity(*prefix) < count => {
                let room = alias::capacity(*prefix);
                let message = format!("{prefix} has aliases for only {room} of {count} {family} front-end addresses");
                let length = alias::longest_prefix_len(is_ipv4, count);
                let remedy = format!("use a prefix of length {length} or less: an address has {ALIASES_PER_FRONTEND} aliases");
                problems.error(place, message, remedy);
            }
            _ => {}
        }
    }
    let used = nodes.iter().map(|(node, _)| (node.address, format!("node `{}`", node.name)));
    let used = used.chain(endpoints().map(|endpoint| (endpoint.address, format!("front-end {endpoint}"))));
    let mut told: Vec<(&IpNet, IpAddr)> = Vec::new();
    for (address, owner) in used {
        for (prefix, place) in aliases.iter().filter(|(prefix, _)| prefix.contains(&address)) {
            if told.contains(&(prefix, address)) {
                continue;
            }
            told.push((prefix, address));
            let message = format!("the alias prefix {prefix} contains {address} of {owner}");
            problems.error(place, message, "choose a prefix that nothing else uses");
        }
    }
}

/// Warns of nodes that take no part in any service.
pub(super) fn every_node_has_a_part(services: &[ReadService], nodes: &[(Node, Place)], problems: &mut Problems) {
    for (id, (node, place)) in numbered(nodes) {
        let has_a_part = services.iter().any(|read| {
            let Service { frontends, servers, .. } = &read.service;
            frontends.iter().any(|(owner, _)| *owner == id) || servers.iter().any(|(server, _)| *server == id)
        });
        if !has_a_part {
            let message = format!("node `{}` has no part in any service", node.name);
            let remedy = "add it to `frontends` or to `servers` of a service, or remove it";
            problems.warning(&place.container().key(), message, remedy);
        }
    }
}

/// Warns of servers that no connection can reach: no client connects to them, and no rule sends any there.
pub(super) fn every_server_is_sent_to(services: &[ReadService], nodes: &[(Node, Place)], problems: &mut Problems) {
    for read in services {
        let Service { name, frontends, servers, .. } = &read.service;
        let Some(place) = &read.servers_place else { continue };
        let targets = || read.service.choices().flat_map(|choice| choice.targets());
        for (id, (node, _)) in numbered(nodes) {
            let is_idle = servers.iter().any(|(server, _)| *server == id)
                && !frontends.iter().any(|(owner, _)| *owner == id)
                && !targets().any(|target| target == Target::Node(id));
            if is_idle {
                let message = format!(
                    "nothing reaches server `{}` of `{name}`: it has no front-end address, and no rule sends to it",
                    node.name
                );
                problems.warning(place, message, "send something to it, or remove it from `servers`");
            }
        }
    }
}

/// Warns where packets can never go over a link, whatever the network is like.
pub(super) fn links_are_possible(services: &[ReadService], nodes: &[(Node, Place)], problems: &mut Problems) {
    let all_frontends = || services.iter().flat_map(|read| read.service.frontends.iter().copied());
    let is_shared = |endpoint: Endpoint| all_frontends().filter(|(_, other)| *other == endpoint).count() > 1;
    for read in services {
        let Service { name, frontends, servers, forward, .. } = &read.service;
        let Some(place) = read.forward_place.as_ref().filter(|_| forward.may_use_link()) else { continue };
        let word = forward.word();
        if !frontends.is_empty() && frontends.iter().all(|(_, endpoint)| is_shared(*endpoint)) {
            let message = format!(
                "`forward: {word}` changes nothing for `{name}`: each of its front-end addresses is one of several nodes"
            );
            problems.warning(place, message, "connections to such addresses use the overlay; leave it out");
            continue;
        }
        if *forward != Forward::Link {
            continue;
        }
        for (is_ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let of_family = |endpoint: Endpoint| endpoint.address.is_ipv4() == is_ipv4;
            for (id, (node, _)) in numbered(nodes) {
                let is_sent_to = servers.iter().any(|(server, _)| *server == id)
                    && frontends.iter().any(|(owner, end)| *owner != id && of_family(*end) && !is_shared(*end));
                let has_address = node.address.is_ipv4() == is_ipv4
                    || all_frontends().any(|(owner, end)| owner == id && of_family(end) && !is_shared(end));
                if is_sent_to && !has_address {
                    let message = format!(
                        "`forward: link` of `{name}` has no way to node `{}` over {family}: no address of it is known",
                        node.name
                    );
                    let remedy = "give it a front-end address of that family; without one such connections use the overlay";
                    problems.warning(place, message, remedy);
                }
            }
        }
    }
}

/// The nodes are sorted by name, so that their places in the list are their numbers.
fn numbered(nodes: &[(Node, Place)]) -> impl Iterator<Item = (NodeId, &(Node, Place))> {
    nodes.iter().enumerate().filter_map(|(index, node)| Some((NodeId(u16::try_from(index).ok()?), node)))
}

/// One request as large as may be looked at can be held.
pub(super) fn limits_fit(limits: &Limits, place: &Place, services: &[ReadService], problems: &mut Problems) {
    let largest = services.iter().map(|read| read.service.inspect_bytes_max).max().unwrap_or(0);
    if limits.first_flight_bytes < largest {
        let message = "`first_flight_bytes` is less than the largest `inspect_bytes_max`";
        problems.error(place, message, "raise `limits.first_flight_bytes`: it holds the requests of all connections");
    }
}

/// The nodes' own port is not one that an application answers on.
pub(super) fn overlay_port_is_free(
    port: u16,
    place: &Place,
    services: &[ReadService],
    nodes: &[(Node, Place)],
    problems: &mut Problems,
) {
    for read in services {
        let Service { name, frontends, servers, .. } = &read.service;
        let at_node = |address: IpAddr| nodes.iter().any(|(node, _)| node.address == address);
        let is_frontend = frontends.iter().any(|(_, endpoint)| endpoint.port == port && at_node(endpoint.address));
        if is_frontend || servers.iter().any(|server| server.1 == port) {
            let message = format!("the overlay's port {port} is also a port of service `{name}`");
            let other = if port == 7400 { 7401 } else { 7400 };
            problems.error(place, message, format!("choose a port that nothing else uses, such as {other}"));
            return;
        }
    }
}
