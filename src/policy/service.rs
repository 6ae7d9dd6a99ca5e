//! A service as the file writes it: its addresses, its servers, its times and its rules.

use super::choice::{self, Choice, Key, Recipients};
use super::cluster::{NodeNames, check_name, check_unicast};
use super::condition::alternatives;
use super::index::Index;
use super::inspect::Asked;
use super::json::Pointer;
use super::matchers::{self, Context, Matcher};
use super::reader::{Field, Mapping};
use super::report::Problems;
use super::rule::{self, DEFAULT_RULE, Rule};
use super::yaml::{Place, Value};
use super::{Forward, Mode, ProbePlan, Protocol, Service, health};
use crate::flow::{Endpoint, NodeId};
use crate::limits::cluster_file as bounds;
use ipnet::IpNet;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

/// A service, and the places of what is looked at again when all is read.
pub(super) struct ReadService {
    pub(super) service: Service,
    pub(super) servers_place: Option<Place>,
    pub(super) forward_place: Option<Place>,
    pub(super) frontend_places: Vec<(NodeId, Endpoint, Place)>,
}

const KNOWN: [&str; 17] = [
    "frontends",
    "servers",
    "inspect",
    "proxy_protocol",
    "inspect_timeout",
    "inspect_bytes_max",
    "silence_timeout",
    "handoff_timeout",
    "route",
    "forward",
    "return",
    "mode",
    "health",
    "slow_start",
    "probe",
    "rules",
    "default",
];

/// Reads one service; what could be read of it even if something is wrong.
pub(super) fn service(entry: &Field<'_>, names: &NodeNames<'_>, problems: &mut Problems) -> Option<ReadService> {
    check_name(entry.name, &entry.place.key(), problems);
    let entry = &entry.clone().like(format!("`{}: {{ frontends: {{ NODE: \"10.77.0.1:80\" }} }}`", entry.name));
    let fields = entry.mapping(&KNOWN, problems)?;
    refuse_what_comes_later(&fields, problems);
    let frontend_places =
        fields.required("frontends", problems).map(|field| frontends(&field, names, problems)).unwrap_or_default();
    let mut frontends: Vec<(NodeId, Endpoint)> = frontend_places.iter().map(|(node, endpoint, _)| (*node, *endpoint)).collect();
    frontends.sort_unstable();
    let mut weights = Vec::new();
    let servers = match fields.optional("servers") {
        Some(field) => servers(&field, names, &mut weights, problems),
        None => servers_of_frontends(&frontend_places, problems),
    };
    if let (Some(servers), Some(field)) = (&servers, fields.optional("servers")) {
        check_local_servers(&frontends, servers, names, &field, problems);
    }
    let health_field = fields.optional("health");
    let inspect = match fields.optional("inspect") {
        Some(field) => inspect(&field, problems),
        None => Some(Protocol::Http),
    };
    if inspect == Some(Protocol::None) {
        warn_of_what_is_never_asked(&fields, problems);
    }
    let context = Context { inspect, frontends: &frontends, regexes: &Cell::new(0) };
    let is_checked = health_field.is_some();
    let recipients =
        Recipients { service: entry.name, names, servers: servers.as_deref(), weights: &weights, is_checked, context };
    let (rules, index) = match fields.optional("rules") {
        Some(field) => rule::rules(&field, &recipients, problems),
        None => (Vec::new(), Index::default()),
    };
    let default = match fields.optional("default") {
        Some(field) => choice::send_to(&field, DEFAULT_RULE, &recipients, problems),
        None => None,
    };
    let default = Rule {
        name: Rc::from(DEFAULT_RULE),
        when: Rc::default(),
        canary: None,
        choice: Rc::new(default.unwrap_or_else(Choice::local)),
    };
    let pointers = pointers(&rules, &default, &entry.place.key(), problems);
    let mode = fields.optional("mode").and_then(|field| mode(&field, problems)).unwrap_or(Mode::Route);
    let forward = fields.optional("forward").and_then(|field| forward(&field, problems)).unwrap_or(Forward::Overlay);
    let inspect_bytes_max = fields
        .optional("inspect_bytes_max")
        .and_then(|field| field.bytes(bounds::INSPECT_BYTES_MAX, problems))
        .and_then(|bytes| usize::try_from(bytes).ok());
    let proxies = fields.optional("proxy_protocol").and_then(|field| proxies(&field, problems));
    let health = health_field.as_ref().and_then(|field| health::health(field, problems));
    if let (Some(field), Some(health)) = (&health_field, &health) {
        let is_behind_proxies = proxies.as_ref().is_some_and(|networks| !networks.is_empty());
        health::warn_of_another_protocol(field, health, inspect, is_behind_proxies, problems);
    }
    let probe = match fields.optional("probe") {
        Some(field) if health_field.is_none() && !health::is_off(&field) => {
            let remedy = "add `health: { tcp: true }` or `health: { http: /healthz }`, or leave `probe` out: without `health` \
                          nothing is probed";
            problems.error(&field.place.key(), "a probe asks what `health` says, and there is no `health`", remedy);
            None
        }
        Some(field) => health::probe(&field, problems),
        None => health.as_ref().map(|_| ProbePlan::default()),
    };
    let mut duration = |name: &str, bounds: RangeInclusive<Duration>, default: Duration| {
        fields.optional(name).and_then(|field| field.duration(bounds, problems)).unwrap_or(default)
    };
    let service = Service {
        name: entry.name.to_owned(),
        frontends,
        servers: servers.unwrap_or_default(),
        inspect: inspect.unwrap_or(Protocol::Http),
        asked: Asked::by(&rules),
        proxies: proxies.unwrap_or_default(),
        inspect_timeout: duration("inspect_timeout", bounds::INSPECT_TIMEOUT, bounds::INSPECT_TIMEOUT_DEFAULT),
        inspect_bytes_max: inspect_bytes_max.unwrap_or(bounds::INSPECT_BYTES_MAX_DEFAULT),
        silence_timeout: duration("silence_timeout", bounds::SILENCE_TIMEOUT, bounds::SILENCE_TIMEOUT_DEFAULT),
        handoff_timeout: duration("handoff_timeout", bounds::HANDOFF_TIMEOUT, bounds::HANDOFF_TIMEOUT_DEFAULT),
        slow_start: duration("slow_start", bounds::SLOW_START, Duration::ZERO),
        health,
        probe,
        pointers,
        index: Rc::new(index),
        rules,
        default,
        mode,
        forward,
    };
    let servers_place = fields.optional("servers").map(|field| field.place.key());
    let forward_place = fields.optional("forward").map(|field| field.place.clone());
    Some(ReadService { service, servers_place, forward_place, frontend_places })
}

/// Limits of an inspection that does not take place.
fn warn_of_what_is_never_asked(fields: &Mapping<'_>, problems: &mut Problems) {
    for name in ["inspect_timeout", "inspect_bytes_max", "silence_timeout", "handoff_timeout", "proxy_protocol"] {
        if let Some(field) = fields.optional(name) {
            let message = format!("`{name}` has no meaning here: with `inspect: none` the SYN decides, and nothing waits");
            problems.warning(&field.place.key(), message, "remove it, or inspect something");
        }
    }
}

/// The JSON fields that rules ask for or go by, each once.
fn pointers(rules: &[Rule], default: &Rule, place: &Place, problems: &mut Problems) -> Vec<Pointer> {
    let matchers = rules.iter().flat_map(|rule| rule.when.matchers());
    let asked = matchers.filter_map(|matcher| match matcher {
        Matcher::Json(json) => Some(json.pointer()),
        _ => None,
    });
    let keys = rules.iter().chain([default]).flat_map(Rule::keys).filter_map(Key::pointer);
    let pointers: BTreeSet<Pointer> = asked.chain(keys).cloned().collect();
    if pointers.len() > bounds::JSON_FIELDS_MAX {
        let message =
            format!("rules can ask for at most {} different JSON fields, here are {}", bounds::JSON_FIELDS_MAX, pointers.len());
        problems.error(place, message, "split the service");
    }
    pointers.into_iter().collect()
}

/// The choices of which one works today.
fn refuse_what_comes_later(fields: &Mapping<'_>, problems: &mut Problems) {
    let choices: [(&str, &str, &[&str]); 2] = [("route", "connection", &["request"]), ("return", "direct", &["relay"])];
    for (name, supported, later) in choices {
        if let Some(field) = fields.optional(name) {
            field.only(supported, later, problems);
        }
    }
}

/// Reads `proxy_protocol`: the networks whose connections begin with a PROXY header.
fn proxies(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
    match field.value {
        _ if health::is_off(field) => Some(Vec::new()),
        Value::Text(text) if text == "accept" => Some(
            [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]
                .iter()
                .filter_map(|any| IpNet::new(*any, 0).ok())
                .collect(),
        ),
        Value::Mapping(_) => {
            let fields = field.mapping(&["from"], problems)?;
            let networks = alternatives(&fields.required("from", problems)?, matchers::network, problems)?;
            Some(networks)
        }
        _ => {
            field.expected("`off`, `accept` or `{ from: [networks] }`", problems);
            None
        }
    }
}

/// Reads `mode`.
fn mode(field: &Field<'_>, problems: &mut Problems) -> Option<Mode> {
    match field.value {
        Value::Text(text) if text == "route" => Some(Mode::Route),
        Value::Text(text) if text == "observe" => Some(Mode::Observe),
        other => {
            let message = format!("`{}` cannot be {}", field.name, other.describe());
            problems.error(&field.place, message, "write `route`, or `observe` to only count what would be done");
            None
        }
    }
}

/// Reads `forward`.
fn forward(field: &Field<'_>, problems: &mut Problems) -> Option<Forward> {
    let text = match field.value {
        Value::Text(text) => text.as_str(),
        _ => "",
    };
    let known = [Forward::Overlay, Forward::Link, Forward::Auto].into_iter().find(|forward| forward.word() == text);
    if known.is_none() {
        let message = format!("`{}` cannot be {}", field.name, field.value.describe());
        let remedy = "write `overlay`, which works everywhere, or `auto` to go without it between neighbours (`link`: the same, and \
                      to be warned where nodes are none)";
        problems.error(&field.place, message, remedy);
    }
    known
}

/// Reads `inspect`.
fn inspect(field: &Field<'_>, problems: &mut Problems) -> Option<Protocol> {
    let words = Protocol::ALL.map(|protocol| format!("`{}`", protocol.word())).join(" or ");
    let remedy = format!("write {words}");
    let text = match field.value {
        Value::Text(text) => text.as_str(),
        _ => "",
    };
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.word() == text);
    if known.is_none() {
        let message = format!("`inspect` cannot be {}", field.value.describe());
        problems.error(&field.place, message, remedy);
    }
    known
}

fn frontends(field: &Field<'_>, names: &NodeNames<'_>, problems: &mut Problems) -> Vec<(NodeId, Endpoint, Place)> {
    let mut frontends = Vec::new();
    for entry in field.entries(problems).unwrap_or_default() {
        let node = names.resolve(entry.name, &entry.place.key(), problems);
        let entry = entry.clone().like(format!("`{}: \"10.77.0.1:80\"`, the address that clients connect to", entry.name));
        if node.is_none() && matches!(entry.value, Value::Null) {
            continue;
        }
        for item in entry.one_or_more(problems).unwrap_or_default() {
            if let (Some(endpoint), Some(node)) = (endpoint(&item, problems), node) {
                frontends.push((node, endpoint, item.place));
            }
        }
    }
    frontends
}

/// Whether nothing but that is wrong.
fn port_is_too_large(text: &str) -> bool {
    let Some((address, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_number && port.parse::<u16>().is_err() && format!("{address}:1").parse::<SocketAddr>().is_ok()
}

fn endpoint(item: &Field<'_>, problems: &mut Problems) -> Option<Endpoint> {
    let remedy = || match item.value {
        Value::Integer(port @ 1..=65535) => format!("write the address that clients connect to as well: `\"10.77.0.1:{port}\"`"),
        _ => "write the address that clients connect to, with its port: `\"10.77.0.1:80\"` or `\"[fd77::1]:80\"`".to_owned(),
    };
    let text = item.text_or(remedy, problems)?;
    let parsed = text.parse::<SocketAddr>().ok();
    let Some(address) = parsed.filter(|address| address.port() != 0) else {
        let why = if port_is_too_large(text) { ": ports end at 65535" } else { "" };
        problems.error(&item.place, format!("\"{text}\" is not an address with a port{why}"), endpoint_remedy(text));
        return None;
    };
    if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
        problems.error(&item.place, format!("{address} has an interface in it"), "leave out `%` and what follows it");
        return None;
    }
    check_unicast(address.ip(), item, problems).then(|| address.into())
}

/// What to write instead of something that is no address with a port.
fn endpoint_remedy(text: &str) -> String {
    let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
    match (text.parse::<IpAddr>(), address.parse::<IpAddr>()) {
        (Ok(IpAddr::V4(_)), _) => format!("add the port: `\"{text}:80\"`"),
        // The last group may be meant as a port, and often is.
        (Ok(IpAddr::V6(_)), Ok(IpAddr::V6(_))) => {
            format!("put the address in brackets: `\"[{address}]:{port}\"` or `\"[{text}]:80\"`")
        }
        (Ok(IpAddr::V6(_)), _) => format!("put the address in brackets, and add the port: `\"[{text}]:80\"`"),
        _ => "write an address (names are not looked up) and a port, such as `\"10.77.0.1:80\"` or `\"[fd77::1]:80\"`".to_owned(),
    }
}

/// Reads `servers`; `None` if any of it is wrong, so that nobody is told that a node cannot serve.
fn servers(
    field: &Field<'_>,
    names: &NodeNames<'_>,
    weights: &mut Vec<(NodeId, u32)>,
    problems: &mut Problems,
) -> Option<Vec<(NodeId, u16)>> {
    let mut servers = Vec::new();
    let entries = field.entries(problems)?;
    for entry in &entries {
        let node = names.resolve(entry.name, &entry.place.key(), problems);
        let port = match entry.value {
            Value::Integer(port @ 1..=65535) => *port,
            _ => 80,
        };
        let entry = entry.clone().like(format!("`{}: {{ port: {port} }}`", entry.name));
        let Some(fields) = entry.mapping(&["port", "weight"], problems) else {
            continue;
        };
        let port = fields.required("port", problems).and_then(|field| field.port(problems));
        if let (Some(node), Some(port)) = (node, port) {
            servers.push((node, port));
        }
        let weight = fields.optional("weight").and_then(|field| choice::weight(&field, problems));
        weights.extend(node.zip(weight));
    }
    servers.sort_unstable();
    (servers.len() == entries.len()).then_some(servers)
}

/// Without `servers`, every node with a front-end address serves on the port of that address.
fn servers_of_frontends(frontends: &[(NodeId, Endpoint, Place)], problems: &mut Problems) -> Option<Vec<(NodeId, u16)>> {
    let mut servers: Vec<(NodeId, u16)> = Vec::new();
    for (node, endpoint, place) in frontends {
        match servers.iter().find(|server| server.0 == *node) {
            None => servers.push((*node, endpoint.port)),
            Some((_, port)) if *port == endpoint.port => {}
            Some((_, port)) => {
                let message = format!("this node has the front-end ports {port} and {}", endpoint.port);
                let remedy = "add `servers: { NODE: { port: 80 } }` with every node: on that port its application takes handed-off \
                              connections";
                problems.error(place, message, remedy);
                return None;
            }
        }
    }
    servers.sort_unstable();
    (!servers.is_empty()).then_some(servers)
}

/// Every node with a front-end address must be able to answer: it does when nobody else can.
fn check_local_servers(
    frontends: &[(NodeId, Endpoint)],
    servers: &[(NodeId, u16)],
    names: &NodeNames<'_>,
    field: &Field<'_>,
    problems: &mut Problems,
) {
    for of_node in frontends.chunk_by(|one, next| one.0 == next.0) {
        let Some((node, endpoint)) = of_node.first() else { continue };
        let name = names.name(*node);
        let Some((_, port)) = servers.iter().find(|server| server.0 == *node) else {
            let message = format!("node `{name}` has the front-end address {endpoint}, but is not among the servers");
            let remedy = format!(
                "add `{name}: {{ port: {} }}`: it answers when a rule says `local` and when no other server can; a node that \
                 only hands connections on is not supported yet",
                endpoint.port
            );
            problems.error(&field.place.key(), message, remedy);
            continue;
        };
        let mut others: Vec<u16> = of_node.iter().map(|(_, endpoint)| endpoint.port).filter(|other| other != port).collect();
        others.sort_unstable();
        others.dedup();
        if !others.is_empty() {
            let others = others.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let message =
                format!("connections to node `{name}` that stay local go to port {others}, handed-off ones to port {port}");
            let remedy = "make sure the application listens on all of them (on that server `baton check --node` looks), or use \
                          one port for both";
            problems.condition(&field.place.key(), message, remedy);
        }
    }
}
