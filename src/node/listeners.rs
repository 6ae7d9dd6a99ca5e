//! The applications behind this node's front-ends: whether they listen, where, and how long their backlogs are.

use super::Node;
use crate::flow::{Endpoint, NodeId};
use crate::policy::Policy;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A changed backlog or a restarted application is noticed this soon; one question costs some microseconds.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// This node's front-end addresses and what the kernel last said about them.
#[derive(Debug)]
pub struct Listeners {
    frontends: Vec<Listener>,
    due: Instant,
}

#[derive(Debug)]
struct Listener {
    frontend: Endpoint,
    backlog: Option<u32>,
    /// Somebody has been told that nothing listens.
    warned: bool,
}

impl Listeners {
    /// Nothing asked yet.
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let listener = |frontend| Listener { frontend, backlog: None, warned: false };
        Self { frontends: own_frontends(policy).into_iter().map(listener).collect(), due: now }
    }

    /// When to ask again.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The backlog behind a front-end address, as last asked.
    pub fn backlog_of(&self, frontend: Endpoint) -> Option<u32> {
        self.frontends.iter().find(|listener| listener.frontend == frontend)?.backlog
    }
}

/// The front-end addresses of the policy's node, each once.
pub fn own_frontends(policy: &Policy) -> Vec<Endpoint> {
    frontends_of(policy, policy.node)
}

fn frontends_of(policy: &Policy, node: NodeId) -> Vec<Endpoint> {
    let all = policy.services.iter().flat_map(|service| &service.frontends);
    let mut own: Vec<Endpoint> = all.filter(|(owner, _)| *owner == node).map(|(_, frontend)| *frontend).collect();
    own.sort();
    own.dedup();
    own
}

impl Node {
    /// Asks the kernel for all backlogs and tells the engine.
    pub(super) fn ask_listeners(&mut self, now: Instant) {
        if self.listeners.due > now {
            return;
        }
        self.listeners.due = now + ASK_INTERVAL;
        for listener in &mut self.listeners.frontends {
            let frontend = listener.frontend;
            match self.host.sockets.backlog(frontend) {
                Ok(backlog) => listener.backlog = backlog,
                Err(error) => {
                    log::debug!("sock_diag: cannot ask for the backlog of {frontend}: {error}");
                    continue;
                }
            }
            match listener.backlog {
                Some(backlog) => {
                    if std::mem::take(&mut listener.warned) {
                        log::info!("{frontend}: an application listens again");
                    }
                    self.engine.handle_backlog(frontend, backlog);
                }
                None if !std::mem::replace(&mut listener.warned, true) => {
                    log::warn!("{frontend}: nothing listens there; clients of this front-end are refused until something does");
                }
                None => {}
            }
        }
    }

    /// Warns about every service this node serves whose application would not see handed-off connections.
    pub(super) fn check_applications(&mut self) {
        let own = self.policy.node;
        for service in &self.policy.services {
            let Some(port) = service.server_port(own) else {
                continue;
            };
            for alias in one_alias_per_family(&self.policy, service.frontends.iter().map(|(_, frontend)| *frontend)) {
                let at = Endpoint::new(alias, port);
                let family = if alias.is_ipv4() { "0.0.0.0" } else { "[::]" };
                let name = &service.name;
                match self.host.sockets.listens_on_wildcard(at) {
                    Ok(true) => {}
                    Ok(false) => log::warn!(
                        "service {name}: no application listens on {family}:{port}; handed-off connections arrive at alias \
                         addresses, so it must listen on the wildcard address, not on one address"
                    ),
                    Err(error) => {
                        log::warn!("service {name}: cannot ask who listens on port {port}: {error}")
                    }
                }
            }
        }
    }
}

fn one_alias_per_family(policy: &Policy, frontends: impl Iterator<Item = Endpoint>) -> Vec<IpAddr> {
    let mut aliases: Vec<IpAddr> = frontends.filter_map(|frontend| policy.aliases_of(frontend).first().copied()).collect();
    aliases.sort_by_key(IpAddr::is_ipv6);
    aliases.dedup_by_key(|alias| alias.is_ipv6());
    aliases
}
