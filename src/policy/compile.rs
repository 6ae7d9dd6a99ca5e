//! What a cluster file means for one of its nodes.

use super::file::ClusterFile;
use super::hash::PolicyHash;
use super::{Limits, Node, Service, alias};
use crate::flow::{Endpoint, NodeId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

/// A loaded cluster file, compiled for one node.
#[derive(Debug)]
pub struct Policy {
    /// Cluster name.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// All nodes, index = NodeId, sorted by name.
    pub nodes: Vec<Node>,
    /// All services, sorted by name.
    pub services: Vec<Service>,
    /// UDP and TCP port nodes talk on.
    pub overlay_port: u16,
    /// Alias prefixes, at most one per family.
    pub aliases: Vec<IpNet>,
    /// Limits of the cluster file.
    pub limits: Limits,
    /// What the file means, to compare with other nodes.
    pub hash: PolicyHash,
    /// Pairs of nodes of which the first hands connections to the second, if the rules say so: sorted.
    handoffs: Vec<(NodeId, NodeId)>,
    /// The keys come from the operator, not from packets, so a fixed hash is good enough.
    frontends: HashMap<Endpoint, Frontend, FixedState>,
}

/// What there is to know about a front-end address.
#[derive(Clone, Copy, Debug)]
struct Frontend {
    /// Index into the services.
    service: usize,
    /// Number among the front-end addresses of its family.
    number: usize,
    /// Several nodes have it.
    is_shared: bool,
}

/// `--node` names no node of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no node `{name}` in cluster {cluster}; its nodes are {}", .nodes.join(", "))]
pub struct UnknownNode {
    /// What was asked for.
    pub name: String,
    /// The cluster.
    pub cluster: String,
    /// What there is.
    pub nodes: Vec<String>,
}

impl ClusterFile {
    /// What the file means for the node of this name: where a rule names that node, it says `local` there.
    pub fn compile(&self, node: &str) -> Result<Policy, UnknownNode> {
        let id = node_id(&self.nodes, node).ok_or_else(|| UnknownNode {
            name: node.to_owned(),
            cluster: self.cluster.clone(),
            nodes: self.nodes.iter().map(|node| node.name.clone()).collect(),
        })?;
        let services: Vec<Service> = self.services.iter().map(|service| seen_from(id, node, service)).collect();
        let owners = services
            .iter()
            .enumerate()
            .flat_map(|(index, service)| service.frontends.iter().map(move |(_, endpoint)| (*endpoint, index)));
        let owners: HashMap<Endpoint, usize, FixedState> = owners.collect();
        let numbered = alias::numbered(owners.keys().copied());
        let frontend = |(endpoint, number)| {
            let service = *owners.get(&endpoint)?;
            let is_it = |(_, other): &&(NodeId, Endpoint)| *other == endpoint;
            let is_shared = services.get(service)?.frontends.iter().filter(is_it).count() > 1;
            Some((endpoint, Frontend { service, number, is_shared }))
        };
        let frontends = numbered.into_iter().filter_map(frontend).collect();
        Ok(Policy {
            cluster: self.cluster.clone(),
            node: id,
            nodes: self.nodes.clone(),
            services,
            overlay_port: self.overlay_port,
            aliases: self.aliases.clone(),
            limits: self.limits.clone(),
            hash: self.hash(),
            handoffs: handoffs(&self.services),
            frontends,
        })
    }
}

impl Policy {
    /// The service of a front-end address, whoever's node it is.
    pub fn service_of(&self, frontend: Endpoint) -> Option<&Service> {
        self.services.get(self.frontends.get(&frontend)?.service)
    }

    /// This node's front-end addresses; sorted.
    pub fn own_frontends(&self) -> Vec<Endpoint> {
        let all = self.services.iter().flat_map(|service| &service.frontends);
        let mut own: Vec<Endpoint> = all.filter(|(owner, _)| *owner == self.node).map(|(_, frontend)| *frontend).collect();
        own.sort_unstable();
        own
    }

    /// Those of them that other nodes have, too.
    pub fn own_shared_frontends(&self) -> Vec<Endpoint> {
        self.own_frontends().into_iter().filter(|frontend| self.is_shared_frontend(*frontend)).collect()
    }

    /// Whether this is a front-end address of this node.
    pub fn is_own_frontend(&self, endpoint: Endpoint) -> bool {
        self.service_of(endpoint).is_some_and(|service| service.frontends.binary_search(&(self.node, endpoint)).is_ok())
    }

    /// Whether several nodes have this front-end address, so that a connection's packets may arrive at any of them.
    pub fn is_shared_frontend(&self, endpoint: Endpoint) -> bool {
        self.frontends.get(&endpoint).is_some_and(|frontend| frontend.is_shared)
    }

    /// The peer that may send packets for this front-end address of its own over a link, as they are: this node may serve
    /// them. Of an address that several nodes have a packet would not tell whether it was forwarded.
    pub fn linked_from(&self, endpoint: Endpoint) -> Option<NodeId> {
        let service = self.service_of(endpoint).filter(|service| service.forward.may_use_link())?;
        service.server_port(self.node)?;
        self.owner_alone(service, endpoint).filter(|owner| *owner != self.node)
    }

    /// Whether packets to this front-end address of the node's own may be sent on as they are.
    pub fn may_use_link(&self, endpoint: Endpoint) -> bool {
        self.service_of(endpoint)
            .filter(|service| service.forward.may_use_link())
            .and_then(|service| self.owner_alone(service, endpoint))
            .is_some_and(|owner| owner == self.node)
    }

    /// Why the packets of a connection that is handed off use the overlay even where the nodes are neighbours; None if they do
    /// not.
    pub fn overlay_because(&self, frontend: Endpoint, client: Option<IpAddr>) -> Option<&'static str> {
        let service = self.service_of(frontend)?;
        if !service.forward.may_use_link() {
            return Some("the service says so");
        }
        if self.is_shared_frontend(frontend) {
            return Some("several nodes have this address");
        }
        client.is_some_and(|client| self.is_of_a_node(client)).then_some("the client is one of the nodes")
    }

    /// Whether this is an address of a node, or one of its front-ends.
    pub fn is_of_a_node(&self, address: IpAddr) -> bool {
        let mut frontends = self.services.iter().flat_map(|service| &service.frontends);
        self.nodes.iter().any(|node| node.address == address) || frontends.any(|(_, end)| end.address == address)
    }

    fn owner_alone(&self, service: &Service, endpoint: Endpoint) -> Option<NodeId> {
        let (owner, _) = service.frontends.iter().find(|(_, frontend)| *frontend == endpoint)?;
        (!self.is_shared_frontend(endpoint)).then_some(*owner)
    }

    /// The service of this name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        node_id(&self.nodes, name)
    }

    /// The aliases of a front-end address on every node: `limits::ALIASES_PER_FRONTEND` addresses of the family's prefix,
    /// those of two front-end addresses never overlap. Empty for an address that is no front-end's.
    pub fn aliases_of(&self, frontend: Endpoint) -> Vec<IpAddr> {
        let number = self.frontends.get(&frontend).map(|frontend| frontend.number);
        let prefix = alias::prefix_for(frontend.address, &self.aliases);
        number.zip(prefix).map(|(number, prefix)| alias::aliases(prefix, number)).unwrap_or_default()
    }

    /// Whether any rule lets connections that arrive at `from` be handed to `to`.
    pub fn hands_off(&self, from: NodeId, to: NodeId) -> bool {
        self.handoffs.binary_search(&(from, to)).is_ok()
    }

    /// Whether the address lies in an alias prefix.
    pub fn is_alias(&self, address: IpAddr) -> bool {
        self.aliases.iter().any(|prefix| prefix.contains(&address))
    }
}

fn node_id(nodes: &[Node], name: &str) -> Option<NodeId> {
    let index = nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok()?;
    u16::try_from(index).ok().map(NodeId)
}

/// Which node may hand connections to which.
fn handoffs(services: &[Service]) -> Vec<(NodeId, NodeId)> {
    let pairs = services.iter().flat_map(|service| {
        let members = service.choices().flat_map(|choice| choice.members());
        let targets: BTreeSet<NodeId> = members.filter_map(|member| member.target.node()).collect();
        service.frontends.iter().flat_map(move |(from, _)| targets.clone().into_iter().map(move |to| (*from, to)))
    });
    let pairs: BTreeSet<_> = pairs.filter(|(from, to)| from != to).collect();
    pairs.into_iter().collect()
}

/// The service with the node's own name replaced by `Local`, and nobody tried twice.
fn seen_from(node: NodeId, name: &str, service: &Service) -> Service {
    let mut service = service.clone();
    for rule in service.rules.iter_mut().chain([&mut service.default]) {
        rule.choice = Rc::new(rule.choice.seen_from(node, name));
    }
    service
}

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::super::testing::{SHOP, endpoint, file, shop};
    use super::*;
    use crate::limits::ALIASES_PER_FRONTEND;
    use std::collections::HashSet;

    #[test]
    fn an_unknown_node_is_told_the_names_there_are() {
        let error = file(SHOP).compile("d").unwrap_err();
        assert_eq!(error.to_string(), "there is no node `d` in cluster shop; its nodes are a, b, c");
    }

    #[test]
    fn nodes_are_numbered_by_name() {
        let policy = shop("c");
        assert_eq!(policy.node, NodeId(2));
        assert_eq!(policy.node_named("a"), Some(NodeId(0)));
        assert_eq!(policy.node_named("z"), None);
        assert_eq!(policy.nodes[1].name, "b");
    }

    #[test]
    fn a_service_is_found_by_any_nodes_front_end_address() {
        let policy = shop("a");
        assert_eq!(policy.service_of(endpoint("10.77.0.2:80")).map(|service| &*service.name), Some("web"));
        assert!(policy.service_of(endpoint("10.77.0.2:81")).is_none());
        assert!(policy.service_of(endpoint("10.77.0.3:80")).is_none());
        assert!(policy.service_named("web").is_some());
        assert!(policy.service_named("shop").is_none());
    }

    #[test]
    fn packets_may_go_over_a_link_where_the_service_says_so_and_one_node_has_the_address() {
        let (of_a, of_b) = (endpoint("10.77.0.1:80"), endpoint("10.77.0.2:80"));
        let policy = |node: &str, changes: &[(&str, &str)]| {
            let change = |text: String, (from, to): &(&str, &str)| {
                assert!(text.contains(from), "{from}");
                text.replace(from, to)
            };
            file(&changes.iter().fold(SHOP.to_owned(), change)).compile(node).unwrap()
        };
        let overlay = policy("a", &[]);
        assert!(!overlay.may_use_link(of_a) && overlay.linked_from(of_b).is_none());
        assert_eq!(overlay.overlay_because(of_a, None), Some("the service says so"));
        for word in ["link", "auto"] {
            let says = format!("inspect_timeout: 5s\n    forward: {word}");
            let linked = policy("a", &[("inspect_timeout: 5s", &says)]);
            assert!(linked.may_use_link(of_a) && !linked.may_use_link(of_b), "its own");
            assert_eq!((linked.linked_from(of_b), linked.linked_from(of_a)), (Some(NodeId(1)), None), "a peer's");
            assert_eq!(linked.overlay_because(of_a, None), None);
            assert_eq!(linked.overlay_because(of_a, Some([192, 0, 2, 1].into())), None);
            for node in [[10, 77, 0, 1], [10, 77, 0, 2], [10, 77, 0, 3]] {
                assert!(linked.is_of_a_node(node.into()));
                assert_eq!(linked.overlay_because(of_a, Some(node.into())), Some("the client is one of the nodes"));
            }
            assert!(!linked.is_of_a_node([10, 77, 0, 9].into()));
            assert_eq!(linked.overlay_because(endpoint("10.77.0.9:80"), None), None, "of no service");
        }
    }

    #[test]
    fn the_nodes_own_name_means_local_and_nobody_is_tried_twice() {
        let targets = |node: &str, rule: usize| shop(node).services[0].rules[rule].choice.targets();
        assert_eq!(targets("a", 1), [Target::Node(NodeId(1)), Target::Local]);
        assert_eq!(targets("b", 1), [Target::Local]);
        assert_eq!(targets("b", 2), [Target::Node(NodeId(2)), Target::Local]);
        assert_eq!(targets("c", 2), [Target::Local, Target::Node(NodeId(1))]);
        assert_eq!(targets("a", 3), [Target::Local]);
        assert_eq!(targets("b", 3), [Target::Node(NodeId(0))]);
    }

    #[test]
    fn a_node_hands_connections_to_those_that_rules_of_its_services_name() {
        let policy = shop("b");
        let [a, b, c] = [NodeId(0), NodeId(1), NodeId(2)];
        assert!(policy.hands_off(a, b) && policy.hands_off(b, a) && policy.hands_off(b, c));
        assert!(!policy.hands_off(a, a) && !policy.hands_off(c, a), "c has no front-end address");
    }

    #[test]
    fn aliases_are_the_same_on_every_node_and_nobody_elses() {
        let frontends = [endpoint("10.77.0.1:80"), endpoint("10.77.0.2:80")];
        let mut seen = HashSet::new();
        for frontend in frontends {
            let aliases = shop("a").aliases_of(frontend);
            assert_eq!(aliases, shop("c").aliases_of(frontend));
            assert_eq!(aliases.len(), ALIASES_PER_FRONTEND);
            assert!(aliases.iter().all(|alias| shop("a").is_alias(*alias) && seen.insert(*alias)));
        }
        assert_eq!(shop("a").aliases_of(frontends[0])[0].to_string(), "198.18.0.1");
        assert!(shop("a").aliases_of(endpoint("10.77.0.3:80")).is_empty());
        assert!(!shop("a").is_alias(endpoint("10.77.0.1:80").address));
    }
}
