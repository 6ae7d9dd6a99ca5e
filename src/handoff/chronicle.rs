//! What is told about connections when they are over: how many came to what end, how long it took, and, if somebody keeps a
//! connection log, a record of each.
//!
//! Nothing here decides anything, and no connection costs memory for its record unless somebody wants it.

use super::counters::Fallback;
use crate::flow::{FlowKey, NodeId};
use crate::metrics::Histogram;
use crate::policy::Summary;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// A peer served it.
    HandedOff,
    /// The local server got it untouched; what happened then is not known here.
    Local,
    /// The local server served it through a replay.
    Replayed,
    /// The client ended it before anybody served it.
    Abandoned,
    /// Nobody could serve it: the client was reset.
    Reset,
}

impl Outcome {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::HandedOff => "handed_off",
            Self::Local => "local",
            Self::Replayed => "replayed",
            Self::Abandoned => "abandoned",
            Self::Reset => "reset",
        }
    }
}

/// How what is known of a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Left to the local server's kernel.
    Released,
    /// Its owner said that it is over.
    Closed,
    /// The same, and the client had sent a RST.
    ResetByClient,
    /// Its owner is gone.
    OwnerLost,
    /// Nobody could serve it.
    NoServer,
    /// Nobody was to serve it: `otherwise: reset`.
    ByPolicy,
    /// This process ended.
    Stopped,
}

impl End {
    /// As the connection log says it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Closed => "closed",
            Self::ResetByClient => "reset_by_client",
            Self::OwnerLost => "owner_lost",
            Self::NoServer => "no_server",
            Self::ByPolicy => "reset_by_policy",
            Self::Stopped => "stopped",
        }
    }
}

/// What is noted of a connection while it lives.
#[derive(Clone, Debug, Default)]
pub struct Story {
    began: Option<Instant>,
    decided: Option<Instant>,
    committed: Option<Instant>,
    first_answer: Option<Instant>,
    /// What the client asked for.
    pub summary: Option<Summary>,
    fallbacks: Vec<(Option<NodeId>, Fallback)>,
    octets: Option<Octets>,
    /// Not all that the client sent was seen.
    is_out_of_sight: bool,
    has_finished: bool,
    was_reset: bool,
}

/// Octets each way, as far as the front-end can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Octets {
    /// Sent by the client.
    pub from_client: u64,
    /// Acknowledged by the client.
    pub to_client: u64,
}

impl Story {
    /// The policy has decided.
    pub fn decide(&mut self, now: Instant) {
        self.decided.get_or_insert(now);
    }

    /// A candidate did not serve it; none if that was nobody's in particular.
    pub fn fall_back(&mut self, candidate: Option<NodeId>, reason: Fallback) {
        self.fallbacks.push((candidate, reason));
    }

    /// Its owner has it, and so many octets of the client.
    pub fn commit(&mut self, from_client: u32, now: Instant) {
        self.committed = Some(now);
        self.octets = Some(Octets { from_client: from_client.into(), to_client: 0 });
    }

    /// From now on segments may pass by unseen: how many octets there were nobody knows.
    pub fn lose_sight(&mut self) {
        self.is_out_of_sight = true;
    }

    /// A segment of the client went to the owner: by so much it has sent, and acknowledged, more than before.
    pub fn follow(&mut self, sent: u32, acknowledged: u32, fin: bool, rst: bool, now: Instant) {
        let octets = self.octets.get_or_insert_default();
        octets.from_client += u64::from(sent);
        octets.to_client += u64::from(acknowledged);
        if acknowledged > 0 {
            self.first_answer.get_or_insert(now);
        }
        self.has_finished |= fin;
        self.was_reset |= rst;
    }
}

/// A connection that is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its ends.
    pub flow: FlowKey,
    /// The service.
    pub service: Rc<str>,
    /// The rule that decided; none if none did.
    pub rule: Option<Rc<str>>,
    /// Who served it; none if nobody did.
    pub server: Option<NodeId>,
    /// What became of it.
    pub outcome: Outcome,
    /// How it ended.
    pub end: End,
    story: Story,
}

impl Record {
    /// What the client asked for.
    pub fn summary(&self) -> Option<&Summary> {
        self.story.summary.as_ref()
    }

    /// Who did not serve it, in order, and why.
    pub fn fallbacks(&self) -> &[(Option<NodeId>, Fallback)] {
        &self.story.fallbacks
    }

    /// From the handshake to the decision.
    pub fn until_decided(&self) -> Option<Duration> {
        self.since_began(self.story.decided)
    }

    /// From the handshake until its owner had it.
    pub fn until_committed(&self) -> Option<Duration> {
        self.since_began(self.story.committed)
    }

    /// From the handshake until the client acknowledged the first octet of the answer.
    pub fn until_first_answer(&self) -> Option<Duration> {
        self.since_began(self.story.first_answer)
    }

    /// From the handshake to the end.
    pub fn duration(&self, now: Instant) -> Option<Duration> {
        self.since_began(Some(now))
    }

    /// Octets each way; none for what the local server got untouched, and for what went over a link by itself. A FIN is no octet: that of the client is told apart, and
    /// when it is there and the owner says that all is over, so is the server's.
    pub fn octets(&self) -> Option<Octets> {
        let fin = u64::from(self.story.has_finished);
        self.story.octets.filter(|_| !self.story.is_out_of_sight).map(|octets| Octets {
            from_client: octets.from_client.saturating_sub(fin),
            to_client: octets.to_client.saturating_sub(if self.end == End::Closed { fin } else { 0 }),
        })
    }

    fn since_began(&self, at: Option<Instant>) -> Option<Duration> {
        Some(at?.saturating_duration_since(self.story.began?))
    }
}

type Labels = (Rc<str>, Rc<str>, Option<NodeId>, Outcome);

/// All that is told.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    wanted: bool,
    records: VecDeque<Record>,
    outcomes: BTreeMap<Labels, u64>,
    /// From the first octet of a request to the decision.
    pub decision: Histogram,
    /// From the decision to the commit, peers only.
    pub handoff: Histogram,
}

impl Chronicle {
    /// From now on somebody takes the records after every input.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// For a connection that begins.
    pub fn begin(&self, now: Instant) -> Option<Box<Story>> {
        self.wanted.then(|| Box::new(Story { began: Some(now), ..Story::default() }))
    }

    /// For one that began in an earlier life of this process: when, and with how many octets, is not known.
    pub fn adopt(&self) -> Option<Box<Story>> {
        self.wanted.then(Box::default)
    }

    /// For one whose SYN decided, when it came, and was forwarded to the owner that has now named itself.
    pub fn open(&self, began: Option<Instant>, now: Instant) -> Option<Box<Story>> {
        let opened = |began| Story { began: Some(began), decided: Some(began), committed: Some(now), ..Story::default() };
        self.wanted.then(|| Box::new(began.map(opened).unwrap_or_default()))
    }

    /// Counts what became of a connection.
    pub fn count(&mut self, service: &Rc<str>, rule: Option<&Rc<str>>, server: Option<NodeId>, outcome: Outcome) {
        let rule = rule.map_or_else(|| Rc::from(""), Rc::clone);
        *self.outcomes.entry((Rc::clone(service), rule, server, outcome)).or_default() += 1;
    }

    /// Keeps a record of a connection that is over, if it has a story.
    #[allow(clippy::too_many_arguments)] // They are the record.
    pub fn tell(
        &mut self,
        story: Option<Box<Story>>,
        flow: FlowKey,
        service: Rc<str>,
        rule: Option<Rc<str>>,
        server: Option<NodeId>,
        outcome: Outcome,
        end: End,
    ) {
        let Some(story) = story else { return };
        let end = if end == End::Closed && story.was_reset { End::ResetByClient } else { end };
        self.records.push_back(Record { flow, service, rule, server, outcome, end, story: *story });
    }

    /// The next record to write down.
    pub fn poll(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// What was counted: service, rule, server, outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&Labels, u64)> {
        self.outcomes.iter().map(|(labels, count)| (labels, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_an_earlier_life_has_a_story_only_if_somebody_wants_it_and_no_beginning() {
        let mut chronicle = Chronicle::default();
        assert!(chronicle.adopt().is_none());
        chronicle.want();
        assert_eq!(chronicle.adopt().map(|story| story.began), Some(None));
    }
}
