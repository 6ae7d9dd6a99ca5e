//! A packet as far as it is known, and whether a rule's condition holds for it.

use crate::tun::family::Family;
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// What rules can ask about; None is "any".
#[derive(Clone, Debug)]
pub(in crate::tun) struct Packet {
    pub(in crate::tun) family: Family,
    pub(in crate::tun) protocol: &'static str,
    pub(in crate::tun) from_device: Option<String>,
    pub(in crate::tun) to_device: Option<String>,
    pub(in crate::tun) source: Option<IpAddr>,
    pub(in crate::tun) destination: Option<IpAddr>,
    pub(in crate::tun) source_port: Option<u16>,
    pub(in crate::tun) destination_port: Option<u16>,
    /// The device that the route back leads to is another one: packets from the TUN, and captured ones by their mark.
    pub(in crate::tun) back: Back,
    /// What `ct state` says; None when that depends.
    pub(in crate::tun) state: Option<&'static str>,
}

/// Where a reverse path filter finds the route back to the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tun) enum Back {
    /// By the device the packet came from.
    SameDevice,
    /// The same, unless the packet's mark is asked for too.
    OtherByMark,
    /// By another device.
    Other,
}

/// Whether something is so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Truth {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// What a packet has where a rule looks.
enum Found {
    /// The rule does not even get to compare: it does not match.
    Nothing,
    Unknown,
    Text(String),
    Address(IpAddr),
    Number(u64),
    /// A route that is missing, or not.
    Missing(bool),
}

impl Packet {
    /// Whether a match statement (libnftables-json(5)) holds.
    pub(super) fn matches(&self, statement: &Value) -> Truth {
        let found = self.find(&statement["left"]);
        let right = &statement["right"];
        let equal = match found {
            Found::Nothing => return Truth::No,
            Found::Unknown => return Truth::Maybe,
            found => equals(&found, right),
        };
        match statement["op"].as_str() {
            Some("==" | "in") | None => equal,
            Some("!=") => equal.not(),
            Some(_) => Truth::Maybe,
        }
    }

    /// Whether the key of a verdict map is this.
    pub(super) fn has(&self, key: &Value, value: &Value) -> Truth {
        match self.find(key) {
            Found::Nothing => Truth::No,
            Found::Unknown => Truth::Maybe,
            found => equals(&found, value),
        }
    }

    fn find(&self, left: &Value) -> Found {
        if let Some(key) = left["meta"]["key"].as_str() {
            return self.meta(key);
        }
        if let Some(key) = left["ct"]["key"].as_str() {
            return match (key, self.state) {
                ("state", Some(state)) => Found::Text(state.to_owned()),
                // A packet that is not tracked has no other properties.
                (_, Some("untracked")) => Found::Nothing,
                _ => Found::Unknown,
            };
        }
        if left["fib"]["result"] == "oif" {
            return self.route_back(&left["fib"]["flags"]);
        }
        if let (Some(protocol), Some(field)) = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
            return self.payload(protocol, field);
        }
        Found::Unknown
    }

    /// What `fib saddr . iif oif` finds: by the device the packet came from, or nothing.
    fn route_back(&self, flags: &Value) -> Found {
        let has = |flag: &str| flags.as_array().is_some_and(|flags| flags.iter().any(|found| found == flag));
        match self.back {
            _ if !has("saddr") || !has("iif") => Found::Unknown,
            Back::Other => Found::Missing(true),
            Back::OtherByMark => Found::Missing(has("mark")),
            Back::SameDevice => Found::Missing(false),
        }
    }

    fn meta(&self, key: &str) -> Found {
        let device = |device: &Option<String>| device.clone().map_or(Found::Unknown, Found::Text);
        match key {
            "iifname" | "iif" => device(&self.from_device),
            "oifname" | "oif" => device(&self.to_device),
            "l4proto" => Found::Text(self.protocol.to_owned()),
            "nfproto" => Found::Text(if self.family == Family::V4 { "ipv4" } else { "ipv6" }.to_owned()),
            "protocol" => Found::Text(if self.family == Family::V4 { "ip" } else { "ip6" }.to_owned()),
            _ => Found::Unknown,
        }
    }

    fn payload(&self, protocol: &str, field: &str) -> Found {
        let ip = if self.family == Family::V4 { "ip" } else { "ip6" };
        let address = |address: Option<IpAddr>| address.map_or(Found::Unknown, Found::Address);
        let port = |port: Option<u16>| port.map_or(Found::Unknown, |port| Found::Number(port.into()));
        match (protocol, field) {
            (found, _) if ["ip", "ip6"].contains(&found) && found != ip => Found::Nothing,
            ("ip" | "ip6", "saddr") => address(self.source),
            ("ip" | "ip6", "daddr") => address(self.destination),
            ("ip", "protocol") | ("ip6", "nexthdr") => Found::Text(self.protocol.to_owned()),
            ("tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmpv6", _) if protocol != self.protocol => Found::Nothing,
            ("tcp" | "udp" | "th", "sport") => port(self.source_port),
            ("tcp" | "udp" | "th", "dport") => port(self.destination_port),
            _ => Found::Unknown,
        }
    }
}

/// Whether what was found is this, or one of these.
fn equals(found: &Found, right: &Value) -> Truth {
    let any = |values: &Vec<Value>| values.iter().map(|value| equals(found, value)).max().unwrap_or(Truth::No);
    if let Some(values) = right.as_array().or_else(|| right["set"].as_array()) {
        return any(values);
    }
    // An element of a set with a timeout or a counter.
    if !right["elem"]["val"].is_null() {
        return equals(found, &right["elem"]["val"]);
    }
    if let Some(range) = right["range"].as_array() {
        return match (found, range.first().and_then(Value::as_u64), range.get(1).and_then(Value::as_u64)) {
            (Found::Number(number), Some(first), Some(last)) => (first..=last).contains(number).into(),
            _ => Truth::Maybe,
        };
    }
    if let (Some(address), Some(length)) = (right["prefix"]["addr"].as_str(), right["prefix"]["len"].as_u64()) {
        let prefix = address.parse().ok().and_then(|address: IpAddr| IpNet::new(address, u8::try_from(length).ok()?).ok());
        return match (found, prefix) {
            (Found::Address(address), Some(prefix)) => prefix.contains(address).into(),
            _ => Truth::Maybe,
        };
    }
    match (found, right) {
        // The elements of a named set were not listed: there may be a million.
        (_, Value::String(text)) if text.starts_with('@') => Truth::Maybe,
        (Found::Text(found), Value::String(text)) => match text.strip_suffix('*') {
            Some(beginning) => found.starts_with(beginning).into(),
            None => (found == text).into(),
        },
        (Found::Address(found), Value::String(text)) => {
            text.parse::<IpAddr>().map_or(Truth::Maybe, |address| (address == *found).into())
        }
        (Found::Missing(missing), Value::Bool(found)) => (*missing != *found).into(),
        (Found::Number(found), Value::Number(number)) => (number.as_u64() == Some(*found)).into(),
        _ => Truth::Maybe,
    }
}
