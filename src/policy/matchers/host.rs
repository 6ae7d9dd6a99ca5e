//! `host`: the host a request is for.

use super::super::condition::alternatives;
use super::super::name::NamePattern;
use super::super::request::normal_host;
use super::*;

/// The host is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Host(pub(in crate::policy) Vec<NamePattern>);

impl Test for Host {
    const NAME: &'static str = "host";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, host, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let host = subject.http().and_then(|request| request.host.as_deref());
        host.is_some_and(|host| self.0.iter().any(|pattern| pattern.matches(host))).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.http().and_then(|request| request.host.as_deref()).map(str::to_owned)
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(host) => format!("host {host} is not among its hosts"),
            None => "the request names no host".to_owned(),
        }
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.values())
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, NamePattern::covers)
    }
}

/// A host name or address, or `*.` and the labels below which a name lies.
fn host(item: &Field<'_>, problems: &mut Problems) -> Option<NamePattern> {
    let text = item.text(problems)?;
    let (is_pattern, labels) = text.strip_prefix("*.").map_or((false, text), |labels| (true, labels));
    // Below an address there is nothing.
    let is_address = |text: &str| text.starts_with('[') || text.parse::<std::net::Ipv4Addr>().is_ok();
    let host = normal_host(labels).filter(|_| !(is_pattern && is_address(labels)));
    let Some(host) = host else {
        let remedy = if text.contains('*') {
            "`*` can only stand at the beginning, for whole labels: `*.example.com`"
        } else {
            "write a host name without port and scheme, such as `img.example.com`, or an IPv6 address in brackets"
        };
        problems.error(&item.place, format!("\"{text}\" is not a host name"), remedy);
        return None;
    };
    Some(if is_pattern { NamePattern::Below(format!(".{host}")) } else { NamePattern::Exact(host.into_owned()) })
}
