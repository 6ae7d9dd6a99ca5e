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
    let bytes = Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
    let mut question = Question { node: node.into(), service: "web".into(), frontend: None, client: None, bytes, down: vec![] };
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
assumes  that every node is up and well (--down NODE asks what if not)
"
    );
}

#[test]
fn where_a_service_only_observes_it_is_said_what_would_be() {
    let observed = TEXT.replace("    rules:", "    mode: observe\n    rules:");
    let policy = ClusterFile::parse("test", &observed).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap();
    let bytes = Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
    let question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes, down: vec![] };
    let answer = answer(&policy, &question).unwrap();
    assert_eq!(answer.answered_by.as_deref(), Some("a"));
    assert_eq!(
        said(&answer),
        "\
rule     by address
server   a (mode observe: the local server answers)
would be b; if it cannot, a (the local server)
assumes  that every node is up and well (--down NODE asks what if not)
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
        let question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes, down: vec![] };
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
    let bytes = Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
    let mut question = Question { node: "a".into(), service: "web".into(), frontend: None, client: None, bytes, down: vec![] };
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
    let question = Question { node: "a".into(), service: "web".into(), frontend: None, client, bytes, down: vec![] };
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
assumes  that every node is up and well (--down NODE asks what if not)
"
    );
    assert_eq!((sticky.answered_by.as_deref(), sticky.or_reset), (Some("b"), true));
    let only_b = choice("{ nodes: [b, a], by: 'hash(cookie:s)', otherwise: reset }", &["Cookie: s=1"], None);
    assert!(said(&only_b).contains("server   b; if it cannot, the client is reset\n"), "{}", said(&only_b));
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
assumes  that every node is up and well (--down NODE asks what if not)
"
    );
}

/// Who answers a request that node a sends there while these nodes cannot: the line of people, and that of programs.
fn without(send_to: &str, health: &str, down: &[&str]) -> Result<(String, Option<String>), String> {
    let text = TEXT
        .replace("    rules:", &format!("{health}    rules:"))
        .replace("{ host: 10.77.0.1 }, send_to: b", &format!("{{ path: / }}, send_to: {send_to}"));
    let file = ClusterFile::parse("test", &text).unwrap_or_else(|report| panic!("{report}"));
    let bytes = Bytes::Http { method: "GET".into(), target: "/".into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
    let down = down.iter().map(|name| (*name).to_owned()).collect();
    let client = "203.0.113.9".parse().ok();
    let question = Question { node: "a".into(), service: "web".into(), frontend: None, client, bytes, down };
    let answer = answer(&file.compile("a").unwrap(), &question)?;
    let said = said(&answer);
    let line = said.lines().find_map(|line| line.strip_prefix("server   ")).unwrap().to_owned();
    Ok((line, answer.answered_by))
}

#[test]
fn nodes_that_are_down_are_passed_over_as_the_rule_says() {
    const CHECKED: &str = "    health: { tcp: true }\n";
    let local = "a (the local server)";
    let as_it_is = "a (the local server, down as it is)";
    for (send_to, down, line, answered_by) in [
        ("b", vec!["b"], local, Some("a")),
        ("[b, local]", vec!["b"], local, Some("a")),
        ("[b, local]", vec!["a", "b"], as_it_is, Some("a")),
        ("[local, b]", vec![], "a (the local server); while its application is down, b", Some("a")),
        ("[local, b]", vec!["a"], "b; if it cannot, a (the local server, down as it is)", Some("b")),
        ("[local, b]", vec!["b"], local, Some("a")),
        ("{ nodes: [b], otherwise: reset }", vec!["b"], "the client is reset: nobody is left to ask", None),
        (
            "{ nodes: [b, a], by: hash(path), otherwise: reset }",
            vec!["a", "b"],
            "the client is reset: nobody is left to ask",
            None,
        ),
        ("{ nodes: [b, a], by: hash(client), otherwise: local }", vec!["b"], local, Some("a")),
        ("{ nodes: [b, a], by: round_robin }", vec!["a"], "b; if it cannot, a (the local server, down as it is)", None),
        (
            "{ nodes: [b, a], by: round_robin, otherwise: reset }",
            vec!["a", "b"],
            "the client is reset: nobody is left to ask",
            None,
        ),
    ] {
        let expected = (line.to_owned(), answered_by.map(str::to_owned));
        assert_eq!(without(send_to, CHECKED, &down).unwrap(), expected, "{send_to} without {down:?}");
    }
    assert_eq!(without("[local, b]", "", &[]).unwrap().0, local, "nobody knows whether it is down");
    assert!(without("b", "", &["a"]).unwrap_err().contains("has no `health`"));
    assert!(without("b", "", &["z"]).unwrap_err().contains("there is no node `z`"));
}

#[test]
fn how_packets_reach_the_server_is_told_and_why_not_over_a_link() {
    let asked = |forward: &str, client: &str, path: &str| {
        let file = TEXT.replace(
            "    rules:",
            &format!("    forward: {forward}\n    rules:\n      - {{ name: own, when: {{ path: /own }}, send_to: local }}"),
        );
        let policy = ClusterFile::parse("test", &file).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap();
        let bytes =
            Bytes::Http { method: "GET".into(), target: path.into(), version: "HTTP/1.1".into(), headers: vec![], body: None };
        let client = client.parse().ok();
        let question = Question { node: "a".into(), service: "web".into(), frontend: None, client, bytes, down: vec![] };
        answer(&policy, &question).unwrap()
    };
    let because = |answer: &Answer| answer.forward.as_ref().map(|forward| (forward.configured, forward.overlay_because));
    let line = |answer: &Answer| text(answer).lines().find(|line| line.starts_with("forward")).map(str::to_owned);
    let linked = asked("auto", "203.0.113.7", "/");
    assert_eq!(because(&linked), Some(("auto", None)));
    let expected = "forward  auto: over the link to a neighbour (`baton peers` says who is one), else overlay";
    assert_eq!(line(&linked).as_deref(), Some(expected));
    for node in ["10.77.0.1", "10.77.0.2"] {
        let on_a_node = asked("link", node, "/");
        assert_eq!(because(&on_a_node), Some(("link", Some("the client is one of the nodes"))));
        assert_eq!(line(&on_a_node).as_deref(), Some("forward  overlay: the client is one of the nodes"));
    }
    let by_default = asked("overlay", "203.0.113.7", "/");
    assert_eq!((because(&by_default), line(&by_default)), (Some(("overlay", Some("the service says so"))), None));
    let local = asked("auto", "203.0.113.7", "/own");
    assert_eq!((because(&local), line(&local)), (None, None), "nothing is forwarded");
}
