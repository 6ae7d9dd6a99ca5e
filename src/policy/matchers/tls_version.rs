//! `tls_version`: the highest version of TLS a client offers.

use super::super::condition::alternatives;
use super::super::tls::Version;
use super::*;

/// The highest version offered is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct TlsVersion(Vec<Version>);

impl Test for TlsVersion {
    const NAME: &'static str = "tls_version";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, version, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.tls().is_some_and(|hello| self.0.contains(&hello.version())).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.tls().map(|hello| hello.version().to_string())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        format!("the client offers TLS {} at most, which is none of its versions", self.seen(subject).unwrap_or_default())
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.values())
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this == other)
    }
}

fn version(item: &Field<'_>, problems: &mut Problems) -> Option<Version> {
    let text = item.text(problems)?;
    let version = Version::KNOWN.into_iter().find(|version| version.to_string() == text);
    if version.is_none() {
        let remedy = "write \"1.0\", \"1.1\", \"1.2\" or \"1.3\"";
        problems.error(&item.place, format!("\"{text}\" is not a version of TLS"), remedy);
    }
    version
}
