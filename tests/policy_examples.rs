//! Every example is a file that can be used as it is, and does what its comments say.

use baton::flow::{Endpoint, NodeId};
use baton::policy::{ClusterFile, Decision, Examination, Policy, Target};
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
    assert_eq!((&*pictures.rule, &pictures.targets[..]), ("pictures", &[node(&policy, "b")][..]));
    let other = decide(&policy, "web", "GET / HTTP/1.1\nHost: x", "192.0.2.1:4000");
    assert_eq!((&*other.rule, &other.targets[..]), ("default", &[Target::Local][..]));
    let at_b = example("two-nodes.yaml", "b");
    let pictures = decide(&at_b, "web", "GET /images/1.png HTTP/1.1\nHost: x", "192.0.2.1:4000");
    assert_eq!(pictures.targets, [Target::Local]);
}
