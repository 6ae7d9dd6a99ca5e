//! What a client can cost that sends its first bytes one by one: never more than so many times what they cost together.

use baton::flow::Endpoint;
use baton::policy::{Ambiguity, ClusterFile, Decision, Examination, Looks, Policy};
use std::net::SocketAddr;

const FILE: &str = r#"
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/21 }
nodes:
  a: { address: 10.77.0.1, public_key: "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=" }
  b: { address: 10.77.0.2, public_key: "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=" }
services:
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    rules: [{ name: model, when: { json: { /model: llama } }, send_to: b }]
  secure:
    frontends: { a: "10.77.0.1:443", b: "10.77.0.2:443" }
    inspect: tls
    rules: [{ when: { sni: a.example }, send_to: b }]
  cache:
    frontends: { a: "10.77.0.1:6379", b: "10.77.0.2:6379" }
    inspect: redis
    rules: [{ when: { key: "user:*" }, send_to: b }]
  bytes:
    frontends: { a: "10.77.0.1:1", b: "10.77.0.2:1" }
    inspect: raw
    rules:
      - { name: one, when: { regex: "(?s).*one needle" }, send_to: b }
      - { name: other, when: { any: [{ starts_with: x }, { regex: "(?s).*another [a-z]{3}" }] }, send_to: b }
  any:
    frontends: { a: "10.77.0.1:2", b: "10.77.0.2:2" }
    inspect: auto
    rules: [{ name: one, when: { regex: "(?s).*one needle" }, send_to: b }]
  proxied:
    frontends: { a: "10.77.0.1:3", b: "10.77.0.2:3" }
    inspect: raw
    proxy_protocol: accept
    rules: [{ name: one, when: { regex: "(?s).*one needle" }, send_to: b }]
"#;

/// What is looked at by default.
const OCTETS: usize = 16_384;
/// How often each octet may be, on average: what is looked at when the bound is passed counts too.
const LOOKS_PER_OCTET: usize = 128 + 1;

fn policy() -> Policy {
    ClusterFile::parse("pieces.yaml", FILE).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap()
}

fn client() -> Endpoint {
    "203.0.113.7:4000".parse::<SocketAddr>().unwrap().into()
}

/// Sends the first bytes in pieces: the decision, with how many octets, and how many were looked at until then.
fn in_pieces(service: &str, bytes: &[u8], piece: usize) -> (Decision, usize, usize) {
    let policy = policy();
    let service = policy.service_named(service).unwrap();
    let mut looks = Looks::default();
    let mut length = 0;
    while length < bytes.len() {
        length = (length + piece).min(bytes.len());
        if let Examination::Decided(decision) = service.look(&bytes[..length], client(), &mut looks) {
            return (decision, length, looks.octets());
        }
    }
    panic!("not decided with {length} octets");
}

fn filled(beginning: &[u8], octet: u8) -> Vec<u8> {
    let mut bytes = beginning.to_vec();
    bytes.resize(OCTETS, octet);
    bytes
}

/// Repeats a piece until all is full that is looked at.
fn repeated(beginning: &[u8], piece: &[u8]) -> Vec<u8> {
    let mut bytes = beginning.to_vec();
    while bytes.len() < OCTETS {
        bytes.extend_from_slice(piece);
    }
    bytes.truncate(OCTETS);
    bytes
}

const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// POST of / to a, without END_STREAM.
const REQUEST: &[u8] = b"\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x41\x01a";

#[track_caller]
fn assert_bounded(service: &str, bytes: &[u8], expected: Ambiguity) {
    let (decision, length, octets) = in_pieces(service, bytes, 1);
    assert_eq!((&*decision.rule, decision.note), ("default", Some(expected)), "at {length}");
    assert!(octets <= LOOKS_PER_OCTET * OCTETS, "{octets} octets looked at");
    // All at once, or in segments of 536 octets (RFC 9293, section 3.7.1), it is not the pieces that are at fault.
    for piece in [OCTETS, 1_448, 536] {
        let (decision, _, octets) = in_pieces(service, bytes, piece);
        assert_ne!(decision.note, Some(Ambiguity::TooManyPieces), "pieces of {piece}");
        assert!(octets <= OCTETS * OCTETS.div_ceil(piece), "{octets} octets looked at in pieces of {piece}");
    }
}

#[test]
fn a_head_of_http_1_octet_by_octet_is_bounded() {
    assert_bounded("web", &filled(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b'x'), Ambiguity::TooManyPieces);
    assert_bounded("web", &filled(b"\r\n", b'\n'), Ambiguity::TooManyPieces);
}

#[test]
fn a_chunked_body_octet_by_octet_is_bounded() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (decision, length, octets) = in_pieces("web", &repeated(head, b"1\r\n \r\n"), 1);
    // Chunks of one octet: as many as are taken.
    assert_eq!((&*decision.rule, decision.note), ("default", Some(Ambiguity::TooManyPieces)), "at {length}");
    assert!(octets <= LOOKS_PER_OCTET * OCTETS);
}

#[test]
fn a_body_whose_end_is_known_is_looked_at_when_it_is_here() {
    let body = format!("{{\"x\": \"{}\", \"model\": \"llama\"}}", "x".repeat(12_000));
    let sized = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = (body.len() as u32).to_be_bytes();
    let framed = [HTTP2, REQUEST, &length[1..], &[0, 1, 0, 0, 0, 1], body.as_bytes()].concat();
    for (bytes, octets_max) in [(sized.as_bytes(), 20_000), (chunked.as_bytes(), 110_000), (&framed, 30_000)] {
        let (decision, _, octets) = in_pieces("web", bytes, 1);
        assert_eq!((&*decision.rule, decision.note), ("model", None));
        assert!(octets <= octets_max, "{octets}");
    }
}

#[test]
fn frames_of_http_2_octet_by_octet_are_bounded() {
    let unknown = [&[0, 0, 255, 0xfa, 0, 0, 0, 0, 0][..], &[0; 255]].concat();
    assert_bounded("web", &repeated(HTTP2, &unknown), Ambiguity::TooManyPieces);
    // A header block, in CONTINUATION frames of an octet.
    let block = [HTTP2, &[0, 0, 0, 1, 0, 0, 0, 0, 1]].concat();
    assert_bounded("web", &repeated(&block, &[&[0, 0, 200, 9, 0, 0, 0, 0, 1][..], &[0; 200]].concat()), Ambiguity::TooManyPieces);
    // A body.
    let (decision, _, octets) = in_pieces("web", &repeated(&[HTTP2, REQUEST].concat(), b"\0\0\x01\0\0\0\0\0\x01 "), 1);
    assert_eq!(&*decision.rule, "default");
    assert!(octets <= LOOKS_PER_OCTET * OCTETS, "{octets}");
}

#[test]
fn a_hello_octet_by_octet_is_bounded() {
    let hello = filled(&[22, 3, 1, 0x3f, 0xf0, 1, 0, 0x3f, 0xec], 0);
    assert_bounded("secure", &hello, Ambiguity::TooManyPieces);
    // In records of two octets.
    assert_bounded("secure", &repeated(&[22, 3, 1, 0, 4, 1, 0, 0x3f, 0xf0], &[22, 3, 1, 0, 2, 7, 7]), Ambiguity::TooManyPieces);
}

#[test]
fn commands_of_redis_octet_by_octet_are_bounded() {
    assert_bounded("cache", &filled(b"*3\r\n$4\r\nEVAL\r\n$16384\r\n", b'x'), Ambiguity::TooManyPieces);
    assert_bounded("cache", &repeated(b"", b"*1\r\n$8\r\nREADONLY\r\n"), Ambiguity::TooManyPieces);
}

#[test]
fn a_proxys_header_octet_by_octet_is_bounded() {
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x3f\xff\xc0\0\x02\x01\x0a\0\0\x01\0\x01\0\x02"[..], &[4, 0x3f, 0xf0]].concat();
    assert_bounded("proxied", &filled(&header, 0), Ambiguity::TooManyPieces);
}

/// Searches go on where they stood: each octet costs each open expression one step, however the octets come.
#[test]
fn open_expressions_octet_by_octet_cost_what_they_cost_together() {
    let policy = policy();
    let header = b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n";
    for (name, before, expressions) in [("bytes", &b""[..], 2), ("any", b"", 1), ("proxied", header, 1)] {
        let service = policy.service_named(name).unwrap();
        let mut looks = Looks::default();
        let bytes = filled(before, b'.');
        for length in 1..OCTETS {
            assert_eq!(service.look(&bytes[..length], client(), &mut looks), Examination::NeedMore, "{name} at {length}");
        }
        // A header is looked at each time, and counted.
        assert!(looks.octets() <= expressions * OCTETS + before.len() * OCTETS + 1_000, "{name}: {}", looks.octets());
        let decided = service.look(&bytes, client(), &mut looks);
        assert_eq!(decided, service.examine(&bytes, client()), "{name}: all that is looked at");
        assert!(matches!(decided, Examination::Decided(decision) if &*decision.rule == "default"), "{name}");
    }
    // The first rule stays open as long as anything may follow.
    for (needle, rule, decided_at) in [("one needle", "one", 10_010), ("another xyz", "other", OCTETS)] {
        let mut bytes = filled(b"", b'.');
        bytes.splice(10_000..10_000 + needle.len(), needle.bytes());
        let (decision, length, _) = in_pieces("bytes", &bytes, 1);
        assert_eq!((&*decision.rule, length), (rule, decided_at));
    }
}
