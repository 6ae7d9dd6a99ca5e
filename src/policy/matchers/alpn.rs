//! `alpn`: the protocols a TLS client offers.

use super::super::condition::{alternatives, presence};
use super::super::name::Wanted;
use super::super::tls::Hello;
use super::*;
use crate::limits::cluster_file::ALPN_BYTES_MAX;

/// One of these protocols (RFC 7301) is among those the client offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Alpn(Vec<Wanted<String>>);

impl Test for Alpn {
    const NAME: &'static str = "alpn";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, alpn, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let fits = |wanted: &Wanted<String>| {
            subject.tls().is_some_and(|hello| match wanted {
                Wanted::Present => hello.alpn().next().is_some(),
                Wanted::Absent => hello.alpn().next().is_none(),
                Wanted::Value(protocol) => hello.alpn().any(|offered| offered == protocol.as_bytes()),
            })
        };
        self.0.iter().any(fits).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.tls().and_then(Hello::alpn_text)
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(protocols) => format!("the client offers {protocols}, which is none of its protocols"),
            None => "the client offers no protocols".to_owned(),
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
        each_is_covered(&self.0, &other.0, |this, other| this.covers(other, |this, other| this == other))
    }
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
