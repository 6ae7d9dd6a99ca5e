//! What stands between this node's kernel and its peers' kernels: settings by which one grants what another does not.

use super::Node;
use crate::control::settings::Settings;
use crate::flow::NodeId;
use crate::limits;
use crate::policy::Policy;
use std::collections::BTreeMap;
use std::time::Instant;

/// The settings of all kernels, and what has been said about them.
#[derive(Debug)]
pub struct Promises {
    own: Settings,
    /// Of peers with a session.
    peers: BTreeMap<NodeId, Settings>,
    /// Warned of and not mended, by peer. Kept while there is no session: to be said once, not at every reconnect.
    warned: BTreeMap<NodeId, Vec<String>>,
    due: Instant,
}

impl Promises {
    /// Only this host is known.
    pub fn new(own: Settings, now: Instant) -> Self {
        Self { own, peers: BTreeMap::new(), warned: BTreeMap::new(), due: now + limits::SETTINGS_INTERVAL }
    }

    /// When to read this host's settings again.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// A peer has told its settings.
    pub fn hear(&mut self, peer: NodeId, settings: Settings, policy: &Policy) {
        self.peers.insert(peer, settings);
        self.compare(peer, policy);
    }

    /// A peer is down.
    pub fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Looks at everything again; whether this host's settings are not what they were.
    fn review(&mut self, own: Settings, policy: &Policy) -> bool {
        let is_changed = own != self.own;
        self.own = own;
        self.compare_all(policy);
        is_changed
    }

    /// Compares all again: the rules have changed.
    pub fn compare_all(&mut self, policy: &Policy) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.compare(peer, policy);
        }
    }

    /// What stands between this node and a peer with a session, in either direction in which rules send connections.
    pub fn obstacles(&self, peer: NodeId, policy: &Policy) -> Vec<String> {
        let Some(settings) = self.peers.get(&peer) else { return Vec::new() };
        let name = |node: NodeId| policy.nodes.get(usize::from(node.0)).map_or("?", |node| node.name.as_str());
        let (us, them) = ((name(policy.node), &self.own), (name(peer), settings));
        let mut obstacles = Vec::new();
        if policy.hands_off(policy.node, peer) {
            obstacles.extend(Settings::obstacles(us, them));
        }
        if policy.hands_off(peer, policy.node) {
            obstacles.extend(Settings::obstacles(them, us));
        }
        obstacles
    }

    /// Says what is new, and what is mended.
    fn compare(&mut self, peer: NodeId, policy: &Policy) {
        let obstacles = self.obstacles(peer, policy);
        let before = self.warned.insert(peer, obstacles.clone()).unwrap_or_default();
        for obstacle in obstacles.iter().filter(|obstacle| !before.contains(obstacle)) {
            log::warn!("{obstacle}");
        }
        for mended in before.iter().filter(|obstacle| !obstacles.contains(obstacle)) {
            log::info!("mended; no longer true: {mended}");
        }
    }
}

impl Node {
    /// Reads this host's settings again when it is time.
    pub(super) fn review_settings(&mut self, now: Instant) {
        if self.promises.due <= now {
            self.read_settings(now);
        }
    }

    /// Reads this host's settings, and tells the peers what has changed.
    pub(super) fn read_settings(&mut self, now: Instant) {
        self.promises.due = now + limits::SETTINGS_INTERVAL;
        let own = self.promises.own.of_this_host_now();
        if self.promises.review(own, &self.policy) {
            self.channel.set_settings(&self.promises.own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock::clock;
    use crate::policy::ClusterFile;

    /// Node a; connections are handed from a to b only.
    fn policy() -> Policy {
        let text = r#"
cluster: shop
overlay: { port: 7400, aliases: ["198.18.0.0/16"] }
nodes:
  a: { address: 10.77.0.1, public_key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }
  b: { address: 10.77.0.2, public_key: "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }
services:
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    rules:
      - { name: images, when: { path: "/images/*" }, send_to: b }
    default: local
"#;
        ClusterFile::parse("shop.yaml", text).expect("a cluster file").compile("a").expect("node a")
    }

    const B: NodeId = NodeId(1);

    #[test]
    fn what_stands_between_two_kernels_is_known_until_it_is_mended() {
        let (policy, now) = (policy(), clock());
        let mut promises = Promises::new(Settings::USUAL, now);
        let lacking = Settings { sack: false, timestamps: false, ..Settings::USUAL };
        promises.hear(B, lacking.clone(), &policy);
        assert_eq!(promises.obstacles(B, &policy).len(), 2);
        assert!(promises.review(Settings { timestamps: false, ..Settings::USUAL }, &policy));
        assert_eq!(promises.obstacles(B, &policy).len(), 1, "what this node does not promise its peer need not keep");
        promises.hear(B, Settings::USUAL, &policy);
        assert!(promises.obstacles(B, &policy).is_empty());
    }

    #[test]
    fn a_direction_in_which_nothing_is_sent_needs_no_promises() {
        let (policy, now) = (policy(), clock());
        let mut promises = Promises::new(Settings { sack: false, ..Settings::USUAL }, now);
        promises.hear(B, Settings::USUAL, &policy);
        assert!(promises.obstacles(B, &policy).is_empty(), "b hands nothing to a");
    }

    #[test]
    fn of_a_peer_without_a_session_nothing_is_known() {
        let (policy, now) = (policy(), clock());
        let mut promises = Promises::new(Settings::USUAL, now);
        promises.hear(B, Settings { ecn: 0, ..Settings::USUAL }, &policy);
        promises.forget(B);
        assert!(promises.obstacles(B, &policy).is_empty());
        assert!(!promises.review(Settings::USUAL, &policy));
    }
}
