//! The list that `baton doctor` prints.

use super::Refusal;
use serde::Serialize;
use std::fmt;

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// `baton run` starts, but something is or may become worse than it could be.
    Warning,
    /// `baton run` does not start, or local connections would break.
    Error,
}

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How the check went.
    pub outcome: Outcome,
    /// What was looked at, in a word or two.
    pub subject: String,
    /// What was found, and why it matters.
    pub what: String,
    /// What to do; None where nothing needs doing.
    pub remedy: Option<String>,
}

/// All that was found, in the order it was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Findings {
    /// One per check.
    pub checks: Vec<Finding>,
}

impl Findings {
    /// Notes a check that a start makes too: its refusal becomes an error of the same words. Gives what it found.
    pub fn check<T>(&mut self, subject: &str, result: anyhow::Result<T>, ok: impl FnOnce(&T) -> String) -> Option<T> {
        match result {
            Ok(value) => {
                self.ok(subject, ok(&value));
                Some(value)
            }
            Err(error) => {
                self.refused(subject, &error);
                None
            }
        }
    }

    /// Notes that something is as it should be.
    pub fn ok(&mut self, subject: &str, what: impl Into<String>) {
        self.note(Outcome::Ok, subject, what.into(), None);
    }

    /// Notes something that could be better.
    pub fn warning(&mut self, subject: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.note(Outcome::Warning, subject, what.into(), Some(remedy.into()));
    }

    /// Notes why a start would be refused.
    pub fn refused(&mut self, subject: &str, error: &anyhow::Error) {
        self.note_error(Outcome::Error, subject, error);
    }

    /// Notes an error that does not keep `baton run` from starting.
    pub fn doubted(&mut self, subject: &str, error: &anyhow::Error) {
        self.note_error(Outcome::Warning, subject, error);
    }

    fn note_error(&mut self, outcome: Outcome, subject: &str, error: &anyhow::Error) {
        let whole = format!("{error:#}");
        match error.downcast_ref::<Refusal>() {
            None => {
                let (what, remedy) = told_apart(&whole);
                self.note(outcome, subject, what.to_owned(), remedy.map(str::to_owned));
            }
            Some(Refusal { remedy, .. }) => {
                let what = whole.strip_suffix(remedy.as_str()).map_or(whole.as_str(), |what| what.trim_end_matches([':', ' ']));
                self.note(outcome, subject, what.to_owned(), Some(remedy.clone()));
            }
        }
    }

    fn note(&mut self, outcome: Outcome, subject: &str, what: String, remedy: Option<String>) {
        self.checks.push(Finding { outcome, subject: subject.to_owned(), what, remedy });
    }

    /// How many went so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|finding| finding.outcome == outcome).count()
    }

    /// Whether nothing keeps `baton run` from starting.
    pub fn can_run(&self) -> bool {
        self.count(Outcome::Error) == 0
    }
}

/// Errors that are one text say what is wrong first, and what to do behind a semicolon or in a second sentence. Texts of
/// several lines show a file, and are left as they are.
fn told_apart(text: &str) -> (&str, Option<&str>) {
    let end = ["; ", ". "].iter().filter_map(|separator| text.find(separator)).min();
    match end {
        Some(end) if !text.contains('\n') => (&text[..end], Some(&text[end + 2..])),
        _ => (text, None),
    }
}

/// The list as a person reads it: a line per check, the remedy below what needs one, and the sum.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
        for Finding { outcome, subject, what, remedy } in &self.checks {
            let outcome = match outcome {
                Outcome::Ok => "ok",
                Outcome::Warning => "warning",
                Outcome::Error => "ERROR",
            };
            writeln!(f, "{outcome:<8} {subject:<width$}  {what}")?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<8} {:<width$}  -> {remedy}", "", "")?;
            }
        }
        let [errors, warnings] = [Outcome::Error, Outcome::Warning].map(|outcome| self.count(outcome));
        let verdict = if self.can_run() { "`baton run` can start" } else { "`baton run` cannot start" };
        writeln!(f, "{} checks, errors={errors}, warnings={warnings}: {verdict}", self.checks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::refusal;
    use anyhow::Context;

    #[test]
    fn a_refusal_is_the_same_words_as_what_and_remedy() {
        let mut findings = Findings::default();
        let refused = || Err::<(), _>(refusal("nft is missing", "install nftables"));
        findings.check("nft", refused(), |()| String::new());
        findings.check("nft", refused().context("looking for leftovers"), |()| String::new());
        findings.check("nft", Err::<(), _>(anyhow::anyhow!("it broke")), |()| String::new());
        findings.check("key", Err::<(), _>(anyhow::anyhow!("others can use it. Run this; or that")), |()| String::new());
        findings.check("nft", Ok(7), |number| format!("version {number}"));
        let told: Vec<(Outcome, &str, Option<&str>)> =
            findings.checks.iter().map(|finding| (finding.outcome, finding.what.as_str(), finding.remedy.as_deref())).collect();
        assert_eq!(
            told,
            [
                (Outcome::Error, "nft is missing", Some("install nftables")),
                (Outcome::Error, "looking for leftovers: nft is missing", Some("install nftables")),
                (Outcome::Error, "it broke", None),
                (Outcome::Error, "others can use it", Some("Run this; or that")),
                (Outcome::Ok, "version 7", None),
            ]
        );
        assert_eq!(format!("{:#}", refused().unwrap_err()), "nft is missing: install nftables");
    }

    #[test]
    fn the_list_ends_with_whether_a_start_is_possible() {
        let mut findings = Findings::default();
        findings.ok("nft", "1.0.6");
        findings.warning("firewall", "may drop", "let it pass");
        let text = findings.to_string();
        assert!(
            text.starts_with("ok       nft       1.0.6\nwarning  firewall  may drop\n                   -> let it pass\n"),
            "{text}"
        );
        assert!(text.ends_with("2 checks, errors=0, warnings=1: `baton run` can start\n"), "{text}");
        findings.refused("tun", &anyhow::anyhow!("missing"));
        assert!(findings.to_string().ends_with("errors=1, warnings=1: `baton run` cannot start\n"));
    }
}
