//! The text format (Prometheus, version 0.0.4): families in order of their table, each with its help, its type and its
//! samples in the order they come in.

use super::Sample;
use super::families::{FAMILIES, Family, Kind};
use std::fmt::Write;

/// What the text is, in a header field of HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Before every name but those that mean the same for any process.
const PREFIX: &str = "baton_";

/// A label's value as it stands between its quotes.
pub fn label_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All samples as text. One without a family is left out: a test sees to it that there is none.
pub fn text(samples: &[Sample]) -> String {
    let mut text = String::with_capacity(samples.len() * 64);
    for family in FAMILIES {
        let mut of_family = samples.iter().filter(|(name, _)| family.has(name)).peekable();
        if of_family.peek().is_none() {
            continue;
        }
        let prefix = if family.name.starts_with("process_") { "" } else { PREFIX };
        let Family { name, kind, help } = family;
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {}", kind.word());
        for (sample, value) in of_family {
            let _ = writeln!(text, "{prefix}{sample} {value}");
        }
    }
    text
}

impl Family {
    /// Whether a sample of this name, labels included, is one of the family's.
    pub fn has(&self, sample: &str) -> bool {
        let name = sample.split('{').next().unwrap_or(sample);
        let Some(rest) = name.strip_prefix(self.name) else { return false };
        match self.kind {
            Kind::Histogram => matches!(rest, "_bucket" | "_sum" | "_count"),
            Kind::Counter | Kind::Gauge => rest.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_help_its_type_and_its_samples() {
        let samples = [
            ("decisions_total{service=\"web\",rule=\"a\"}".to_owned(), 1.into()),
            ("decisions_total{service=\"web\",rule=\"b\"}".to_owned(), 2.into()),
            ("process_open_fds".to_owned(), 7.into()),
        ];
        let expected = "\
# HELP baton_decisions_total Decisions of the policy, by service and rule.
# TYPE baton_decisions_total counter
baton_decisions_total{service=\"web\",rule=\"a\"} 1
baton_decisions_total{service=\"web\",rule=\"b\"} 2
# HELP process_open_fds Open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 7
";
        assert_eq!(text(&samples), expected);
    }

    #[test]
    fn the_samples_of_a_histogram_belong_to_it() {
        let family = Family { name: "handoff_seconds", kind: Kind::Histogram, help: "" };
        assert!(family.has("handoff_seconds_bucket{le=\"0.1\"}") && family.has("handoff_seconds_sum"));
        assert!(!family.has("handoff_seconds") && !family.has("handoff_seconds_total"));
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        assert_eq!(label_value("a \"b\" \\ c\nd"), "a \\\"b\\\" \\\\ c\\nd");
    }
}
