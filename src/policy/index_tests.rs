//! The index leaves nothing out, and what is said to be covered never matches.

use super::decide::settles;
use super::inspect::Reading;
use super::subject::{Origin, Subject};
use super::testing::file;
use super::truth::Truth;
use super::{Examination, Service};
use proptest::prelude::*;

const HEAD: &str = r#"
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/24 }
nodes:
  a: { address: 10.77.0.1, public_key: "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=" }
  b: { address: 10.77.0.2, public_key: "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=" }
services:
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    rules:
"#;

fn one_or_more(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(values), 1..4).prop_map(|values| format!("[{}]", values.join(", ")))
}

const HOSTS: &[&str] = &["a", "b.a", "c.b.a", "'*.a'", "'*.b.a'", "'*.c.b.a'"];
const PATHS: &[&str] =
    &["/", "/x", "'/x*'", "'/x/*'", "'/x/y*'", "'*y'", "'/?'", "'*'", "{ prefix: /x }", "{ regex: '/x.*' }", "{ regex: '/.' }"];
const VALUES: &[&str] = &["'1'", "'2'", "true", "false", "{ prefix: '1' }"];

/// One matcher from a vocabulary so small that rules meet each other and requests.
fn matcher() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => one_or_more(HOSTS).prop_map(|values| format!("host: {values}")),
        6 => one_or_more(PATHS).prop_map(|values| format!("path: {values}")),
        1 => one_or_more(&["GET", "PUT"]).prop_map(|values| format!("method: {values}")),
        1 => one_or_more(VALUES).prop_map(|values| format!("query: {{ q: {values} }}")),
        1 => one_or_more(VALUES).prop_map(|values| format!("header: {{ x-h: {values} }}")),
        1 => one_or_more(&["192.0.2.0/24", "192.0.2.7", "10.0.0.0/8"]).prop_map(|values| format!("client: {values}")),
    ]
}

/// A mapping of these; each key once, the last one given.
fn mapping(all: Vec<String>) -> String {
    let mut kept: Vec<String> = Vec::new();
    for one in all {
        let name = one.split(':').next().unwrap_or_default().to_owned();
        kept.retain(|kept| kept.split(':').next() != Some(&name));
        kept.push(one);
    }
    format!("{{ {} }}", kept.join(", "))
}

fn conditions() -> impl Strategy<Value = String> {
    let flat = prop::collection::vec(matcher(), 1..4).prop_map(mapping);
    flat.prop_recursive(2, 8, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3).prop_map(|all| format!("[{}]", all.join(", "))).boxed();
        let nested = prop_oneof![
            list.clone().prop_map(|list| format!("any: {list}")),
            list.prop_map(|list| format!("all: {list}")),
            inner.prop_map(|inner| format!("not: {inner}")),
        ];
        prop::collection::vec(prop_oneof![2 => matcher(), 1 => nested], 1..4).prop_map(mapping)
    })
}

fn requests() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["a", "b.a", "c.b.a", "d.c.b.a", "x", "B.A:80", "xa"]);
    let path = vec!["/", "/x", "/xy", "/x/", "/x/y", "/x/yz", "/y", "/%78", "/x?q=1", "/x?q=1&q=2", "/?q=12"];
    let field = prop::sample::select(vec!["", "X-H: 1\r\n", "X-H: 2\r\n"]);
    (prop::sample::select(vec!["GET", "PUT"]), prop::sample::select(path), host, field)
        .prop_map(|(method, path, host, field)| format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n"))
}

/// By trying the rules one after the other.
fn linear<'s>(service: &'s Service, subject: &Subject<'_>) -> Option<&'s str> {
    let rule = service.rules.iter().find(|rule| settles(rule.holds(subject)))?;
    (rule.holds(subject) == Truth::Yes).then_some(&*rule.name)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_index_decides_as_trying_every_rule_does(
        whens in prop::collection::vec(conditions(), 1..24),
        requests in prop::collection::vec(requests(), 24),
    ) {
        let rules = whens.iter().map(|when| format!("      - {{ when: {when}, send_to: b }}\n")).collect::<String>();
        let file = file(&format!("{HEAD}{rules}"));
        let policy = file.compile("a").unwrap();
        let service = &policy.services[0];
        let covered: Vec<&str> = file.warnings.problems.iter().filter_map(|problem| problem.message.split('"').nth(1)).collect();
        for request in &requests {
            let mut text = Vec::new();
            let (reading, _) = service.read(request.as_bytes(), Origin::default(), false, &mut text);
            let Reading::Clear(content) = &reading else { panic!("{request}") };
            for client in ["192.0.2.7", "192.0.2.8", "10.1.1.1", "8.8.8.8"] {
                let origin = Origin { client: client.parse().ok(), frontend: None };
                let subject = Subject::new(content, origin, &[]);
                let Examination::Decided(decision) = service.by_rules(&subject) else { panic!("{request}") };
                prop_assert_eq!(&*decision.rule, linear(service, &subject).unwrap_or("default"), "{} {}", request, rules);
                prop_assert!(!covered.contains(&&*decision.rule), "{} matches after all: {} {}", decision.rule, request, rules);
            }
        }
    }
}

fn rule(rules: &str, host: &str, path: &str) -> String {
    let policy = file(&format!("{HEAD}{rules}")).compile("a").unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    match policy.services[0].examine(request.as_bytes(), Origin::default()) {
        Examination::Decided(decision) => decision.rule.to_string(),
        Examination::NeedMore => panic!("{request}"),
    }
}

#[test]
fn rules_with_more_names_than_the_index_takes_are_found() {
    let hosts: Vec<String> = (0..200).map(|number| format!("h{number}.example")).collect();
    let branches: Vec<String> = hosts.iter().map(|host| format!("{{ host: {host}, path: /{host} }}")).collect();
    let rules = format!(
        "      - {{ when: {{ host: [{}], path: [/a, /b, '/c/*'] }}, send_to: b }}\n      - {{ when: {{ any: [{}] }}, send_to: b }}\n",
        hosts.join(", "),
        branches[..100].join(", ")
    );
    assert_eq!(rule(&rules, "h199.example", "/c/x"), "rule 1");
    assert_eq!(rule(&rules, "h99.example", "/h99.example"), "rule 2");
    assert_eq!(rule(&rules, "h100.example", "/h100.example"), "default");
}

#[test]
fn beginnings_longer_than_the_index_looks_are_found() {
    let long = format!("/{}", "x".repeat(500));
    let rules =
        format!("      - {{ when: {{ path: {long}a }}, send_to: b }}\n      - {{ when: {{ path: '{long}*' }}, send_to: b }}\n");
    assert_eq!(rule(&rules, "a", &format!("{long}a")), "rule 1");
    assert_eq!(rule(&rules, "a", &format!("{long}b")), "rule 2");
    assert_eq!(rule(&rules, "a", &long[..300]), "default");
}
