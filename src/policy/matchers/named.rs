//! What `cookie` and `query` have in common: values by name. A request may have several of one name, and servers differ in which
//! they take.

use super::values::{Manner, Values};
use super::*;
use crate::policy::request::Request;
use std::borrow::Cow;
use std::marker::PhantomData;

/// What has names and values.
pub(in crate::policy) trait Kind: Clone + fmt::Debug + Eq {
    /// The matcher's name in the cluster file.
    const NAME: &'static str;
    /// In words.
    const WORDS: &'static str;
    /// How its values are written.
    const MANNER: Manner;

    /// What is wrong with such a name, and what to write instead.
    fn objection_to_name(name: &str) -> Option<(String, &'static str)>;

    /// The values a request has of this name.
    fn sent<'r>(request: &'r Request<'_>, name: &'r str) -> impl Iterator<Item = Cow<'r, [u8]>>;
}

/// The thing of this name has one of these values, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Named<K> {
    name: String,
    values: Values,
    kind: PhantomData<K>,
}

impl<K: Kind> Test for Named<K> {
    const NAME: &'static str = K::NAME;

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| Self::entry(entry, context, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.http().map_or(Truth::No, |request| self.values.hold(K::sent(request, &self.name)))
    }

    fn label(&self) -> String {
        format!("{} {}", K::NAME, self.name)
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        let sent: Vec<String> =
            K::sent(subject.http()?, &self.name).map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
        (!sent.is_empty()).then(|| sent.join(", "))
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        let (what, name) = (K::WORDS, &self.name);
        match (self.holds(subject), self.seen(subject)) {
            (Truth::Unknown(_), _) => format!("the request has {what} {name} several times, and not every value fits"),
            (_, Some(value)) => format!("{what} {name} has the value {value:?}, which is none of its values"),
            (_, None) => format!("the request has no {what} {name}"),
        }
    }

    fn values(&self) -> Vec<String> {
        self.values.texts()
    }

    fn spelling(&self) -> String {
        format!("{:?} {}", self.name, self.values.spelling())
    }

    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.values.covers(&other.values)
    }
}

impl<K: Kind> Named<K> {
    /// One entry: `name: value`, `name: [values]`, or `name: true` for presence.
    fn entry(entry: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Self> {
        let objection = K::objection_to_name(entry.name);
        if let Some((message, remedy)) = &objection {
            problems.error(&entry.place.key(), message.clone(), *remedy);
        }
        let values = Values::read(entry, K::MANNER, context, problems)?;
        objection.is_none().then(|| Self { name: entry.name.to_owned(), values, kind: PhantomData })
    }
}
