//! Why a session ended, by blame, in words that say who, what, and what to do.

use crate::control::greeting::{Goodbye, Parting, Versions};
use crate::control::wire::DecodeError;

/// Why we will not have a session with somebody. The texts read the same on both sides: the other one gets them too.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusing {
    /// Whoever dialled holds no key of the cluster.
    #[error(
        "public key {shown} is of no other node of cluster {cluster:?}: if it belongs to a node, put it as its \
         `public_key` into the cluster file of all nodes, or start that node with its right `--key`"
    )]
    UnknownKey {
        /// The key shown, as text.
        shown: String,
        /// Our cluster.
        cluster: String,
    },
    /// At the address of a node we dialled is somebody with another key.
    #[error(
        "node {peer:?} showed public key {shown}, the cluster file has {pinned}: correct `public_key` of {peer} there, \
         or start {peer} with its right `--key`"
    )]
    OtherKey {
        /// The node dialled.
        peer: String,
        /// The key shown, as text.
        shown: String,
        /// The key expected, as text.
        pinned: String,
    },
    /// The other side says it belongs to another cluster.
    #[error(
        "node {peer:?} belongs to cluster {theirs:?}, node {us:?} to cluster {ours:?}: run both with the same cluster \
         file"
    )]
    Cluster {
        /// Whose key it is.
        peer: String,
        /// What it says.
        theirs: String,
        /// This node.
        us: String,
        /// Our cluster.
        ours: String,
    },
    /// The other side says it is another node than its key says.
    #[error(
        "the key is that of node {peer:?}, but its holder says it is {said:?}: start it with `--node {peer}`, or \
         correct the `public_key` lines in the cluster file"
    )]
    Name {
        /// Whose key it is.
        peer: String,
        /// What it says.
        said: String,
    },
    /// No common version.
    #[error("node {peer:?} speaks protocol version {theirs}, node {us:?} version {ours}: update the older of the two")]
    Version {
        /// Whose key it is.
        peer: String,
        /// What it speaks.
        theirs: Versions,
        /// This node.
        us: String,
        /// What we speak.
        ours: Versions,
    },
    /// Both would dial, and there would be two sessions.
    #[error(
        "node {peer:?} dialled node {us:?}, but the one whose name sorts first dials: run both with the same cluster \
         file"
    )]
    Direction {
        /// Whose key it is.
        peer: String,
        /// This node.
        us: String,
    },
}

impl Refusing {
    /// How it is called in a Goodbye.
    pub const fn parting(&self) -> Parting {
        match self {
            Self::UnknownKey { .. } | Self::OtherKey { .. } => Parting::Protocol,
            Self::Cluster { .. } => Parting::Cluster,
            Self::Name { .. } => Parting::Name,
            Self::Version { .. } => Parting::Version,
            Self::Direction { .. } => Parting::Direction,
        }
    }
}

/// Why a session ended, or never began.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Ending {
    /// We refuse the other side.
    #[error("refused: {0}")]
    Refused(Refusing),
    /// The other side refuses our key, in a TLS alert.
    #[error(
        "refused by the peer: it does not accept our public key {ours}; correct `public_key` of {us} in its cluster \
         file, or start {us} with its right `--key`"
    )]
    KeyRefused {
        /// Our key, as text.
        ours: String,
        /// This node.
        us: String,
    },
    /// The other side said goodbye.
    #[error("{}", said(.0))]
    Goodbye(Goodbye),
    /// The other side wrote something that is not of the protocol.
    #[error("peer broke the protocol: {0}")]
    Undecodable(DecodeError),
    /// The other side wrote something out of turn.
    #[error("peer broke the protocol: {0}")]
    OutOfTurn(&'static str),
    /// The TLS handshake or a record was not acceptable.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// Nothing was heard for too long.
    #[error("silent for {} ms", .0.as_millis())]
    Silent(std::time::Duration),
    /// The handshake or the connection took too long.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    TooSlow {
        /// What was waited for.
        what: &'static str,
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// The other side closed the connection without a word.
    #[error("closed by the peer without goodbye")]
    Closed,
    /// More waits to be written than may.
    #[error("{0} octets wait to be written, limit {max}", max = crate::limits::SESSION_BACKLOG_BYTES_MAX)]
    Backlog(usize),
    /// The kernel.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        error: String,
    },
    /// Another session of the same peer took over.
    #[error("replaced by a newer session")]
    Replaced,
}

impl Ending {
    /// What the kernel says about `what`.
    pub fn io(what: &'static str, error: &std::io::Error) -> Self {
        Self::Io { what, error: error.to_string() }
    }

    /// Whether one side does not want the other: it takes a person to change that.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::KeyRefused { .. } => true,
            Self::Goodbye(goodbye) => !matches!(goodbye.reason, Parting::Stopping),
            _ => false,
        }
    }

    /// Whether somebody should look, rather than wait until the peer is back.
    pub const fn needs_attention(&self) -> bool {
        match self {
            Self::Undecodable(_) | Self::OutOfTurn(_) | Self::Tls(_) | Self::Backlog(_) => true,
            other => other.is_refusal(),
        }
    }

    /// What to tell the other side, if it can still be told and does not know.
    pub fn goodbye(&self) -> Option<Goodbye> {
        let reason = match self {
            Self::Refused(refusing) => refusing.parting(),
            Self::Undecodable(_) | Self::OutOfTurn(_) => Parting::Protocol,
            Self::Replaced => Parting::Replaced,
            _ => return None,
        };
        let text = match self {
            Self::Refused(refusing) => refusing.to_string(),
            Self::Replaced => {
                "a newer session of the same node took over; if it keeps happening, two processes hold the same key".to_owned()
            }
            other => other.to_string(),
        };
        Some(Goodbye { reason, text })
    }
}

fn said(goodbye: &Goodbye) -> String {
    match goodbye.reason {
        Parting::Stopping => "peer stops".to_owned(),
        // The text came over the wire: nothing in it may look like a log line of its own.
        _ => format!("refused by the peer: {}", goodbye.text.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goodbye(reason: Parting) -> Ending {
        Ending::Goodbye(Goodbye { reason, text: "bye\nfalse line".into() })
    }

    #[test]
    fn a_peer_that_stops_is_no_refusal_and_any_other_goodbye_is() {
        assert!(!goodbye(Parting::Stopping).is_refusal() && !goodbye(Parting::Stopping).needs_attention());
        for reason in [Parting::Cluster, Parting::Name, Parting::Version, Parting::Direction, Parting::Protocol] {
            assert!(goodbye(reason).is_refusal() && goodbye(reason).needs_attention(), "{reason:?}");
        }
        assert!(!Ending::Closed.is_refusal() && !Ending::Closed.needs_attention());
    }

    #[test]
    fn what_a_peer_says_is_never_a_log_line_of_its_own() {
        assert_eq!(goodbye(Parting::Stopping).to_string(), "peer stops");
        assert_eq!(goodbye(Parting::Name).to_string(), "refused by the peer: bye\\nfalse line");
    }

    #[test]
    fn only_a_side_that_does_not_know_yet_is_told() {
        let told = |ending: Ending| ending.goodbye().map(|goodbye| goodbye.reason);
        assert_eq!(told(Ending::Replaced), Some(Parting::Replaced));
        assert_eq!(told(Ending::OutOfTurn("x")), Some(Parting::Protocol));
        assert_eq!(told(Ending::Closed), None);
        assert_eq!(told(goodbye(Parting::Stopping)), None);
        let refused = Refusing::Direction { peer: "a".into(), us: "b".into() };
        assert_eq!(told(Ending::Refused(refused)), Some(Parting::Direction));
    }
}
