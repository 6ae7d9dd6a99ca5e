//! Protocols other than HTTP/1 through the whole of the policy: what is told apart, decided, waited for, explained.

mod common;

use baton::flow::Endpoint;
use baton::policy::{Ambiguity, Decision, Examination, Looks, Policy, Service, key_hash};
use common::policy_with;
use proptest::prelude::*;
use std::net::SocketAddr;

const SERVICES: &str = r#"
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    rules:
      - { name: images, when: { path: "/images/*", host: img.example }, send_to: b }
      - { name: cookies, when: { cookie: { c: "3" } }, send_to: b }
  models:
    frontends: { a: "10.77.0.1:8080", b: "10.77.0.2:8080" }
    rules:
      - { name: elsewhere, when: { path: /other, json: { /model: "*" } }, send_to: b }
      - { name: llama, when: { json: { /model: "llama*" } }, send_to: b }
      - { name: spread, when: { path: /spread }, send_to: { nodes: [a, b], by: "hash(json:/model)" } }
  large:
    frontends: { a: "10.77.0.1:8081", b: "10.77.0.2:8081" }
    inspect_bytes_max: 256KiB
    rules: [{ name: llama, when: { json: { /model: "llama*" } }, send_to: b }]
  secure:
    frontends: { a: "10.77.0.1:443", b: "10.77.0.2:443" }
    inspect: tls
    rules:
      - { name: old, when: { tls_version: ["1.0", "1.1", "1.2"] }, send_to: b }
      - { name: hidden, when: { ech: true }, send_to: b }
    default: { nodes: [a, b], by: hash(sni) }
  lines:
    frontends: { a: "10.77.0.1:25", b: "10.77.0.2:25" }
    inspect: raw
    inspect_bytes_max: 256
    rules:
      - { name: short, when: { starts_with: ["GET ", "\x01\x02"] }, send_to: b }
      - { name: binary, when: { bytes: "16 03" }, send_to: b }
      - { name: words, when: { regex: "(?i)(HELO|EHLO) [a-z.]+\r\n" }, send_to: b }
      - { name: neither, when: { not: { starts_with: "Q" }, client: 192.0.2.0/24 }, send_to: b }
  cache:
    frontends: { a: "10.77.0.1:6379", b: "10.77.0.2:6379" }
    inspect: redis
    rules:
      - { name: news, when: { command: [subscribe, PSUBSCRIBE] }, send_to: b }
      - { name: users, when: { key: ["user:*", { regex: "u[0-9]+" }] }, send_to: b }
      - { name: keyless, when: { key: false, not: { command: PING } }, send_to: b }
    default: { nodes: [a, b], by: hash(key) }
  any:
    frontends: { a: "10.77.0.1:1", b: "10.77.0.2:1" }
    inspect: auto
    rules:
      - { name: images, when: { path: "/images/*" }, send_to: b }
      - { name: named, when: { sni: img.example }, send_to: b }
      - { name: users, when: { key: "user:*" }, send_to: b }
      - { name: ssh, when: { starts_with: "SSH-2." }, send_to: b }
      - { name: not a, when: { not: { path: "/a" } }, send_to: b }
  plain:
    frontends: { a: "10.77.0.1:2", b: "10.77.0.2:2" }
    inspect: auto
    rules: [{ name: near, when: { client: 192.0.2.0/24 }, send_to: b }]
  proxied:
    frontends: { a: "10.77.0.1:3", b: "10.77.0.2:3" }
    proxy_protocol: { from: [203.0.113.0/24, 192.0.2.9] }
    rules:
      - { name: near, when: { client: 192.0.2.0/24 }, send_to: b }
      - { name: images, when: { path: "/images/*" }, send_to: b }
"#;

fn policy() -> Policy {
    policy_with(SERVICES)
}

fn client(text: &str) -> Endpoint {
    format!("{text}:4000").parse::<SocketAddr>().unwrap().into()
}

const FAR: &str = "203.0.113.7";

fn with<T>(name: &str, then: impl FnOnce(&Service) -> T) -> T {
    then(policy().service_named(name).unwrap())
}

fn decided(service: &str, bytes: &[u8], from: &str) -> Option<Decision> {
    with(service, |service| match service.examine(bytes, client(from)) {
        Examination::Decided(decision) => Some(decision),
        Examination::NeedMore => None,
    })
}

/// The rule, `default KIND` for what is ambiguous, `-` for what is not enough.
fn rule(service: &str, bytes: &[u8]) -> String {
    match decided(service, bytes, FAR) {
        None => "-".to_owned(),
        Some(Decision { rule, note: None, .. }) => rule.to_string(),
        Some(Decision { rule, note: Some(kind), .. }) => format!("{rule} {kind}"),
    }
}

// --- HTTP/2 -------------------------------------------------------------------------------------------------------

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Preface, SETTINGS and a request without packing.
fn http2(fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| [&[0][..], &string(name), &string(value)].concat()).collect();
    [PREFACE, SETTINGS, &[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1], &block].concat()
}

fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    http2(&[&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "img.example")][..], more].concat())
}

#[test]
fn http_2_is_read_where_http_is() {
    for service in ["web", "any"] {
        assert_eq!(rule(service, &get("/images/1", &[])), "images");
    }
    assert_eq!(rule("web", &get("/", &[("cookie", "a=1; b=2"), ("cookie", "c=3")])), "cookies");
    assert_eq!(rule("web", &get("/", &[])), "default");
    assert_eq!(rule("web", &get("/", &[("X", "y")])), "default http2_field_name");
    assert_eq!(rule("web", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t"), "default version");
}

/// A frame: type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

const END: u8 = 1;
const PADDED: u8 = 8;

fn data(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, 1, payload)
}

/// Preface, SETTINGS, a request that has a body, and these frames.
fn post(path: &str, more: &[(&str, &str)], frames: &[Vec<u8>]) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "img.example")];
    let mut sent = http2(&[&head[..], more].concat());
    sent[PREFACE.len() + SETTINGS.len() + 4] = 4;
    [sent, frames.concat()].concat()
}

const LLAMA: &[u8] = br#"{"model": "llama3"}"#;

/// More is needed up to the last octet, then it is decided whatever follows.
#[track_caller]
fn assert_decided_at_the_end(bytes: &[u8], expected: &str) {
    for length in 0..bytes.len() {
        assert_eq!(rule("models", &bytes[..length]), "-", "{length} of {}", bytes.len());
    }
    for more in [&b""[..], &data(0, b"}"), b"anything"] {
        assert_eq!(rule("models", &[bytes, more].concat()), expected);
    }
}

#[test]
fn a_field_of_a_json_body_decides_over_http_2() {
    let (one, other) = LLAMA.split_at(7);
    assert_decided_at_the_end(&post("/v1", &[], &[data(END, LLAMA)]), "llama");
    assert_decided_at_the_end(&post("/v1", &[], &[data(END, br#"{"model": "mistral"}"#)]), "default");
    assert_decided_at_the_end(&post("/v1", &[("content-length", "19")], &[data(END, LLAMA)]), "llama");
    assert_decided_at_the_end(
        &post("/v1", &[("content-length", "019"), ("content-length", "019")], &[data(END, LLAMA)]),
        "llama",
    );
    assert_decided_at_the_end(&post("/v1", &[], &[data(0, one), data(0, b""), data(0, other), data(END, b"")]), "llama");
    assert_decided_at_the_end(&post("/v1", &[], &[data(PADDED | END, &[&[3], LLAMA, &[0; 3]].concat())]), "llama");
    // Other frames and other requests come between; what they ask for makes no difference.
    let between = [
        data(0, one),
        frame(8, 0, 1, &[0, 0, 0, 9]),
        frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(6, 0, 0, &[7; 8]),
        frame(2, 0, 3, &[0; 5]),
        frame(0xfa, 0xff, 1, b"?"),
        frame(1, 0, 3, b"a block"),
        frame(9, 4, 3, b"and more of it"),
        frame(0, END, 3, br#"{"model": "mistral"}"#),
        frame(3, 0, 3, &[0; 4]),
        data(END, other),
    ];
    assert_decided_at_the_end(&post("/v1", &[], &between), "llama");
    // Trailers end a body, too.
    assert_decided_at_the_end(&post("/v1", &[], &[data(0, LLAMA), frame(1, 4 | END, 1, b"a block")]), "llama");
    assert_decided_at_the_end(&post("/v1", &[], &[data(END, b"")]), "default");
}

#[test]
fn a_body_of_http_2_is_waited_for_only_if_it_matters_and_can_come() {
    assert_eq!(rule("models", &get("/v1", &[])), "default", "none");
    assert_eq!(rule("web", &post("/images/1", &[], &[])), "images", "nobody asks");
    assert_eq!(rule("models", &post("/v1", &[("content-length", "17000")], &[])), "default", "more than is looked at");
    assert_eq!(rule("large", &post("/v1", &[("content-length", "65535")], &[])), "-");
    assert_eq!(rule("large", &post("/v1", &[("content-length", "65536")], &[])), "default", "more than is sent unasked");
    assert_eq!(rule("models", &post("/v1", &[("content-length", "99999999999999999999999")], &[])), "default");
    assert_eq!(rule("models", &post("/v1", &[("expect", "100-continue")], &[])), "default");
    assert_eq!(rule("models", &post("/v1", &[("content-encoding", "gzip")], &[])), "default");
    assert_eq!(rule("models", &post("/v1", &[("content-encoding", "identity")], &[data(END, LLAMA)])), "llama");
    // 16,384 octets in a frame at most, 65,535 of them in all.
    let most = vec![data(0, &[b' '; 16_384]); 3];
    assert_eq!(
        rule("large", &post("/v1", &[], &[most.clone(), vec![data(END, &[&[b' '; 16_364], LLAMA].concat())]].concat())),
        "llama"
    );
    assert_eq!(rule("large", &post("/v1", &[], &[most, vec![data(END, &[b' '; 16_384])]].concat())), "default");
    let filled = post("/v1", &[], &[data(0, &[b' '; 16_000])]);
    assert_eq!(rule("models", &filled), "-");
    assert_eq!(rule("models", &[filled, data(0, &[b' '; 400])].concat()), "default", "as much as is looked at, and no end");
}

#[test]
fn a_body_of_http_2_that_is_none_fits_nothing() {
    for (what, frames) in [
        ("a reset", vec![data(0, LLAMA), frame(3, 0, 1, &[0; 4])]),
        ("a farewell", vec![data(0, LLAMA), frame(7, 0, 0, &[0; 8])]),
        ("a push", vec![frame(5, 4, 1, &[0; 4])]),
        ("an acknowledgement of nothing", vec![frame(4, 1, 0, &[])]),
        ("headers that are no trailers", vec![data(0, LLAMA), frame(1, 4, 1, b"a block")]),
        ("nothing to continue", vec![frame(9, 4, 1, b"")]),
        ("something within a block", vec![frame(1, 0, 3, b""), data(END, LLAMA)]),
        ("a server's stream", vec![frame(0, 0, 2, b"")]),
        ("padding longer than its frame", vec![data(PADDED | END, &[9, 1])]),
        ("no JSON", vec![data(END, b"model=llama3")]),
        ("1,025 frames", vec![data(0, b""); 1_025]),
    ] {
        assert_eq!(rule("models", &post("/v1", &[], &frames)), "default", "{what}");
    }
}

#[test]
fn a_body_of_http_2_that_is_read_differently_is_ambiguous() {
    let contradicted = "default length_contradicted";
    assert_eq!(rule("models", &post("/v1", &[("content-length", "18")], &[data(0, LLAMA)])), contradicted);
    assert_eq!(rule("models", &post("/v1", &[("content-length", "20")], &[data(END, LLAMA)])), contradicted);
    assert_eq!(rule("models", &post("/v1", &[("content-length", "1"), ("content-length", "01")], &[])), contradicted);
    let twice = br#"{"model": "llama3", "model": "mistral"}"#;
    assert_eq!(rule("models", &post("/v1", &[], &[data(END, twice)])), "default json_name");
}

#[test]
fn a_client_of_http_2_that_keeps_its_body_back_may_be_waiting_for_the_server() {
    let awaits = |bytes: &[u8]| with("models", |service| service.awaits_server(bytes, client(FAR)));
    let whole = post("/v1", &[], &[data(0, LLAMA), data(END, b"")]);
    let head = post("/v1", &[], &[]).len();
    for length in head..whole.len() {
        let is_between = length == head || length == whole.len() - 9;
        assert_eq!(awaits(&whole[..length]), is_between, "{length}");
    }
    assert!(!awaits(&whole) && !awaits(&get("/v1", &[])), "decided");
    let with_web = with("web", |service| service.awaits_server(&post("/", &[], &[]), client(FAR)));
    assert!(!with_web, "nobody asks for the body");
}

#[test]
fn a_json_field_chooses_the_same_server_over_both() {
    for model in ["llama3", "mistral", "7"] {
        let body = format!(r#"{{"model": "{model}"}}"#);
        // Not `/v1`: the rule before asks for llamas.
        let key = |bytes: &[u8]| decided("models", bytes, FAR).unwrap();
        let http1 = format!("POST /spread HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (one, other) = (key(http1.as_bytes()), key(&post("/spread", &[], &[data(END, body.as_bytes())])));
        assert_eq!((&one.rule, one.key), (&other.rule, other.key));
        assert_eq!(one.key.is_some(), model != "llama3", "`llama` goes by nothing");
        assert_ne!(one.key, key(&post("/spread", &[], &[data(END, b"{}")])).key, "without a field: by the client");
    }
}

#[test]
fn an_upgrade_to_http_2_is_decided_by_its_http_1_request() {
    // curl 7.88.1 --http2 http://img.example/images/cat
    let sent = b"GET /images/cat HTTP/1.1\r\nHost: img.example\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
                 Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    assert_eq!(rule("web", sent), "images");
}

#[test]
fn a_client_that_waits_for_the_server_is_not_waited_for_long() {
    let awaits = |service: &str, bytes: &[u8]| with(service, |service| service.awaits_server(bytes, client(FAR)));
    let settings = [PREFACE, SETTINGS].concat();
    assert_eq!(rule("web", &settings), "-");
    assert!(awaits("web", &settings) && awaits("any", &settings));
    assert!(!awaits("web", b"GET / HTTP/1.1\r\n") && !awaits("web", PREFACE) && !awaits("any", b"GET /"));
    assert!(awaits("cache", b"HELLO 3\r\n") && !awaits("cache", b"HELLO 3"));
    assert!(awaits("lines", b"G") && !awaits("lines", b"") && !awaits("any", b"SSH\0") && !awaits("plain", b"SSH\0"));
    let header = b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n";
    assert!(awaits("proxied", header) && !awaits("proxied", &header[..9]));
    assert!(awaits("proxied", &[&header[..], &settings].concat()));
}

// --- TLS ----------------------------------------------------------------------------------------------------------

fn hello(legacy: u16, extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let all = [&[(13, &[0, 4, 4, 3, 8, 4][..])][..], extensions].concat();
    let extension =
        |(kind, content): &(u16, &[u8])| [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat();
    let extensions: Vec<u8> = all.iter().flat_map(extension).collect();
    let body = [
        &legacy.to_be_bytes()[..],
        &[9; 32],
        &[4, 1, 2, 3, 4],
        &[0, 4, 0x13, 1, 0xc0, 0x2b],
        &[1, 0],
        &(extensions.len() as u16).to_be_bytes(),
        &extensions,
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), &message].concat()
}

fn seen(service: &str, bytes: &[u8], name: &str) -> Option<String> {
    let explained = with(service, |service| service.explain(bytes, client(FAR)));
    explained.request.into_iter().find(|(said, _)| *said == name).and_then(|(_, value)| value)
}

#[test]
fn the_highest_version_offered_counts() {
    let offers = |versions: &[u8]| hello(0x0303, &[(43, &[&[versions.len() as u8][..], versions].concat())]);
    for (bytes, version, decided) in [
        (offers(&[3, 4, 3, 3]), "1.3", "default"),
        (offers(&[3, 3, 3, 4, 3, 2]), "1.3", "default"),
        (offers(&[3, 3, 3, 2]), "1.2", "old"),
        // GREASE (RFC 8701) and a draft are no versions.
        (offers(&[0x7a, 0x7a, 0x7f, 0x1c, 3, 3]), "1.2", "old"),
        (offers(&[0xfa, 0xfa]), "0x0000", "default"),
        (hello(0x0303, &[]), "1.2", "old"),
        (hello(0x0302, &[]), "1.1", "old"),
        // Without the extension it is TLS 1.2 at most (RFC 8446, appendix D.1).
        (hello(0x0304, &[]), "1.2", "old"),
    ] {
        assert_eq!(seen("secure", &bytes, "tls_version").as_deref(), Some(version));
        assert_eq!(rule("secure", &bytes), decided, "{version}");
    }
}

#[test]
fn an_encrypted_hello_is_noticed() {
    let versions: (u16, &[u8]) = (43, &[2, 3, 4]);
    // Outer, cipher suite, configuration, encapsulated key, payload (RFC 9849, section 5). GREASE looks the same.
    let outer: &[u8] = &[0, 0, 1, 0, 1, 7, 0, 2, 9, 9, 0, 3, 8, 8, 8];
    assert_eq!(rule("secure", &hello(0x0303, &[versions, (0xfe0d, outer)])), "hidden");
    assert_eq!(seen("secure", &hello(0x0303, &[versions]), "ech").as_deref(), Some("false"));
}

// --- any protocol -------------------------------------------------------------------------------------------------

#[test]
fn raw_bytes_decide_when_no_earlier_rule_can_match_any_more() {
    assert_eq!(rule("lines", b""), "-");
    assert_eq!(rule("lines", b"GET"), "-");
    assert_eq!(rule("lines", b"GET "), "short");
    assert_eq!(rule("lines", b"\x01"), "-");
    assert_eq!(rule("lines", b"\x16\x03"), "binary");
    assert_eq!(rule("lines", b"\x16\x02"), "default");
    assert_eq!(rule("lines", b"ehlo mail.example"), "-");
    assert_eq!(rule("lines", b"ehlo mail.example\r\n"), "words");
    assert_eq!(rule("lines", b"HELP\r\n"), "default");
    // What would take more than is looked at does not match.
    assert_eq!(rule("lines", format!("HELO {}", "x".repeat(250)).as_bytes()), "-");
    assert_eq!(rule("lines", format!("HELO {}", "x".repeat(251)).as_bytes()), "default");
    let near = |bytes: &[u8]| decided("lines", bytes, "192.0.2.1").map(|decision| decision.rule.to_string());
    assert_eq!(near(b"X").as_deref(), Some("neither"));
    assert_eq!(near(b"Q").as_deref(), Some("default"));
}

#[test]
fn redis_is_decided_by_command_and_key() {
    assert_eq!(rule("cache", b"*2\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n"), "news");
    assert_eq!(rule("cache", b"*2\r\n$3\r\nGET\r\n$6\r\nuser:7\r\n"), "users");
    assert_eq!(rule("cache", b"SET u77 x\r\n"), "users");
    assert_eq!(rule("cache", b"SET u7x x\r\n"), "default");
    assert_eq!(rule("cache", b"DBSIZE\r\n"), "keyless");
    assert_eq!(rule("cache", b"PING\r\n"), "default");
    assert_eq!(rule("cache", b"AUTH x\r\n"), "-");
    assert_eq!(rule("cache", b"AUTH x\r\nGET user:1\r\n"), "users");
    assert_eq!(rule("cache", b"\x16\x03\x01"), "default redis_unreadable");
}

#[test]
fn a_server_name_and_a_key_choose_by_what_they_are() {
    let key = |service: &str, bytes: &[u8]| decided(service, bytes, FAR).unwrap().key;
    let versions: (u16, &[u8]) = (43, &[2, 3, 4]);
    let named = hello(0x0303, &[versions, (0, b"\0\x0e\0\0\x0bIMG.example")]);
    assert_eq!(key("secure", &named), Some(key_hash(b"img.example")));
    assert_eq!(key("cache", b"*2\r\n$3\r\nGET\r\n$5\r\nitem7\r\n"), Some(key_hash(b"item7")));
    let of_client = Some(key_hash(&[203, 0, 113, 7]));
    assert_eq!((key("secure", &hello(0x0303, &[versions])), key("cache", b"PING\r\n")), (of_client, of_client));
}

// --- any of them --------------------------------------------------------------------------------------------------

#[test]
fn auto_tells_them_apart() {
    assert_eq!(rule("any", b"GET /images/1 HTTP/1.0\r\n\r\n"), "images");
    assert_eq!(rule("any", &hello(0x0303, &[(0, b"\0\x0e\0\0\x0bimg.example")])), "named");
    assert_eq!(rule("any", b"*2\r\n$3\r\nGET\r\n$6\r\nuser:7\r\n"), "users");
    assert_eq!(rule("any", b"SSH-2.0-x\r\n"), "ssh");
    assert_eq!(rule("any", b"SSH-1.5-x\r\n"), "default");
    // What nobody can know holds neither plain nor under `not`.
    assert_eq!(rule("any", &hello(0x0303, &[])), "default");
    assert_eq!(rule("any", b"GET /a HTTP/1.0\r\n\r\n"), "default");
    assert_eq!(rule("any", b"GET /b HTTP/1.0\r\n\r\n"), "not a");
    // What is a request, but no clear one, is not taken for raw bytes.
    assert_eq!(rule("any", b"GET /images/../x HTTP/1.0\r\n\r\n"), "default path_dots");
    assert_eq!(rule("any", b"GET / HTTP/1.1\r\nHost : a\r\n"), "default not_http");
}

#[test]
fn where_no_rule_asks_about_them_other_protocols_are_unknown() {
    for bytes in [&b"SSH-2.0-x\r\n"[..], b"*2\r\n$3\r\n", b"\0", b"get key\r\n"] {
        assert_eq!(rule("plain", bytes), "default unknown_protocol");
    }
    let near = decided("plain", b"GET / HTTP/1.0\r\n\r\n", "192.0.2.1").unwrap();
    assert_eq!(&*near.rule, "near");
}

// --- behind proxies -----------------------------------------------------------------------------------------------

const REQUEST: &[u8] = b"GET /images/1 HTTP/1.0\r\n\r\n";

#[test]
fn behind_a_proxy_the_client_is_who_it_says() {
    let sent = |line: &str| [line.as_bytes(), REQUEST].concat();
    assert_eq!(rule("proxied", &sent("PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n")), "near");
    assert_eq!(rule("proxied", &sent("PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n")), "images");
    assert_eq!(rule("proxied", &sent("PROXY UNKNOWN\r\n")), "images");
    assert_eq!(rule("proxied", &sent("PROXY TCP6 2001:db8::1 ::1 1 2\r\n")), "images");
    assert_eq!(rule("proxied", REQUEST), "default proxy_header", "a header must come");
    let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\0\x01\0\x02", REQUEST].concat();
    assert_eq!(rule("proxied", &v2), "near");
    let client =
        with("proxied", |service| service.explain(&v2, client(FAR))).request.into_iter().find(|(name, _)| *name == "client");
    assert_eq!(client.and_then(|(_, value)| value).as_deref(), Some("192.0.2.1"));
}

#[test]
fn nobody_else_can_say_so() {
    let spoofed = [b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n", REQUEST].concat();
    let decision = decided("proxied", &spoofed, "198.51.100.9").unwrap();
    assert_eq!((&*decision.rule, decision.note.is_some()), ("default", true));
    let direct = decided("proxied", REQUEST, "198.51.100.9").unwrap();
    assert_eq!(&*direct.rule, "images");
    let own = decided("proxied", &[b"PROXY UNKNOWN\r\n", REQUEST].concat(), "192.0.2.9").unwrap();
    assert_eq!(&*own.rule, "near", "a proxy that speaks for itself is its own client");
}

// --- any bytes ----------------------------------------------------------------------------------------------------

fn assert_never_taken_back(service: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let policy = policy();
    let service = policy.service_named(service).unwrap();
    let mut first: Option<Decision> = None;
    let mut looks = Looks::default();
    for length in 0..=bytes.len() {
        let examined = service.examine(&bytes[..length], client(FAR));
        let looked = service.look(&bytes[..length], client(FAR), &mut looks);
        prop_assert_eq!(&looked, &examined, "what was remembered changes it at {}", length);
        match (&first, examined) {
            (None, Examination::NeedMore) => prop_assert!(length < service.inspect_bytes_max),
            (Some(_), Examination::NeedMore) => prop_assert!(false, "taken back at {}", length),
            (None, Examination::Decided(decision)) => first = Some(decision),
            (Some(first), Examination::Decided(decision)) => prop_assert_eq!(first, &decision),
        }
    }
    Ok(())
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec()),
        Just(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()),
        Just(b"GET /a HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(PREFACE.to_vec()),
        Just(SETTINGS.to_vec()),
        Just(get("/images/1", &[])[33..].to_vec()),
        Just(post("/spread", &[], &[data(0, LLAMA)])),
        Just(data(END, LLAMA)),
        Just(frame(1, 4, 3, b"x")),
        Just(b"POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n".to_vec()),
        Just([LLAMA, b"\r\n0\r\n\r\n"].concat()),
        Just(hello(0x0303, &[])),
        Just(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec()),
        Just(b"SSH-2.0".to_vec()),
        Just(b"EHLO a\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_any_of_them_panic_or_change_its_mind(bytes in pieces()) {
        for service in ["web", "models", "lines", "cache", "any", "plain", "proxied"] {
            assert_never_taken_back(service, &bytes)?;
        }
    }
}

#[test]
fn every_kind_of_ambiguity_has_its_label() {
    for kind in [Ambiguity::ProxyHeader, Ambiguity::RedisUnreadable, Ambiguity::UnknownProtocol] {
        assert_eq!(kind.to_string(), kind.label());
    }
}
