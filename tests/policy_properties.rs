//! What holds for any bytes a client may send and any text a file may have.

mod common;

use baton::flow::Endpoint;
use baton::policy::{ClusterFile, Decision, Examination, Policy};
use common::{file_with, policy_with};
use proptest::prelude::*;
use std::net::SocketAddr;

const SERVICES: &str = r#"
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    inspect_bytes_max: 300
    rules:
      - { name: images, when: { path: "/im*/?.png", host: [a, b.example] }, send_to: b }
      - { name: posts, when: { method: POST }, send_to: [b, local] }
      - { name: tagged, when: { header: { x-tag: ["1", "2"] } }, send_to: b }
      - { name: near, when: { client: 192.0.2.0/24 }, send_to: a }
"#;

fn policy() -> Policy {
    policy_with(SERVICES)
}

fn client() -> Endpoint {
    "192.0.2.7:4000".parse::<SocketAddr>().unwrap().into()
}

/// The decisions on every prefix, the empty one first.
fn decisions(policy: &Policy, bytes: &[u8]) -> Vec<Option<Decision>> {
    let service = policy.service_named("web").unwrap();
    let decide = |length: usize| match service.examine(&bytes[..length], client()) {
        Examination::NeedMore => None,
        Examination::Decided(decision) => Some(decision),
    };
    (0..=bytes.len()).map(decide).collect()
}

/// Once decided, always decided, and alike.
fn assert_never_taken_back(bytes: &[u8]) -> Result<(), TestCaseError> {
    let decisions = decisions(&policy(), bytes);
    let first = decisions.iter().position(Option::is_some).unwrap_or(decisions.len());
    for decision in &decisions[first..] {
        prop_assert_eq!(decision, &decisions[first]);
    }
    Ok(())
}

/// Bytes that go far into the parser: pieces of requests, good and bad.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "/images/a.png",
        "?q=1",
        " HTTP/1.1\r\n",
        " HTTP/1.0\n",
        "Host: a\r\n",
        "Host: b.example:80\r\n",
        "X-Tag: 1\r\n",
        "Content-Length: 3\r\n",
        "\r\n",
        "\r\n\r\n",
        "abc",
    ]);
    let bad = prop::sample::select(vec![
        "\0",
        "\r",
        "\n",
        " ",
        "\t",
        ":",
        "%",
        "%2f",
        "/../",
        "http://a/",
        "http://",
        " HTTP/2.0",
        "Host: \r\n",
        "Host : a\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: x\r\n",
        " folded\r\n",
        "é",
        "*",
        "#",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    let piece = prop_oneof![
        6 => good.prop_map(|text| text.as_bytes().to_vec()),
        2 => bad.prop_map(|text| text.as_bytes().to_vec()),
        1 => noise,
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Whole requests, with at most one piece of `pieces` put in somewhere.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec("(Host|X-Tag|Content-Length|Accept): [a-z0-9. ]{0,6}", 0..5);
    let request = ("(GET|POST|OPTIONS)", "/[a-z%2.?/]{0,12}", "1\\.[01]", fields, any::<bool>());
    let request = request.prop_map(|(method, target, version, fields, host)| {
        let host = if host { "Host: a\r\n" } else { "" };
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{method} {target} HTTP/{version}\r\n{host}{fields}\r\nbody").into_bytes()
    });
    (request, prop::option::weighted(0.5, (any::<prop::sample::Index>(), pieces()))).prop_map(|(mut bytes, spoilt)| {
        if let Some((at, piece)) = spoilt {
            let at = at.index(bytes.len());
            bytes.splice(at..at, piece.into_iter().take(8));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_inspector_panic_or_change_its_mind(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        assert_never_taken_back(&bytes)?;
    }

    #[test]
    fn no_pieces_of_requests_make_it_panic_or_change_its_mind(bytes in pieces()) {
        assert_never_taken_back(&bytes)?;
    }

    #[test]
    fn splitting_a_request_never_changes_the_decision(bytes in requests()) {
        assert_never_taken_back(&bytes)?;
    }

    #[test]
    fn the_bound_of_bytes_always_ends_the_waiting(bytes in "[A-Za-z: \r\n]{300,310}") {
        let decisions = decisions(&policy(), bytes.as_bytes());
        prop_assert!(decisions[300].is_some());
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in ".{0,80}") {
        let _ = ClusterFile::parse("any.yaml", &text).map_err(|report| report.to_string());
    }

    #[test]
    fn no_change_of_a_good_file_makes_the_loader_panic(
        from in 0..file_with(SERVICES).len(),
        length in 0..24_usize,
        replacement in "[\\[\\]{}:,\"'&*!|>%@#a-z0-9./ \n\t-]{0,6}",
    ) {
        let mut text = file_with(SERVICES);
        text.replace_range(from..(from + length).min(text.len()), &replacement);
        if let Err(report) = ClusterFile::parse("changed.yaml", &text) {
            prop_assert!(report.has_errors());
            prop_assert!(report.to_string().starts_with("changed.yaml:"));
        }
    }
}
