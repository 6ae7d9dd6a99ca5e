//! `sni`: the server name a TLS client asks for.

use super::super::condition::{alternatives, presence};
use super::super::name::{NamePattern, Wanted};
use super::super::tls::{Hello, normal_name};
use super::*;
use rustls::pki_types::DnsName;
use std::net::IpAddr;

/// The server name is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Sni(pub(in crate::policy) Vec<Wanted<NamePattern>>);

impl Test for Sni {
    const NAME: &'static str = "sni";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, sni, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let fits = |wanted: &Wanted<NamePattern>| {
            subject.tls().is_some_and(|hello| match wanted {
                Wanted::Present => hello.sni().is_some(),
                Wanted::Absent => hello.sni().is_none(),
                Wanted::Value(pattern) => hello.sni().is_some_and(|name| pattern.matches(name)),
            })
        };
        self.0.iter().any(fits).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.tls().and_then(Hello::sni).map(str::to_owned)
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(name) => format!("server name {name} is not among its names"),
            None => "the client names no server".to_owned(),
        }
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        Wanted::spelling(&self.0)
    }

    fn always(&self) -> bool {
        Wanted::everything(&self.0)
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this.covers(other, NamePattern::covers))
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
