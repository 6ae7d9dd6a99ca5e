//! Counted reasons: every dropped packet and every fall-back has one. The names are metric labels.

use crate::control::message::Refusal;
use crate::flow::NodeId;
use crate::health::Unfit;
use crate::metrics::label_value;
use crate::policy::{Mode, Node};
use std::collections::BTreeMap;
use std::rc::Rc;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }
        impl $name {
            /// All reasons, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Why a packet went nowhere.
    DropReason {
        /// Not a TCP segment or ICMP error in a well-formed IP packet.
        Malformed => "malformed",
        /// Well-formed, but for no address of ours; other hosts' and IPv6 housekeeping packets that enter any device.
        NotOurs => "not_ours",
        /// The local kernel's repeated SYN-ACK for a connection whose client has long acknowledged it.
        SynAckAbsorbed => "syn_ack_absorbed",
        /// A RST whose sequence number is not exactly the next one (RFC 5961, section 3.2).
        ResetNotExact => "reset_not_exact",
        /// A SYN for a connection that exists; answered with a challenge ACK (RFC 5961, section 4.2).
        SynOnConnection => "syn_on_connection",
        /// Acknowledges what was never sent.
        BadAcknowledgement => "bad_acknowledgement",
        /// Outside what an undecided connection may send.
        OutOfWindow => "out_of_window",
        /// A first flight or the room for overtaking segments is full; the client sends it again.
        HeldFull => "held_full",
        /// From an alias, or for one, without a connection: it must not leave.
        NoConnection => "no_connection",
        /// Through the overlay, from a node that is not the connection's ingress.
        WrongIngress => "wrong_ingress",
        /// For a connection guarded in an earlier life and not yet claimed by its owner.
        Orphan => "orphan",
        /// For a connection whose owner is lost; the client was reset.
        OwnerLost => "owner_lost",
        /// From the kernel for a replay that has no such state.
        UnexpectedFromKernel => "unexpected_from_kernel",
        /// A wrong checksum, in a segment that BTCP itself would have acted on.
        Checksum => "checksum",
        /// The first IP fragment of a segment for a connection that was handed off.
        Fragment => "fragment",
        /// A SYN kept until the owner says whether the connection before it is over.
        SynKept => "syn_kept",
        /// For a connection to a shared address whose owner cannot be found now; its client sends it again.
        OwnerUnknown => "owner_unknown",
        /// The same, and too many owners are looked for already.
        OwnerNotAsked => "owner_not_asked",
    }
}

reasons! {
    /// Why a candidate that the policy chose does not serve a connection.
    Fallback {
        /// No session with the peer, or it broke during the offer.
        PeerDown => "peer_down",
        /// The peer said it is draining before it was asked.
        PeerDraining => "peer_draining",
        /// The peer said that its application is down.
        PeerUnhealthy => "peer_unhealthy",
        /// The peer said that its table of connections is full.
        PeerFull => "peer_full",
        /// Probes through the peer fail, and the cluster file says that this counts.
        ProbeFailed => "probe_failed",
        /// The local application is down, and the rule names others behind it.
        LocalUnhealthy => "local_unhealthy",
        /// The back-end's kernel answered RST.
        RefusedApplicationDown => "refused_application_down",
        /// The back-end's kernel did not answer.
        RefusedBacklogFull => "refused_backlog_full",
        /// The back-end's kernel does not keep what the client was promised.
        RefusedPromise => "refused_promise",
        /// A table of the back-end is full.
        RefusedFull => "refused_full",
        /// The back-end drains.
        RefusedDraining => "refused_draining",
        /// The back-end's cluster file does not have this service.
        RefusedUnknownService => "refused_unknown_service",
        /// The back-end has a live connection with the same ends.
        RefusedInUse => "refused_in_use",
        /// In the back-end's cluster file it is not among the servers of the service.
        RefusedNotAServer => "refused_not_a_server",
        /// In the back-end's cluster file this is not a front-end address of this node.
        RefusedUnknownFrontend => "refused_unknown_frontend",
        /// No answer in time.
        Deadline => "deadline",
        /// The guard could not be written.
        GuardFailed => "guard_failed",
        /// The back-end took the connection, could not deliver, and gave it back untouched.
        Returned => "returned",
        /// This process stood still for so long that the kernel may have served the connection.
        Stalled => "stalled",
        /// The local kernel has a whole connection where only a request was thought to be: it is the local server's.
        KernelWentOn => "kernel_went_on",
        /// This node drains.
        Draining => "draining",
        /// The front-end address was taken out of the cluster file.
        FrontendRemoved => "frontend_removed",
        /// A table of this node is full.
        Full => "full",
    }
}

impl From<Refusal> for Fallback {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ApplicationDown => Self::RefusedApplicationDown,
            Refusal::BacklogFull => Self::RefusedBacklogFull,
            Refusal::Promise => Self::RefusedPromise,
            Refusal::Full => Self::RefusedFull,
            Refusal::Draining => Self::RefusedDraining,
            Refusal::UnknownService => Self::RefusedUnknownService,
            Refusal::InUse => Self::RefusedInUse,
            Refusal::NotAServer => Self::RefusedNotAServer,
            Refusal::UnknownFrontend => Self::RefusedUnknownFrontend,
        }
    }
}

impl From<Unfit> for Fallback {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Unreachable => Self::PeerDown,
            Unfit::Draining => Self::PeerDraining,
            Unfit::Full => Self::PeerFull,
            Unfit::Unhealthy => Self::PeerUnhealthy,
            Unfit::ProbeFailed => Self::ProbeFailed,
        }
    }
}

/// What became of the decisions of one rule: who was chosen first of those that could be asked.
#[derive(Clone, Debug, Default)]
struct Chosen {
    decisions: u64,
    routed: BTreeMap<Option<NodeId>, u64>,
    observed: BTreeMap<Option<NodeId>, u64>,
}

/// Everything the engine counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
    fallbacks: [u64; Fallback::ALL.len()],
    /// By service and rule.
    decisions: BTreeMap<String, BTreeMap<Rc<str>, Chosen>>,
    /// Requests too unclear to choose a server by, by what is unclear.
    ambiguous: BTreeMap<&'static str, u64>,
    /// SYNs seen at this node's front-end addresses.
    pub syns: u64,
    /// SYNs pushed out of the SYN table before the kernel answered.
    pub syns_evicted: u64,
    /// Connections followed from their SYN-ACK on.
    pub connections: u64,
    /// Connections released to the local server, untouched.
    pub released_local: u64,
    /// Connections decided for the local server on their SYN.
    pub local_on_syn: u64,
    /// Packets of clients that belong to no connection that is followed: the local server's.
    pub local_packets: u64,
    /// SYNs forwarded to a peer that shall serve the connection.
    pub syns_forwarded: u64,
    /// Peers asked whether they own a connection to a shared address.
    pub owner_questions: u64,
    /// Such questions of peers that asked too many.
    pub owner_questions_unanswered: u64,
    /// Owners found of connections to shared addresses that did not begin here.
    pub owners_found: u64,
    /// Connections served by the local server through a replay to self.
    pub replays_to_self: u64,
    /// Connections whose half in the kernel was purged because they were held too long or acknowledged early.
    pub parked: u64,
    /// First flights acknowledged on the kernel's behalf.
    pub early_acknowledgements: u64,
    /// Offers sent to peers.
    pub offers_sent: u64,
    /// Commits sent to peers.
    pub handoffs_committed: u64,
    /// Commits received from peers and applied.
    pub handoffs_accepted: u64,
    /// Probes sent to peers.
    pub probes_sent: u64,
    /// Probes of peers taken; they are not among the handoffs accepted.
    pub probes_accepted: u64,
    /// Offers of peers refused here.
    pub offers_refused: u64,
    /// First flights delivered again because the kernel had not acknowledged them.
    pub redeliveries: u64,
    /// Connections returned to their front-end.
    pub handoffs_returned: u64,
    /// Handed-off connections that ended, front-end side.
    pub handoffs_closed: u64,
    /// Connections reset because nobody could serve them.
    pub resets: u64,
    /// Connections reset by an undecided client.
    pub reset_by_client: u64,
    /// Connections reset because the policy says so when nobody it chose takes them.
    pub resets_by_policy: u64,
    /// Connections of services that only observe that were let go of undecided: they would have been parked.
    pub observed_undecided: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenge_acks: u64,
    /// Connections destroyed here because their front-end had given them up.
    pub disowned: u64,
    /// Connections taken over from an earlier life of this process.
    pub adopted: u64,
    /// Connections whose packets went over a link at least once.
    pub linked: u64,
    /// Packets of connections served here that came over a link.
    pub linked_received: u64,
}

impl Counters {
    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
    /// Packets dropped for this reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
    /// Counts a candidate passed over.
    pub fn fall_back(&mut self, reason: Fallback) {
        self.fallbacks[reason as usize] += 1;
    }
    /// Counts a decision of the policy, and who was chosen: a node, or nobody (a reset).
    pub fn decide(&mut self, service: &str, rule: &Rc<str>, node: Option<NodeId>, mode: Mode) {
        // Names are copied once.
        if !self.decisions.contains_key(service) {
            self.decisions.insert(service.to_owned(), BTreeMap::new());
        }
        let Some(rules) = self.decisions.get_mut(service) else { return };
        let chosen = rules.entry(Rc::clone(rule)).or_default();
        chosen.decisions += 1;
        let by_node = match mode {
            Mode::Route => &mut chosen.routed,
            Mode::Observe => &mut chosen.observed,
        };
        *by_node.entry(node).or_default() += 1;
    }
    /// Counts a request that is not clear enough to choose a server by.
    pub fn note(&mut self, kind: &'static str) {
        *self.ambiguous.entry(kind).or_default() += 1;
    }
    /// All of them by name, in a stable order.
    pub fn list(&self, nodes: &[Node]) -> Vec<(String, u64)> {
        let plain = [
            ("syns_total", self.syns),
            ("syns_evicted_total", self.syns_evicted),
            ("connections_total", self.connections),
            ("decisions_local_total", self.released_local + self.replays_to_self + self.local_on_syn),
            ("released_local_total", self.released_local),
            ("replays_to_self_total", self.replays_to_self),
            ("local_on_syn_total", self.local_on_syn),
            ("local_packets_total", self.local_packets),
            ("syns_forwarded_total", self.syns_forwarded),
            ("owner_questions_total", self.owner_questions),
            ("owner_questions_unanswered_total", self.owner_questions_unanswered),
            ("owners_found_total", self.owners_found),
            ("parked_total", self.parked),
            ("early_acknowledgements_total", self.early_acknowledgements),
            ("offers_sent_total", self.offers_sent),
            ("handoffs_committed_total", self.handoffs_committed),
            ("handoffs_closed_total", self.handoffs_closed),
            ("handoffs_accepted_total", self.handoffs_accepted),
            ("handoffs_returned_total", self.handoffs_returned),
            ("probes_sent_total", self.probes_sent),
            ("probes_accepted_total", self.probes_accepted),
            ("offers_refused_total", self.offers_refused),
            ("redeliveries_total", self.redeliveries),
            ("resets_total", self.resets),
            ("reset_by_client_total", self.reset_by_client),
            ("resets_by_policy_total", self.resets_by_policy),
            ("observed_undecided_total", self.observed_undecided),
            ("challenge_acks_total", self.challenge_acks),
            ("disowned_total", self.disowned),
            ("adopted_total", self.adopted),
            ("linked_total", self.linked),
            ("linked_received_total", self.linked_received),
        ];
        let mut list: Vec<_> = plain.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let name = |node: Option<NodeId>| match node {
            Some(node) => nodes.get(usize::from(node.0)).map_or("", |node| &node.name),
            // As where outcomes are counted: nobody.
            None => "",
        };
        let rules = || {
            let all = self.decisions.iter().flat_map(|(service, rules)| rules.iter().map(move |rule| (service, rule)));
            all.map(|(service, (rule, chosen))| (format!("service=\"{service}\",rule=\"{}\"", label_value(rule)), chosen))
        };
        for (labels, chosen) in rules() {
            list.push((format!("decisions_total{{{labels}}}"), chosen.decisions));
        }
        for (counter, which) in [("chosen_total", Mode::Route), ("observed_total", Mode::Observe)] {
            for (labels, chosen) in rules() {
                let by_node = if which == Mode::Route { &chosen.routed } else { &chosen.observed };
                for (node, count) in by_node {
                    list.push((format!("{counter}{{{labels},node=\"{}\"}}", name(*node)), *count));
                }
            }
        }
        list.extend(self.ambiguous.iter().map(|(kind, count)| (format!("ambiguous_requests_total{{kind=\"{kind}\"}}"), *count)));
        list.extend(
            Fallback::ALL
                .iter()
                .map(|reason| (format!("fallbacks_total{{reason=\"{}\"}}", reason.label()), self.fallbacks[*reason as usize])),
        );
        list.extend(
            DropReason::ALL
                .iter()
                .map(|reason| (format!("drops_total{{reason=\"{}\"}}", reason.label()), self.drops[*reason as usize])),
        );
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented() {
        let (dropped, fell_back) = (include_str!("../../docs/admin.md"), include_str!("../../docs/handoff-protocol.md"));
        let named = |document: &str, label: &str| document.contains(&format!("`{label}`"));
        let undocumented = |label: &&str| !named(dropped, label) && !named(fell_back, label);
        let labels = DropReason::ALL.iter().map(|reason| reason.label());
        let labels = labels.chain(Fallback::ALL.iter().map(|reason| reason.label()));
        assert_eq!(labels.filter(undocumented).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
