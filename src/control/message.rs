//! What two nodes say to each other, and how it is written down. Pure: bytes in, messages out.
//!
//! `docs/handoff-protocol.md` has the bit diagrams.

use crate::flow::FlowKey;
use crate::rewrite::{Client, Seq, Timestamp, WindowScale, Wire};
use std::time::Duration;

/// One life of a process: drawn at start, never drawn again. Fences everything said in an earlier life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Epoch(pub u64);

/// Names one handoff for ever: the front-end's epoch and a number that only grows within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HandoffId {
    /// The life of the front-end that made it.
    pub epoch: Epoch,
    /// Counts from 1.
    pub serial: u64,
}

/// The initial TCP state of a connection and its first flight: what a back-end needs to replay it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// This handoff.
    pub id: HandoffId,
    /// Client and front-end address.
    pub flow: FlowKey,
    /// Name of the service.
    pub service: String,
    /// The client's ISN.
    pub client_isn: Seq<Client>,
    /// The front-end kernel's ISN.
    pub frontend_isn: Seq<Wire>,
    /// The client's MSS (the option of its SYN, or the family's default).
    pub client_mss: u16,
    /// Both window scales, if both sides sent the option.
    pub window_scales: Option<WindowScales>,
    /// Both sides sent SACK-permitted.
    pub sack: bool,
    /// Timestamps, if both sides use them.
    pub timestamps: Option<OfferedTimestamps>,
    /// ECN was negotiated (RFC 3168).
    pub ecn: bool,
    /// The window field of the client's SYN.
    pub syn_window: u16,
    /// The window field of the client's latest segment.
    pub window: u16,
    /// SYN-ACK to ACK, as the front-end measured it.
    pub round_trip: Duration,
    /// The client has been told that the whole first flight arrived: nobody but us can send it again.
    pub acknowledged_early: bool,
    /// The client is the front-end itself: it tries the way through this back-end. From version 2 on.
    pub probe: bool,
    /// The client's first bytes, from `client_isn + 1`.
    pub first_flight: Vec<u8>,
}

/// Shift counts of a connection that negotiated window scaling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowScales {
    /// For windows the client sends.
    pub client: WindowScale,
    /// For windows the client was promised to receive.
    pub frontend: WindowScale,
}

/// Timestamps of a connection that negotiated them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferedTimestamps {
    /// The client's latest TSval.
    pub client: Timestamp<Client>,
    /// What the front-end kernel's clock would show now (its SYN-ACK's TSval plus the milliseconds since).
    pub frontend: Timestamp<Wire>,
}

/// The second initial TCP state, told with an accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accept {
    /// The handoff.
    pub id: HandoffId,
    /// The back-end kernel's ISN.
    pub backend_isn: u32,
    /// The back-end kernel's window scale.
    pub window_scale: Option<WindowScale>,
    /// The back-end kernel's TSval.
    pub tsval: Option<u32>,
}

/// Why a back-end will not take a connection. The names are metric labels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// The kernel answered the replayed SYN with RST: nothing listens.
    ApplicationDown = 1,
    /// The kernel did not answer the replayed SYN.
    BacklogFull = 2,
    /// The kernel does not grant what the client was promised (SACK, timestamps, window scale, ECN).
    Promise = 3,
    /// A table is full.
    Full = 4,
    /// The node is draining.
    Draining = 5,
    /// The node's cluster file does not have this service.
    UnknownService = 6,
    /// The node has a live connection with the same ends.
    InUse = 7,
    /// In the node's cluster file it is not among the servers of this service.
    NotAServer = 8,
    /// In the node's cluster file this is not a front-end address that the asking node has in this service.
    UnknownFrontend = 9,
}

/// A message of the handoff protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Front-end: would you take this connection?
    Offer(Box<Offer>),
    /// Back-end: prepared; my kernel's state is this.
    Accept(Accept),
    /// Back-end: no.
    Refuse {
        /// The handoff.
        id: HandoffId,
        /// Why.
        reason: Refusal,
    },
    /// Front-end: it is yours, for good. `more` are client bytes that arrived in order after the offer and must be
    /// delivered reliably. Repeated on a new session until `Delivered` or `Returned`; applied once.
    Commit {
        /// The handoff.
        id: HandoffId,
        /// Client bytes behind the offer's first flight.
        more: Vec<u8>,
    },
    /// Front-end: the offer is withdrawn. Never follows a commit.
    Abort {
        /// The handoff.
        id: HandoffId,
    },
    /// Back-end: my kernel has acknowledged the first flight; the commit need not be repeated.
    Delivered {
        /// The handoff.
        id: HandoffId,
    },
    /// Back-end: no byte reached an application and none will; the connection is yours again.
    Returned {
        /// The handoff.
        id: HandoffId,
    },
    /// Back-end: the connection is over.
    Closed {
        /// The handoff.
        id: HandoffId,
    },
    /// Front-end, answering `Owned`: that connection is given up here, its client reset. Destroy your end of it.
    Disowned {
        /// The handoff.
        id: HandoffId,
    },
    /// Back-end, on a new session, or when a client has completed the handshake that its forwarded SYN began: I own this
    /// connection, whose packets arrive at you.
    Owned {
        /// The handoff that made it ours.
        id: HandoffId,
        /// The connection.
        flow: FlowKey,
    },
    /// Back-end: that was all I own.
    OwnedEnd,
    /// Front-end: no commit below this serial of my epoch will be repeated.
    Settled {
        /// The lowest serial that may still be repeated.
        below: u64,
    },
    /// Back-end, answering a forwarded SYN: no connection came of it, and none will.
    SynRefused {
        /// The connection.
        flow: FlowKey,
        /// The SYN's sequence number.
        isn: Seq<Client>,
        /// Why.
        reason: Refusal,
    },
    /// A node with a shared front-end address: do you own this connection?
    WhoOwns {
        /// The connection.
        flow: FlowKey,
        /// What its client acknowledges: whoever has only answered its SYN knows by it whether it was meant.
        ack: Option<Seq<Wire>>,
    },
    /// Answers `WhoOwns`, or a packet of a connection that the sender does not own.
    Owner {
        /// The connection.
        flow: FlowKey,
        /// Whether the sender owns it.
        owns: bool,
    },
}

impl Message {
    /// The handoff that a back-end answers about.
    pub const fn handoff_of_mine(&self) -> Option<HandoffId> {
        match self {
            Self::Accept(Accept { id, .. })
            | Self::Refuse { id, .. }
            | Self::Delivered { id }
            | Self::Returned { id }
            | Self::Closed { id } => Some(*id),
            Self::Offer(_)
            | Self::Commit { .. }
            | Self::Abort { .. }
            | Self::Disowned { .. }
            | Self::Owned { .. }
            | Self::OwnedEnd
            | Self::Settled { .. }
            | Self::SynRefused { .. }
            | Self::WhoOwns { .. }
            | Self::Owner { .. } => None,
        }
    }
}
