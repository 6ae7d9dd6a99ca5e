//! A file the unit tests share.

use super::{ClusterFile, Policy};
use crate::flow::Endpoint;

/// Three nodes, a rule of every kind.
pub(super) const SHOP: &str = r#"
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/24 }
nodes:
  a: { address: 10.77.0.1, public_key: "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=" }
  b: { address: 10.77.0.2, public_key: "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=" }
  c: { address: 10.77.0.3, public_key: "5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE=" }
services:
  web:
    frontends: { a: "10.77.0.1:80", b: "10.77.0.2:80" }
    servers: { a: { port: 80 }, b: { port: 80 }, c: { port: 8080 } }
    inspect_timeout: 5s
    rules:
      - name: images
        when: { path: "/images/*", method: [GET, HEAD] }
        send_to: b
      - name: image host
        when: { host: img.example.com }
        send_to: [b, local]
      - name: sharded
        when: { header: { x-shard: "7" } }
        send_to: [c, b, local]
      - name: near
        when: { client: 192.0.2.0/24 }
        send_to: a
    default: local
limits: { linger: 60s }
"#;

/// The file a text is.
pub(super) fn file(text: &str) -> ClusterFile {
    ClusterFile::parse("test.yaml", text).unwrap_or_else(|report| panic!("{report}"))
}

/// What [`SHOP`] means for a node.
pub(super) fn shop(node: &str) -> Policy {
    file(SHOP).compile(node).unwrap_or_else(|error| panic!("{error}"))
}

/// An endpoint from its text.
pub(super) fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap_or_else(|error| panic!("{text}: {error}")).into()
}

/// Octets as hexadecimal digits, with spaces wherever they help.
pub(super) fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter_map(|digit| char::from(digit).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
