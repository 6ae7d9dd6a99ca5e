//! What the engine does with packets and why, in words: for whoever records them.
//!
//! Nothing here decides anything, and nothing is put into words unless somebody listens.

use super::engine::{Engine, Verdict};
use crate::flow::FlowKey;
use crate::rewrite::{Flags, Segment, Shifts, ToServerWire};
use std::fmt;

/// Why the engine originates a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The handshake once more, for this node's kernel alone.
    Replay,
    /// A SYN that the kernel has answered already: a handshake with a repeated SYN-ACK is not timed.
    RepeatedSyn,
    /// Takes a request out of the kernel's SYN-RECV.
    Purge,
    /// The first flight on its way into the owner's kernel.
    FirstFlight,
    /// The local server's: withheld until it was decided.
    Released,
    /// The same, with an echo that leaves the hold out of the round trip.
    ReleasedWithEcho,
    /// Sent after its connection, which was handed off meanwhile.
    Follows,
    /// It came before the owner's kernel could take it.
    Overtook,
    /// A SYN on the ends of another connection, kept until that was over.
    KeptSyn,
    /// To the node that is chosen to serve its connection.
    ForwardedSyn,
    /// A SYN that no peer takes, or of a connection that the local kernel has.
    LocalSyn,
    /// To whoever serves the connection, now that it is known.
    OwnerFound,
    /// Of a connection that no node has: the local kernel says so.
    NobodyOwns,
    /// A SYN whose data cannot be handed off.
    WithoutData,
    /// An acknowledgement on the kernel's behalf.
    EarlyAcknowledgement,
    /// An acknowledgement that lets a client prove that it is one (RFC 5961).
    Challenge,
    /// Acknowledges what a parked client sent again.
    Repeated,
    /// A question where a reset must be.
    Question,
    /// Reports a hole in what is held (RFC 5681, section 3.2).
    Hole,
    /// Ends a connection that nobody can serve any more.
    Reset,
    /// Of a client that this node plays itself.
    Probe,
}

impl Why {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Replay => "replayed SYN, so that the local kernel learns the connection",
            Self::RepeatedSyn => "repeated SYN, so that the local kernel does not time the handshake",
            Self::Purge => "purge: takes the connection out of the local kernel's SYN-RECV",
            Self::FirstFlight => "first flight, delivered to the local kernel",
            Self::Released => "withheld until now; the local server serves this connection",
            Self::ReleasedWithEcho => {
                "withheld until now, the echoed timestamp set so that the round trip is the client's; the local server serves this connection"
            }
            Self::Follows => "held while the connection was handed off; follows it",
            Self::Overtook => "kept until the local kernel could take it",
            Self::KeptSyn => "SYN kept until the connection before was over",
            Self::ForwardedSyn => "SYN, forwarded to the node that serves the connection",
            Self::LocalSyn => "SYN, the local server's after all",
            Self::OwnerFound => "held until the owner of the connection was found",
            Self::NobodyOwns => "no node has this connection, as the local kernel will say",
            Self::WithoutData => "SYN without its data, which cannot be handed off",
            Self::EarlyAcknowledgement => "acknowledgement on the kernel's behalf: the request is not complete yet",
            Self::Probe => "of a client that this node plays: a probe of the way through the peer",
            Self::Challenge => "challenge ACK (RFC 5961)",
            Self::Repeated => "acknowledgement of what a parked client sent again",
            Self::Question => {
                "a segment the client must answer: its packets passed by here, and only it knows where a reset must be"
            }
            Self::Hole => "duplicate acknowledgement: a segment before this one is missing",
            Self::Reset => "reset: nobody can serve this connection any more",
        }
    }
}

/// What there is to say about the input in hand beyond its verdict.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    wanted: bool,
    said: Vec<String>,
}

impl Remarks {
    /// Says something, if anybody listens.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.wanted {
            self.said.push(text());
        }
    }
}

impl Engine {
    /// From now on somebody listens, and takes the remarks after every input.
    pub fn listen_to_remarks(&mut self) {
        self.ctx.remarks.wanted = true;
    }

    /// What was remarked since the last time.
    pub fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ctx.remarks.said)
    }

    /// Whose a packet read from the TUN is, and the state of its connection at this moment.
    pub fn describe_tun(&self, packet: &[u8]) -> String {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet) else { return "not a TCP segment".to_owned() };
        let (source, destination) = (segment.source(), segment.destination());
        if self.ctx.policy.is_alias(source.address) {
            let state = self.utcp.state_of_socket(source, destination).unwrap_or("unknown");
            return format!("local kernel, a connection served for a front-end ({state})");
        }
        let from_client = self.is_own_frontend(destination);
        let (client, frontend) = if from_client { (source, destination) } else { (destination, source) };
        let state = self.btcp.state_of(&FlowKey { client, frontend });
        if from_client {
            return match state {
                None if segment.flags().contains(Flags::SYN) => "client, a new connection".to_owned(),
                None => "client, a connection of the local server".to_owned(),
                Some(state) => format!("client ({state})"),
            };
        }
        match state {
            _ if !self.is_own_frontend(source) => "a packet of no service".to_owned(),
            None => "local kernel, to a client".to_owned(),
            Some(state) => format!("local kernel, to a client ({state})"),
        }
    }

    /// The same for one that came through the overlay.
    pub fn describe_overlay(&self, packet: &[u8]) -> String {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet) else { return "not a TCP segment".to_owned() };
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let state = self.utcp.state_of(&flow).unwrap_or("unknown");
        format!("client, through the front-end {} ({state})", flow.frontend)
    }

    /// What a verdict means for this packet, which may have been rewritten by now.
    pub fn describe_verdict(&self, verdict: Verdict, packet: &[u8]) -> String {
        match verdict {
            Verdict::Write => match self.shifts_of_written(packet) {
                Some(shifts) => format!("translated: {}", Shown(&shifts)),
                None => "passed on".to_owned(),
            },
            Verdict::Local => "passed on, and the kernel may keep the rest".to_owned(),
            Verdict::Forward(node) => {
                let name = self.ctx.policy.nodes.get(usize::from(node.0)).map_or("a peer", |node| node.name.as_str());
                format!("forwarded to {name}")
            }
            Verdict::ForwardOnLink(node) => {
                let name = self.ctx.policy.nodes.get(usize::from(node.0)).map_or("a peer", |node| node.name.as_str());
                format!("forwarded to {name}, over the link if it can be")
            }
            Verdict::Cut => "a super-segment, taken piece by piece".to_owned(),
            Verdict::Consumed => "kept".to_owned(),
            Verdict::Drop(reason) => format!("dropped: {}", reason.label()),
        }
    }

    /// The shifts of the connection that a packet, as it is written, belongs to.
    fn shifts_of_written(&self, packet: &[u8]) -> Option<Shifts> {
        let segment = Segment::<_, ToServerWire>::parse(packet).ok()?;
        let (source, destination) = (segment.source(), segment.destination());
        let flow = if self.ctx.policy.is_alias(destination.address) {
            self.utcp.flow_of_socket(destination, source)?
        } else {
            FlowKey { client: destination, frontend: source }
        };
        self.utcp.shifts_of(&flow)
    }
}

/// Shifts as a person reads them.
struct Shown<'a>(&'a Shifts);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shifts { frontend, alias, seq, timestamps, window } = self.0;
        write!(f, "{alias} at the local kernel is {frontend} to the client, sequence numbers {:+}", seq.amount())?;
        if let Some(timestamps) = timestamps {
            write!(f, ", timestamps {:+}", timestamps.amount())?;
        }
        if window.kernel != window.promised {
            write!(f, ", window scale {} instead of {}", window.promised.shift(), window.kernel.shift())?;
        }
        Ok(())
    }
}
