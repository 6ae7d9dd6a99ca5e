//! What a cluster file means for one of its nodes.

use super::file::{ClusterFile, PolicyHash};
use super::{Limits, Node, Service, Target, alias};
use crate::flow::{Endpoint, NodeId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use std::net::IpAddr;

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
        let services: Vec<Service> = self
            .services
            .iter()
            .map(|service| seen_from(id, service))
            .collect();
        let owners = services.iter().enumerate().flat_map(|(index, service)| {
            service
                .frontends
                .iter()
                .map(move |(_, endpoint)| (*endpoint, index))
        });
        let owners: HashMap<Endpoint, usize, FixedState> = owners.collect();
        let numbered = alias::numbered(owners.keys().copied());
        let frontends = numbered
            .into_iter()
            .filter_map(|(endpoint, number)| {
                Some((
                    endpoint,
                    Frontend {
                        service: *owners.get(&endpoint)?,
                        number,
                    },
                ))
            })
            .collect();
        Ok(Policy {
            cluster: self.cluster.clone(),
            node: id,
            nodes: self.nodes.clone(),
            services,
            overlay_port: self.overlay_port,
            aliases: self.aliases.clone(),
            limits: self.limits.clone(),
            hash: self.hash(),
            frontends,
        })
    }
}

impl Policy {
    /// The service of a front-end address, whoever's node it is.
    pub fn service_of(&self, frontend: Endpoint) -> Option<&Service> {
        self.services.get(self.frontends.get(&frontend)?.service)
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
        let number = self
            .frontends
            .get(&frontend)
            .map(|frontend| frontend.number);
        let prefix = alias::prefix_for(frontend.address, &self.aliases);
        number
            .zip(prefix)
            .map(|(number, prefix)| alias::aliases(prefix, number))
            .unwrap_or_default()
    }

    /// Whether the address lies in an alias prefix.
    pub fn is_alias(&self, address: IpAddr) -> bool {
        self.aliases.iter().any(|prefix| prefix.contains(&address))
    }
}

fn node_id(nodes: &[Node], name: &str) -> Option<NodeId> {
    let index = nodes
        .binary_search_by(|node| node.name.as_str().cmp(name))
        .ok()?;
    u16::try_from(index).ok().map(NodeId)
}

/// The service with the node's own name replaced by `Local`, and nobody tried twice.
fn seen_from(node: NodeId, service: &Service) -> Service {
    let localised = |targets: &[Target]| {
        let mut seen: Vec<Target> = Vec::with_capacity(targets.len());
        for target in targets {
            let target = if *target == Target::Node(node) {
                Target::Local
            } else {
                *target
            };
            if !seen.contains(&target) {
                seen.push(target);
            }
        }
        seen
    };
    let mut service = service.clone();
    service.default = localised(&service.default);
    for rule in &mut service.rules {
        rule.targets = localised(&rule.targets);
    }
    service
}
