//! The known tricks by which one request is made two different ones, each with its source: none of them chooses a peer.
//!
//! `netns-scripts/smuggling.sh` sends the same bytes to nginx and compares.

use baton::flow::{Endpoint, FlowKey};
use baton::policy::{Ambiguity, ClusterFile, Examination, Policy};
use std::collections::{BTreeMap, BTreeSet};

#[derive(serde::Deserialize)]
struct Trick {
    name: String,
    source: String,
    /// A character for each byte.
    bytes: String,
    /// The label of its ambiguity; or `clear`, if rules may decide about it.
    expect: String,
}

fn table() -> Vec<Trick> {
    serde_json::from_str(include_str!("smuggling/table.json")).unwrap()
}

fn bytes(trick: &Trick) -> Vec<u8> {
    trick.bytes.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn policy() -> Policy {
    let text = include_str!("smuggling/cluster.yaml");
    ClusterFile::parse("cluster.yaml", text).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap()
}

fn flow() -> FlowKey {
    FlowKey { client: Endpoint::new([192, 0, 2, 7].into(), 40_000), frontend: Endpoint::new([10, 77, 0, 1].into(), 80) }
}

#[test]
fn no_known_trick_chooses_a_peer() {
    let policy = policy();
    let service = policy.service_named("web").unwrap();
    let mut wrong = Vec::new();
    for trick in table() {
        let explanation = service.explain(&bytes(&trick), flow());
        let found = explanation.ambiguity().map_or("clear", Ambiguity::label);
        assert!(!explanation.needs_more(), "{}: not complete", trick.name);
        if found != trick.expect {
            wrong.push(format!("{} ({}): {found}, not {}", trick.name, trick.source, trick.expect));
        }
        if explanation.ambiguity().is_some() {
            assert_eq!(explanation.decision.choice, service.by_default(flow()).choice, "{}", trick.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_worth_its_name() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|trick| &*trick.name).collect();
    assert!(names.len() == table.len() && table.len() >= 100, "{} names of {}", names.len(), table.len());
    assert!(table.iter().all(|trick| !trick.source.is_empty()));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for trick in &table {
        *kinds.entry(&trick.expect).or_default() += 1;
    }
    let labels: BTreeSet<&str> = Ambiguity::ALL.iter().map(|kind| kind.label()).collect();
    for kind in kinds.keys().filter(|kind| **kind != "clear") {
        assert!(labels.contains(kind), "{kind} is no label");
    }
    assert!(kinds.len() >= 15, "{kinds:?}");
}

#[test]
fn a_trick_is_one_however_it_comes_in_pieces() {
    let policy = policy();
    let service = policy.service_named("web").unwrap();
    for trick in table() {
        let bytes = bytes(&trick);
        let whole = service.examine(&bytes, flow());
        for length in 0..bytes.len() {
            let part = service.examine(&bytes[..length], flow());
            assert!(part == Examination::NeedMore || part == whole, "{} at {length}", trick.name);
        }
    }
}
