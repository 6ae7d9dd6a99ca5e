//! What clients send, and files with many rules.

use baton::flow::{Endpoint, FlowKey};
use baton::policy::{ClusterFile, Policy};
use std::fmt::Write as _;

/// A service whose first rules are `rules`, lines of a YAML list.
pub fn policy(inspect: &str, rules: &str) -> Policy {
    let file = ClusterFile::parse("bench.yaml", &text(inspect, rules)).unwrap_or_else(|report| panic!("{report}"));
    file.compile("a").unwrap_or_else(|error| panic!("{error}"))
}

/// A file with this service.
pub fn text(inspect: &str, rules: &str) -> String {
    format!(
        r#"
cluster: bench
overlay: {{ port: 7400, aliases: 198.18.0.0/24 }}
nodes:
  a: {{ address: 10.77.0.1, public_key: "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=" }}
  b: {{ address: 10.77.0.2, public_key: "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=" }}
services:
  web:
    frontends: {{ a: "10.77.0.1:80", b: "10.77.0.2:80" }}
    inspect: {inspect}
    rules: {}
"#,
        if rules.is_empty() { "[]".to_owned() } else { format!("\n{rules}") }
    )
}

/// So many rules, each for a host and a prefix: tenants with eight applications each. The last one is for the request of
/// [`browser`].
pub fn tenants(count: usize) -> String {
    let mut rules = String::new();
    for number in 0..count - 1 {
        let (tenant, application) = (number / 8, number % 8);
        let host = if tenant.is_multiple_of(4) { format!("'*.t{tenant}.example.com'") } else { format!("t{tenant}.example.com") };
        let _ = writeln!(rules, "      - {{ when: {{ host: {host}, path: '/app{application}/v{tenant}/*' }}, send_to: b }}");
    }
    rules + "      - { when: { host: www.example.com, path: '/images/*' }, send_to: b }\n"
}

/// As many rules as there may be, each with all that rules commonly have: as large as a file may be.
pub fn largest() -> String {
    let mut rules = String::new();
    for number in 0..10_000 {
        let _ = write!(rules, "      - name: application {number}\n        when:\n          host: [");
        for host in 0..4 {
            let _ = write!(rules, "{}h{host}.application-{number}.example.com", if host > 0 { ", " } else { "" });
        }
        let _ = write!(rules, "]\n          path: [");
        for path in 0..3 {
            let _ = write!(rules, "{}'/v{path}/application-{number}/*'", if path > 0 { ", " } else { "" });
        }
        let _ = write!(rules, "]\n          method: [GET, HEAD]\n          header: {{ x-tenant: 't{number}' }}\n");
        let _ = writeln!(rules, "        send_to: {{ nodes: {{ a: 3, b: 1 }}, by: \"hash(path)\" }}");
    }
    rules
}

/// So many prefixes of one host.
pub fn prefixes(count: usize) -> String {
    let mut rules = String::new();
    for number in 0..count - 1 {
        let _ = writeln!(rules, "      - {{ when: {{ path: '/images/{:x}/{number}/*' }}, send_to: b }}", number % 7);
    }
    rules + "      - { when: { path: '/images/2026/*' }, send_to: b }\n"
}

/// What a browser sends first.
pub fn browser() -> Vec<u8> {
    "GET /images/2026/11/shoe-large.webp?w=640&dpr=2 HTTP/1.1\r\n\
     Host: www.example.com\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0\r\n\
     Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
     Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
     Accept-Encoding: gzip, deflate, br, zstd\r\n\
     Referer: http://www.example.com/shoes/running/\r\n\
     Connection: keep-alive\r\n\
     Cookie: session=8b0f4f1c0f1e4a7f9a51a0f3f3b9e0aa; theme=dark; consent=1; ab=checkout-b\r\n\
     Sec-Fetch-Dest: image\r\n\
     Sec-Fetch-Mode: no-cors\r\n\
     Sec-Fetch-Site: same-origin\r\n\
     Priority: u=5, i\r\n\
     Pragma: no-cache\r\n\
     Cache-Control: no-cache\r\n\r\n"
        .into()
}

/// As little as a client can send: what is left is the decision.
pub fn shortest() -> Vec<u8> {
    b"GET /images/2026/ HTTP/1.0\r\nHost: www.example.com\r\n\r\n".to_vec()
}

/// A request for a field of a JSON body.
pub fn model() -> Vec<u8> {
    let body = format!(
        "{{\"model\":\"llama3\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}],\"stream\":true}}",
        "why? ".repeat(200)
    );
    format!("POST /v1/chat HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A ClientHello of about 1,700 octets: rustls's own, with a session ticket's worth of padding in its ALPN.
pub fn hello() -> Vec<u8> {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = config.expect("the versions are there").with_root_certificates(rustls::RootCertStore::empty());
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).to_vec();
    config.alpn_protocols.extend((0..7).map(|number| vec![b'a' + number; 205]));
    let name = "www.example.com".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
}

/// What curl sends first of HTTP/2 in clear, with a browser's fields: preface, SETTINGS, WINDOW_UPDATE and HEADERS, recorded.
pub fn http2() -> Vec<u8> {
    const RECORDED: &str = "\
     505249202a20485454502f322e300d0a0d0a534d0d0a0d0a0000120400000000000003000000640004020000000002000000000000040800\
     0000000001ff000100012d0105000000018204a060d48e62a181004e3010b089ce55a81d93157f058ebff3c40e340f892bb2017f86418cf1\
     e3c2e5f23a6ba0ab90f4ff7ab5d07f66a281b0dae053fafc087ed4ce6aadf2a7979c89c6bed4b3bdc0b225c1fda988a4ea76040080010054\
     c26b0b29fcb01644b83f53b5352398ac0fb9a5fa352398ac782c75fd1a91cc562baa6fa352398ac23bcdfefcd347d1a91cc563e7efb4005d\
     efaf963e7efb4005db519390bf45a96e1bbefb4005ddfa2d5f7da002ecff50929bd9abfa5242cb40d25fa523b3e94f684c9f739b9d29aee3\
     0c78f1e172f91d35d055c87a5844e72a18b2daaa35533160b74150831ea81e8c12b5284809425686ecaf8db08c12b32b31be500c7f6a2672\
     d258241d9d7ed421ea416a4c01fb5071c049ca4ea7b52b474086aec31ec327d785b606fe9437";
    let octet = |at: usize| u8::from_str_radix(&RECORDED[at..at + 2], 16).expect("two digits");
    (0..RECORDED.len()).step_by(2).map(octet).collect()
}

/// A request or hello that is never complete, for a service of its own: its `inspect`, its rules, and as many octets as are
/// looked at.
pub fn endless() -> Vec<(&'static str, Policy, Vec<u8>)> {
    const OCTETS: usize = 16_384;
    let filled = |beginning: &[u8], octet: u8| {
        let mut bytes = beginning.to_vec();
        bytes.resize(OCTETS, octet);
        bytes
    };
    let of_json = "      - { when: { json: { /model: 'llama*' } }, send_to: b }\n";
    let by_name = "      - { when: { sni: '*.example.com' }, send_to: b }\n";
    let by_key = "      - { when: { key: 'user:*' }, send_to: b }\n";
    let anywhere = "      - { when: { regex: '(?s).*needle' }, send_to: b }\n";
    let repeated = |beginning: &[u8], piece: &[u8]| {
        let mut bytes = beginning.to_vec();
        while bytes.len() < OCTETS {
            bytes.extend_from_slice(piece);
        }
        bytes.truncate(OCTETS);
        bytes
    };
    let chunks = repeated(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"8\r\n        \r\n");
    // Behind preface, SETTINGS and WINDOW_UPDATE.
    let frames = repeated(&http2()[..64], &[&[0, 0, 255, 0xfa, 0, 0, 0, 0, 0][..], &[0; 255]].concat());
    vec![
        ("HTTP/1, a head", policy("http", ""), filled(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b'x')),
        ("HTTP/1, a body in chunks", policy("http", of_json), chunks),
        ("HTTP/2, frames before the request", policy("http", ""), frames),
        ("TLS, a hello", policy("tls", by_name), filled(&[22, 3, 1, 0x3f, 0xf0, 1, 0, 0x3f, 0xec], 0)),
        ("Redis, an argument before the key", policy("redis", by_key), filled(b"*3\r\n$4\r\nEVAL\r\n$16384\r\n", b'x')),
        ("raw, an open expression", policy("raw", anywhere), filled(b"", b'x')),
    ]
}

/// Where a client connects from and to.
pub fn flow() -> FlowKey {
    FlowKey { client: Endpoint::new([203, 0, 113, 7].into(), 40_000), frontend: Endpoint::new([10, 77, 0, 1].into(), 80) }
}
