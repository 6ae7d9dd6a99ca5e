//! The parts of the file that are about the cluster as a whole: name, nodes, overlay, limits.

use super::reader::{Field, unglued};
use super::report::Problems;
use super::rule::LOCAL;
use super::yaml::Place;
use super::{Limits, Node};
use crate::flow::NodeId;
use crate::limits;
use crate::limits::cluster_file as bounds;
use base64::Engine as _;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// The names of all nodes, sorted: what the rest of the file refers to.
pub(super) struct NodeNames<'a> {
    sorted: Vec<&'a str>,
}

impl<'a> NodeNames<'a> {
    fn new(entries: &[Field<'a>]) -> Self {
        let mut sorted: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The node of this name, which stands at `place`. A file whose nodes could not be read has no unknown ones.
    pub(super) fn resolve(&self, name: &str, place: &Place, problems: &mut Problems) -> Option<NodeId> {
        let found = self.id(name);
        if found.is_none() && !self.sorted.is_empty() {
            let remedy = unglued(name).unwrap_or_else(|| format!("the nodes are {}", self.listed()));
            problems.error(place, format!("there is no node `{name}`"), remedy);
        }
        found
    }

    /// All of them, for a message.
    pub(super) fn listed(&self) -> String {
        self.sorted.join(", ")
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.id(name).is_some()
    }

    /// What a node is called.
    pub(super) fn name(&self, id: NodeId) -> &'a str {
        self.sorted.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    fn id(&self, name: &str) -> Option<NodeId> {
        self.sorted.binary_search(&name).ok().and_then(|index| u16::try_from(index).ok()).map(NodeId)
    }
}

/// Whether a name of a cluster, node or service is well-formed; says so when it is not.
pub(super) fn check_name(name: &str, place: &Place, problems: &mut Problems) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let most = bounds::NAME_BYTES_MAX;
    let is_good = (1..=most).contains(&name.len()) && name.bytes().all(is_allowed);
    if !is_good {
        let remedy = format!("use 1 to {most} of the characters a-z, 0-9, `-`, `_` and `.`");
        problems.error(place, format!("\"{name}\" cannot be a name"), remedy);
    }
    is_good
}

/// Reads `cluster`.
pub(super) fn cluster_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let name = field.text(problems)?;
    check_name(name, &field.place, problems).then(|| name.to_owned())
}

/// The nodes that could be read, each with the place of its address; and the names of all.
pub(super) fn nodes<'a>(field: &Field<'a>, problems: &mut Problems) -> (NodeNames<'a>, Vec<(Node, Place)>) {
    let mut entries = field.entries(problems).unwrap_or_default();
    if entries.len() > bounds::NODES_MAX {
        let message = format!("a cluster can have at most {} nodes, here are {}", bounds::NODES_MAX, entries.len());
        problems.error(&field.place.key(), message, "split the cluster");
        entries.truncate(bounds::NODES_MAX);
    }
    let mut nodes = Vec::with_capacity(entries.len());
    let mut addresses: HashMap<IpAddr, &str> = HashMap::new();
    let mut keys: HashMap<[u8; 32], &str> = HashMap::new();
    for entry in &entries {
        check_name(entry.name, &entry.place.key(), problems);
        if entry.name == LOCAL {
            let message = format!("no node can be named `{LOCAL}`: in `send_to` it is the node a connection arrived at");
            problems.error(&entry.place.key(), message, "choose another name");
        }
        let entry = entry.clone().like(format!("`{}: {{ address: 10.77.0.1, public_key: \"...\" }}`", entry.name));
        let Some(fields) = entry.mapping(&["address", "public_key"], problems) else {
            continue;
        };
        let address_field = fields.required("address", problems);
        let address = address_field.as_ref().and_then(|field| node_address(field, problems));
        if let (Some(address), Some(field)) = (address, &address_field)
            && let Some(other) = addresses.insert(address, entry.name)
        {
            let message = format!("node `{other}` has the address {address} already");
            problems.error(&field.place, message, "give every node an address of its own");
        }
        let key_field = fields.required("public_key", problems);
        let public_key = key_field.as_ref().and_then(|field| public_key(field, problems));
        if let (Some(public_key), Some(field)) = (public_key, &key_field)
            && let Some(other) = keys.insert(public_key, entry.name)
        {
            let message = format!("node `{other}` has the same public key");
            problems.error(&field.place, message, "run `baton keygen` on each node, and copy each node's own key");
        }
        if let (Some(address), Some(public_key), Some(field)) = (address, public_key, address_field) {
            nodes.push((Node { name: entry.name.to_owned(), address, public_key }, field.place));
        }
    }
    nodes.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    (NodeNames::new(&entries), nodes)
}

fn node_address(field: &Field<'_>, problems: &mut Problems) -> Option<IpAddr> {
    let remedy = "write an IPv4 or IPv6 address (names are not looked up) without port, such as `10.77.0.1` or `\"fd77::1\"`";
    let text = field.text_or(|| remedy.to_owned(), problems)?;
    let Ok(address) = text.parse::<IpAddr>() else {
        problems.error(&field.place, format!("\"{text}\" is not an address"), remedy);
        return None;
    };
    check_unicast(address, field, problems).then_some(address)
}

/// Whether packets can be sent to an address; warns of one that only its own host can reach.
pub(super) fn check_unicast(address: IpAddr, field: &Field<'_>, problems: &mut Problems) -> bool {
    let unusable = match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6 clothes"),
        _ => None,
    };
    if let Some(what) = unusable {
        let remedy = match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => format!("write `{}`", address.to_canonical()),
            _ => "write the address that this server has (`ip address` shows it)".to_owned(),
        };
        problems.error(&field.place, format!("{address} is {what}"), remedy);
        return false;
    }
    let only_here = match address {
        _ if address.is_loopback() => Some("a loopback address: other hosts cannot reach it"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address: it needs an interface to mean anything"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address: routers do not forward it"),
        _ => None,
    };
    if let Some(what) = only_here {
        problems.warning(&field.place, format!("{address} is {what}"), "write the address others know this server by");
    }
    true
}

fn public_key(field: &Field<'_>, problems: &mut Problems) -> Option<[u8; 32]> {
    let remedy = "write in quotes the line that `baton keygen` printed on this node (`baton keygen --out FILE` for a new key)";
    let text = field.text_or(|| remedy.to_owned(), problems)?;
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) else {
        problems.error(&field.place, "the public key is not valid base64", remedy);
        return None;
    };
    let key = <[u8; 32]>::try_from(bytes.as_slice()).ok();
    if key.is_none() {
        let message = format!("a public key has 32 bytes, here are {}", bytes.len());
        problems.error(&field.place, message, remedy);
    }
    key
}

/// The overlay, and the places of its alias prefixes.
pub(super) struct Overlay {
    pub(super) port: u16,
    pub(super) aliases: Vec<(IpNet, Place)>,
    /// Whether there are no other ones, which could not be used.
    pub(super) all_aliases: bool,
}

/// Reads `overlay`.
pub(super) fn overlay(field: &Field<'_>, problems: &mut Problems) -> Option<Overlay> {
    let fields = field.mapping(&["port", "aliases"], problems)?;
    let port = fields.required("port", problems).and_then(|field| field.port(problems));
    let aliases = fields.required("aliases", problems).and_then(|field| field.one_or_more(problems));
    let mut prefixes: Vec<(IpNet, Place)> = Vec::new();
    let items = aliases?;
    for item in &items {
        let Some(prefix) = network(item, problems) else {
            continue;
        };
        let same_family = |other: &IpNet| matches!((prefix, other), (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)));
        let address = prefix.network();
        if prefixes.iter().any(|(other, _)| same_family(other)) {
            let message = "there can be one alias prefix of each family (IPv4, IPv6)";
            problems.error(&item.place, message, "keep the larger one");
        } else if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            let remedy = "choose addresses that nothing else uses, such as 198.18.0.0/16 or fd00:ba70::/64";
            problems.error(&item.place, format!("{prefix} cannot be used for aliases"), remedy);
        } else {
            prefixes.push((prefix, item.place.clone()));
        }
    }
    prefixes.sort_by_key(|(prefix, _)| *prefix);
    Some(Overlay { port: port?, all_aliases: prefixes.len() == items.len(), aliases: prefixes })
}

/// Reads `address/length`, whose bits behind the length must be zero.
pub(super) fn network(item: &Field<'_>, problems: &mut Problems) -> Option<IpNet> {
    let remedy = "write an address and a prefix length, such as `10.0.0.0/8` or `\"fd00::/8\"`";
    let text = item.text_or(|| remedy.to_owned(), problems)?;
    let Ok(network) = text.parse::<IpNet>() else {
        problems.error(&item.place, format!("\"{text}\" is not a network"), remedy);
        return None;
    };
    if network != network.trunc() {
        let message = format!("{network} has address bits behind its prefix length");
        problems.error(&item.place, message, format!("did you mean `{}`?", network.trunc()));
        return None;
    }
    Some(network)
}

/// Reads `limits`; what is not there has its default.
pub(super) fn limits(field: Option<&Field<'_>>, problems: &mut Problems) -> Limits {
    let mut limits = Limits {
        connections: limits::CONNECTIONS_DEFAULT,
        first_flight_bytes: limits::FIRST_FLIGHT_BYTES_DEFAULT,
        linger: limits::LINGER,
        drain_timeout: bounds::DRAIN_TIMEOUT_DEFAULT,
    };
    let known = ["connections", "first_flight_bytes", "linger", "drain_timeout"];
    let Some(fields) = field.and_then(|field| field.mapping(&known, problems)) else {
        return limits;
    };
    let as_count = |number: u64| usize::try_from(number).ok();
    if let Some(field) = fields.optional("connections") {
        let read = field.integer(bounds::CONNECTIONS, problems).and_then(as_count);
        limits.connections = read.unwrap_or(limits.connections);
    }
    if let Some(field) = fields.optional("first_flight_bytes") {
        let read = field.bytes(bounds::FIRST_FLIGHT_BYTES, problems).and_then(as_count);
        limits.first_flight_bytes = read.unwrap_or(limits.first_flight_bytes);
    }
    if let Some(field) = fields.optional("linger") {
        limits.linger = field.duration(bounds::LINGER, problems).unwrap_or(limits.linger);
    }
    if let Some(field) = fields.optional("drain_timeout") {
        limits.drain_timeout = field.duration(bounds::DRAIN_TIMEOUT, problems).unwrap_or(limits.drain_timeout);
    }
    limits
}
