//! Whether all nodes run with the same cluster file: by the hash of its meaning, which every report has.

use super::Node;
use crate::flow::NodeId;
use crate::limits::CLUSTER_FILES_MAY_DIFFER;
use crate::policy::PolicyHash;
use std::collections::BTreeMap;
use std::time::Instant;

/// The files of the peers that have said which they run with.
#[derive(Debug, Default)]
pub struct Files {
    peers: BTreeMap<NodeId, File>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    /// None while there is no session: what was said about it is not said again at every reconnect.
    hash: Option<PolicyHash>,
    /// Since when it has not been this node's.
    differs: Option<Instant>,
    /// People were told.
    is_told: bool,
}

/// What people are to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Differs(NodeId, PolicyHash),
    Mended(NodeId),
}

impl Files {
    /// What a peer says.
    pub fn hear(&mut self, peer: NodeId, hash: PolicyHash, own: PolicyHash, now: Instant) {
        let file = self.peers.entry(peer).or_insert(File { hash: None, differs: None, is_told: false });
        file.hash = Some(hash);
        file.compare(own, now);
    }

    /// A peer is down.
    pub fn forget(&mut self, peer: NodeId) {
        if let Some(file) = self.peers.get_mut(&peer) {
            file.hash = None;
        }
    }

    /// This node has another file.
    pub fn compare_all(&mut self, own: PolicyHash, now: Instant) {
        for file in self.peers.values_mut() {
            file.compare(own, now);
        }
    }

    /// The file a peer runs with, if it has said so.
    pub fn of(&self, peer: NodeId) -> Option<PolicyHash> {
        self.peers.get(&peer)?.hash
    }

    /// When people are to be told.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(File::due).min()
    }

    fn poll_news(&mut self, now: Instant) -> Option<News> {
        self.peers.iter_mut().find_map(|(peer, file)| match (file.hash, file.differs) {
            (Some(_), None) if file.is_told => {
                file.is_told = false;
                Some(News::Mended(*peer))
            }
            (Some(hash), Some(_)) if file.due().is_some_and(|due| due <= now) => {
                file.is_told = true;
                Some(News::Differs(*peer, hash))
            }
            _ => None,
        })
    }
}

impl File {
    fn compare(&mut self, own: PolicyHash, now: Instant) {
        let Some(hash) = self.hash else { return };
        self.differs = (hash != own).then(|| self.differs.unwrap_or(now));
    }

    fn due(&self) -> Option<Instant> {
        if self.is_told || self.hash.is_none() {
            return None;
        }
        self.differs.map(|since| since + CLUSTER_FILES_MAY_DIFFER)
    }
}

impl Node {
    /// Tells people which peers have another file, once it has lasted, and when it is mended.
    pub(super) fn compare_files(&mut self, now: Instant) {
        while let Some(news) = self.files.poll_news(now) {
            match news {
                News::Differs(peer, hash) => log::warn!(
                    "peer={} runs with another cluster file: its hash is {}, here it is {}; put the same file on both (`baton \
                     status` shows hash and path)",
                    self.name_of(peer),
                    short(hash),
                    short(self.policy.hash)
                ),
                News::Mended(peer) => log::info!("peer={} runs with the same cluster file again", self.name_of(peer)),
            }
        }
    }
}

/// As much of a hash as people compare.
pub(super) fn short(hash: PolicyHash) -> String {
    hash.to_string().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock::clock;
    use std::time::Duration;

    const B: NodeId = NodeId(1);
    const OURS: PolicyHash = PolicyHash([1; 32]);
    const OTHER: PolicyHash = PolicyHash([2; 32]);

    #[test]
    fn a_file_that_differs_is_told_once_when_it_has_lasted_and_once_when_it_is_mended() {
        let (mut files, now) = (Files::default(), clock());
        let later = now + CLUSTER_FILES_MAY_DIFFER;
        files.hear(B, OTHER, OURS, now);
        assert_eq!((files.of(B), files.poll_news(now), files.poll_timeout()), (Some(OTHER), None, Some(later)));
        files.hear(B, OTHER, OURS, later);
        assert_eq!(files.poll_news(later), Some(News::Differs(B, OTHER)));
        assert_eq!((files.poll_news(later), files.poll_timeout()), (None, None));
        files.hear(B, OURS, OURS, later);
        assert_eq!((files.poll_news(later), files.poll_news(later)), (Some(News::Mended(B)), None));
    }

    #[test]
    fn files_that_are_replaced_one_after_the_other_are_nobodys_business() {
        let (mut files, now) = (Files::default(), clock());
        files.hear(B, OTHER, OURS, now);
        files.compare_all(OTHER, now + Duration::from_secs(1));
        assert_eq!((files.poll_news(now + CLUSTER_FILES_MAY_DIFFER * 2), files.poll_timeout()), (None, None));
    }

    #[test]
    fn a_session_that_comes_and_goes_is_no_reason_to_say_it_again() {
        let (mut files, now) = (Files::default(), clock());
        let later = now + CLUSTER_FILES_MAY_DIFFER;
        files.hear(B, OTHER, OURS, now);
        assert!(files.poll_news(later).is_some());
        files.forget(B);
        assert_eq!((files.of(B), files.poll_news(later)), (None, None));
        files.hear(B, OTHER, OURS, later);
        assert_eq!(files.poll_news(later), None);
    }
}
