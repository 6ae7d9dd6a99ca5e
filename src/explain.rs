//! `baton explain`: what a node would do with a request, and why. Reads the cluster file and runs the code that routes;
//! asks no daemon and touches no host.

use crate::flow::{Endpoint, NodeId};
use crate::limits::cluster_file::TARGETS_MAX;
use crate::node::{StartError, load};
use crate::policy::{self, Explanation, Finally, Hello, Mode, Origin, Policy, Service, Target};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The node the connection arrives at.
    pub node: String,
    /// The service it is for.
    pub service: String,
    /// The front-end address the client connects to; when absent, the node's first one of the service and of the client's
    /// family.
    pub frontend: Option<Endpoint>,
    /// The client's address; rules that ask for one do not match when absent.
    pub client: Option<IpAddr>,
    /// What it sends.
    pub bytes: Bytes,
}

/// The first bytes of a connection.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// None: the SYN decides.
    Nothing,
    /// As they are.
    Raw(Vec<u8>),
    /// A request in words.
    Http {
        /// `GET`
        method: String,
        /// `/x`
        target: String,
        /// `HTTP/1.1`
        version: String,
        /// `Name: value`; with HTTP/1.1 the front-end address is the Host unless one is given here, as in a client that
        /// connects to an address.
        headers: Vec<String>,
        /// What follows the head. Its length is announced by a header unless one is given that does.
        body: Option<Vec<u8>>,
    },
    /// A TLS client's hello in words.
    Tls {
        /// The server name, if it names one.
        sni: Option<String>,
        /// The protocols it offers.
        alpn: Vec<String>,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The file is wrong, or has no such thing.
    File(StartError),
    /// It depends on what the client sends, and that was not said.
    NothingSent(String),
}

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
    /// The first of them; absent when more decides than the file and the request.
    pub answered_by: Option<String>,
    /// Whether the client is reset when none of the candidates can.
    pub or_reset: bool,
    /// `route` or `observe`.
    pub mode: &'static str,
    /// The rules in order, up to the one that matches.
    pub rules: Vec<Rule>,
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

/// Asks a cluster file.
pub fn ask(cluster: &Path, question: &Question) -> Result<Answer, Unanswered> {
    let (policy, _) = load(cluster, &question.node).map_err(Unanswered::File)?;
    let answer = answer(&policy, question)
        .map_err(|wrong| Unanswered::File(StartError::Cluster(format!("{}: {wrong}", cluster.display()))))?;
    if answer.outcome == Outcome::Incomplete && matches!(question.bytes, Bytes::Nothing) {
        return Err(Unanswered::NothingSent(format!("service {} goes by what the client sends", question.service)));
    }
    Ok(answer)
}

fn answer(policy: &Policy, question: &Question) -> Result<Answer, String> {
    let service = policy.service_named(&question.service).ok_or_else(|| {
        let names: Vec<&str> = policy.services.iter().map(|service| &*service.name).collect();
        format!("there is no service `{}`; choose one of them with --service NAME: {}", question.service, names.join(", "))
    })?;
    let frontend = frontend(policy, service, question)?;
    if let (Some(client), Some(frontend)) = (question.client, frontend)
        && client.is_ipv4() != frontend.address.is_ipv4()
    {
        return Err(format!("the client {client} cannot connect to {frontend}: they are of different families"));
    }
    let explanation = question.bytes.explain(service, Origin { client: question.client, frontend })?;
    let decision = &explanation.decision;
    let ranking = decision.choice.ranking(decision.key);
    let targets: Vec<Target> = match &ranking {
        Some(ranking) => ranking.iter().map(|(member, _)| member.target).collect(),
        None => decision.choice.members().iter().filter(|member| member.weight > 0).map(|member| member.target).collect(),
    };
    let asked = if decision.choice.asks_next() || ranking.is_none() { targets.len() } else { 1 };
    let candidates = candidates(policy, targets.get(..asked).unwrap_or(&targets), ranking.is_some());
    let mode = service.mode();
    Ok(Answer {
        cluster: policy.cluster.clone(),
        node: question.node.clone(),
        service: service.name.clone(),
        frontend: frontend.map(|frontend| frontend.to_string()),
        client: question.client.map(|client| client.to_string()),
        outcome: match (explanation.ambiguity(), explanation.needs_more()) {
            (Some(_), _) => Outcome::Ambiguous,
            (None, true) => Outcome::Incomplete,
            (None, false) => Outcome::Decided,
        },
        ambiguity: explanation.ambiguity().map(|ambiguity| ambiguity.label()),
        rule: explanation.decision.rule.to_string(),
        choice: chosen(policy, &explanation),
        answered_by: match (mode, &ranking) {
            (Mode::Observe, _) => Some(question.node.clone()),
            (Mode::Route, Some(_)) => candidates.first().cloned(),
            (Mode::Route, None) => None,
        },
        candidates,
        or_reset: decision.choice.finally() == Finally::Reset,
        mode: mode.word(),
        rules: rules(&explanation),
        request: (!explanation.request.is_empty()).then(|| explanation.request.into_iter().collect()),
    })
}

/// The front-end address in question, which must be one of the node's.
fn frontend(policy: &Policy, service: &Service, question: &Question) -> Result<Option<Endpoint>, String> {
    let own = service.frontends.iter().filter(|(node, _)| *node == policy.node).map(|(_, frontend)| *frontend);
    let own: Vec<Endpoint> = own.collect();
    match question.frontend {
        Some(asked) if !own.contains(&asked) => {
            let there = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() { "it has none".to_owned() } else { format!("it has {there}") };
            Err(format!("{asked} is no front-end address of service {} on node {}: {there}", service.name, question.node))
        }
        Some(asked) => Ok(Some(asked)),
        None => {
            let can_reach =
                |frontend: &&Endpoint| question.client.is_none_or(|client| client.is_ipv4() == frontend.address.is_ipv4());
            Ok(own.iter().find(can_reach).or(own.first()).copied())
        }
    }
}

fn name(policy: &Policy, target: Target) -> String {
    let NodeId(index) = target.node().unwrap_or(policy.node);
    policy.nodes.get(usize::from(index)).map_or_else(String::new, |node| node.name.clone())
}

/// Names instead of numbers; what follows the local server in order is never asked.
fn candidates(policy: &Policy, targets: &[Target], in_order: bool) -> Vec<String> {
    let local = targets.iter().position(|target| in_order && *target == Target::Local);
    let asked = targets.iter().take(local.map_or(TARGETS_MAX, |local| (local + 1).min(TARGETS_MAX)));
    asked.map(|target| name(policy, *target)).collect()
}

fn chosen(policy: &Policy, explanation: &Explanation) -> Option<Chosen> {
    let choice = &explanation.decision.choice;
    if choice.is_in_order() {
        return None;
    }
    let ranking = choice.ranking(explanation.decision.key);
    let ranked = ranking.unwrap_or_else(|| choice.members().iter().map(|member| (*member, None)).collect());
    let member = |(member, score): &(policy::Member, Option<f64>)| Member {
        node: name(policy, member.target),
        weight: member.weight,
        score: *score,
    };
    Some(Chosen {
        by: choice.by(),
        otherwise: choice.otherwise(),
        key: explanation.key.as_ref().map(|seen| KeySeen {
            key: seen.key.clone(),
            value: seen.value.clone(),
            hash: seen.hash.map(|hash| format!("{hash:016x}")),
        }),
        members: ranked.iter().map(member).collect(),
        depends_on: choice.depends_on(),
    })
}

fn rules(explanation: &Explanation) -> Vec<Rule> {
    let rule = |tried: &crate::policy::Tried| Rule {
        rule: tried.rule.to_string(),
        conditions: tried.conditions.clone(),
        matched: tried.unmet.is_none(),
        unmet: tried.unmet.as_ref().map(|unmet| Unmet {
            condition: unmet.condition.clone(),
            seen: unmet.seen.clone(),
            reason: unmet.reason.clone(),
        }),
    };
    explanation.tried.iter().map(rule).collect()
}

impl Bytes {
    fn explain(&self, service: &Service, origin: Origin) -> Result<Explanation, String> {
        match self {
            Self::Raw(bytes) => Ok(service.explain(bytes, origin)),
            Self::Nothing => Ok(service.explain(&[], origin)),
            Self::Http { method, target, version, headers, body } => {
                let mut text = format!("{method} {target} {version}\r\n");
                let names = |wanted: &str| {
                    let name = |header: &String| header.split_once(':').map(|(name, _)| name.trim().to_ascii_lowercase());
                    headers.iter().any(|header| name(header).as_deref() == Some(wanted))
                };
                if !names("host") && version != "HTTP/1.0" {
                    let host = origin.frontend.map_or_else(|| "localhost".to_owned(), |frontend| frontend.to_string());
                    let _ = write!(text, "Host: {host}\r\n");
                }
                for header in headers {
                    let _ = write!(text, "{header}\r\n");
                }
                if let Some(body) = body
                    && !names("content-length")
                    && !names("transfer-encoding")
                {
                    let _ = write!(text, "Content-Length: {}\r\n", body.len());
                }
                text.push_str("\r\n");
                let mut bytes = text.into_bytes();
                bytes.extend_from_slice(body.as_deref().unwrap_or_default());
                Ok(service.explain(&bytes, origin))
            }
            Self::Tls { sni, alpn } => {
                let alpn = alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
                let hello = Hello::new(sni.as_deref(), alpn).map_err(|why| format!("no client can say this ({why})"))?;
                Ok(service.explain_hello(hello, origin))
            }
        }
    }
}

/// For people.
pub fn text(answer: &Answer) -> String {
    let Answer { node, service, .. } = answer;
    let mut text = format!("service  {service} of cluster {}\n", answer.cluster);
    let _ = match &answer.frontend {
        Some(frontend) => writeln!(text, "arrives  at {frontend}, node {node}"),
        None => writeln!(text, "arrives  nowhere: {service} has no front-end address on node {node}"),
    };
    if let Some(request) = &answer.request {
        let shown = ["method", "host", "path", "sni", "alpn", "tls_version", "ech", "command", "key", "bytes"]
            .into_iter()
            .filter_map(|name| {
                let value = request.get(name)?.as_deref().unwrap_or("none");
                Some(format!("{name} {}", printable(value)))
            });
        let _ = writeln!(text, "request  {}", shown.collect::<Vec<_>>().join(", "));
    }
    let _ = writeln!(
        text,
        "client   {}",
        answer.client.as_deref().unwrap_or("not given (--client): rules that ask for one do not match")
    );
    text.push('\n');
    let width = answer.rules.iter().map(|rule| rule.rule.chars().count()).max().unwrap_or(0);
    for rule in &answer.rules {
        let (mark, why) = match &rule.unmet {
            Some(unmet) => ("no ", &unmet.reason),
            None => ("yes", &rule.conditions),
        };
        let _ = writeln!(text, "  {mark}  {:width$}  {}", rule.rule, printable(why));
    }
    if !answer.rules.is_empty() {
        text.push('\n');
    }
    let because = match (answer.outcome, answer.ambiguity) {
        (Outcome::Ambiguous, Some(kind)) => format!("{}: the request is ambiguous ({kind}), so no rule decides", answer.rule),
        (Outcome::Incomplete, _) => format!("{}, if no more comes: the request is not complete", answer.rule),
        _ if answer.rules.iter().any(|rule| rule.matched) => answer.rule.clone(),
        _ => format!("{}: no rule matches", answer.rule),
    };
    let _ = writeln!(text, "rule     {because}");
    if let Some(choice) = &answer.choice {
        write_choice(choice, &mut text);
    }
    let local = |name: &String| if name == node { format!("{name} (the local server)") } else { name.clone() };
    let mut servers: Vec<String> = answer.candidates.iter().map(local).collect();
    let is_in_order = answer.choice.as_ref().is_none_or(|choice| choice.members.iter().any(|member| member.score.is_some()));
    if !is_in_order {
        servers = vec![format!("one of {}", servers.join(", "))];
    }
    // Where the local server is asked, it answers.
    if !is_in_order || answer.candidates.last() != Some(node) {
        servers.push(if answer.or_reset { "the client is reset".to_owned() } else { local(node) });
    }
    let servers = servers.join("; if it cannot, ");
    let _ = match answer.mode {
        "observe" => {
            writeln!(text, "server   {node} (mode observe: the local server answers)\nwould be {servers}")
        }
        _ => writeln!(text, "server   {servers}"),
    };
    text
}

fn write_choice(choice: &Chosen, text: &mut String) {
    let _ = writeln!(text, "choice   by {}, otherwise {}", choice.by, choice.otherwise);
    if let Some(seen) = &choice.key {
        let value = match (&seen.value, &seen.hash) {
            (Some(value), _) => printable(value),
            (None, Some(_)) => "not there: the client's address instead".to_owned(),
            (None, None) => "not there, and no client is given (--client)".to_owned(),
        };
        let hash = seen.hash.as_ref().map_or_else(String::new, |hash| format!(", hash {hash}"));
        let _ = writeln!(text, "key      {} {value}{hash}", seen.key);
    }
    let width = choice.members.iter().map(|member| member.node.chars().count()).max().unwrap_or(0);
    for member in &choice.members {
        let score = member.score.map_or_else(String::new, |score| format!("  score {score:.4}"));
        let _ = writeln!(text, "         {:width$}  weight {}{score}", member.node, member.weight);
    }
    if let Some(depends_on) = choice.depends_on {
        let _ = writeln!(text, "depends  on {depends_on}");
    }
}

/// What a request says, as it may be printed on a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClusterFile;

    const TEXT: &str = "
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 10.77.0.1, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 10.77.0.2, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  web:
    frontends: { a: ['10.77.0.1:80', '10.77.0.1:8080'] }
    servers: { a: { port: 80 }, b: { port: 80 } }
    rules:
      - { name: near, when: { client: 192.0.2.0/24 }, send_to: [b, local] }
      - { name: by address, when: { host: 10.77.0.1 }, send_to: b }
";

    fn explain(node: &str, change: impl FnOnce(&mut Question)) -> Result<Answer, String> {
        let file = ClusterFile::parse("test", TEXT).unwrap_or_else(|report| panic!("{report}"));
        let bytes =
            Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
        let mut question = Question { node: node.into(), service: "web".into(), frontend: None, client: None, bytes };
        change(&mut question);
        answer(&file.compile(node).unwrap(), &question)
    }

    #[test]
    fn the_answer_as_people_read_it() {
        let answer = explain("a", |_| {}).unwrap();
        assert_eq!(
            text(&answer),
            "\
service  web of cluster shop
arrives  at 10.77.0.1:80, node a
request  method GET, host 10.77.0.1, path /
client   not given (--client): rules that ask for one do not match

  no   near        no client is given
  yes  by address  host 10.77.0.1

rule     by address
server   b; if it cannot, a (the local server)
"
        );
    }

    #[test]
    fn where_a_service_only_observes_it_is_said_what_would_be() {
        let observed = TEXT.replace("    rules:", "    mode: observe\n    rules:");
        let policy = ClusterFile::parse("test", &observed).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap();
        let bytes =
            Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
        let question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes };
        let answer = answer(&policy, &question).unwrap();
        assert_eq!(answer.answered_by.as_deref(), Some("a"));
        assert_eq!(
            said(&answer),
            "\
rule     by address
server   a (mode observe: the local server answers)
would be b; if it cannot, a (the local server)
"
        );
    }

    #[test]
    fn a_body_is_sent_with_its_length() {
        let json = TEXT.replace("{ host: 10.77.0.1 }", "{ frontend: '10.77.0.1:80', json: { /model: 'llama*' } }");
        let policy = ClusterFile::parse("test", &json).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap();
        let ask = |body: &str, headers: Vec<String>| {
            let bytes = Bytes::Http {
                method: "POST".into(),
                target: "/".into(),
                version: "HTTP/1.1".into(),
                headers,
                body: Some(body.into()),
            };
            let question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes };
            answer(&policy, &question).unwrap()
        };
        assert_eq!(ask("{\"model\": \"llama3\"}", vec![]).rule, "by address");
        let other = ask("{\"model\": \"x\"}", vec![]);
        let unmet = other.rules[1].unmet.as_ref().unwrap();
        assert_eq!((&*unmet.condition, unmet.seen.as_deref()), ("json /model", Some("x")));
        assert_eq!(ask("{\"model\": \"llama3\"}", vec!["Content-Length: 99".into()]).outcome, Outcome::Incomplete);
    }

    #[test]
    fn a_front_end_must_be_the_nodes_own() {
        let asked = |text: &str| Some(Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap()));
        let answer = explain("a", |question| question.frontend = asked("10.77.0.1:8080")).unwrap();
        assert_eq!(answer.frontend.as_deref(), Some("10.77.0.1:8080"));
        let error = explain("a", |question| question.frontend = asked("10.77.0.2:80")).unwrap_err();
        assert!(error.contains("it has 10.77.0.1:80, 10.77.0.1:8080"), "{error}");
        let nowhere = explain("b", |_| {}).unwrap();
        assert_eq!((nowhere.frontend, nowhere.answered_by.as_deref()), (None, Some("b")));
    }

    #[test]
    fn a_client_that_is_not_given_is_in_no_network_and_one_of_the_other_family_cannot_connect() {
        let everybody = TEXT.replace("192.0.2.0/24", "0.0.0.0/0");
        let file = ClusterFile::parse("test", &everybody).unwrap_or_else(|report| panic!("{report}"));
        let policy = file.compile("a").unwrap();
        let bytes =
            Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
        let mut question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes };
        assert_eq!(answer(&policy, &question).unwrap().rule, "by address");
        question.client = "203.0.113.7".parse().ok();
        assert_eq!(answer(&policy, &question).unwrap().rule, "near");
        question.client = "2001:db8::7".parse().ok();
        question.frontend = Some(Endpoint::new([10, 77, 0, 1].into(), 80));
        assert!(answer(&policy, &question).unwrap_err().contains("different families"));
    }

    #[test]
    fn what_follows_the_local_server_is_not_asked() {
        let near = |question: &mut Question| question.client = "192.0.2.1".parse().ok();
        assert_eq!(explain("a", near).unwrap().candidates, ["b", "a"]);
        assert_eq!(explain("b", near).unwrap().candidates, ["b"]);
    }

    /// What is said about a choice by node a, with this `send_to` and header.
    fn choice(send_to: &str, headers: &[&str], client: Option<&str>) -> Answer {
        let text = TEXT
            .replace("send_to: [b, local] }", "send_to: b }")
            .replace("host: 10.77.0.1 }, send_to: b", "path: / }, send_to: SEND");
        let file = ClusterFile::parse("test", &text.replace("SEND", send_to)).unwrap_or_else(|report| panic!("{report}"));
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        let bytes = Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers, body: None };
        let client = client.and_then(|client| client.parse().ok());
        let question = Question { node: "a".into(), service: "web".into(), frontend: None, client, bytes };
        answer(&file.compile("a").unwrap(), &question).unwrap()
    }

    fn said(answer: &Answer) -> String {
        let text = text(answer);
        text[text.find("rule  ").unwrap()..].to_owned()
    }

    #[test]
    fn a_hash_is_told_with_its_key_and_the_scores_of_all() {
        let send_to = "{ nodes: { a: 1, b: 2 }, by: 'hash(cookie:s)', otherwise: [next, reset] }";
        let sticky = choice(send_to, &["Cookie: s=1"], None);
        assert_eq!(
            said(&sticky),
            "\
rule     by address
choice   by hash(cookie:s), otherwise [next, reset]
key      cookie:s 1, hash 895a0ba97ae31bf5
         b  weight 2  score 0.0901
         a  weight 1  score 0.9151
server   b; if it cannot, a (the local server)
"
        );
        assert_eq!((sticky.answered_by.as_deref(), sticky.or_reset), (Some("b"), true));
        let only_b = choice("{ nodes: [b, a], by: 'hash(cookie:s)', otherwise: reset }", &["Cookie: s=1"], None);
        assert!(said(&only_b).ends_with("server   b; if it cannot, the client is reset\n"), "{}", said(&only_b));
        let without = said(&choice(send_to, &[], Some("203.0.113.9")));
        assert!(without.contains("key      cookie:s not there: the client's address instead, hash "), "{without}");
        let unknown = choice(send_to, &[], None);
        assert!(said(&unknown).contains("not there, and no client is given (--client)"));
        assert_eq!(unknown.answered_by, None);
    }

    #[test]
    fn where_more_than_the_request_decides_it_is_said_what() {
        let turns = choice("{ nodes: [a, b], by: round_robin }", &[], None);
        assert_eq!((turns.answered_by.as_deref(), turns.candidates.len()), (None, 2));
        assert_eq!(
            said(&turns),
            "\
rule     by address
choice   by round_robin, otherwise next
         a  weight 1
         b  weight 1
depends  on whose turn it is at this node
server   one of a (the local server), b; if it cannot, a (the local server)
"
        );
    }
}
