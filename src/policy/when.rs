//! The conditions of a rule: all of its matchers must hold, and a matcher holds if any of its values does.

use super::choice::Canary;
use super::inspect::Content;
use super::name::{NamePattern, Wanted};
use super::pattern::Pattern;
use super::request::Request;
use super::tls::Hello;
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
    pub(super) snis: Vec<Wanted<NamePattern>>,
    /// Names of protocols (RFC 7301), of which the client may offer several.
    pub(super) alpns: Vec<Wanted<String>>,
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
    Sni,
    Alpn,
    Client,
    Canary(&'a Canary),
}

impl When {
    /// Whether the conditions hold for anything whatever.
    pub(super) fn always(&self) -> bool {
        let no_paths = self.paths.is_empty() || self.paths.iter().any(Pattern::matches_all);
        let no_snis = self.snis.is_empty() || Wanted::everything(&self.snis);
        let no_alpns = self.alpns.is_empty() || Wanted::everything(&self.alpns);
        let no_http = no_paths && self.hosts.is_empty() && self.methods.is_empty() && self.headers.is_empty();
        no_http && no_snis && no_alpns && self.clients.is_empty()
    }

    /// The first matcher that does not hold, the cheap ones tried first; `None` when the rule matches.
    /// A matcher that asks about another protocol does not.
    pub(super) fn mismatch(&self, content: &Content<'_>, client: Option<IpAddr>) -> Option<Mismatch<'_>> {
        if !self.clients.is_empty() && !client.is_some_and(|client| self.clients.iter().any(|net| net.contains(&client))) {
            return Some(Mismatch::Client);
        }
        let http = content.http();
        if !self.methods.is_empty() && !http.is_some_and(|request| self.methods.iter().any(|method| method == request.method)) {
            return Some(Mismatch::Method);
        }
        let host = http.and_then(|request| request.host.as_ref());
        if !self.hosts.is_empty() && !host.is_some_and(|host| self.hosts.contains(host)) {
            return Some(Mismatch::Host);
        }
        if !self.paths.is_empty() && !http.is_some_and(|request| self.paths.iter().any(|path| path.matches(&request.path))) {
            return Some(Mismatch::Path);
        }
        let fails = |test: &&HeaderTest| !http.is_some_and(|request| test.holds(request));
        if let Some(test) = self.headers.iter().find(fails) {
            return Some(Mismatch::Header(&test.name));
        }
        let sni_fits = |wanted: &Wanted<NamePattern>| {
            content.tls().is_some_and(|hello| match wanted {
                Wanted::Present => hello.sni().is_some(),
                Wanted::Absent => hello.sni().is_none(),
                Wanted::Value(pattern) => hello.sni().is_some_and(|name| pattern.matches(name)),
            })
        };
        if !self.snis.is_empty() && !self.snis.iter().any(sni_fits) {
            return Some(Mismatch::Sni);
        }
        let alpn_fits = |wanted: &Wanted<String>| {
            content.tls().is_some_and(|hello| match wanted {
                Wanted::Present => hello.alpn().next().is_some(),
                Wanted::Absent => hello.alpn().next().is_none(),
                Wanted::Value(protocol) => hello.alpn().any(|offered| offered == protocol.as_bytes()),
            })
        };
        (!self.alpns.is_empty() && !self.alpns.iter().any(alpn_fits)).then_some(Mismatch::Alpn)
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
            Self::Sni => "sni".to_owned(),
            Self::Alpn => "alpn".to_owned(),
            Self::Canary(_) => "canary".to_owned(),
        }
    }

    /// What the client sent there; none if it sent nothing.
    pub(super) fn seen(&self, content: &Content<'_>, client: Option<IpAddr>) -> Option<String> {
        let (http, tls) = (content.http(), content.tls());
        match self {
            Self::Client => client.map(|client| client.to_string()),
            Self::Method => http.map(|request| request.method.to_owned()),
            Self::Host => http.and_then(|request| request.host.clone()),
            Self::Path => http.map(|request| String::from_utf8_lossy(&request.path).into_owned()),
            Self::Header(name) => {
                http.and_then(|request| request.header(name).next()).map(|value| String::from_utf8_lossy(value).into_owned())
            }
            Self::Sni => tls.and_then(Hello::sni).map(str::to_owned),
            Self::Alpn => tls.and_then(Hello::alpn_text),
            Self::Canary(canary) => canary.seen(content, client),
        }
    }

    /// What the client sent instead, in words for a person.
    pub(super) fn explain(&self, content: &Content<'_>, client: Option<IpAddr>) -> String {
        let seen = self.seen(content, client);
        match (self, seen) {
            (Self::Client, Some(client)) => format!("client {client} is in none of its networks"),
            (Self::Client, None) => "no client is given".to_owned(),
            (Self::Method, seen) => format!("method {} is not among its methods", seen.unwrap_or_default()),
            (Self::Host, Some(host)) => format!("host {host} is not among its hosts"),
            (Self::Host, None) => "the request names no host".to_owned(),
            (Self::Path, seen) => format!("path {} fits none of its patterns", seen.unwrap_or_default()),
            (Self::Header(name), Some(value)) => format!("header {name} has the value {value:?}, which is none of its values"),
            (Self::Header(name), None) => format!("the request has no header {name}"),
            (Self::Sni, Some(name)) => format!("server name {name} is not among its names"),
            (Self::Sni, None) => "the client names no server".to_owned(),
            (Self::Alpn, Some(protocols)) => format!("the client offers {protocols}, which is none of its protocols"),
            (Self::Alpn, None) => "the client offers no protocols".to_owned(),
            (Self::Canary(canary), Some(place)) => format!("{place} is not among the first {canary}"),
            (Self::Canary(canary), None) => format!("nothing to draw the {canary} by"),
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
        part("sni", self.snis.iter().map(ToString::to_string).collect());
        part("alpn", self.alpns.iter().map(ToString::to_string).collect());
        part("client", self.clients.iter().map(ToString::to_string).collect());
        if parts.is_empty() { f.write_str("always") } else { f.write_str(&parts.join(", ")) }
    }
}
