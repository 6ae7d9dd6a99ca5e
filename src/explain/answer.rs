//! What is told of a connection.

use serde::Serialize;
use std::collections::BTreeMap;

/// What would become of the connection. Field names are a promise: `docs/admin.md` lists them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Answer {
    /// The cluster.
    pub cluster: String,
    /// The node the connection arrives at.
    pub node: String,
    /// The service.
    pub service: String,
    /// The front-end address; absent when the node has none of the service, so that nothing arrives there.
    pub frontend: Option<String>,
    /// The client's address; absent when it was not given.
    pub client: Option<String>,
    /// What rules were compared with, by condition; absent when the bytes are no complete and clear request.
    pub request: Option<BTreeMap<&'static str, Option<String>>>,
    /// Whether rules decide.
    pub outcome: Outcome,
    /// Why the request is ambiguous.
    pub ambiguity: Option<&'static str>,
    /// The rule that decides, or `default`.
    pub rule: String,
    /// How one of several nodes is chosen; absent where they are tried in turn.
    pub choice: Option<Chosen>,
    /// The nodes that are asked to answer, in order if nothing but the file and the request decides it. When none of them
    /// can, the local server answers, or the client is reset.
    pub candidates: Vec<String>,
    /// Nodes that are asked in place of the local server while its application is known to be down.
    pub while_local_is_down: Vec<String>,
    /// Nodes that were taken to be unable to answer; all others were taken to be well.
    pub down: Vec<String>,
    /// The first of the candidates; absent when more decides than the file and the request, and when the client is reset.
    pub answered_by: Option<String>,
    /// Whether the client is reset when none of the candidates can.
    pub or_reset: bool,
    /// How the client's packets reach another node that answers; absent when no other can.
    pub forward: Option<Forwarding>,
    /// `route` or `observe`.
    pub mode: &'static str,
    /// The rules in order, up to the one that matches.
    pub rules: Vec<Rule>,
}

/// How packets reach a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Forwarding {
    /// As in the file: `overlay`, `link` or `auto`.
    pub configured: &'static str,
    /// Why the overlay is used even between neighbours; absent if a link is used there.
    pub overlay_because: Option<&'static str>,
}

/// How one of several nodes is chosen.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Chosen {
    /// As in the file.
    pub by: String,
    /// Likewise.
    pub otherwise: &'static str,
    /// What it goes by; absent if by nothing in the request.
    pub key: Option<KeySeen>,
    /// Those that can be chosen, in the order of their scores if they have any.
    pub members: Vec<Member>,
    /// What else decides, in words.
    pub depends_on: Option<&'static str>,
}

/// What a choice goes by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct KeySeen {
    /// As in the file: `cookie:session`.
    pub key: String,
    /// What the client sent there; absent if it sent no such thing: then its address is taken.
    pub value: Option<String>,
    /// 64 bits, in hexadecimal digits; absent if not even the address is given.
    pub hash: Option<String>,
}

/// One that can be chosen.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// Its share.
    pub weight: u32,
    /// The lower, the earlier it is asked; absent where the key does not decide.
    pub score: Option<f64>,
}

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A rule, or the default because none matches.
    Decided,
    /// The default: servers could read the bytes differently.
    Ambiguous,
    /// The default, unless more bytes come in time.
    Incomplete,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rule {
    /// Its name.
    pub rule: String,
    /// Its conditions, one line.
    pub conditions: String,
    /// Whether it matches.
    pub matched: bool,
    /// The first condition that does not hold.
    pub unmet: Option<Unmet>,
}

/// A condition that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unmet {
    /// Its name in the cluster file.
    pub condition: String,
    /// What the request has there; absent when it has nothing.
    pub seen: Option<String>,
    /// The same in words.
    pub reason: String,
}
