//! The conditions of a rule: a tree of matchers.

use super::explain::Unmet;
use super::matchers::Matcher;
use super::subject::Subject;
use super::truth::{Truth, Unknown};
use std::fmt;

/// Conditions that must all hold; none holds for anything whatever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct When {
    /// The cheap ones first.
    pub(super) conditions: Vec<Condition>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Test(Matcher),
    /// One of these holds, or several.
    Any(Vec<When>),
    /// All of these hold.
    All(Vec<When>),
    /// This does not hold.
    Not(Box<When>),
}

impl When {
    /// Whether the conditions hold for anything whatever.
    pub(super) fn always(&self) -> bool {
        self.conditions.iter().all(Condition::always)
    }

    /// Whether the conditions hold.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Truth {
        // Most rules are a few matchers; the tree is walked only where there is one.
        Truth::all(self.conditions.iter().map(|condition| condition.holds(subject)))
    }

    /// The first condition that does not hold or is not known to; `None` when all hold.
    pub(super) fn mismatch(&self, subject: &Subject<'_>) -> Option<Unmet> {
        self.mismatch_at("", subject)
    }

    fn mismatch_at(&self, path: &str, subject: &Subject<'_>) -> Option<Unmet> {
        // What fails says more than what is not known.
        let failing = self.conditions.iter().find(|condition| condition.holds(subject) == Truth::No);
        let unknown = || self.conditions.iter().find(|condition| condition.holds(subject) != Truth::Yes);
        failing.or_else(unknown).map(|condition| condition.unmet(path, subject))
    }

    /// The condition by which these hold or may hold: the reason why their opposite does not.
    fn met(&self, path: &str, subject: &Subject<'_>) -> Option<Unmet> {
        let of_interest = |condition: &&Condition| matches!(condition.holds(subject), Truth::Unknown(_));
        let condition = self.conditions.iter().find(of_interest).or_else(|| self.conditions.first())?;
        condition.met(path, subject)
    }

    /// Whether these surely hold whenever the others do, as far as that can be told from how they are written. Costs a
    /// comparison for each pair of matchers; without any left the answer is no.
    pub(super) fn covers(&self, other: &Self, comparisons_left: &mut usize) -> bool {
        self.conditions.iter().all(|condition| condition.covers_all(other, comparisons_left))
    }

    /// All matchers, those below `any`, `all` and `not` too.
    pub(super) fn matchers(&self) -> Vec<&Matcher> {
        let mut found = Vec::new();
        let mut left: Vec<&When> = vec![self];
        while let Some(when) = left.pop() {
            for condition in &when.conditions {
                match condition {
                    Condition::Test(matcher) => found.push(matcher),
                    Condition::Any(branches) | Condition::All(branches) => left.extend(branches),
                    Condition::Not(inner) => left.push(inner),
                }
            }
        }
        found
    }
}

impl Condition {
    fn always(&self) -> bool {
        match self {
            Self::Test(matcher) => matcher.always(),
            Self::Any(branches) => branches.iter().any(When::always),
            Self::All(branches) => branches.iter().all(When::always),
            Self::Not(_) => false,
        }
    }

    /// Whether this surely holds whenever all of the others do.
    fn covers_all(&self, other: &When, comparisons_left: &mut usize) -> bool {
        let by_its_own = match self {
            Self::Any(branches) => branches.iter().any(|branch| branch.covers(other, comparisons_left)),
            Self::All(branches) => branches.iter().all(|branch| branch.covers(other, comparisons_left)),
            Self::Test(matcher) => matcher.always(),
            Self::Not(_) => false,
        };
        by_its_own || other.conditions.iter().any(|there| self.covers_one(there, comparisons_left))
    }

    /// Whether this surely holds whenever that one does.
    fn covers_one(&self, other: &Self, comparisons_left: &mut usize) -> bool {
        let Some(left) = comparisons_left.checked_sub(1) else { return false };
        *comparisons_left = left;
        match (self, other) {
            (Self::Test(matcher), Self::Test(there)) => matcher.covers(there),
            (_, Self::Any(branches)) if branches.iter().all(|there| self.covers_all(there, comparisons_left)) => true,
            (_, Self::All(branches)) if branches.iter().any(|there| self.covers_all(there, comparisons_left)) => true,
            // What is excluded there includes what is excluded here.
            (Self::Not(inner), Self::Not(there)) => there.covers(inner, comparisons_left),
            _ => false,
        }
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        match self {
            Self::Test(matcher) => matcher.holds(subject),
            Self::Any(branches) => Truth::any(branches.iter().map(|when| when.holds(subject))),
            Self::All(branches) => Truth::all(branches.iter().map(|when| when.holds(subject))),
            Self::Not(inner) => !inner.holds(subject),
        }
    }

    /// Why this does not hold, or is not known to.
    fn unmet(&self, path: &str, subject: &Subject<'_>) -> Unmet {
        match self {
            Self::Test(matcher) => told(matcher, path, matcher.reason(subject), subject),
            Self::Any(branches) => {
                let unmet = |(index, when): (usize, &When)| when.mismatch_at(&format!("{path}any[{index}]."), subject);
                let all: Vec<Unmet> = branches.iter().enumerate().filter_map(unmet).collect();
                let reasons: Vec<String> = all.iter().map(|unmet| format!("{}: {}", unmet.condition, unmet.reason)).collect();
                let nothing = Unmet { condition: format!("{path}any"), seen: None, reason: String::new() };
                Unmet { reason: reasons.join("; "), ..all.into_iter().next().unwrap_or(nothing) }
            }
            Self::All(branches) => {
                let failing = branches.iter().position(|when| when.holds(subject) == Truth::No);
                let index = failing.or_else(|| branches.iter().position(|when| when.holds(subject) != Truth::Yes)).unwrap_or(0);
                let unmet = branches.get(index).and_then(|when| when.mismatch_at(&format!("{path}all[{index}]."), subject));
                unmet.unwrap_or_else(|| Unmet { condition: format!("{path}all"), seen: None, reason: String::new() })
            }
            Self::Not(inner) => {
                let met = inner.met(&format!("{path}not."), subject);
                met.unwrap_or_else(|| Unmet { condition: format!("{path}not"), seen: None, reason: "nothing is not".to_owned() })
            }
        }
    }

    /// Why this holds or may hold, where it must not.
    fn met(&self, path: &str, subject: &Subject<'_>) -> Option<Unmet> {
        match self {
            Self::Test(matcher) => {
                let reason = match matcher.holds(subject) {
                    Truth::Unknown(_) => matcher.reason(subject),
                    _ => format!("{matcher} is excluded"),
                };
                Some(told(matcher, path, reason, subject))
            }
            Self::Any(branches) => {
                let index = branches.iter().position(|when| when.holds(subject) != Truth::No)?;
                branches.get(index)?.met(&format!("{path}any[{index}]."), subject)
            }
            Self::All(branches) => {
                let unknown = branches.iter().position(|when| matches!(when.holds(subject), Truth::Unknown(_)));
                let index = unknown.unwrap_or(0);
                branches.get(index)?.met(&format!("{path}all[{index}]."), subject)
            }
            Self::Not(inner) => inner.mismatch_at(&format!("{path}not."), subject),
        }
    }
}

fn told(matcher: &Matcher, path: &str, reason: String, subject: &Subject<'_>) -> Unmet {
    let reason = match matcher.holds(subject) {
        Truth::Unknown(Unknown::Ambiguous(kind)) => format!("{reason} ({kind})"),
        _ => reason,
    };
    Unmet { condition: format!("{path}{}", matcher.label()), seen: matcher.seen(subject), reason }
}

/// One line, as an operator reads it.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() || self.always() {
            return f.write_str("always");
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            condition.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let branches = |f: &mut fmt::Formatter<'_>, word: &str, branches: &[When]| {
            write!(f, "{word} of (")?;
            for (index, when) in branches.iter().enumerate() {
                write!(f, "{}{when}", if index == 0 { "" } else { " | " })?;
            }
            f.write_str(")")
        };
        match self {
            Self::Test(matcher) => matcher.fmt(f),
            Self::Any(all) => branches(f, "any", all),
            Self::All(all) => branches(f, "all", all),
            Self::Not(inner) => write!(f, "not ({inner})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHOP, endpoint, file};
    use super::super::{Decision, Examination, Explanation};

    const FAR: &str = "203.0.113.1:4000";

    /// What becomes of a request if the rule `image host` has these conditions.
    fn explain(when: &str, head: &str) -> Explanation {
        let text = SHOP.replace("when: { host: img.example.com }", &format!("when: {when}"));
        let policy = file(&text.replace("path: \"/images/*\"", "path: /never")).compile("a").unwrap();
        let request = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        policy.services[0].explain(request.as_bytes(), endpoint(FAR))
    }

    fn matches(when: &str, head: &str) -> bool {
        let explanation = explain(when, head);
        let matches = &*explanation.decision.rule == "image host";
        let Examination::Decided(Decision { rule, .. }) = explanation.examination else { panic!("{when}") };
        assert_eq!(rule, explanation.decision.rule);
        assert_eq!(explanation.tried[1].unmet.is_none(), matches);
        matches
    }

    fn unmet(when: &str, head: &str) -> (String, Option<String>, String) {
        let unmet = explain(when, head).tried.swap_remove(1).unmet.unwrap();
        (unmet.condition, unmet.seen, unmet.reason)
    }

    const ON_A: &str = "GET /x HTTP/1.1\nHost: a.example";

    #[test]
    fn conditions_may_be_nested() {
        assert!(matches("{ any: [{ host: b.example }, { path: /x, method: GET }] }", ON_A));
        assert!(!matches("{ any: [{ host: b.example }, { path: /x, method: PUT }] }", ON_A));
        assert!(matches("{ not: { host: b.example } }", ON_A));
        assert!(!matches("{ not: { host: a.example, path: /x } }", ON_A));
        assert!(matches("{ not: { host: a.example, path: /y } }", ON_A));
        assert!(matches("{ all: [{ any: [{ host: '*.example' }] }, { not: { path: /y } }], method: GET }", ON_A));
        assert!(!matches("{ path: /x, not: { any: [{ method: PUT }, { host: a.example }] } }", ON_A));
    }

    #[test]
    fn a_mismatch_says_where_in_the_tree_it_is() {
        let text = |text: &str| Some(text.to_owned());
        let (condition, seen, reason) = unmet("{ method: GET, any: [{ path: /y }, { host: b, method: GET }] }", ON_A);
        assert_eq!((&*condition, seen), ("any[0].path", text("/x")));
        let expected = "any[0].path: path /x fits none of its patterns; any[1].host: host a.example is not among its hosts";
        assert_eq!(reason, expected);
        let (condition, seen, reason) = unmet("{ not: { any: [{ path: /y }, { host: '*.example' }] } }", ON_A);
        assert_eq!((&*condition, seen), ("not.any[1].host", text("a.example")));
        assert_eq!(reason, "host *.example is excluded");
        let (condition, seen, _) = unmet("{ all: [{ path: /x }, { not: { not: { host: b } } }] }", ON_A);
        assert_eq!((&*condition, seen), ("all[1].not.not.host", text("a.example")));
    }

    #[test]
    fn conditions_are_shown_in_one_line() {
        let explanation = explain("{ any: [{ host: a, method: GET }, { host: b }], not: { path: /x } }", ON_A);
        let expected = "any of (method GET, host a | host b), not (path /x)";
        assert_eq!(explanation.tried[1].conditions, expected);
    }
}
