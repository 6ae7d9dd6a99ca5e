//! The conditions of a rule: all of its matchers must hold, and a matcher holds if any of its values does.

use super::pattern::Pattern;
use super::request::Request;
use std::fmt;
use std::net::IpAddr;

/// The matchers of one rule; an empty list is a matcher that was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct When {
    /// Normal forms.
    pub(super) hosts: Vec<String>,
    pub(super) paths: Vec<Pattern>,
    pub(super) methods: Vec<String>,
    /// Unlike the values of one matcher, all of these must hold.
    pub(super) headers: Vec<HeaderTest>,
    pub(super) clients: Vec<ipnet::IpNet>,
}

/// What is asked of one header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderTest {
    /// In small letters.
    pub(super) name: String,
    /// The value must be one of these, byte by byte; any value will do if there are none.
    pub(super) values: Vec<String>,
}

/// The first matcher that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch<'a> {
    Host,
    Path,
    Method,
    Header(&'a str),
    Client,
}

impl When {
    /// Whether the conditions hold for anything whatever.
    pub(super) fn always(&self) -> bool {
        let no_paths = self.paths.is_empty() || self.paths.iter().any(Pattern::matches_all);
        no_paths && self.hosts.is_empty() && self.methods.is_empty() && self.headers.is_empty() && self.clients.is_empty()
    }

    /// The first matcher that does not hold, the cheap ones tried first; `None` when the rule matches.
    pub(super) fn mismatch(&self, request: &Request<'_>, client: IpAddr) -> Option<Mismatch<'_>> {
        if !self.clients.is_empty() && !self.clients.iter().any(|net| net.contains(&client)) {
            return Some(Mismatch::Client);
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == request.method) {
            return Some(Mismatch::Method);
        }
        if !self.hosts.is_empty() && !request.host.as_ref().is_some_and(|host| self.hosts.contains(host)) {
            return Some(Mismatch::Host);
        }
        if !self.paths.is_empty() && !self.paths.iter().any(|path| path.matches(&request.path)) {
            return Some(Mismatch::Path);
        }
        self.headers.iter().find(|test| !test.holds(request)).map(|test| Mismatch::Header(&test.name))
    }
}

impl HeaderTest {
    fn holds(&self, request: &Request<'_>) -> bool {
        let is_wanted = |value: &[u8]| self.values.is_empty() || self.values.iter().any(|want| want.as_bytes() == value);
        request.header(&self.name).any(is_wanted)
    }
}

impl Mismatch<'_> {
    /// The condition's name in the cluster file.
    pub(super) fn condition(&self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Method => "method".to_owned(),
            Self::Host => "host".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Header(name) => format!("header {name}"),
        }
    }

    /// What the request has there; none if it has nothing.
    pub(super) fn seen(&self, request: &Request<'_>, client: IpAddr) -> Option<String> {
        match self {
            Self::Client => Some(client.to_string()),
            Self::Method => Some(request.method.to_owned()),
            Self::Host => request.host.clone(),
            Self::Path => Some(String::from_utf8_lossy(&request.path).into_owned()),
            Self::Header(name) => request.header(name).next().map(|value| String::from_utf8_lossy(value).into_owned()),
        }
    }

    /// What the request has instead, in words for a person.
    pub(super) fn explain(&self, request: &Request<'_>, client: IpAddr) -> String {
        let seen = self.seen(request, client);
        match (self, seen) {
            (Self::Client, seen) => format!("client {} is in none of its networks", seen.unwrap_or_default()),
            (Self::Method, seen) => format!("method {} is not among its methods", seen.unwrap_or_default()),
            (Self::Host, Some(host)) => format!("host {host} is not among its hosts"),
            (Self::Host, None) => "the request names no host".to_owned(),
            (Self::Path, seen) => format!("path {} fits none of its patterns", seen.unwrap_or_default()),
            (Self::Header(name), Some(value)) => format!("header {name} has the value {value:?}, which is none of its values"),
            (Self::Header(name), None) => format!("the request has no header {name}"),
        }
    }
}

/// One line, as an operator reads it.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                parts.push(format!("{name} {}", values.join(" or ")));
            }
        };
        part("host", self.hosts.clone());
        part("path", self.paths.iter().map(Pattern::text).collect());
        part("method", self.methods.clone());
        for test in &self.headers {
            let values = if test.values.is_empty() { vec!["present".to_owned()] } else { test.values.clone() };
            part(&format!("header {}", test.name), values);
        }
        part("client", self.clients.iter().map(ToString::to_string).collect());
        if parts.is_empty() { f.write_str("always") } else { f.write_str(&parts.join(", ")) }
    }
}
