//! What is wrong with a cluster file, said so that it can be put right: file, line, column, the line itself, a remedy.

use super::yaml::{self, Place, Position};
use std::fmt;

/// Problems printed of one file. Someone with more than this has one cause, or reads them in turns.
const PROBLEMS_PRINTED_MAX: usize = 25;
/// Problems located in one file.
const PROBLEMS_LOCATED_MAX: usize = 200;
/// Octets walked through to locate them, a quarter of a second's work: a daemon reads its file again while it runs, and
/// must not stand still over a large one that is full of errors.
const LOCATED_BYTES_MAX: usize = 8 << 20;
/// Characters printed of a line, a message or a remedy.
const LINE_PRINTED_MAX: usize = 400;

/// Stands in a remedy for what the file has at the place of the problem, as it is spelled there.
pub(super) const TOKEN: char = '\u{1a}';

/// How bad a problem is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but hardly means what it says.
    Warning,
    /// The file can be used if a host is as it must be: a warning for who does not look at that host.
    Condition,
}

/// One thing wrong in a file. Displayed as
///
/// ```text
/// shop.yaml:14:18: there is no node `d`
///    |
/// 14 |         send_to: d
///    |                  ^
///    = the nodes are a, b, c
/// ```
///
/// with `warning: ` before the message of a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the file as the caller gave it.
    pub file: String,
    /// Line and column, from 1; none when the file could not be read at all.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The line of the file.
    line_text: String,
}

/// All problems found in one file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The problems; errors and warnings mixed.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The report of a file that could not even be read.
    pub(super) fn unreadable(file: &str, message: String, remedy: &str) -> Self {
        let problem = Problem {
            severity: Severity::Error,
            file: file.to_owned(),
            position: None,
            message,
            remedy: remedy.to_owned(),
            line_text: String::new(),
        };
        Self { problems: vec![problem] }
    }

    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Those of this severity: who must put a refused file right has no use for its warnings.
    pub fn only(mut self, severity: Severity) -> Self {
        self.problems.retain(|problem| problem.severity == severity);
        self
    }

    /// Those that an earlier version of the file did not have, wherever in it they stand now.
    pub fn new_since(&self, before: &Self) -> Self {
        let mut known: Vec<&str> = before.problems.iter().map(|problem| problem.message.as_str()).collect();
        let is_new = |problem: &&Problem| match known.iter().position(|message| *message == problem.message) {
            Some(index) => {
                known.swap_remove(index);
                false
            }
            None => true,
        };
        Self { problems: self.problems.iter().filter(is_new).cloned().collect() }
    }

    /// Whether nothing is wrong at all.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Warnings must not crowd out errors.
        let mut shown: Vec<&Problem> = self.problems.iter().collect();
        shown.sort_by_key(|problem| problem.severity);
        shown.truncate(PROBLEMS_PRINTED_MAX);
        shown.sort_by_key(|problem| problem.position);
        for problem in &shown {
            problem.fmt(f)?;
        }
        match (self.problems.len() - shown.len(), shown.first()) {
            (1.., Some(problem)) => {
                writeln!(f, "{}: and {} more", problem.file, self.problems.len() - shown.len())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = match self.severity {
            Severity::Error => "",
            Severity::Warning | Severity::Condition => "warning: ",
        };
        let Some((line, column)) = self.position else {
            writeln!(f, "{}: {warning}{}", self.file, self.message)?;
            return writeln!(f, "  = {}", self.remedy);
        };
        writeln!(f, "{}:{line}:{column}: {warning}{}", self.file, self.message)?;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // A tab stays a tab in front of the caret, so that both lines indent alike.
        let indent: String = self.line_text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let width = token_width(&self.line_text, column);
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", printable(&self.line_text))?;
        writeln!(f, "{margin} | {indent}{}", "^".repeat(width))?;
        writeln!(f, "{margin} = {}", self.remedy)
    }
}

/// A text as it may be printed on a terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
    };
    text.chars().take(LINE_PRINTED_MAX).map(shown).collect()
}

/// How many characters from `column` on belong together, for the caret. A guess: it only has to look right.
fn token_width(line: &str, column: usize) -> usize {
    let rest: Vec<char> = line.chars().take(LINE_PRINTED_MAX).skip(column - 1).collect();
    let width = match rest.first() {
        Some(&quote @ ('"' | '\'')) => rest.iter().skip(1).position(|&c| c == quote).map_or(rest.len(), |end| end + 2),
        Some('[' | '{') | None => 1,
        Some(_) => (0..rest.len())
            .find(|&i| {
                let next_is_space = rest.get(i + 1).is_none_or(|c| c.is_whitespace());
                match rest[i] {
                    ',' | ']' | '}' => true,
                    ':' => next_is_space,
                    ' ' => rest.get(i + 1) == Some(&'#'),
                    _ => false,
                }
            })
            .unwrap_or(rest.len()),
    };
    width.max(1)
}

/// Problems as they are found, with places instead of positions.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<(Severity, Place, String, String)>,
}

impl Problems {
    /// The file cannot be used because of what is at `place`.
    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.push((Severity::Error, place.clone(), message.into(), remedy.into()));
    }

    /// What is at `place` is probably not meant.
    pub(super) fn warning(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.push((Severity::Warning, place.clone(), message.into(), remedy.into()));
    }

    /// What is at `place` works if a host is as it must be, which cannot be seen in the file.
    pub(super) fn condition(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.push((Severity::Condition, place.clone(), message.into(), remedy.into()));
    }

    /// Whether the file cannot be used, as far as it has been read.
    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|(severity, ..)| *severity == Severity::Error)
    }

    /// Finds every place in the text, and sorts by position.
    pub(super) fn into_report(mut self, file: &str, text: &str) -> Report {
        // Each place costs a walk through the text, and nobody reads that many. Errors first: however many warnings there
        // are, a file with an error must not pass for one without.
        self.found.sort_by_key(|(severity, ..)| *severity);
        let mut problems: Vec<Problem> = self
            .found
            .into_iter()
            .take((LOCATED_BYTES_MAX / text.len().max(1)).min(PROBLEMS_LOCATED_MAX))
            .map(|(severity, place, message, remedy)| {
                problem_at(file, text, severity, yaml::locate(text, &place), message, remedy)
            })
            .collect();
        problems.sort_by_key(|problem| (problem.position, problem.severity));
        problems.dedup();
        Report { problems }
    }
}

/// A problem at a known position.
pub(super) fn problem_at(
    file: &str,
    text: &str,
    severity: Severity,
    position: Position,
    message: String,
    remedy: String,
) -> Problem {
    // libyaml places what it misses at the end of the file one line behind the last.
    let last = text.lines().count().max(1);
    let behind_last = text.lines().last().map_or(1, |line| line.chars().count() + 1);
    let (line, column) = if position.line > last { (last, behind_last) } else { (position.line.max(1), position.column.max(1)) };
    let line_text = text.lines().nth(line - 1).unwrap_or_default().to_owned();
    let token: String = line_text.chars().skip(column - 1).take(token_width(&line_text, column)).collect();
    let remedy = remedy.replace(TOKEN, token.trim_end());
    // A message may repeat what the file says, escapes included.
    let (message, remedy) = (printable(&message), printable(&remedy));
    Problem { severity, file: file.to_owned(), position: Some((line, column)), message, remedy, line_text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::yaml::Part;

    #[test]
    fn a_problem_shows_its_line_with_a_caret_and_a_remedy() {
        let mut problems = Problems::default();
        let place = Place { steps: vec![1, 0], part: Part::Value };
        problems.error(&place, "there is no node `dd`", "the nodes are a, b, c");
        let report = problems.into_report("shop.yaml", "x: 1\nsend_to: { n: dd, m: c }\n");
        let expected = "shop.yaml:2:15: there is no node `dd`\n  |\n2 | send_to: { n: dd, m: c }\n  |               ^^\n  = the nodes are a, b, c\n";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_once() {
        let mut problems = Problems::default();
        problems.error(&Place::root().child(1), "second", "");
        problems.warning(&Place::root().child(0), "first", "");
        problems.error(&Place::root().child(1), "second", "");
        let report = problems.into_report("f", "a: 1\nb: 2\n");
        let messages: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, ["first", "second"]);
        assert!(report.has_errors());
    }

    #[test]
    fn no_number_of_warnings_hides_an_error() {
        let mut problems = Problems::default();
        for number in 0..2 * PROBLEMS_LOCATED_MAX {
            problems.warning(&Place::root(), number.to_string(), "");
        }
        problems.error(&Place::root(), "wrong", "");
        let report = problems.into_report("f", "a: 1\n");
        assert!(report.has_errors());
        assert_eq!(report.problems.len(), PROBLEMS_LOCATED_MAX);
        assert_eq!(report.problems[0].message, "wrong");
        let printed = report.to_string();
        assert!(printed.starts_with("f:1:1: wrong\n") && printed.ends_with("f: and 175 more\n"));
    }

    #[test]
    fn errors_can_be_told_without_the_warnings() {
        let mut problems = Problems::default();
        problems.warning(&Place::root().child(0), "doubtful", "");
        problems.error(&Place::root().child(1), "wrong", "");
        let errors = problems.into_report("f", "a: 1\nb: 2\n").only(Severity::Error);
        assert_eq!(errors.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), ["wrong"]);
    }

    #[test]
    fn what_was_told_before_is_not_new_wherever_it_moved() {
        let report = |text: &str, messages: &[&str]| {
            let mut problems = Problems::default();
            for (index, message) in messages.iter().enumerate() {
                problems.warning(&Place::root().child(index), *message, "");
            }
            problems.into_report("f", text)
        };
        let before = report("a: 1\nb: 2\n", &["x", "y"]);
        let new = |now: &Report| -> Vec<String> {
            now.new_since(&before).problems.into_iter().map(|problem| problem.message).collect()
        };
        assert_eq!(new(&before), [""; 0]);
        assert_eq!(new(&report("# moved\nc: 3\na: 1\nb: 2\n", &["z", "x", "y"])), ["z"]);
        assert_eq!(new(&report("a: 1\nb: 2\nc: 3\n", &["x", "x", "y"])), ["x"], "at one place more");
    }

    #[test]
    fn few_problems_of_a_large_file_are_located() {
        let text = format!("a: 1\n# {}\n", "x".repeat(crate::limits::cluster_file::FILE_BYTES_MAX - 10));
        let mut problems = Problems::default();
        (0..PROBLEMS_LOCATED_MAX).for_each(|number| problems.error(&Place::root(), number.to_string(), ""));
        let report = problems.into_report("f", &text);
        assert_eq!(report.problems.len(), LOCATED_BYTES_MAX / text.len());
        assert!(report.has_errors());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\tc"), "a\u{fffd}[31mb\tc");
    }

    #[test]
    fn the_caret_underlines_a_whole_token() {
        assert_eq!(token_width("host: \"a b\", x", 7), 5);
        assert_eq!(token_width("host: abc # why", 7), 3);
        assert_eq!(token_width("host: a:80, b", 7), 4);
        assert_eq!(token_width("host: x", 1), 4);
        assert_eq!(token_width("", 9), 1);
    }
}
