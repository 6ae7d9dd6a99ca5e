//! TLS by name: what is read from a ClientHello, however it arrives, and what is not one.

mod common;

use baton::flow::Endpoint;
use baton::policy::{Ambiguity, Decision, Examination, Explanation, Hello, Policy};
use common::policy_with;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;

const SERVICES: &str = r#"
  secure:
    frontends: { a: "10.77.0.1:443", b: "10.77.0.2:443" }
    inspect: tls
    inspect_bytes_max: 128KiB
    rules:
      - { name: images, when: { sni: [img.Example.com, "*.img.example.com"] }, send_to: b }
      - { name: near, when: { sni: www.example.com, client: 192.0.2.0/24 }, send_to: b }
      - { name: grpc, when: { sni: api.example.com, alpn: h2 }, send_to: b }
      - { name: nameless, when: { sni: false, alpn: true }, send_to: b }
  short:
    frontends: { a: "10.77.0.1:444", b: "10.77.0.2:444" }
    inspect: tls
    inspect_bytes_max: 1KiB
  plain:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
"#;

fn policy() -> Policy {
    policy_with(SERVICES)
}

fn client() -> Endpoint {
    "203.0.113.7:4000".parse::<SocketAddr>().unwrap().into()
}

fn examine_in(service: &str, bytes: &[u8]) -> Examination {
    policy().service_named(service).unwrap().examine(bytes, client())
}

fn decided_in(service: &str, bytes: &[u8]) -> Decision {
    match examine_in(service, bytes) {
        Examination::Decided(decision) => decision,
        Examination::NeedMore => panic!("undecided after {} bytes", bytes.len()),
    }
}

fn rule(bytes: &[u8]) -> String {
    let decision = decided_in("secure", bytes);
    assert_eq!(decision.note, None);
    decision.rule.to_string()
}

fn note(bytes: &[u8]) -> Option<Ambiguity> {
    let decision = decided_in("secure", bytes);
    assert_eq!(&*decision.rule, "default");
    decision.note
}

// --- hellos -------------------------------------------------------------------------------------------------------

/// A length of this many octets, and what it is the length of.
fn prefixed(octets: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - octets..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed(2, content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &prefixed(2, &[&[0], &prefixed(2, name)[..]].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| prefixed(1, name.as_bytes())).collect();
    extension(16, &prefixed(2, &names))
}

fn signature_algorithms() -> Vec<u8> {
    extension(13, &prefixed(2, &[4, 3, 8, 4]))
}

/// X25519MLKEM768 (group 0x11ec) with its 1,216 octets, and X25519: what browsers send.
fn post_quantum_key_share() -> Vec<u8> {
    let share = |group: u16, octets: usize| [&group.to_be_bytes()[..], &prefixed(2, &vec![7; octets])].concat();
    extension(51, &prefixed(2, &[share(0x11ec, 1_216), share(29, 32)].concat()))
}

/// A message with these extensions, in no record yet.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[9; 32],
        &prefixed(1, &[1; 32]),
        &prefixed(2, &[0x13, 1, 0xc0, 0x2b]),
        &prefixed(1, &[0]),
        &prefixed(2, &extensions.concat()),
    ];
    [&[1][..], &prefixed(3, &body.concat())].concat()
}

/// A message in records of at most this many octets.
fn in_records(message: &[u8], octets: usize) -> Vec<u8> {
    message.chunks(octets).flat_map(|fragment| [&[22, 3, 1][..], &prefixed(2, fragment)].concat()).collect()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    in_records(&message(extensions), 16_384)
}

fn hello_to(name: &str) -> Vec<u8> {
    hello(&[sni(name.as_bytes()), signature_algorithms()])
}

fn post_quantum_hello() -> Vec<u8> {
    let padding = extension(21, &[0; 256]);
    let extensions = [sni(b"img.example.com"), signature_algorithms(), post_quantum_key_share(), alpn(&["h2"]), padding];
    message(&extensions)
}

/// What a TLS client really sends.
fn real_hello(name: &'static str, protocols: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

// --- what is read -------------------------------------------------------------------------------------------------

#[test]
fn the_server_name_decides_without_regard_to_case_and_final_dot() {
    assert_eq!(rule(&hello_to("img.example.com")), "images");
    assert_eq!(rule(&hello_to("IMG.example.COM")), "images");
    assert_eq!(rule(&hello_to("img.example.com.")), "images");
    assert_eq!(rule(&hello_to("a.b.img.example.com")), "images");
    assert_eq!(rule(&hello_to("aimg.example.com")), "default");
    assert_eq!(rule(&hello_to("www.example.com")), "default");
}

#[test]
fn a_real_client_is_understood() {
    assert_eq!(rule(&real_hello("img.example.com", &[])), "images");
    assert_eq!(rule(&real_hello("api.example.com", &["h2", "http/1.1"])), "grpc");
    assert_eq!(rule(&real_hello("api.example.com", &["http/1.1"])), "default");
    assert_eq!(rule(&real_hello("api.example.com", &[])), "default");
    // A client that connects to an address names no server.
    assert_eq!(rule(&real_hello("192.0.2.1", &["h2"])), "nameless");
}

#[test]
fn no_server_name_is_nothing_unclear() {
    assert_eq!(rule(&hello(&[signature_algorithms()])), "default");
    assert_eq!(rule(&hello(&[signature_algorithms(), alpn(&["acme-tls/1"])])), "nameless");
    // RFC 6066 allows no address there; those who send one mean no name.
    assert_eq!(rule(&hello(&[sni(b"192.0.2.1"), signature_algorithms(), alpn(&["h2"])])), "nameless");
}

#[test]
fn with_encrypted_client_hello_the_outer_name_decides() {
    // draft-ietf-tls-esni, section 5: outer, cipher suite, configuration, encapsulated key, payload.
    let outer = [&[0, 0, 1, 0, 1, 7][..], &prefixed(2, &[9; 32]), &prefixed(2, &[9; 200])].concat();
    let encrypted = extension(0xfe0d, &outer);
    assert_eq!(rule(&hello(&[sni(b"img.example.com"), signature_algorithms(), encrypted])), "images");
}

#[test]
fn the_version_in_the_record_does_not_matter() {
    for minor in 0..=4 {
        let mut bytes = hello_to("img.example.com");
        bytes[2] = minor;
        assert_eq!(rule(&bytes), "images");
    }
}

#[test]
fn what_follows_the_hello_is_not_looked_at() {
    let mut bytes = hello_to("img.example.com");
    bytes.extend_from_slice(b"\x14\x03\x03\x00\x01\x01early data");
    assert_eq!(rule(&bytes), "images");
}

// --- however it arrives -------------------------------------------------------------------------------------------

/// Undecided until the last octet, then decided alike whatever follows.
#[track_caller]
fn assert_decided_at_the_end(bytes: &[u8], expected: &str) {
    let secure = policy();
    let secure = secure.service_named("secure").unwrap();
    for length in 0..bytes.len() {
        assert_eq!(secure.examine(&bytes[..length], client()), Examination::NeedMore, "{length} of {}", bytes.len());
    }
    assert_eq!(rule(bytes), expected);
}

#[test]
fn a_hello_is_read_once_it_is_complete() {
    assert_decided_at_the_end(&hello_to("img.example.com"), "images");
    assert_decided_at_the_end(&real_hello("img.example.com", &["h2"]), "images");
}

#[test]
fn a_post_quantum_hello_is_larger_than_a_segment() {
    let bytes = in_records(&post_quantum_hello(), 16_384);
    assert!((1_600..1_800).contains(&bytes.len()), "{}", bytes.len());
    assert_decided_at_the_end(&bytes, "images");
}

#[test]
fn a_hello_may_span_records() {
    for octets in [1, 2, 3, 4, 5, 100, 1_460] {
        assert_decided_at_the_end(&in_records(&post_quantum_hello(), octets), "images");
    }
}

#[test]
fn large_hellos_are_read_up_to_60_kib() {
    let many = |octets: usize| message(&[sni(b"img.example.com"), signature_algorithms(), extension(0x7a7a, &vec![0; octets])]);
    for octets in [16_384, 32_768, 60_000] {
        assert_eq!(rule(&in_records(&many(octets), 16_384)), "images", "{octets}");
        assert_eq!(rule(&in_records(&many(octets), 999)), "images", "{octets}");
    }
    let largest = 60 * 1_024 - many(0).len();
    for octets in [10, 1_000, 16_384] {
        assert_eq!(rule(&in_records(&many(largest), octets)), "images");
        assert_eq!(note(&in_records(&many(largest + 1), octets)), Some(Ambiguity::TooLong));
    }
}

// --- what is not read ---------------------------------------------------------------------------------------------

#[test]
fn what_is_not_tls_is_known_at_its_first_octet() {
    assert_eq!(note(b"G"), Some(Ambiguity::NotTls));
    assert_eq!(note(b"GET / HTTP/1.1\r\n"), Some(Ambiguity::NotTls));
    assert_eq!(note(b"SSH-2.0-OpenSSH_9\r\n"), Some(Ambiguity::NotTls));
    assert_eq!(note(b"\x16\x02"), Some(Ambiguity::NotTls));
    // The hello of SSL 2.
    assert_eq!(note(b"\x80\x2e\x01\x00\x02"), Some(Ambiguity::NotTls));
    // An alert, application data, a server's hello.
    assert_eq!(note(b"\x15\x03\x01\x00\x02\x01\x00"), Some(Ambiguity::NotTls));
    assert_eq!(note(b"\x17\x03\x03\x00\x02\x01\x00"), Some(Ambiguity::NotTls));
    assert_eq!(note(b"\x16\x03\x01\x00\x04\x02"), Some(Ambiguity::NotTls));
    assert_eq!(examine_in("secure", b""), Examination::NeedMore);
    assert_eq!(examine_in("secure", b"\x16"), Examination::NeedMore);
}

#[test]
fn records_that_cannot_be_are_malformed() {
    let message = message(&[sni(b"img.example.com"), signature_algorithms()]);
    assert_eq!(note(b"\x16\x03\x01\x00\x00"), Some(Ambiguity::HelloMalformed), "an empty fragment");
    assert_eq!(note(b"\x16\x03\x01\x40\x01"), Some(Ambiguity::HelloMalformed), "a fragment too long");
    let mut alien = in_records(&message, 40);
    alien[45] = 20;
    assert_eq!(note(&alien[..46]), Some(Ambiguity::HelloMalformed), "another record between its fragments");
    let followed = [message.clone(), vec![1, 0, 0, 0]].concat();
    assert_eq!(note(&in_records(&followed, 16_384)), Some(Ambiguity::HelloMalformed), "a message behind it in the record");
}

#[test]
fn hellos_that_contradict_themselves_are_malformed() {
    let name = || sni(b"img.example.com");
    assert_eq!(note(&hello(&[name(), signature_algorithms(), name()])), Some(Ambiguity::HelloMalformed));
    assert_eq!(note(&hello(&[name(), signature_algorithms(), alpn(&[])])), Some(Ambiguity::HelloMalformed));
    assert_eq!(note(&hello(&[name(), signature_algorithms(), alpn(&["h2", ""])])), Some(Ambiguity::HelloMalformed));
    let mut cut_short = hello(&[name(), signature_algorithms()]);
    let last = cut_short.len() - 1;
    cut_short[last - 5] += 1;
    assert_eq!(note(&cut_short), Some(Ambiguity::HelloMalformed));
}

#[test]
fn server_names_that_are_none_are_unreadable() {
    for name in ["a b", "a,b", "img.example.com\0", "ä.example", "a..b", "*.example.com", "a/b", "img.example.com:443"] {
        assert_eq!(note(&hello_to(name)), Some(Ambiguity::SniUnreadable), "{name}");
        assert_eq!(Hello::new(Some(name), Vec::new()), Err(Ambiguity::SniUnreadable), "{name}");
    }
    let twice = [&[0][..], &prefixed(2, b"img.example.com"), &[0], &prefixed(2, b"b.example")].concat();
    assert_eq!(note(&hello(&[extension(0, &prefixed(2, &twice)), signature_algorithms()])), Some(Ambiguity::SniUnreadable));
}

#[test]
fn hellos_of_before_tls_1_2_are_obsolete() {
    assert_eq!(note(&hello(&[sni(b"img.example.com")])), Some(Ambiguity::HelloObsolete));
}

#[test]
fn a_hello_must_fit_into_the_octets_looked_at() {
    let bytes = in_records(&post_quantum_hello(), 16_384);
    // What it says of its own length suffices.
    assert_eq!(examine_in("short", &bytes[..8]), Examination::NeedMore);
    assert_eq!(decided_in("short", &bytes[..9]).note, Some(Ambiguity::TooLong));
    assert_eq!(decided_in("short", &bytes).note, Some(Ambiguity::TooLong));
    // The headers of the records count too.
    let small = message(&[sni(b"img.example.com"), signature_algorithms(), extension(21, &[0; 100])]);
    let bytes = in_records(&small, 1);
    assert!(small.len() < 300 && bytes.len() > 1_024);
    assert_eq!(examine_in("short", &bytes[..1_023]), Examination::NeedMore);
    assert_eq!(decided_in("short", &bytes[..1_024]).note, Some(Ambiguity::TooLong));
    // No message is that long.
    assert_eq!(note(b"\x16\x03\x01\x40\x00\x01\x01\x00\x00"), Some(Ambiguity::TooLong));
}

// --- explained ----------------------------------------------------------------------------------------------------

fn explained(explanation: &Explanation) -> (String, Vec<String>) {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let seen: Vec<String> = explanation.request.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    let line = |tried: &baton::policy::Tried| match &tried.unmet {
        None => format!("{} ({})", tried.rule, tried.conditions),
        Some(unmet) => format!("{} ({}): {}: {}", tried.rule, tried.conditions, unmet.condition, unmet.reason),
    };
    (seen.join(" "), explanation.tried.iter().map(line).collect())
}

#[test]
fn an_explanation_says_why_each_earlier_rule_did_not_match() {
    let explanation =
        policy().service_named("secure").unwrap().explain(&real_hello("api.example.com", &["h2", "x\n"]), Some(client().address));
    let (seen, tried) = explained(&explanation);
    assert_eq!(seen, "sni=api.example.com alpn=h2, x\\n tls_version=1.3 ech=false client=203.0.113.7");
    let expected = [
        "images (sni img.example.com or *.img.example.com): sni: server name api.example.com is not among its names",
        "near (client 192.0.2.0/24, sni www.example.com): client: client 203.0.113.7 is in none of its networks",
        "grpc (sni api.example.com, alpn h2)",
    ];
    assert_eq!(tried, expected);
    assert_eq!(&*explanation.decision.rule, "grpc");
}

#[test]
fn a_hello_needs_no_octets_to_be_explained() {
    let explain = |service: &str, sni: Option<&str>, alpn: &[&str]| {
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        policy().service_named(service).unwrap().explain_hello(Hello::new(sni, alpn).unwrap(), Some(client().address))
    };
    let real = policy().service_named("secure").unwrap().explain(&real_hello("api.example.com", &["h2"]), Some(client().address));
    assert_eq!(explain("secure", Some("API.example.com."), &["h2"]), real);
    let (seen, tried) = explained(&explain("secure", Some("api.example.com"), &[]));
    assert_eq!(seen, "sni=api.example.com alpn=- tls_version=1.3 ech=false client=203.0.113.7");
    assert!(tried[2].ends_with("alpn: the client offers no protocols"), "{tried:?}");
    assert!(
        tried[3].ends_with("(sni absent, alpn present): sni: server name api.example.com is not among its names"),
        "{tried:?}"
    );
    let (_, tried) = explained(&explain("secure", None, &["http/1.1"]));
    assert!(tried[0].ends_with("sni: the client names no server"), "{tried:?}");
    assert_eq!(tried[3], "nameless (sni absent, alpn present)");
    let (_, tried) = explained(&explain("secure", Some("api.example.com"), &["http/1.1", "spdy/3"]));
    assert!(tried[2].ends_with("alpn: the client offers http/1.1, spdy/3, which is none of its protocols"), "{tried:?}");
    // What the engine would be told there.
    assert_eq!(explain("plain", Some("api.example.com"), &[]).ambiguity(), Some(Ambiguity::NotHttp));
    assert_eq!(decided_in("plain", &hello_to("api.example.com")).note, Some(Ambiguity::NotHttp));
}

// --- any bytes ----------------------------------------------------------------------------------------------------

/// Once decided, always decided, and alike; and decided when there are as many bytes as are looked at.
fn assert_never_taken_back(service: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let policy = policy();
    let service = policy.service_named(service).unwrap();
    let mut first: Option<Decision> = None;
    for length in 0..=bytes.len() {
        match (&first, service.examine(&bytes[..length], client())) {
            (None, Examination::NeedMore) => prop_assert!(length < service.inspect_bytes_max),
            (Some(_), Examination::NeedMore) => prop_assert!(false, "taken back at {}", length),
            (None, Examination::Decided(decision)) => first = Some(decision),
            (Some(first), Examination::Decided(decision)) => prop_assert_eq!(first, &decision),
        }
    }
    Ok(())
}

/// Records of any lengths.
fn split_at_random(message: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len())).chain([0, message.len()]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).flat_map(|cut| in_records(&message[cut[0]..cut[1]], 16_384)).collect()
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"img.example.com".to_vec()),
        Just(b"a.IMG.example.com".to_vec()),
        Just(b"api.example.com".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        names().prop_map(|name| sni(&name)),
        Just(alpn(&["h2", "http/1.1"])),
        Just(post_quantum_key_share()),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, content)| extension(kind, &content)),
    ];
    prop::collection::vec(extension, 0..4).prop_map(|mut extensions| {
        extensions.push(signature_algorithms());
        message(&extensions)
    })
}

proptest! {
    #[test]
    fn any_split_into_records_gives_the_same_decision(message in messages(), cuts: [prop::sample::Index; 6], used in 0..=6_usize) {
        let whole = decided_in("secure", &in_records(&message, 16_384));
        prop_assert_eq!(decided_in("secure", &split_at_random(&message, &cuts[..used])), whole);
    }

    #[test]
    fn any_split_into_segments_gives_the_same_decision(message in messages(), cuts: [prop::sample::Index; 3]) {
        let bytes = split_at_random(&message, &cuts);
        assert_never_taken_back("secure", &bytes)?;
        assert_never_taken_back("short", &bytes)?;
    }

    #[test]
    fn no_octets_make_it_panic_or_change_its_mind(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        assert_never_taken_back("secure", &bytes)?;
        assert_never_taken_back("secure", &[&b"\x16\x03\x01"[..], &bytes].concat())?;
        assert_never_taken_back("secure", &in_records(&[&[1][..], &prefixed(3, &bytes)].concat(), 16_384))?;
    }

    #[test]
    fn no_spoilt_hello_makes_it_panic_or_change_its_mind(
        message in messages(),
        cuts: [prop::sample::Index; 2],
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = split_at_random(&message, &cuts);
        for (at, octet) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        assert_never_taken_back("secure", &bytes)?;
    }
}

#[test]
fn a_client_that_has_said_its_hello_waits() {
    let policy = policy();
    let is_whole = |bytes: &[u8]| policy.service_named("secure").unwrap().is_whole(bytes, client());
    let hello = hello_to("img.example.com");
    assert!(is_whole(&hello) && is_whole(&in_records(&post_quantum_hello(), 16_384)));
    assert!(is_whole(&in_records(&message(&[sni(b"img.example.com"), signature_algorithms()]), 64)));
    assert!(!is_whole(&hello[..hello.len() - 1]));
    for more in [&[22][..], &[22, 3, 3, 0, 9, 1], b"\x14\x03\x03\x00\x01\x01"] {
        assert!(!is_whole(&[&hello[..], more].concat()), "{more:?}");
    }
}
