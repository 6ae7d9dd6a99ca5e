//! The cluster that the tests of the policy have in common: two nodes, a and b.

#![allow(dead_code, reason = "every test takes what it needs")]

use baton::policy::{ClusterFile, Policy};

const HEAD: &str = r#"
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 10.77.0.1, public_key: "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=" }
  b: { address: 10.77.0.2, public_key: "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=" }
services:
"#;

/// A cluster file with these services, indented by two.
pub fn file_with(services: &str) -> String {
    format!("{HEAD}{}", services.trim_start_matches('\n'))
}

/// What it means for node a.
pub fn policy_with(services: &str) -> Policy {
    let file = ClusterFile::parse("test.yaml", &file_with(services));
    file.unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap()
}
