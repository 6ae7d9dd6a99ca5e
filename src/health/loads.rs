//! What all nodes say about themselves, how old it is, and what follows for a choice.

use crate::control::report::{Report, Told};
use crate::flow::NodeId;
use crate::limits::{PEER_WORD_LIFETIME, RAMP_MIN};
use std::time::{Duration, Instant};

/// Whether an application can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It can, or nothing is known against it: it is not checked.
    Up,
    /// It cannot.
    Down,
    /// It is checked, but nobody has said lately what came of it. To be tried after those that are up.
    Unknown,
}

/// What a choice needs to know about one node in one service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NodeState {
    /// There is a session with it; the node itself is always reachable.
    pub reachable: bool,
    /// It takes no new connections.
    pub draining: bool,
    /// Its table of connections is full.
    pub full: bool,
    /// Its application.
    pub health: Health,
    /// Probes through it have failed, and the cluster file says that this counts.
    pub probe_failed: bool,
    /// Connections that its application serves, as far as it has said.
    pub connections: u32,
    /// How much of its weight counts, 0 to 1: less than 1 for some time after it has recovered.
    pub ramp: f32,
}

/// Why a node is not to be chosen at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// No session with it.
    Unreachable,
    /// It drains.
    Draining,
    /// Its table is full.
    Full,
    /// Its application is down.
    Unhealthy,
    /// Probes through it have failed.
    ProbeFailed,
}

impl NodeState {
    /// Why it is not to be chosen; None if it may be.
    pub const fn unfit(&self) -> Option<Unfit> {
        if !self.reachable {
            Some(Unfit::Unreachable)
        } else if self.draining {
            Some(Unfit::Draining)
        } else if self.full {
            Some(Unfit::Full)
        } else if matches!(self.health, Health::Down) {
            Some(Unfit::Unhealthy)
        } else if self.probe_failed {
            Some(Unfit::ProbeFailed)
        } else {
            None
        }
    }
}

/// What is known of one node in one service.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Its latest word; none in this session.
    told: Option<Told>,
    connections: u32,
    probe_failed: bool,
    seen: Seen,
    /// When it could serve again after it could not.
    recovered: Option<Instant>,
}

/// Whether a node could serve when that was last known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Seen {
    #[default]
    Never,
    Fit,
    Unfit,
}

impl Entry {
    fn see(&mut self, is_fit: bool, now: Instant) {
        match (self.seen, is_fit) {
            (Seen::Unfit, true) => self.recovered = Some(now),
            (_, false) => self.recovered = None,
            (Seen::Never | Seen::Fit, true) => {}
        }
        self.seen = if is_fit { Seen::Fit } else { Seen::Unfit };
    }

    fn take(&mut self, told: Told, connections: u32, now: Instant) {
        self.told = Some(told);
        self.connections = connections;
        match told {
            Told::Unchecked | Told::Up => self.see(true, now),
            Told::Down => self.see(false, now),
            Told::Unknown => {}
        }
    }
}

/// What is known of one node, in all services.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The protocol of its session has reports.
    reports: bool,
    heard: Option<Instant>,
    full: bool,
}

/// Everything that nodes have said about themselves.
#[derive(Clone, Debug)]
pub struct Loads {
    own: NodeId,
    /// Sorted.
    services: Vec<(String, Duration)>,
    nodes: Vec<Node>,
    /// Of the first service all nodes, then of the second.
    entries: Vec<Entry>,
}

impl Loads {
    /// Nobody has said anything. Services with their slow start, sorted by name.
    pub fn new<'a>(own: NodeId, nodes: usize, services: impl Iterator<Item = (&'a str, Duration)>) -> Self {
        let services: Vec<_> = services.map(|(name, slow_start)| (name.to_owned(), slow_start)).collect();
        let entries = vec![Entry::default(); services.len() * nodes];
        Self { own, services, nodes: vec![Node::default(); nodes], entries }
    }

    /// Other services are in force. What is known of those that stay is kept.
    pub fn replace<'a>(&mut self, services: impl Iterator<Item = (&'a str, Duration)>) {
        let next = Self::new(self.own, self.nodes.len(), services);
        let before = std::mem::replace(self, next);
        self.nodes.clone_from(&before.nodes);
        let count = self.nodes.len();
        for (index, (name, _)) in self.services.iter().enumerate() {
            if let Some(known) = before.index(name) {
                self.entries[index * count..][..count].copy_from_slice(&before.entries[known * count..][..count]);
            }
        }
    }

    fn index(&self, service: &str) -> Option<usize> {
        self.services.binary_search_by(|(name, _)| name.as_str().cmp(service)).ok()
    }

    fn entry_mut(&mut self, service: &str, node: NodeId) -> Option<&mut Entry> {
        let index = self.index(service)? * self.nodes.len() + usize::from(node.0);
        self.entries.get_mut(index).filter(|_| usize::from(node.0) < self.nodes.len())
    }

    /// A session with a peer is up; whether its protocol has reports.
    pub fn come_up(&mut self, peer: NodeId, reports: bool) {
        let Some(node) = self.nodes.get_mut(usize::from(peer.0)) else { return };
        *node = Node { reports, ..Node::default() };
        for entry in self.entries_of(peer) {
            entry.told = None;
        }
    }

    /// The session with a peer is gone, and its word with it.
    pub fn go_down(&mut self, peer: NodeId, now: Instant) {
        let Some(node) = self.nodes.get_mut(usize::from(peer.0)) else { return };
        *node = Node::default();
        for entry in self.entries_of(peer) {
            *entry = Entry { told: None, connections: 0, ..*entry };
            if entry.seen != Seen::Never {
                entry.see(false, now);
            }
        }
    }

    fn entries_of(&mut self, node: NodeId) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().skip(usize::from(node.0)).step_by(self.nodes.len().max(1))
    }

    /// What a peer says about itself. Services that this node does not know are nobody's.
    pub fn hear(&mut self, peer: NodeId, report: &Report, now: Instant) {
        let Some(node) = self.nodes.get_mut(usize::from(peer.0)) else { return };
        node.heard = Some(now);
        node.full = report.full;
        for entry in self.entries_of(peer) {
            // What it does not name it does not serve: nothing to say against it here, its refusal will.
            entry.told = Some(Told::Unchecked);
            entry.connections = 0;
        }
        for told in &report.services {
            if let Some(entry) = self.entry_mut(&told.name, peer) {
                entry.take(told.health, told.connections, now);
            }
        }
    }

    /// What this node's own check says.
    pub fn hear_own(&mut self, service: &str, told: Told, connections: u32, now: Instant) {
        let own = self.own;
        if let Some(entry) = self.entry_mut(service, own) {
            entry.take(told, connections, now);
        }
    }

    /// Whether probes of a service through a peer have failed and this counts.
    pub fn set_probe_failed(&mut self, service: &str, peer: NodeId, failed: bool) {
        if let Some(entry) = self.entry_mut(service, peer) {
            entry.probe_failed = failed;
        }
    }

    /// What is known of a node in a service. Sessions are the caller's to know: here every node is reachable, and none drains.
    pub fn state(&self, service: &str, node: NodeId, now: Instant) -> NodeState {
        let unknown = NodeState {
            reachable: true,
            draining: false,
            full: false,
            health: Health::Up,
            probe_failed: false,
            connections: 0,
            ramp: 1.0,
        };
        let Some(service) = self.index(service) else { return unknown };
        let Some(word) = self.nodes.get(usize::from(node.0)) else { return unknown };
        let entry = &self.entries[service * self.nodes.len() + usize::from(node.0)];
        let is_own = node == self.own;
        let is_fresh = is_own || word.heard.is_some_and(|heard| now.saturating_duration_since(heard) <= PEER_WORD_LIFETIME);
        let health = match entry.told {
            // Earlier versions say nothing: they are asked, as they always were.
            None if is_own || !word.reports => Health::Up,
            None => Health::Unknown,
            Some(_) if !is_fresh => Health::Unknown,
            Some(Told::Unchecked | Told::Up) => Health::Up,
            Some(Told::Down) => Health::Down,
            Some(Told::Unknown) => Health::Unknown,
        };
        NodeState {
            full: word.full && is_fresh,
            health,
            probe_failed: entry.probe_failed,
            connections: entry.connections,
            ramp: ramp(entry.recovered, self.services[service].1, now),
            ..unknown
        }
    }
}

/// Grows with the time since the recovery, never from nothing: who gets no connection at all never warms up.
fn ramp(recovered: Option<Instant>, slow_start: Duration, now: Instant) -> f32 {
    let Some(recovered) = recovered else { return 1.0 };
    let elapsed = now.saturating_duration_since(recovered);
    if elapsed >= slow_start {
        return 1.0;
    }
    (elapsed.as_secs_f32() / slow_start.as_secs_f32()).clamp(RAMP_MIN, 1.0)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;
    use crate::control::report::ServiceReport;
    use crate::limits::{PEER_HEARTBEAT_INTERVAL, PEER_SILENCE_MAX};

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const SLOW_START: Duration = Duration::from_secs(10);

    fn loads() -> Loads {
        Loads::new(A, 3, [("api", Duration::ZERO), ("web", SLOW_START)].into_iter())
    }

    fn report(web: Told, connections: u32) -> Report {
        let web = ServiceReport { name: "web".into(), health: web, connections };
        Report { policy: [0; 32], full: false, services: vec![web] }
    }

    #[test]
    fn the_word_of_a_peer_counts_until_it_is_old() {
        let (mut loads, now) = (loads(), Instant::now());
        loads.come_up(B, true);
        assert_eq!(loads.state("web", B, now).health, Health::Unknown, "it has not said anything yet");
        loads.hear(B, &report(Told::Up, 7), now);
        let state = loads.state("web", B, now + PEER_WORD_LIFETIME);
        assert_eq!((state.health, state.connections, state.unfit()), (Health::Up, 7, None));
        let later = now + PEER_WORD_LIFETIME + Duration::from_millis(1);
        assert_eq!(loads.state("web", B, later).health, Health::Unknown);
        assert_eq!(loads.state("web", B, later).unfit(), None, "still tried");
        loads.hear(B, &report(Told::Down, 0), later);
        assert_eq!(loads.state("web", B, later).unfit(), Some(Unfit::Unhealthy));
        assert_eq!(loads.state("web", B, later + PEER_WORD_LIFETIME * 2).health, Health::Unknown, "a bad word, too");
    }

    #[test]
    fn a_word_is_old_after_a_few_heartbeats_and_before_the_peer_is_down() {
        assert!(PEER_HEARTBEAT_INTERVAL * 2 < PEER_WORD_LIFETIME && PEER_WORD_LIFETIME < PEER_SILENCE_MAX);
    }

    #[test]
    fn who_is_not_checked_is_tried_as_ever() {
        let (mut loads, now) = (loads(), Instant::now());
        assert_eq!(loads.state("web", B, now).health, Health::Up, "no session: others know that");
        loads.come_up(B, false);
        assert_eq!(loads.state("web", B, now + SLOW_START).health, Health::Up, "an earlier version");
        loads.come_up(B, true);
        loads.hear(B, &report(Told::Unchecked, 3), now);
        assert_eq!(loads.state("web", B, now).health, Health::Up);
        assert_eq!(loads.state("api", B, now).health, Health::Up, "not among its servers");
        assert_eq!(loads.state("none", B, now).health, Health::Up);
        assert_eq!(loads.state("web", A, now).health, Health::Up, "own");
    }

    #[test]
    fn a_table_that_is_full_is_so_for_all_services() {
        let (mut loads, now) = (loads(), Instant::now());
        loads.come_up(B, true);
        loads.hear(B, &Report { full: true, ..report(Told::Up, 1) }, now);
        assert_eq!(loads.state("api", B, now).unfit(), Some(Unfit::Full));
        loads.hear(B, &report(Told::Up, 1), now);
        assert_eq!(loads.state("api", B, now).unfit(), None);
    }

    #[test]
    fn after_a_recovery_the_weight_grows_for_the_time_of_the_slow_start() {
        let (mut loads, now) = (loads(), Instant::now());
        let ramp = |loads: &Loads, after: u64| loads.state("web", B, now + Duration::from_secs(after)).ramp;
        loads.come_up(B, true);
        loads.hear(B, &report(Told::Up, 0), now);
        assert_eq!(ramp(&loads, 0), 1.0, "the first word is no recovery");
        loads.hear(B, &report(Told::Down, 0), now);
        loads.hear(B, &report(Told::Unknown, 0), now);
        loads.hear(B, &report(Told::Up, 0), now);
        loads.hear(B, &report(Told::Up, 0), now + Duration::from_secs(3));
        assert_eq!(ramp(&loads, 0), RAMP_MIN);
        assert!((ramp(&loads, 5) - 0.5).abs() < 0.01);
        assert_eq!(ramp(&loads, 10), 1.0);
        // A session that was lost is a recovery, too.
        loads.go_down(B, now + Duration::from_secs(20));
        loads.come_up(B, true);
        loads.hear(B, &report(Told::Up, 0), now + Duration::from_secs(30));
        assert!((ramp(&loads, 34) - 0.4).abs() < 0.01);
    }

    #[test]
    fn without_a_slow_start_a_recovery_is_complete_at_once() {
        let (mut loads, now) = (loads(), Instant::now());
        loads.hear_own("api", Told::Down, 0, now);
        assert_eq!(loads.state("api", A, now).unfit(), Some(Unfit::Unhealthy));
        loads.hear_own("api", Told::Up, 0, now);
        assert_eq!(loads.state("api", A, now).ramp, 1.0);
    }

    #[test]
    fn what_is_known_of_services_that_stay_outlives_a_new_file() {
        let (mut loads, now) = (loads(), Instant::now());
        loads.come_up(B, true);
        loads.hear(B, &report(Told::Down, 5), now);
        loads.set_probe_failed("web", B, true);
        loads.replace([("abc", SLOW_START), ("web", SLOW_START)].into_iter());
        let state = loads.state("web", B, now);
        assert_eq!((state.health, state.connections, state.probe_failed), (Health::Down, 5, true));
        assert_eq!(loads.state("abc", B, now).health, Health::Unknown, "of a new one it has not spoken");
    }

    #[test]
    fn reasons_go_from_the_node_to_its_application() {
        let (mut loads, now) = (loads(), Instant::now());
        loads.come_up(B, true);
        loads.hear(B, &report(Told::Down, 5), now);
        let state = NodeState { probe_failed: true, full: true, draining: true, reachable: false, ..loads.state("web", B, now) };
        let mut reasons = vec![state.unfit()];
        let state = NodeState { reachable: true, ..state };
        reasons.push(state.unfit());
        let state = NodeState { draining: false, ..state };
        reasons.push(state.unfit());
        let state = NodeState { full: false, ..state };
        reasons.push(state.unfit());
        reasons.push(NodeState { health: Health::Up, ..state }.unfit());
        let expected = [Unfit::Unreachable, Unfit::Draining, Unfit::Full, Unfit::Unhealthy, Unfit::ProbeFailed];
        assert_eq!(reasons, expected.map(Some));
    }
}
