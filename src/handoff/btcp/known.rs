//! What is known of connections to shared addresses that did not begin here, and how many questions may be asked about others.
//! All of it is bounded, and may be forgotten at any time.

use super::*;

/// Who owns connections that this node did not see begin, in two generations: what nobody asked for in a whole one goes.
#[derive(Clone, Debug)]
pub struct Known {
    young: Map<FlowKey, NodeId>,
    old: Map<FlowKey, NodeId>,
    turned: Instant,
    /// Whose owner was not the one that the policy says.
    pub denied: Recent<()>,
    /// ISNs of the local kernel's latest SYN-ACKs.
    pub answered: Recent<Seq<Wire>>,
    left: Left,
}

/// What may still be asked in this second. Whoever floods one kind keeps no other from being asked about.
#[derive(Clone, Debug)]
struct Left {
    /// About connections that nothing is known of.
    of_nothing: usize,
    /// About those whose handshake was seen here.
    of_handshakes: usize,
    errors: usize,
    /// By each of the peers.
    of_peers: BTreeMap<NodeId, usize>,
}

impl Left {
    fn all() -> Self {
        Self {
            of_nothing: limits::OWNER_QUESTIONS_PER_SECOND,
            of_handshakes: limits::HANDSHAKE_QUESTIONS_PER_SECOND,
            errors: limits::ERRORS_TOLD_PER_SECOND,
            of_peers: BTreeMap::new(),
        }
    }
}

/// Takes one, if there is one left.
fn take(left: &mut usize) -> bool {
    let is_one_left = *left > 0;
    *left = left.saturating_sub(1);
    is_one_left
}

impl Known {
    pub fn new(seed: u64, now: Instant) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            young: HashMap::with_hasher(hasher.clone()),
            old: HashMap::with_hasher(hasher),
            turned: now,
            denied: Recent::new(seed, limits::KNOWN_OWNERS_MAX / 16, limits::DENIED_OWNER_LIFETIME),
            answered: Recent::new(seed, limits::OPENINGS_MAX, limits::OPENING_LIFETIME),
            left: Left::all(),
        }
    }

    pub fn owner(&mut self, flow: &FlowKey) -> Option<NodeId> {
        if let Some(owner) = self.young.get(flow) {
            return Some(*owner);
        }
        let owner = self.old.remove(flow)?;
        self.young.insert(*flow, owner);
        Some(owner)
    }

    /// The same, without a sign of life.
    pub fn peek(&self, flow: &FlowKey) -> Option<NodeId> {
        self.young.get(flow).or_else(|| self.old.get(flow)).copied()
    }

    pub fn insert(&mut self, flow: FlowKey, owner: NodeId) {
        if self.young.len() >= limits::KNOWN_OWNERS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(flow, owner);
    }

    pub fn remove(&mut self, flow: &FlowKey) {
        self.young.remove(flow);
        self.old.remove(flow);
    }

    pub fn keep_house(&mut self, now: Instant) {
        self.left = Left::all();
        self.denied.expire(now);
        self.answered.expire(now);
        if now.saturating_duration_since(self.turned) >= limits::KNOWN_OWNER_LIFETIME {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub fn count(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn list(&self) -> impl Iterator<Item = (&FlowKey, &NodeId)> {
        self.young.iter().chain(&self.old)
    }

    /// Whether a question may be asked about a connection to a shared address.
    pub fn may_ask(&mut self, is_handshake: bool) -> bool {
        take(if is_handshake { &mut self.left.of_handshakes } else { &mut self.left.of_nothing })
    }

    /// Whether a peer may ask one more.
    pub fn may_be_asked(&mut self, by: NodeId) -> bool {
        take(self.left.of_peers.entry(by).or_insert(limits::PEER_QUESTIONS_PER_SECOND))
    }

    /// Whether all peers may be told of an ICMP error.
    pub fn may_tell_of_error(&mut self) -> bool {
        take(&mut self.left.errors)
    }

    /// Whether this is what acknowledges the local kernel's SYN-ACK, and nothing more. Then the client is connected with that
    /// kernel or with nobody: of an ISN that a stranger does not know, who has one chance in 2^32.
    pub fn is_answer(&self, flow: &FlowKey, ack: Option<Seq<Wire>>) -> bool {
        self.answered.get(flow).is_some_and(|isn| Some(isn.plus(1)) == ack)
    }

    /// Whether the kernel serves a connection, by what it says of it. One whose handshake is not complete it serves if its
    /// own SYN-ACK is what the client acknowledges. In TIME-WAIT it does not: the client may be connected anew, elsewhere.
    pub fn kernel_serves(&self, flow: &FlowKey, socket: SocketState, ack: Option<Seq<Wire>>) -> bool {
        let answered = self.answered.get(flow).map(|isn| isn.plus(1));
        match socket {
            SocketState::Open => true,
            SocketState::SynReceived => answered.is_none() || ack.is_none() || answered == ack,
            // A SYN cookie leaves nothing behind (RFC 4987, section 3.6).
            SocketState::Absent => answered.is_some() && answered == ack,
            SocketState::TimeWait => false,
        }
    }
}
