//! From the first bytes of a connection to the nodes that may answer it.

use super::ambiguity::Ambiguity;
use super::choice::{Choice, Key};
use super::inspect::{Content, Reading};
use super::looks::Searches;
use super::rule::Rule;
use super::subject::{Origin, Subject};
use super::truth::{Truth, Unknown};
use super::{Mode, Protocol, Service};
use crate::flow::NodeId;
use std::rc::Rc;

/// What should be done with a connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule, or `default`.
    pub rule: Rc<str>,
    /// Who may answer, and how one of them is chosen.
    pub choice: Rc<Choice>,
    /// What it goes by in what the client sent, as a hash; none if it goes by nothing.
    pub key: Option<u64>,
    /// Why the rules were not asked, if they were not because of what the client sent. To be counted by its label.
    pub note: Option<Ambiguity>,
}

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node the connection arrived at.
    Local,
    /// A peer (never the node itself: that is `Local`).
    Node(NodeId),
}

impl Target {
    /// The node, if one is named.
    pub const fn node(self) -> Option<NodeId> {
        match self {
            Self::Local => None,
            Self::Node(node) => Some(node),
        }
    }
}

impl Decision {
    /// What a rule decides. What its choice goes by may not be known yet.
    fn new(rule: &Rule, subject: &Subject<'_>) -> Result<Self, Unknown> {
        let key = rule.choice.key().map_or(Ok(None), |key| key.hash_or_client(subject))?;
        Ok(Self { rule: Rc::clone(&rule.name), choice: Rc::clone(&rule.choice), key, note: None })
    }

    /// The same when nothing of what the client sent is known.
    fn unread(rule: &Rule, origin: Origin) -> Self {
        let key = rule.choice.key().and_then(|_| Key::hash_of_client(origin));
        Self { rule: Rc::clone(&rule.name), choice: Rc::clone(&rule.choice), key, note: None }
    }

    /// The local server, whatever the policy says.
    pub fn local(rule: Rc<str>) -> Self {
        Self { rule, choice: Rc::new(Choice::local()), key: None, note: None }
    }

    /// Those who may answer, in the order of the file.
    pub fn targets(&self) -> Vec<Target> {
        self.choice.targets()
    }
}

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examination {
    /// Not enough yet. Never the answer once there are [`Service::inspect_bytes_max`] bytes.
    NeedMore,
    /// Decided. More bytes would not change it.
    Decided(Decision),
}

impl Service {
    /// Looks at the first bytes of a connection (all that arrived in order so far). The first rule that matches decides;
    /// if none does, or the bytes cannot be read as one clear request or hello, the default.
    pub fn examine(&self, first_flight: &[u8], origin: impl Into<Origin>) -> Examination {
        let mut text = Vec::new();
        let (reading, origin) = self.read(first_flight, origin.into(), false, &mut text);
        self.judge(&reading, origin, None)
    }

    /// [`Service::examine`] of bytes that were read; searches of raw bytes go on where they stood.
    pub(super) fn judge(&self, reading: &Reading<'_>, origin: Origin, searches: Option<&Searches>) -> Examination {
        match reading {
            Reading::Incomplete => Examination::NeedMore,
            Reading::Unclear(why) => self.unclear(*why, origin),
            Reading::Clear(content) => {
                let decided = self.by_rules(&Subject::new(content, origin, &self.pointers).going_on(searches));
                match self.without_empty_segments(content, origin) {
                    Some(other) => self.reconciled(decided, other, origin),
                    None => decided,
                }
            }
        }
    }

    /// What the rules say of a path with several slashes on end to servers that take them for one; none if it has not.
    fn without_empty_segments(&self, content: &Content<'_>, origin: Origin) -> Option<Examination> {
        let merged = Content::Http(content.http()?.with_slashes_merged()?);
        Some(self.by_rules(&Subject::new(&merged, origin, &self.pointers)))
    }

    /// It is known where a connection goes only if both kinds of servers see the same rule decide, by the same key: what one of
    /// them was given under `/a//b`, another is asked for as `/a/b`.
    fn reconciled(&self, decided: Examination, other: Examination, origin: Origin) -> Examination {
        match (&decided, &other) {
            (Examination::Decided(one), Examination::Decided(other)) if (&one.rule, one.key) != (&other.rule, other.key) => {
                self.unclear(Ambiguity::PathSlashes, origin)
            }
            (_, Examination::NeedMore) => other,
            _ => decided,
        }
    }

    pub(super) fn unclear(&self, why: Ambiguity, origin: Origin) -> Examination {
        Examination::Decided(Decision { note: Some(why), ..self.by_default(origin) })
    }

    /// What the default says: for clients that say nothing, too much, or something unreadable. If it goes by something in
    /// the request, it goes by the client's address.
    pub fn by_default(&self, origin: impl Into<Origin>) -> Decision {
        Decision::unread(&self.default, origin.into())
    }

    /// Whether decisions are acted on.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Every choice of its rules and its default.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.rules.iter().chain([&self.default]).map(|rule| &*rule.choice)
    }

    /// The port this node's application listens on for handed-off connections.
    pub fn server_port(&self, node: NodeId) -> Option<u16> {
        let index = self.servers.binary_search_by_key(&node, |server| server.0).ok()?;
        self.servers.get(index).map(|server| server.1)
    }

    /// How the first bytes are read.
    pub fn inspect(&self) -> Protocol {
        self.inspect
    }

    /// Whether connections are decided on by their SYN, before anybody has answered it.
    pub fn decides_on_syn(&self) -> bool {
        self.inspect == Protocol::None
    }

    /// How many rules there are, the default not counted.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The first rule that matches.
    pub(super) fn by_rules(&self, subject: &Subject<'_>) -> Examination {
        let mut first: Option<(u32, &Rule, Truth)> = None;
        self.index.candidates(subject, |positions| {
            for position in positions.iter().copied().take_while(|position| first.is_none_or(|(first, ..)| *position < first)) {
                let Some(rule) = usize::try_from(position).ok().and_then(|position| self.rules.get(position)) else { break };
                let truth = rule.holds(subject);
                if settles(truth) {
                    first = Some((position, rule, truth));
                    break;
                }
            }
        });
        match first {
            Some((_, rule, Truth::Yes)) => self.decided(rule, subject),
            Some((.., Truth::Unknown(Unknown::SoFar))) => Examination::NeedMore,
            Some((.., Truth::Unknown(Unknown::Ambiguous(why)))) => self.unclear(why, subject.origin),
            Some((.., Truth::No | Truth::Unknown(Unknown::Forever))) | None => self.decided(&self.default, subject),
        }
    }

    /// What a rule decides that matches.
    fn decided(&self, rule: &Rule, subject: &Subject<'_>) -> Examination {
        match Decision::new(rule, subject) {
            Ok(decision) => Examination::Decided(decision),
            Err(Unknown::SoFar) => Examination::NeedMore,
            Err(Unknown::Ambiguous(why)) => self.unclear(why, subject.origin),
            Err(Unknown::Forever) => Examination::Decided(Decision::unread(rule, subject.origin)),
        }
    }
}

/// Whether the rules behind one whose conditions are so have no say.
pub(super) fn settles(truth: Truth) -> bool {
    match truth {
        Truth::Yes | Truth::Unknown(Unknown::SoFar | Unknown::Ambiguous(_)) => true,
        Truth::No | Truth::Unknown(Unknown::Forever) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoint, shop};
    use super::*;

    const FAR: &str = "203.0.113.1:4000";

    fn decide(head: &str, client: &str) -> Decision {
        let request = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        match shop("a").services[0].examine(request.as_bytes(), endpoint(client)) {
            Examination::Decided(decision) => decision,
            Examination::NeedMore => panic!("{head} is a whole request"),
        }
    }

    fn rule(head: &str, client: &str) -> String {
        decide(head, client).rule.to_string()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(rule("GET /images/1 HTTP/1.1\nHost: img.example.com", FAR), "images");
        assert_eq!(rule("PUT /images/1 HTTP/1.1\nHost: img.example.com", FAR), "image host");
    }

    #[test]
    fn all_matchers_of_a_rule_must_hold() {
        assert_eq!(rule("GET /images/1 HTTP/1.0", FAR), "images");
        assert_eq!(rule("PUT /images/1 HTTP/1.0", FAR), "default");
        assert_eq!(rule("GET /image HTTP/1.0", FAR), "default");
    }

    #[test]
    fn hosts_match_without_case_and_port() {
        assert_eq!(rule("GET / HTTP/1.1\nHost: IMG.Example.com:8080", FAR), "image host");
        assert_eq!(rule("GET / HTTP/1.1\nHost: example.com", FAR), "default");
        assert_eq!(rule("GET http://img.example.com/ HTTP/1.0", FAR), "image host");
    }

    #[test]
    fn one_of_several_header_fields_of_a_name_is_enough() {
        assert_eq!(rule("GET / HTTP/1.0\nX-Shard: 8\nx-shard: 7", FAR), "sharded");
        assert_eq!(rule("GET / HTTP/1.0\nX-Shard: 77", FAR), "default");
    }

    #[test]
    fn clients_match_by_network() {
        assert_eq!(rule("GET / HTTP/1.0", "192.0.2.255:9"), "near");
        assert_eq!(rule("GET / HTTP/1.0", "192.0.3.0:9"), "default");
        assert_eq!(rule("GET / HTTP/1.0", "[2001:db8::1]:9"), "default");
    }

    #[test]
    fn an_unclear_request_goes_to_the_default_and_says_why() {
        let decision = decide("GET /images/../x HTTP/1.0", FAR);
        assert_eq!((&*decision.rule, decision.note), ("default", Some(Ambiguity::PathDots)));
        assert_eq!(decision.targets(), [Target::Local]);
        let clear = decide("GET / HTTP/1.0", FAR);
        assert_eq!((clear.note, &clear), (None, &shop("a").services[0].by_default(None)));
    }

    #[test]
    fn an_incomplete_request_needs_more() {
        let shop = shop("a");
        assert_eq!(shop.services[0].examine(b"GET / HTTP/1.0\r\n", endpoint(FAR)), Examination::NeedMore);
        assert_eq!(shop.services[0].examine(b"", endpoint(FAR)), Examination::NeedMore);
    }

    #[test]
    fn the_server_port_is_the_nodes_own() {
        let shop = shop("a");
        assert_eq!(shop.services[0].server_port(NodeId(2)), Some(8080));
        assert_eq!(shop.services[0].server_port(NodeId(7)), None);
    }
}
