//! The conditions of a rule as the file writes them: `when`, its matchers and their values.

use super::cluster;
use super::inspect::Protocol;
use super::name::{NamePattern, Wanted};
use super::pattern::Pattern;
use super::reader::{Field, Mapping};
use super::report::Problems;
use super::request::normal_host;
use super::tls::normal_name;
use super::when::{HeaderTest, When};
use super::yaml::Value;
use crate::limits::cluster_file::{ALPN_BYTES_MAX, ALTERNATIVES_MAX, PATTERN_BYTES_MAX};
use ipnet::IpNet;
use rustls::pki_types::DnsName;
use std::net::IpAddr;

/// Reads `when` of a service that inspects this protocol (none if that is not known because of another problem).
pub(super) fn when(field: &Field<'_>, inspect: Option<Protocol>, problems: &mut Problems) -> Option<When> {
    let fields = field.mapping(&["host", "path", "method", "header", "sni", "alpn", "client"], problems)?;
    let mut when = When::default();
    // Without a condition that could not be read, a rule seems to match more than it does.
    let mut is_complete = can_be_known(&fields, inspect, problems) && fields.is_complete();
    if let Some(field) = fields.optional("host") {
        is_complete &= alternatives(&field, host, &mut when.hosts, problems);
    }
    if let Some(field) = fields.optional("path") {
        is_complete &= alternatives(&field, path, &mut when.paths, problems);
    }
    if let Some(field) = fields.optional("method") {
        is_complete &= alternatives(&field, method, &mut when.methods, problems);
    }
    if let Some(field) = fields.optional("sni") {
        is_complete &= alternatives(&field, sni, &mut when.snis, problems);
    }
    if let Some(field) = fields.optional("alpn") {
        is_complete &= alternatives(&field, alpn, &mut when.alpns, problems);
    }
    if let Some(field) = fields.optional("client") {
        is_complete &= alternatives(&field, network, &mut when.clients, problems);
    }
    if let Some(field) = fields.optional("header") {
        let entries = field.entries(problems);
        is_complete &= entries.is_some();
        for entry in entries.unwrap_or_default() {
            match header(&entry, problems) {
                Some(test) => when.headers.push(test),
                None => is_complete = false,
            }
        }
    }
    is_complete.then_some(when)
}

/// Whether none of these matchers asks about a protocol that is not the one inspected.
fn can_be_known(fields: &Mapping<'_>, inspect: Option<Protocol>, problems: &mut Problems) -> bool {
    let Some(inspect) = inspect else {
        return false;
    };
    let mut can = true;
    for other in Protocol::ALL.into_iter().filter(|protocol| *protocol != inspect) {
        for field in other.matchers().iter().filter_map(|matcher| fields.optional(matcher)) {
            let message = format!("`{}` can never be known: the service has `inspect: {}`", field.name, inspect.word());
            let matchers: String = inspect.matchers().iter().map(|matcher| format!("`{matcher}`, ")).collect();
            let matchers = matchers.strip_suffix(", ").map_or_else(String::new, |matchers| format!("{matchers} or "));
            let remedy = format!("match {matchers}`client` here, or write `inspect: {}` in the service", other.word());
            problems.error(&field.place.key(), message, remedy);
            can = false;
        }
    }
    can
}

/// Reads one value or a list of values by `read` into `values`; whether all could be read.
fn alternatives<T>(
    field: &Field<'_>,
    read: fn(&Field<'_>, &mut Problems) -> Option<T>,
    values: &mut Vec<T>,
    problems: &mut Problems,
) -> bool {
    let Some(items) = field.one_or_more(problems) else {
        return false;
    };
    if items.len() > ALTERNATIVES_MAX {
        let message = format!("`{}` can have at most {ALTERNATIVES_MAX} values, here are {}", field.name, items.len());
        problems.error(&field.place, message, "split the rule");
        return false;
    }
    values.extend(items.iter().filter_map(|item| read(item, problems)));
    values.len() == items.len()
}

fn host(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    let host = normal_host(text);
    if host.is_none() {
        let remedy = if text.contains('*') {
            "patterns are not supported for hosts yet: list the names"
        } else {
            "write a host name without port and scheme, such as `img.example.com`, or an IPv6 address in brackets"
        };
        problems.error(&item.place, format!("\"{text}\" is not a host name"), remedy);
    }
    host
}

fn path(item: &Field<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = item.text(problems)?;
    let is_escape = |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let wrong = if text.len() > PATTERN_BYTES_MAX {
        Some((format!("a path pattern can have at most {PATTERN_BYTES_MAX} bytes"), "shorten it with `*`"))
    } else if !text.starts_with(['/', '*']) {
        Some((format!("path pattern \"{text}\" matches nothing: paths begin with `/`"), "begin it with `/` or `*`"))
    } else if text.match_indices('%').any(|(at, _)| is_escape(at)) {
        let message = format!("path pattern \"{text}\" has a percent-encoded character: paths are compared decoded");
        Some((message, "write the character itself, or `?` for any character"))
    } else if text.chars().any(char::is_control) {
        Some(("a path pattern cannot have control characters".to_owned(), "remove them"))
    } else {
        None
    };
    match wrong {
        Some((message, remedy)) => {
            problems.error(&item.place, message, remedy);
            None
        }
        None => Some(Pattern::new(text)),
    }
}

fn method(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    if !is_method {
        let remedy = "methods are in capital letters: GET, HEAD, POST, ...";
        problems.error(&item.place, format!("\"{text}\" is not a method"), remedy);
        return None;
    }
    Some(text.to_owned())
}

/// `true` and `false` ask whether there is one.
fn presence<T>(item: &Field<'_>) -> Option<Wanted<T>> {
    match item.value {
        Value::Bool(true) => Some(Wanted::Present),
        Value::Bool(false) => Some(Wanted::Absent),
        _ => None,
    }
}

/// A server name: whole, or `*.` and the labels below which it lies.
fn sni(item: &Field<'_>, problems: &mut Problems) -> Option<Wanted<NamePattern>> {
    if let Some(presence) = presence(item) {
        return Some(presence);
    }
    let text = item.text(problems)?;
    let (is_pattern, labels) = text.strip_prefix("*.").map_or((false, text), |labels| (true, labels));
    let is_address = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address || DnsName::try_from(labels).is_err() {
        let remedy = if is_address {
            "clients that connect to an address name no server: write `false` for them"
        } else if !text.is_ascii() {
            "write it as clients send it: every label that is not ASCII as its `xn--` form"
        } else if text == "*" {
            "write `true` for any name"
        } else if text.contains('*') {
            "`*` can only stand at the beginning, for whole labels: `*.example.com`"
        } else {
            "write a host name without port and scheme, such as `img.example.com` or `*.example.com`"
        };
        problems.error(&item.place, format!("\"{text}\" is not a server name"), remedy);
        return None;
    }
    let labels = normal_name(labels);
    Some(Wanted::Value(if is_pattern { NamePattern::Below(format!(".{labels}")) } else { NamePattern::Exact(labels) }))
}

/// The name of a protocol, as RFC 7301 registers them.
fn alpn(item: &Field<'_>, problems: &mut Problems) -> Option<Wanted<String>> {
    if let Some(presence) = presence(item) {
        return Some(presence);
    }
    let text = item.text(problems)?;
    if text.is_empty() || text.len() > ALPN_BYTES_MAX {
        let message = format!("the name of a protocol has from 1 to {ALPN_BYTES_MAX} bytes");
        problems.error(&item.place, message, "write it as registered for ALPN, such as `h2` or `http/1.1`");
        return None;
    }
    Some(Wanted::Value(text.to_owned()))
}

fn network(item: &Field<'_>, problems: &mut Problems) -> Option<IpNet> {
    let text = item.text(problems)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => cluster::network(item, problems),
    }
}

/// One entry of `header`: `name: value`, `name: [values]`, or `name: true` for presence.
fn header(entry: &Field<'_>, problems: &mut Problems) -> Option<HeaderTest> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let mut is_complete = true;
    if entry.name.is_empty() || !entry.name.bytes().all(is_token) {
        let message = format!("\"{}\" is not the name of a header field", entry.name);
        problems.error(&entry.place.key(), message, "write it as it stands before the colon, such as `x-version`");
        is_complete = false;
    }
    let mut values = Vec::new();
    if *entry.value != Value::Bool(true) {
        is_complete &= alternatives(entry, header_value, &mut values, problems);
    }
    is_complete.then(|| HeaderTest { name: entry.name.to_ascii_lowercase(), values })
}

fn header_value(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    if text.trim_ascii() != text || text.chars().any(char::is_control) {
        let message = format!("header `{}` can never have this value", item.name);
        problems.error(&item.place, message, "leave out white space at both ends and control characters");
        return None;
    }
    Some(text.to_owned())
}
