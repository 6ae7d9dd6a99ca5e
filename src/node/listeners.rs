//! The applications behind this node's front-ends: whether they listen, where, and how long their backlogs are.

use super::Node;
pub use super::listening::Complaint;
use super::listening::{not_at_aliases, not_at_frontend};
use crate::flow::{Endpoint, NodeId};
use crate::policy::{Policy, Service};
use crate::tun::sock_diag::SockDiag;
use std::collections::BTreeSet;
use std::io;
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
    service: String,
    at: Endpoint,
    backlog: Option<u32>,
    /// What people were told last.
    complaint: Option<Complaint>,
}

/// A service that this node serves: its listener takes handed-off connections, which arrive at aliases.
#[derive(Debug)]
struct Application {
    service: String,
    /// Any of the aliases, one for each family.
    at: Endpoint,
    /// What people were told last.
    complaint: Option<Complaint>,
}

impl Listeners {
    /// Nothing asked yet.
    pub fn new(policy: &Policy, now: Instant) -> Self {
        Self { frontends: frontends(policy), applications: applications(policy), due: now }
    }

    /// Other ones must listen. What was said about those that stay is not said again.
    pub fn replace(&mut self, policy: &Policy, now: Instant) {
        let before = std::mem::replace(self, Self::new(policy, now));
        for known in before.frontends {
            let same = |listener: &&mut Frontend| listener.at == known.at && listener.service == known.service;
            if let Some(listener) = self.frontends.iter_mut().find(same) {
                *listener = known;
            }
        }
        for known in before.applications {
            let same = |application: &&mut Application| application.at == known.at && application.service == known.service;
            if let Some(application) = self.applications.iter_mut().find(same) {
                *application = known;
            }
        }
    }

    /// When to ask again.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The backlog behind a front-end address, as last asked.
    pub fn backlog_of(&self, frontend: Endpoint) -> Option<u32> {
        self.frontends.iter().find(|listener| listener.at == frontend)?.backlog
    }

    /// Why clients are refused at a front-end address, as last asked.
    pub fn problem_at(&self, frontend: Endpoint) -> Option<String> {
        let listener = self.frontends.iter().find(|listener| listener.at == frontend)?;
        listener.complaint.as_ref().map(|complaint| complaint.what.clone())
    }

    /// Why handed-off connections of the service are refused, as last asked; of one family if both are.
    pub fn problem_of(&self, service: &str) -> Option<String> {
        let mut applications = self.applications.iter().filter(|application| application.service == service);
        applications.find_map(|application| application.complaint.as_ref()).map(|complaint| complaint.what.clone())
    }
}

impl Frontend {
    fn ask(&mut self, sockets: &mut SockDiag) -> io::Result<Option<Complaint>> {
        self.backlog = sockets.backlog(self.at)?;
        Ok(match self.backlog {
            Some(_) => None,
            None => Some(not_at_frontend(&self.service, self.at, &sockets.listeners_on(self.at.port)?)),
        })
    }
}

impl Application {
    fn ask(&self, sockets: &mut SockDiag) -> io::Result<Option<Complaint>> {
        Ok(match sockets.listens_on_wildcard(self.at)? {
            true => None,
            false => Some(not_at_aliases(&self.service, self.at, &sockets.listeners_on(self.at.port)?)),
        })
    }
}

/// Tells a change once.
fn tell(told: &mut Option<Complaint>, now: Option<Complaint>) {
    match (&told, &now) {
        (Some(before), None) => log::info!("{}: an application listens now", before.about),
        (before, Some(complaint)) if before.as_ref() != Some(complaint) => log::warn!("{complaint}"),
        _ => {}
    }
    *told = now;
}

/// All that is wrong with the listeners on this host, for a node that need not run.
pub fn complaints(policy: &Policy, sockets: &mut SockDiag) -> io::Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    for frontend in &mut frontends(policy) {
        complaints.extend(frontend.ask(sockets)?);
    }
    for application in applications(policy) {
        complaints.extend(application.ask(sockets)?);
    }
    Ok(complaints)
}

/// For each service this node serves one front-end address of another node, of each family.
pub fn answered_frontends(policy: &Policy) -> Vec<Endpoint> {
    let served = policy.services.iter().filter(|service| service.server_port(policy.node).is_some());
    served
        .flat_map(|service| {
            let others = || service.frontends.iter().filter(|(owner, _)| *owner != policy.node).map(|(_, frontend)| *frontend);
            [true, false].into_iter().filter_map(move |is_ipv4| others().find(|other| other.address.is_ipv4() == is_ipv4))
        })
        .collect()
}

/// The addresses of all front-ends of other nodes whose clients this node may answer, each once.
pub fn answered_addresses(policy: &Policy) -> Vec<IpAddr> {
    let served = policy.services.iter().filter(|service| service.server_port(policy.node).is_some());
    let frontends = served.flat_map(|service| &service.frontends).filter(|(owner, _)| *owner != policy.node);
    let addresses: BTreeSet<IpAddr> = frontends.map(|(_, frontend)| frontend.address).collect();
    addresses.into_iter().collect()
}

/// The ports of this node's applications that take handed-off connections, each once.
pub fn server_ports(policy: &Policy) -> Vec<u16> {
    let mut ports: Vec<u16> = policy.services.iter().filter_map(|service| service.server_port(policy.node)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl Node {
    /// Asks the kernel about all listeners; tells the engine their backlogs, and people what is missing.
    pub(super) fn ask_listeners(&mut self, now: Instant) {
        if self.listeners.due > now {
            return;
        }
        self.listeners.due = now + crate::limits::LISTENERS_INTERVAL;
        let sockets = &mut self.host.sockets;
        for listener in &mut self.listeners.frontends {
            let at = listener.at;
            match listener.ask(sockets) {
                Ok(complaint) => tell(&mut listener.complaint, complaint),
                Err(error) => log::debug!("sock_diag: cannot ask who listens at {at}: {error}"),
            }
            if let Some(backlog) = listener.backlog {
                self.engine.handle_backlog(at, backlog);
            }
        }
        for application in &mut self.listeners.applications {
            match application.ask(sockets) {
                Ok(complaint) => tell(&mut application.complaint, complaint),
                Err(error) => log::debug!("sock_diag: cannot ask who listens at {}: {error}", application.at),
            }
        }
        self.tell_health(now);
    }
}

fn frontends(policy: &Policy) -> Vec<Frontend> {
    let service_of = |at| policy.service_of(at).map_or_else(String::new, |service| service.name.clone());
    let frontend = |at| Frontend { service: service_of(at), at, backlog: None, complaint: None };
    policy.own_frontends().into_iter().map(frontend).collect()
}

fn applications(policy: &Policy) -> Vec<Application> {
    let served = policy.services.iter().filter_map(|service| Some((service, service.server_port(policy.node)?)));
    let application = |service: &Service, port, alias| {
        let service = service.name.clone();
        Application { service, at: Endpoint::new(alias, port), complaint: None }
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
  c: { address: 10.77.0.3, public_key: 5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE= }
services:
  web:
    frontends: { a: ['10.77.0.1:80', '[fd77::1]:80'], b: ['10.77.0.2:80'] }
    servers: { a: { port: 8080 }, b: { port: 80 }, c: { port: 8081 } }
";

    fn policy(node: &str) -> Policy {
        ClusterFile::parse("test", TEXT).unwrap_or_else(|report| panic!("{report}")).compile(node).unwrap()
    }

    #[test]
    fn a_node_asks_for_its_own_front_ends_and_once_a_family_for_each_application() {
        let mut listeners = Listeners::new(&policy("a"), clock());
        let frontends: Vec<String> = listeners.frontends.iter().map(|listener| listener.at.to_string()).collect();
        assert_eq!(frontends, ["10.77.0.1:80", "[fd77::1]:80"]);
        let families: Vec<(bool, u16)> =
            listeners.applications.iter().map(|application| (application.at.address.is_ipv6(), application.at.port)).collect();
        assert_eq!(families, [(false, 8080), (true, 8080)]);
        let frontend = listeners.frontends[0].at;
        assert_eq!(listeners.backlog_of(frontend), None);

        assert_eq!(listeners.problem_of("web"), None);
        let complaint = not_at_aliases("web", listeners.applications[1].at, &[]);
        tell(&mut listeners.applications[1].complaint, Some(complaint));
        assert_eq!(listeners.problem_of("web").as_deref(), Some("nothing listens on port 8080"));
        tell(&mut listeners.applications[1].complaint, None);
        assert_eq!(listeners.problem_of("web"), None);
    }

    #[test]
    fn a_node_without_a_front_end_asks_for_its_application_at_aliases_of_the_others() {
        let listeners = Listeners::new(&policy("c"), clock());
        assert!(listeners.frontends.is_empty());
        let applications: Vec<String> = listeners.applications.iter().map(|application| application.at.to_string()).collect();
        assert_eq!(applications, ["198.18.0.1:8081", "[fd00:ba70::1]:8081"]);
        let answered: Vec<String> = answered_frontends(&policy("c")).iter().map(Endpoint::to_string).collect();
        assert_eq!(answered, ["10.77.0.1:80", "[fd77::1]:80"]);
        let answered: Vec<String> = answered_frontends(&policy("a")).iter().map(Endpoint::to_string).collect();
        assert_eq!(answered, ["10.77.0.2:80"]);
    }

    #[test]
    fn an_application_is_found_where_handed_off_connections_arrive_and_nowhere_else() {
        let mut sockets = SockDiag::open().unwrap();
        let wildcard = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = wildcard.local_addr().unwrap().port();
        let at = Endpoint::new([198, 18, 0, 1].into(), port);
        let application = Application { service: "web".into(), at, complaint: None };
        assert_eq!(application.ask(&mut sockets).unwrap(), None);
        drop(wildcard);
        let complaint = application.ask(&mut sockets).unwrap().unwrap();
        assert_eq!(complaint.what, format!("nothing listens on port {port}"));

        let _loopback = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let complaint = application.ask(&mut sockets).unwrap().unwrap();
        assert_eq!(complaint.what, format!("the application listens only on 127.0.0.1:{port}"));
        let mut frontend =
            Frontend { service: "web".into(), at: Endpoint::new([127, 0, 0, 1].into(), port), backlog: None, complaint: None };
        assert_eq!(frontend.ask(&mut sockets).unwrap(), None);
        assert!(frontend.backlog.is_some());
    }
}
