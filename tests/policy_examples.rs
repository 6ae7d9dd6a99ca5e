//! Every example is a file that can be used as it is, and does what its comments say.

use baton::flow::{Endpoint, NodeId};
use baton::policy::{ClusterFile, Decision, Examination, Hello, Policy, Target};
use std::net::SocketAddr;
use std::path::Path;

fn example(name: &str, node: &str) -> Policy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let file = ClusterFile::read(&path).unwrap_or_else(|report| panic!("{report}"));
    assert!(file.warnings.is_empty(), "{}", file.warnings);
    file.compile(node).unwrap_or_else(|error| panic!("{error}"))
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn decide(policy: &Policy, service: &str, head: &str, client: &str) -> Decision {
    let request = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
    let service = policy.service_named(service).unwrap();
    match service.examine(request.as_bytes(), endpoint(client)) {
        Examination::Decided(decision) => decision,
        Examination::NeedMore => panic!("{head} is a whole request"),
    }
}

fn node(policy: &Policy, name: &str) -> Target {
    policy.node_named(name).map(Target::Node).unwrap()
}

#[test]
fn two_nodes() {
    let policy = example("two-nodes.yaml", "a");
    assert_eq!(policy.node, NodeId(0));
    let pictures = decide(&policy, "web", "GET /images/1.png HTTP/1.1\nHost: x", "192.0.2.1:4000");
    assert_eq!((&*pictures.rule, &pictures.targets()[..]), ("pictures", &[node(&policy, "b")][..]));
    let other = decide(&policy, "web", "GET / HTTP/1.1\nHost: x", "192.0.2.1:4000");
    assert_eq!((&*other.rule, &other.targets()[..]), ("default", &[Target::Local][..]));
    let at_b = example("two-nodes.yaml", "b");
    let pictures = decide(&at_b, "web", "GET /images/1.png HTTP/1.1\nHost: x", "192.0.2.1:4000");
    assert_eq!(pictures.targets(), [Target::Local]);
}

#[test]
fn every_example_is_for_every_of_its_nodes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".yaml")).collect();
    assert!(names.len() >= 5);
    for name in names {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&name);
        let file = ClusterFile::read(&path).unwrap_or_else(|report| panic!("{report}"));
        for node in &file.nodes {
            assert_eq!(example(&name, &node.name).hash, file.hash());
        }
    }
}

#[test]
fn shop() {
    let policy = example("shop.yaml", "front");
    let rule = |head: &str| {
        let decision = decide(&policy, "web", head, "203.0.113.9:4000");
        (decision.rule.to_string(), decision.targets())
    };
    let (media, carts) = (node(&policy, "media"), node(&policy, "carts"));
    assert_eq!(rule("GET / HTTP/1.1\nHost: IMG.example.com:80"), ("image host".into(), vec![media]));
    assert_eq!(rule("GET /images/a?b HTTP/1.1\nHost: www.example.com"), ("images".into(), vec![media]));
    assert_eq!(rule("HEAD /shoe.webp HTTP/1.1\nHost: www.example.com"), ("images".into(), vec![media]));
    assert_eq!(rule("PUT /images/a HTTP/1.1\nHost: www.example.com"), ("default".into(), vec![Target::Local]));
    assert_eq!(rule("POST /cart/add HTTP/1.1\nHost: www.example.com"), ("carts".into(), vec![carts, Target::Local]));
    assert_eq!(rule("GET /a/../cart HTTP/1.1\nHost: www.example.com"), ("default".into(), vec![Target::Local]));
}

#[test]
fn shards() {
    let rule = |at: &str, head: &str| {
        let policy = example("shards.yaml", at);
        let decision = decide(&policy, "store", head, "10.1.1.1:4000");
        let name = |target: &Target| match target {
            Target::Local => "local".to_owned(),
            Target::Node(id) => policy.nodes[usize::from(id.0)].name.clone(),
        };
        (decision.rule.to_string(), decision.targets().iter().map(name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(rule("s4", "GET /k/3f HTTP/1.0"), ("shard 0-7".into(), "s1 s2 local".into()));
    assert_eq!(rule("s2", "GET /k/3f HTTP/1.0"), ("shard 0-7".into(), "s1 local".into()));
    assert_eq!(rule("s4", "GET /k/c0 HTTP/1.0"), ("shard 8-f".into(), "s3 local".into()));
    assert_eq!(rule("s4", "GET /k/c0 HTTP/1.0\nX-Fresh: yes"), ("fresh 8-f".into(), "s3".into()));
    assert_eq!(rule("s1", "GET /health HTTP/1.0"), ("default".into(), "local".into()));
}

#[test]
fn subnets() {
    let policy = example("subnets.yaml", "east");
    let rule = |head: &str, client: &str| decide(&policy, "api", head, client).rule.to_string();
    let plain = "GET / HTTP/1.1\nHost: api.example.com";
    assert_eq!(rule(plain, "203.0.113.65:9"), "acme");
    assert_eq!(rule(plain, "[2001:db8:acbe:1::7]:9"), "acme");
    assert_eq!(rule(plain, "203.0.113.1:9"), "default");
    let versioned = "GET / HTTP/1.1\nHost: api.example.com\nX-API-Version: 3-beta";
    assert_eq!(rule(versioned, "192.0.2.200:9"), "testers");
    assert_eq!(rule(versioned, "198.51.100.200:9"), "default");
    assert_eq!(rule(plain, "192.0.2.200:9"), "default");
    assert_eq!(rule("GET /v2/eu/today/report HTTP/1.1\nHost: x", "192.0.2.200:9"), "reports");
    let next = policy.node_named("next").unwrap();
    assert_eq!(policy.service_named("api").unwrap().server_port(next), Some(8080));
    assert_eq!(policy.service_named("status").unwrap().server_port(next), None);
    assert_eq!(policy.service_of(endpoint("198.51.100.2:8081")).unwrap().name, "status");
}

#[test]
fn tls() {
    let rule = |node: &str, sni: Option<&str>, alpn: &[&str]| {
        let policy = example("tls.yaml", node);
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let hello = Hello::new(sni, alpn).unwrap();
        let decision = policy.service_named("https").unwrap().explain_hello(hello, "192.0.2.200".parse().ok()).decision;
        let name = |target: &Target| match target {
            Target::Local => "local".to_owned(),
            Target::Node(id) => policy.nodes[usize::from(id.0)].name.clone(),
        };
        (decision.rule.to_string(), decision.targets().iter().map(name).collect::<Vec<_>>().join(" "))
    };
    let browser = ["h2", "http/1.1"];
    assert_eq!(rule("front", Some("img.example.com"), &browser), ("images".into(), "media local".into()));
    assert_eq!(rule("media", Some("a.b.cdn.example.com"), &[]), ("images".into(), "local".into()));
    assert_eq!(rule("front", Some("cdn.example.com"), &[]), ("default".into(), "local".into()));
    assert_eq!(rule("front", Some("api.example.com"), &browser), ("grpc".into(), "api".into()));
    assert_eq!(rule("front", Some("api.example.com"), &["http/1.1"]), ("default".into(), "local".into()));
    assert_eq!(rule("media", Some("img.example.com"), &["acme-tls/1"]), ("acme".into(), "front".into()));
    assert_eq!(rule("media", None, &browser), ("nameless".into(), "front".into()));
    assert_eq!(rule("front", None, &[]), ("nameless".into(), "local".into()));
    assert_eq!(rule("front", Some("www.example.com"), &browser), ("default".into(), "local".into()));
}

#[test]
fn back_ends() {
    let policy = example("back-ends.yaml", "west");
    let service = policy.service_named("api").unwrap();
    let port = |name: &str| service.server_port(policy.node_named(name).unwrap());
    let ports = ["east", "west", "model-1", "model-2", "archive"].map(port);
    assert_eq!(ports, [80, 80, 8000, 8000, 9080].map(Some));
    for back_end in ["model-1", "model-2", "archive"] {
        let node = policy.node_named(back_end).unwrap();
        assert!(service.frontends.iter().all(|(owner, _)| *owner != node), "{back_end}");
    }
    let rule = |head: &str| {
        let decision = decide(&policy, "api", head, "203.0.113.9:4000");
        (decision.rule.to_string(), decision.targets())
    };
    let [one, two, archive] = ["model-1", "model-2", "archive"].map(|name| node(&policy, name));
    assert_eq!(rule("POST /v1/small/chat HTTP/1.1\nHost: x"), ("small".into(), vec![one, two, Target::Local]));
    assert_eq!(rule("POST /v1/large/chat HTTP/1.1\nHost: x"), ("large".into(), vec![two]));
    assert_eq!(rule("GET /archive/1999 HTTP/1.1\nHost: x"), ("archive".into(), vec![archive]));
    assert_eq!(rule("GET / HTTP/1.1\nHost: x"), ("default".into(), vec![Target::Local]));
}

#[test]
fn every_field_says_the_default_where_there_is_one() {
    let every = example("every-field.yaml", "one");
    let fewest = example("two-nodes.yaml", "a");
    let (with, without) = (&every.services[0], &fewest.services[0]);
    assert_eq!(with.inspect_timeout, without.inspect_timeout);
    assert_eq!(with.inspect_bytes_max, without.inspect_bytes_max);
    assert_eq!(with.silence_timeout, without.silence_timeout);
    assert_eq!(with.handoff_timeout, without.handoff_timeout);
    let default = |service: &baton::policy::Service| (service.by_default(None).rule, service.by_default(None).targets());
    assert_eq!(default(with), default(without));
    assert_eq!(every.limits, fewest.limits);
    let decision = decide(&every, "web", "GET /same/as/a/list HTTP/1.0", "10.1.1.1:9");
    assert_eq!((&*decision.rule, decision.targets()), ("rule 2", vec![Target::Local, node(&every, "two")]));
}
