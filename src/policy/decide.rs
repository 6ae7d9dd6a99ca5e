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
            Head::Unclear(why) => Examination::Decided(Decision {
                note: Some(why),
                ..self.by_default()
            }),
            Head::Request(request) => Examination::Decided(self.decide(&request, client.address)),
        }
    }

    /// What the default says: for clients that say nothing, too much, or something unreadable.
    pub fn by_default(&self) -> Decision {
        Decision {
            rule: Rc::from(DEFAULT_RULE),
            targets: self.default.clone(),
            note: None,
        }
    }

    /// [`Service::examine`] with its reasons.
    pub fn explain(&self, first_flight: &[u8], client: Endpoint) -> Explanation {
        let examination = self.examine(first_flight, client);
        let Head::Request(request) = http::read(first_flight, self.inspect_bytes_max) else {
            return Explanation {
                examination,
                request: None,
                tried: Vec::new(),
            };
        };
        let matched = self.first_match(&request, client.address);
        let tried = self
            .rules
            .iter()
            .take(matched.map_or(self.rules.len(), |index| index + 1))
            .map(|rule| Tried {
                rule: Rc::clone(&rule.name),
                conditions: rule.when.to_string(),
                mismatch: rule
                    .when
                    .mismatch(&request, client.address)
                    .map(|mismatch| mismatch.explain(&request, client.address)),
            });
        let tried = tried.collect();
        let host = request.host.as_deref().unwrap_or("-");
        let line = format!(
            "method={} host={host} path={}",
            request.method,
            String::from_utf8_lossy(&request.path)
        );
        Explanation {
            examination,
            request: Some(line),
            tried,
        }
    }

    /// The port this node's application listens on for handed-off connections.
    pub fn server_port(&self, node: NodeId) -> Option<u16> {
        let index = self
            .servers
            .binary_search_by_key(&node, |server| server.0)
            .ok()?;
        self.servers.get(index).map(|server| server.1)
    }

    /// How many rules there are, the default not counted.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    fn decide(&self, request: &Request<'_>, client: IpAddr) -> Decision {
        match self
            .first_match(request, client)
            .and_then(|index| self.rules.get(index))
        {
            Some(Rule { name, targets, .. }) => Decision {
                rule: Rc::clone(name),
                targets: targets.clone(),
                note: None,
            },
            None => self.by_default(),
        }
    }

    fn first_match(&self, request: &Request<'_>, client: IpAddr) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.when.mismatch(request, client).is_none())
    }
}
