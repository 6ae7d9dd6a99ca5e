//! From the first bytes of a connection to the nodes that may answer it.

use super::ambiguity::Ambiguity;
use super::http::{self, Head};
use super::request::Request;
use super::rule::DEFAULT_RULE;
use super::{Service, rule::Rule};
use crate::flow::{Endpoint, NodeId};
use std::net::IpAddr;
use std::rc::Rc;

/// What should be done with a connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule, or `default`.
    pub rule: Rc<str>,
    /// Tried in order; when all fail (or the list is empty) the local server answers.
    pub targets: Vec<Target>,
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

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examination {
    /// Not enough yet. Never the answer once there are [`Service::inspect_bytes_max`] bytes.
    NeedMore,
    /// Decided. More bytes would not change it.
    Decided(Decision),
}

/// How an examination came out, for `baton explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the engine would be told.
    pub examination: Examination,
    /// What the rules were compared with, one line; none if the bytes are no (complete and clear) request.
    pub request: Option<String>,
    /// The rules in order, up to the one that matched.
    pub tried: Vec<Tried>,
}

/// One rule of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Name of the rule.
    pub rule: Rc<str>,
    /// Its conditions, one line.
    pub conditions: String,
    /// Why it did not match; none if it did.
    pub mismatch: Option<String>,
}

impl Service {
    /// Looks at the first bytes of a connection (all that arrived in order so far). The first rule that matches decides;
    /// if none does, or the bytes cannot be read as one clear request, the default.
    pub fn examine(&self, first_flight: &[u8], client: Endpoint) -> Examination {
        match http::read(first_flight, self.inspect_bytes_max) {
            Head::Incomplete => Examination::NeedMore,
            Head::Unclear(why) => Examination::Decided(Decision { note: Some(why), ..self.by_default() }),
            Head::Request(request) => Examination::Decided(self.decide(&request, client.address)),
        }
    }

    /// What the default says: for clients that say nothing, too much, or something unreadable.
    pub fn by_default(&self) -> Decision {
        Decision { rule: Rc::from(DEFAULT_RULE), targets: self.default.clone(), note: None }
    }

    /// [`Service::examine`] with its reasons.
    pub fn explain(&self, first_flight: &[u8], client: Endpoint) -> Explanation {
        let examination = self.examine(first_flight, client);
        let Head::Request(request) = http::read(first_flight, self.inspect_bytes_max) else {
            return Explanation { examination, request: None, tried: Vec::new() };
        };
        let matched = self.first_match(&request, client.address);
        let tried = self.rules.iter().take(matched.map_or(self.rules.len(), |index| index + 1)).map(|rule| Tried {
            rule: Rc::clone(&rule.name),
            conditions: rule.when.to_string(),
            mismatch: rule.when.mismatch(&request, client.address).map(|mismatch| mismatch.explain(&request, client.address)),
        });
        let tried = tried.collect();
        let host = request.host.as_deref().unwrap_or("-");
        let line = format!("method={} host={host} path={}", request.method, String::from_utf8_lossy(&request.path));
        Explanation { examination, request: Some(line), tried }
    }

    /// The port this node's application listens on for handed-off connections.
    pub fn server_port(&self, node: NodeId) -> Option<u16> {
        let index = self.servers.binary_search_by_key(&node, |server| server.0).ok()?;
        self.servers.get(index).map(|server| server.1)
    }

    /// How many rules there are, the default not counted.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    fn decide(&self, request: &Request<'_>, client: IpAddr) -> Decision {
        match self.first_match(request, client).and_then(|index| self.rules.get(index)) {
            Some(Rule { name, targets, .. }) => Decision { rule: Rc::clone(name), targets: targets.clone(), note: None },
            None => self.by_default(),
        }
    }

    fn first_match(&self, request: &Request<'_>, client: IpAddr) -> Option<usize> {
        self.rules.iter().position(|rule| rule.when.mismatch(request, client).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoint, shop};
    use super::*;

    const FAR: &str = "203.0.113.1:4000";

    fn explain(head: &str, client: &str) -> Explanation {
        let request = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        shop("a").services[0].explain(request.as_bytes(), endpoint(client))
    }

    fn decide(head: &str, client: &str) -> Decision {
        match explain(head, client).examination {
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
        assert_eq!(decision.targets, [Target::Local]);
        let clear = decide("GET / HTTP/1.0", FAR);
        assert_eq!((clear.note, &clear), (None, &shop("a").services[0].by_default()));
    }

    #[test]
    fn an_incomplete_request_needs_more() {
        let shop = shop("a");
        assert_eq!(shop.services[0].examine(b"GET / HTTP/1.0\r\n", endpoint(FAR)), Examination::NeedMore);
        assert_eq!(shop.services[0].examine(b"", endpoint(FAR)), Examination::NeedMore);
    }

    #[test]
    fn an_explanation_says_why_each_earlier_rule_did_not_match() {
        let explanation = explain("GET /a%20b HTTP/1.1\nHost: X\nX-Shard: 7", FAR);
        assert_eq!(explanation.request.as_deref(), Some("method=GET host=x path=/a b"));
        let lines: Vec<String> = explanation
            .tried
            .iter()
            .map(|tried| format!("{} ({}): {:?}", tried.rule, tried.conditions, tried.mismatch.as_deref()))
            .collect();
        let expected = [
            "images (path /images/*, method GET or HEAD): Some(\"path /a b fits none of its patterns\")",
            "image host (host img.example.com): Some(\"host x is not among its hosts\")",
            "sharded (header x-shard 7): None",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_explanation_of_no_match_shows_every_rule() {
        let explanation = explain("GET / HTTP/1.0", FAR);
        let why: Vec<String> = explanation.tried.into_iter().filter_map(|tried| tried.mismatch).collect();
        let expected = [
            "path / fits none of its patterns",
            "the request names no host",
            "the request has no header x-shard",
            "client 203.0.113.1 is in none of its networks",
        ];
        assert_eq!(why, expected);
        assert!(explain("\0", FAR).tried.is_empty());
    }

    #[test]
    fn the_server_port_is_the_nodes_own() {
        let shop = shop("a");
        assert_eq!(shop.services[0].server_port(NodeId(2)), Some(8080));
        assert_eq!(shop.services[0].server_port(NodeId(7)), None);
    }
}
