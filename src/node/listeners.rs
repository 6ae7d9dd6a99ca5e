//! The applications behind this node's front-ends: whether they listen, where, and how long their backlogs are.

use super::Node;
use crate::flow::{Endpoint, NodeId};
use crate::policy::{Policy, Service};
use std::net::IpAddr;
use std::time::Instant;

/// What must listen on this host, and what the kernel last said about it.
#[derive(Debug)]
pub struct Listeners {
    frontends: Vec<Frontend>,
    applications: Vec<Application>,
    due: Instant,
}

/// A front-end address of this node: its listener answers clients directly.
#[derive(Debug)]
struct Frontend {
    at: Endpoint,
    backlog: Option<u32>,
    /// Somebody has been told that nothing listens.
    warned: bool,
}

/// A service that this node serves: its listener takes handed-off connections, which arrive at aliases.
#[derive(Debug)]
struct Application {
    service: String,
    /// Any of the aliases, one for each family.
    at: Endpoint,
    /// Somebody has been told that nothing listens on the wildcard address.
    warned: bool,
}

impl Listeners {
    /// Nothing asked yet.
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let frontend = |at| Frontend { at, backlog: None, warned: false };
        let frontends = own_frontends(policy).into_iter().map(frontend).collect();
        Self { frontends, applications: applications(policy), due: now }
    }

    /// When to ask again.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The backlog behind a front-end address, as last asked.
    pub fn backlog_of(&self, frontend: Endpoint) -> Option<u32> {
        self.frontends.iter().find(|listener| listener.at == frontend)?.backlog
    }

    /// Whether an application listens where handed-off connections of the service arrive, as last asked.
    pub fn takes_handoffs(&self, service: &str) -> bool {
        self.applications.iter().filter(|application| application.service == service).all(|application| !application.warned)
    }
}

impl Application {
    /// A change is told once.
    fn heard(&mut self, listens: bool) {
        let Self { service, at, warned } = self;
        let wildcard = if at.address.is_ipv4() { "0.0.0.0" } else { "[::]" };
        let port = at.port;
        match (listens, std::mem::replace(warned, !listens)) {
            (false, false) => log::warn!(
                "service={service}: no application listens on {wildcard}:{port}, so handoffs to this node are refused; \
                 start it, and let it listen on the wildcard address: handed-off connections arrive at alias addresses"
            ),
            (true, true) => log::info!("service={service}: an application listens on {wildcard}:{port} now"),
            (true, false) | (false, true) => {}
        }
    }
}

/// The front-end addresses of the policy's node, each once.
pub fn own_frontends(policy: &Policy) -> Vec<Endpoint> {
    let all = policy.services.iter().flat_map(|service| &service.frontends);
    let mut own: Vec<Endpoint> = all.filter(|(owner, _)| *owner == policy.node).map(|(_, frontend)| *frontend).collect();
    own.sort();
    own.dedup();
    own
}

impl Node {
    /// Asks the kernel about all listeners; tells the engine their backlogs, and people what is missing.
    pub(super) fn ask_listeners(&mut self, now: Instant) {
        if self.listeners.due > now {
            return;
        }
        self.listeners.due = now + crate::limits::LISTENERS_INTERVAL;
        for listener in &mut self.listeners.frontends {
            let at = listener.at;
            match self.host.sockets.backlog(at) {
                Ok(backlog) => listener.backlog = backlog,
                Err(error) => {
                    log::debug!("sock_diag: cannot ask for the backlog of {at}: {error}");
                    continue;
                }
            }
            let warned_before = std::mem::replace(&mut listener.warned, listener.backlog.is_none());
            match listener.backlog {
                Some(backlog) => {
                    if warned_before {
                        log::info!("frontend={at}: an application listens now");
                    }
                    self.engine.handle_backlog(at, backlog);
                }
                None if !warned_before => {
                    log::warn!("frontend={at}: nothing listens there, clients are refused until something does");
                }
                None => {}
            }
        }
        for application in &mut self.listeners.applications {
            match self.host.sockets.listens_on_wildcard(application.at) {
                Ok(listens) => application.heard(listens),
                Err(error) => log::debug!("sock_diag: cannot ask who listens at {}: {error}", application.at),
            }
        }
    }
}

fn applications(policy: &Policy) -> Vec<Application> {
    let served = policy.services.iter().filter_map(|service| Some((service, service.server_port(policy.node)?)));
    let application = |service: &Service, port, alias| {
        let service = service.name.clone();
        Application { service, at: Endpoint::new(alias, port), warned: false }
    };
    served
        .flat_map(|(service, port)| {
            one_alias_per_family(policy, service).into_iter().map(move |alias| application(service, port, alias))
        })
        .collect()
}

fn one_alias_per_family(policy: &Policy, service: &Service) -> Vec<IpAddr> {
    let first = |(_, frontend): &(NodeId, Endpoint)| policy.aliases_of(*frontend).first().copied();
    let mut aliases: Vec<IpAddr> = service.frontends.iter().filter_map(first).collect();
    aliases.sort_by_key(IpAddr::is_ipv6);
    aliases.dedup_by_key(|alias| alias.is_ipv6());
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock::clock;
    use crate::policy::ClusterFile;

    const TEXT: &str = "
cluster: test
overlay: { port: 7400, aliases: [198.18.0.0/16, 'fd00:ba70::/64'] }
nodes:
  a: { address: 10.77.0.1, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 10.77.0.2, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  web:
    frontends: { a: ['10.77.0.1:80', '[fd77::1]:80'], b: ['10.77.0.2:80'] }
    servers: { a: { port: 8080 }, b: { port: 80 } }
";

    #[test]
    fn a_node_asks_for_its_own_front_ends_and_once_a_family_for_each_application() {
        let file = ClusterFile::parse("test", TEXT).unwrap_or_else(|report| panic!("{report}"));
        let mut listeners = Listeners::new(&file.compile("a").unwrap(), clock());
        let frontends: Vec<String> = listeners.frontends.iter().map(|listener| listener.at.to_string()).collect();
        assert_eq!(frontends, ["10.77.0.1:80", "[fd77::1]:80"]);
        let families: Vec<(bool, u16)> =
            listeners.applications.iter().map(|application| (application.at.address.is_ipv6(), application.at.port)).collect();
        assert_eq!(families, [(false, 8080), (true, 8080)]);
        let frontend = listeners.frontends[0].at;
        assert_eq!(listeners.backlog_of(frontend), None);

        assert!(listeners.takes_handoffs("web"));
        listeners.applications[1].heard(false);
        assert!(!listeners.takes_handoffs("web"));
        listeners.applications[1].heard(true);
        assert!(listeners.takes_handoffs("web"));
    }
}
