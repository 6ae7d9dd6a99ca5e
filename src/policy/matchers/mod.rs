//! What rules can ask: one file for each matcher.
//!
//! A new one is a type with [`Test`] in a file of its own, a line in the table below, its name in
//! `Protocol::matchers` if only some protocols know it, and a paragraph in docs/policy.md.

mod alpn;
mod beginning;
mod client;
mod command;
mod cookie;
mod ech;
mod frontend;
mod header;
mod host;
mod json;
mod key;
mod method;
mod named;
mod path;
mod query;
mod sni;
mod tls_version;
mod values;

use super::reader::Field;
use super::report::Problems;
use super::subject::Subject;
use super::truth::{Truth, Unknown};
use super::{Endpoint, NodeId, Protocol};
use std::cell::Cell;
use std::fmt;

pub(super) use alpn::Alpn;
pub(super) use beginning::{Bytes, Regex, StartsWith};
pub(super) use client::{Client, network};
pub(super) use command::Command;
pub(super) use cookie::Cookie;
pub(super) use ech::Ech;
pub(super) use frontend::Frontend;
pub(super) use header::Header;
pub(super) use host::Host;
pub(super) use json::Json;
pub(super) use key::Key;
pub(super) use method::Method;
pub(super) use path::Path;
pub(super) use query::Query;
pub(super) use sni::Sni;
pub(super) use tls_version::TlsVersion;

/// What a matcher is read for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// How the service's connections are read; none if that is not known because of another problem.
    pub(super) inspect: Option<Protocol>,
    /// The service's front-end addresses.
    pub(super) frontends: &'a [(NodeId, Endpoint)],
    /// How many regular expressions its rules have so far.
    pub(super) regexes: &'a Cell<usize>,
}

/// One thing a rule can ask. It holds if any of its values fits.
pub(super) trait Test: Clone + fmt::Debug + Eq + Sized {
    /// Its name in the cluster file.
    const NAME: &'static str;

    /// Reads the field of this name; a field such as `header` is several tests. `None` when anything of it is wrong, which
    /// was reported.
    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>>;

    /// Whether it holds.
    fn holds(&self, subject: &Subject<'_>) -> Truth;

    /// Name and parameter, such as `header x-shard`.
    fn label(&self) -> String {
        Self::NAME.to_owned()
    }

    /// What the client sent there; none if it sent nothing.
    fn seen(&self, subject: &Subject<'_>) -> Option<String>;

    /// Why it does not hold, in words.
    fn reason(&self, subject: &Subject<'_>) -> String;

    /// Its values as an operator reads them.
    fn values(&self) -> Vec<String>;

    /// Its values for the hash of the file: what means something else is spelt otherwise.
    fn spelling(&self) -> String;

    /// Whether it holds for anything whatever.
    fn always(&self) -> bool {
        false
    }

    /// Whether it surely holds whenever the other one does.
    fn covers(&self, other: &Self) -> bool {
        self == other
    }
}

/// Makes the sum of all matchers. The order is that in which they are tried: those that cost little first.
macro_rules! matchers {
    ($($kind:ident $(of $protocol:ident)?),+ $(,)?) => {
        /// Any matcher.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(super) enum Matcher {
            $($kind($kind)),+
        }

        /// The names of all of them, as they are tried.
        pub(super) const NAMES: &[&str] = &[$($kind::NAME),+];

        impl Matcher {
            /// Reads the field of this name.
            pub(super) fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
                match field.name {
                    $($kind::NAME => Some($kind::read(field, context, problems)?.into_iter().map(Self::$kind).collect()),)+
                    _ => None,
                }
            }

            /// Its name in the cluster file.
            pub(super) const fn name(&self) -> &'static str {
                match self { $(Self::$kind(_) => $kind::NAME),+ }
            }

            /// The protocol it asks about; none if it works with any.
            pub(super) fn protocol(&self) -> Option<Protocol> {
                match self { $(Self::$kind(_) => None$(.or(Some(Protocol::$protocol)))?),+ }
            }

            /// What it asks about another protocol than the client's is never known, also under `not`.
            pub(super) fn holds(&self, subject: &Subject<'_>) -> Truth {
                if self.is_about_another(subject) {
                    return Truth::Unknown(Unknown::Forever);
                }
                match self { $(Self::$kind(test) => test.holds(subject)),+ }
            }

            fn is_about_another(&self, subject: &Subject<'_>) -> bool {
                self.protocol().is_some_and(|protocol| protocol != subject.content.protocol())
            }

            pub(super) fn label(&self) -> String {
                match self { $(Self::$kind(test) => test.label()),+ }
            }

            pub(super) fn seen(&self, subject: &Subject<'_>) -> Option<String> {
                match self { $(Self::$kind(test) => test.seen(subject)),+ }
            }

            pub(super) fn reason(&self, subject: &Subject<'_>) -> String {
                if self.is_about_another(subject) {
                    return format!("`{}` says nothing of `{}`", self.name(), subject.content.protocol().word());
                }
                match self { $(Self::$kind(test) => test.reason(subject)),+ }
            }

            pub(super) fn values(&self) -> Vec<String> {
                match self { $(Self::$kind(test) => test.values()),+ }
            }

            pub(super) fn spelling(&self) -> String {
                match self { $(Self::$kind(test) => test.spelling()),+ }
            }

            pub(super) fn always(&self) -> bool {
                match self { $(Self::$kind(test) => test.always()),+ }
            }

            /// Whether it surely holds whenever the other one does.
            pub(super) fn covers(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(one), Self::$kind(other)) => one.covers(other),)+
                    _ => false,
                }
            }
        }
    };
}

matchers!(
    Client,
    Frontend,
    Method of Http,
    Host of Http,
    Path of Http,
    Query of Http,
    Header of Http,
    Cookie of Http,
    Sni of Tls,
    Alpn of Tls,
    TlsVersion of Tls,
    Ech of Tls,
    Command of Redis,
    Key of Redis,
    Bytes of Raw,
    StartsWith of Raw,
    Regex of Raw,
    Json of Http,
);

/// As an operator reads it.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.label(), self.values().join(" or "))
    }
}

/// Whether every one of `others` is covered by one of `these`.
fn each_is_covered<T>(these: &[T], others: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    others.iter().all(|other| these.iter().any(|this| covers(this, other)))
}
