//! Who a node is and whom it knows: what every session of it starts from.

use crate::control::greeting::Versions;
use crate::control::key::{PrivateKey, public_key_to_text};
use crate::control::message::Epoch;
use crate::control::report::Report;
use crate::control::settings::Settings;
use crate::control::tls::Tls;
use crate::flow::NodeId;
use crate::limits::NAME_BYTES_MAX;
use std::rc::Rc;

/// Who we are, and whom we know. The same for all sessions of a node.
#[derive(Debug)]
pub struct Profile {
    pub(super) cluster: String,
    pub(super) node: NodeId,
    /// Name and public key of every node, in order of their ids.
    pub(super) nodes: Vec<(String, [u8; 32])>,
    pub(super) epoch: Epoch,
    pub(super) settings: Settings,
    /// What this node says about itself, once it knows.
    pub(super) report: Option<Rc<Report>>,
    pub(super) versions: Versions,
    pub(super) tls: Tls,
}

impl Profile {
    /// The profile of node `node` of `nodes` (name and public key, sorted by name).
    pub fn new(
        cluster: String,
        node: NodeId,
        nodes: Vec<(String, [u8; 32])>,
        key: &PrivateKey,
        epoch: Epoch,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let Some((name, pinned)) = nodes.get(usize::from(node.0)) else {
            anyhow::bail!("node number {} of {} nodes does not exist", node.0, nodes.len());
        };
        if *pinned != key.public_key() {
            anyhow::bail!(
                "the key file holds the private key of {}, but the cluster file has `public_key: \"{}\"` for node \
                 {name}: give the right `--key`, or correct the cluster file on every node",
                public_key_to_text(&key.public_key()),
                public_key_to_text(pinned),
            );
        }
        for name in nodes.iter().map(|(name, _)| name).chain([&cluster]) {
            anyhow::ensure!(name.len() <= NAME_BYTES_MAX, "the name {name:?} is longer than {NAME_BYTES_MAX} octets: shorten it");
        }
        let keys: Vec<_> = nodes.iter().map(|(_, key)| *key).collect();
        let tls = Tls::new(key, &keys)?;
        Ok(Self { cluster, node, nodes, epoch, settings, report: None, versions: Versions::SPOKEN, tls })
    }

    /// Speaks other versions than [`Versions::SPOKEN`].
    #[must_use]
    pub fn with_versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// A node's name.
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.get(usize::from(node.0)).map_or("?", |(name, _)| name)
    }

    /// This node's settings.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A node's public key, as the cluster file has it.
    pub(super) fn key_text(&self, node: NodeId) -> String {
        self.nodes.get(usize::from(node.0)).map_or_else(String::new, |(_, key)| public_key_to_text(key))
    }

    /// The other node whose key this is.
    pub(super) fn peer_with(&self, key: &[u8; 32]) -> Option<NodeId> {
        let index = self.nodes.iter().position(|(_, pinned)| pinned == key)?;
        u16::try_from(index).ok().map(NodeId).filter(|peer| *peer != self.node)
    }
}
