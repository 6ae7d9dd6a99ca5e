//! The cluster file of a plan, and how it is changed while nodes run.

use super::bytes::NAMES;
use super::on_syn::SHARED;
use super::plan::Plan;
use baton::control::key::public_key_to_text;
use baton::policy::ClusterFile;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Versions of a cluster file: as planned; each request to the next node; without the first front-end; without the second server.
pub const VARIANTS: usize = 4;
pub const FRONTEND_PORT: u16 = 80;

pub fn node_address(node: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, node as u16 + 1).into()
    } else {
        Ipv4Addr::new(10, 77, 0, node as u8 + 1).into()
    }
}

pub fn client_address(client: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, client as u16 + 1).into()
    } else {
        Ipv4Addr::new(10, 99, 0, client as u8 + 1).into()
    }
}

pub fn read(plan: &Plan, variant: usize) -> ClusterFile {
    let text = text(plan, variant);
    ClusterFile::parse("cluster.yaml", &text).unwrap_or_else(|report| panic!("{report}\n{text}"))
}

pub fn text(plan: &Plan, variant: usize) -> String {
    let count = plan.nodes.len();
    let mut text =
        "cluster: swarm\noverlay: { port: 7400, aliases: [\"198.18.0.0/16\", \"fd00:ba70::/64\"] }\nnodes:\n".to_owned();
    for (node, name) in NAMES.iter().enumerate().take(count) {
        let key = public_key_to_text(&[node as u8 + 1; 32]);
        let _ = writeln!(text, "  {name}: {{ address: {}, public_key: \"{key}\" }}", node_address(node, false));
    }
    text.push_str("services:\n  web:\n    frontends:\n");
    let frontends: Vec<usize> = (0..count).filter(|node| plan.nodes[*node].has_frontend).collect();
    let skipped = if variant == 2 && frontends.len() > 1 { Some(frontends[0]) } else { None };
    for node in frontends.iter().copied().filter(|node| Some(*node) != skipped) {
        let (v4, v6) = (node_address(node, false), node_address(node, true));
        let mut endpoints = format!("\"{v4}:{FRONTEND_PORT}\", \"[{v6}]:{FRONTEND_PORT}\"");
        if plan.is_shared() {
            let (v4, v6) = (node_address(SHARED, false), node_address(SHARED, true));
            let _ = write!(endpoints, ", \"{v4}:{FRONTEND_PORT}\", \"[{v6}]:{FRONTEND_PORT}\"");
        }
        let _ = writeln!(text, "      {}: [{endpoints}]", NAMES[node]);
    }
    text.push_str("    servers:\n");
    // A server that has a front-end answers there in any case.
    let absent = if variant == 3 && !plan.nodes[count - 1].has_frontend { Some(count - 1) } else { None };
    for node in (0..count).filter(|node| Some(*node) != absent) {
        let _ = writeln!(text, "      {}: {{ port: {} }}", NAMES[node], plan.nodes[node].server_port);
    }
    if let Some(on_syn) = &plan.on_syn {
        let rules = on_syn.rules(usize::from(variant == 1), count, absent);
        let heading = if rules.is_empty() { "" } else { "    rules:\n" };
        let _ = write!(text, "    inspect: none\n{heading}{rules}");
        write_end(plan, &mut text);
        return text;
    }
    text.push_str("    rules:\n");
    for (node, name) in NAMES.iter().enumerate().take(count) {
        let to = if variant == 1 { (node + 1) % count } else { node };
        if Some(to) != absent {
            let _ = writeln!(
                text,
                "      - name: to-{name}\n        when: {{ path: \"/to/{name}/*\" }}\n        send_to: {}",
                NAMES[to]
            );
        }
    }
    let several: Vec<&str> = (0..count).rev().filter(|node| Some(*node) != absent).map(|node| NAMES[node]).collect();
    let _ = writeln!(
        text,
        "      - name: any\n        when: {{ path: \"/any/*\" }}\n        send_to: [{}, local]",
        several.join(", ")
    );
    write_end(plan, &mut text);
    text
}

fn write_end(plan: &Plan, text: &mut String) {
    let _ = writeln!(
        text,
        "    default: local\nlimits: {{ connections: {}, linger: {}s }}",
        plan.connections_max, plan.linger_seconds
    );
}
