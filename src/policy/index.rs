//! Finds the rules that may match without trying all of them: by the host or server name they ask for, and by what the
//! path begins with.
//!
//! Every rule is put where a connection that fits it must look: under each name it asks for (or under *any*), and there
//! under each beginning of a path (or under *any*). A look-up gives lists of rules in order, of which none that may match is
//! left out; whether a rule does match is for its conditions to say. The cost of a look-up depends on how many labels a
//! name has and how many different lengths the beginnings have, not on how many rules there are, and it allocates nothing.

use super::matchers::Matcher;
use super::name::{NamePattern, Wanted};
use super::subject::Subject;
use super::when::{Condition, When};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

/// A rule is put into at most so many places; one that asks for more is found by its names only, or always.
const PLACES_PER_RULE_MAX: usize = 64;
/// Bytes of a path that are looked up. Longer beginnings are found by these.
const BEGINNING_BYTES_MAX: usize = 128;

/// Where to find the rules of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Rules that ask for exactly this name.
    by_name: HashMap<Box<str>, Paths, FixedState>,
    /// Rules that ask for any name below this, which begins with a dot.
    below: HashMap<Box<str>, Paths, FixedState>,
    /// Most labels of these: no more of a client's name are looked up.
    labels_max: usize,
    /// Rules that ask for no name.
    nameless: Paths,
}

/// Rules by what the path begins with.
#[derive(Clone, Debug, Default)]
struct Paths {
    /// Positions of rules that ask for nothing known, ascending.
    any: Vec<u32>,
    by_beginning: HashTable<Beginning>,
    /// The different lengths of the beginnings, ascending.
    lengths: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Beginning {
    bytes: Box<[u8]>,
    /// Positions of rules, ascending.
    rules: Vec<u32>,
}

/// It says nothing that the rules do not.
impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Index {}

/// What a rule surely asks for.
#[derive(Clone, Debug, Default)]
struct Asked<'w> {
    /// One of these names.
    names: Option<Vec<&'w NamePattern>>,
    /// A path that begins with one of these.
    beginnings: Option<Vec<&'w [u8]>>,
}

impl Index {
    /// Adds the rule behind all that are in it.
    pub(super) fn insert(&mut self, when: &When, position: u32) {
        let Asked { names, mut beginnings } = Asked::of(when);
        let count = |places: usize| if places == 0 { 1 } else { places };
        let names_count = count(names.as_ref().map_or(0, Vec::len));
        if names_count * count(beginnings.as_ref().map_or(0, Vec::len)) > PLACES_PER_RULE_MAX {
            beginnings = None;
        }
        let put = |paths: &mut Paths| match &beginnings {
            None => paths.any.push(position),
            Some(beginnings) => beginnings.iter().for_each(|beginning| paths.insert(beginning, position)),
        };
        match names {
            None => put(&mut self.nameless),
            Some(names) => {
                for name in names {
                    put(match name {
                        NamePattern::Exact(name) => self.by_name.entry(name.as_str().into()).or_default(),
                        NamePattern::Below(suffix) => {
                            self.labels_max = self.labels_max.max(suffix.matches('.').count());
                            self.below.entry(suffix.as_str().into()).or_default()
                        }
                    });
                }
            }
        }
    }

    /// Gives every list of rules that may match, each ascending, until `visit` wants no more.
    pub(super) fn candidates(&self, subject: &Subject<'_>, mut visit: impl FnMut(&[u32])) {
        let (name, path) = match (subject.http(), subject.tls()) {
            (Some(request), _) => (request.host.as_deref(), &*request.path),
            (None, Some(hello)) => (hello.sni(), &[][..]),
            (None, None) => (None, &[][..]),
        };
        self.for_each_covering(name, false, |paths| paths.for_each_covering(path, &mut visit));
    }

    /// Gives the rules that may cover another: those that would be found by whatever fits it.
    pub(super) fn covering_candidates(&self, when: &When, mut visit: impl FnMut(&[u32])) {
        let asked = Asked::of(when);
        let beginning = asked.beginnings.and_then(|beginnings| beginnings.first().copied()).unwrap_or_default();
        // What covers all of its names covers the first.
        let (name, is_below) = match asked.names.and_then(|names| names.first().copied()) {
            Some(NamePattern::Exact(name)) => (Some(name.as_str()), false),
            Some(NamePattern::Below(suffix)) => (Some(suffix.as_str()), true),
            None => (None, false),
        };
        self.for_each_covering(name, is_below, |paths| paths.for_each_covering(beginning, &mut visit));
    }

    /// Names that lie below `name`'s own labels are found under each of them; with `is_below`, it is itself a suffix.
    fn for_each_covering(&self, name: Option<&str>, is_below: bool, mut visit: impl FnMut(&Paths)) {
        if let Some(name) = name {
            if let Some(paths) = self.by_name.get(name).filter(|_| !is_below) {
                visit(paths);
            }
            if !self.below.is_empty() {
                let dots = name.rmatch_indices('.').map(|(at, _)| at).take(self.labels_max).filter(|at| *at > 0 || is_below);
                for paths in dots.filter_map(|at| self.below.get(name.get(at..)?)) {
                    visit(paths);
                }
            }
        }
        visit(&self.nameless);
    }
}

impl Paths {
    fn insert(&mut self, beginning: &[u8], position: u32) {
        let bytes = beginning.get(..BEGINNING_BYTES_MAX).unwrap_or(beginning);
        if bytes.is_empty() {
            return self.any.push(position);
        }
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        if let Err(at) = self.lengths.binary_search(&length) {
            self.lengths.insert(at, length);
        }
        let hash = bytes.iter().fold(HASH_BASIS, |hash, byte| hash_step(hash, *byte));
        let entry = self.by_beginning.entry(finish(hash), |there| *there.bytes == *bytes, Beginning::hash);
        let rules = &mut entry.or_insert_with(|| Beginning { bytes: bytes.into(), rules: Vec::new() }).into_mut().rules;
        // A rule may name the same beginning twice.
        if rules.last() != Some(&position) {
            rules.push(position);
        }
    }

    /// Visits the rules of every beginning the path has. One pass over the path gives the hashes of all of them.
    fn for_each_covering(&self, path: &[u8], visit: &mut impl FnMut(&[u32])) {
        let (mut hash, mut hashed) = (HASH_BASIS, 0);
        for length in self.lengths.iter().map(|length| usize::from(*length)) {
            let (Some(next), Some(beginning)) = (path.get(hashed..length), path.get(..length)) else { break };
            hash = next.iter().fold(hash, |hash, byte| hash_step(hash, *byte));
            hashed = length;
            if let Some(found) = self.by_beginning.find(finish(hash), |there| *there.bytes == *beginning) {
                visit(&found.rules);
            }
        }
        visit(&self.any);
    }
}

impl Beginning {
    fn hash(&self) -> u64 {
        finish(self.bytes.iter().fold(HASH_BASIS, |hash, byte| hash_step(hash, *byte)))
    }
}

/// FNV-1a: one that can be had of every beginning of a text in one pass. Only the operator chooses what is in the table, so
/// nobody gains from collisions.
const HASH_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

const fn hash_step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The table takes its upper bits for what FNV mixes least.
const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

impl<'w> Asked<'w> {
    fn of(when: &'w When) -> Self {
        when.conditions.iter().map(Self::of_condition).fold(Self::default(), Self::and)
    }

    fn of_condition(condition: &'w Condition) -> Self {
        match condition {
            Condition::Test(Matcher::Host(host)) => Self { names: Some(host.0.iter().collect()), beginnings: None },
            Condition::Test(Matcher::Sni(sni)) => {
                let name = |wanted: &'w Wanted<NamePattern>| match wanted {
                    Wanted::Value(name) => Some(name),
                    Wanted::Present | Wanted::Absent => None,
                };
                Self { names: sni.0.iter().map(name).collect(), beginnings: None }
            }
            Condition::Test(Matcher::Path(path)) => {
                let beginnings: Vec<&[u8]> = path.0.iter().map(|pattern| pattern.beginning()).collect();
                let all_are_known = beginnings.iter().all(|beginning| !beginning.is_empty());
                Self { names: None, beginnings: all_are_known.then_some(beginnings) }
            }
            Condition::All(branches) => branches.iter().map(Self::of).fold(Self::default(), Self::and),
            Condition::Any(branches) => branches.iter().map(Self::of).reduce(Self::or).unwrap_or_default(),
            Condition::Test(_) | Condition::Not(_) => Self::default(),
        }
    }

    /// Both must hold: either's list is enough to find the rule by, the shorter one is better.
    fn and(self, other: Self) -> Self {
        Self { names: shorter(self.names, other.names), beginnings: shorter(self.beginnings, other.beginnings) }
    }

    /// One of them must hold.
    fn or(self, other: Self) -> Self {
        Self { names: joined(self.names, other.names), beginnings: joined(self.beginnings, other.beginnings) }
    }
}

fn shorter<T>(one: Option<Vec<T>>, other: Option<Vec<T>>) -> Option<Vec<T>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if one.len() <= other.len() { one } else { other }),
        (one, other) => one.or(other),
    }
}

fn joined<T>(one: Option<Vec<T>>, other: Option<Vec<T>>) -> Option<Vec<T>> {
    let (mut one, other) = one.zip(other)?;
    one.extend(other);
    (one.len() <= PLACES_PER_RULE_MAX).then_some(one)
}
