//! What is said differently in two cluster files, field by field: for people who want to know before it is in force.

use super::yaml::{self, Value};
use std::collections::HashMap;
use std::fmt;

/// A field that two files have different, in the words of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Such as `services.web.rules.images.send_to`; a rule is named, or numbered.
    pub field: String,
    /// What the first file says; none if it says nothing.
    pub before: Option<String>,
    /// What the second file says; likewise.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, before, after } = self;
        match (before, after) {
            (Some(before), Some(after)) => write!(f, "{field}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "{field}: added: {after}"),
            (Some(before), None) => write!(f, "{field}: removed: {before}"),
            (None, None) => write!(f, "{field}"),
        }
    }
}

/// How the second file differs from the first. Comments and the order of fields are no difference; another spelling of the same
/// value is one. Empty if either is no YAML: those who read it have said so.
pub fn differences(before: &str, after: &str) -> Vec<Difference> {
    let (Ok(before), Ok(after)) = (yaml::parse(before), yaml::parse(after)) else { return Vec::new() };
    let mut differences = Vec::new();
    compare("", Some(&before), Some(&after), &mut differences);
    differences
}

fn compare(field: &str, before: Option<&Value>, after: Option<&Value>, differences: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    match (before.and_then(|value| entries(field, value)), after.and_then(|value| entries(field, value))) {
        (Some(before), Some(after)) => {
            let (old, new) = (by_name(&before), by_name(&after));
            let added = after.iter().filter(|(name, _)| !old.contains_key(name.as_str()));
            for (name, _) in before.iter().chain(added) {
                let below = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                compare(&below, old.get(name.as_str()).copied(), new.get(name.as_str()).copied(), differences);
            }
            if is_rules(field) {
                compare_order(field, &before, &after, differences);
            }
        }
        _ => differences.push(Difference {
            field: field.to_owned(),
            before: before.map(|value| Written(value).to_string()),
            after: after.map(|value| Written(value).to_string()),
        }),
    }
}

/// Rules are tried in order: the same ones in another order are others.
fn compare_order(field: &str, before: &[(String, Value)], after: &[(String, Value)], differences: &mut Vec<Difference>) {
    let common = |these: &[(String, Value)], those: &[(String, Value)]| -> Vec<String> {
        let those = by_name(those);
        these.iter().map(|entry| entry.0.clone()).filter(|name| those.contains_key(name.as_str())).collect()
    };
    let (before, after) = (common(before, after), common(after, before));
    if before != after {
        let list = |names: &[String]| format!("[{}]", names.join(", "));
        let field = format!("{field} (their order)");
        differences.push(Difference { field, before: Some(list(&before)), after: Some(list(&after)) });
    }
}

fn by_name(entries: &[(String, Value)]) -> HashMap<&str, &Value> {
    entries.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

fn is_rules(field: &str) -> bool {
    field.starts_with("services.") && field.ends_with(".rules")
}

/// A mapping's entries, and a list of rules as entries by name; none if it is neither.
fn entries(field: &str, value: &Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Mapping(entries) => Some(entries.clone()),
        Value::List(items) if is_rules(field) => Some(items.iter().enumerate().map(named).collect()),
        _ => None,
    }
}

/// A rule with its name, which is then no part of it.
fn named((index, rule): (usize, &Value)) -> (String, Value) {
    let unnamed = || format!("rule {}", index + 1);
    let Value::Mapping(entries) = rule else { return (unnamed(), rule.clone()) };
    let name = entries.iter().find_map(|(key, value)| match value {
        Value::Text(name) if key == "name" => Some(name.clone()),
        _ => None,
    });
    let rest = entries.iter().filter(|(key, _)| key != "name").cloned().collect();
    (name.unwrap_or_else(unnamed), Value::Mapping(rest))
}

/// A value as one line of YAML.
struct Written<'a>(&'a Value);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: Vec<String>, [open, close]: [&str; 2]| {
            write!(f, "{open}{}{close}", parts.join(", "))
        };
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(text) if is_plain(text) => f.write_str(text),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::List(items) => list(f, items.iter().map(|item| Self(item).to_string()).collect(), ["[", "]"]),
            Value::Mapping(entries) => {
                let parts = entries.iter().map(|(name, value)| format!("{name}: {}", Self(value))).collect();
                list(f, parts, ["{ ", " }"])
            }
        }
    }
}

/// Whether a text needs no quotes to be read as one.
fn is_plain(text: &str) -> bool {
    let is_ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    !text.is_empty()
        && text.bytes().all(is_ordinary)
        && text.parse::<f64>().is_err()
        && !matches!(text, "true" | "false" | "null")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
cluster: shop
services:
  web:
    frontends: { a: '10.77.0.1:80' }
    inspect_timeout: 5s
    rules:
      - { name: images, when: { path: /images/* }, send_to: b }
      - { name: carts, when: { path: /cart* }, send_to: [a, b] }
      - { send_to: local }
";

    fn said(changes: &[(&str, &str)]) -> Vec<String> {
        let mut after = FILE.to_owned();
        for (from, to) in changes {
            assert!(after.contains(from), "{from}");
            after = after.replacen(from, to, 1);
        }
        differences(FILE, &after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_field_is_named_with_what_it_was_and_what_it_is() {
        assert_eq!(said(&[("send_to: b }", "send_to: c }")]), ["services.web.rules.images.send_to: b -> c"]);
        assert_eq!(said(&[("[a, b]", "[a, c]")]), ["services.web.rules.carts.send_to: [a, b] -> [a, c]"]);
        assert_eq!(said(&[("    inspect_timeout: 5s\n", "")]), ["services.web.inspect_timeout: removed: 5s"]);
        assert_eq!(said(&[("send_to: local", "send_to: c")]), ["services.web.rules.rule 3.send_to: local -> c"]);
    }

    #[test]
    fn what_is_added_or_removed_is_shown_whole() {
        assert_eq!(said(&[("      - { send_to: local }\n", "")]), ["services.web.rules.rule 3: removed: { send_to: local }"]);
        assert_eq!(said(&[("cluster: shop", "cluster: shop\nlimits: { linger: 5s }")]), ["limits: added: { linger: 5s }"]);
        assert_eq!(
            said(&[("'10.77.0.1:80'", "['10.77.0.1:80', '[fd77::1]:80']")])[0].split(": ").next(),
            Some("services.web.frontends.a")
        );
    }

    #[test]
    fn rules_in_another_order_are_told_and_comments_are_not() {
        let swapped = [("name: images", "name: x"), ("name: carts", "name: images"), ("name: x", "name: carts")];
        let order = "services.web.rules (their order): [images, carts, rule 3] -> [carts, images, rule 3]";
        assert!(said(&swapped).contains(&order.to_owned()), "{:?}", said(&swapped));
        assert_eq!(said(&[("cluster: shop", "# better\ncluster: 'shop'")]), Vec::<String>::new());
    }

    #[test]
    fn texts_that_would_be_read_as_something_else_are_quoted() {
        let quoted = |text: &str| Written(&Value::Text(text.to_owned())).to_string();
        assert_eq!(
            ["true", "1.0", "", "a b", "/images/1.png"].map(quoted),
            ["\"true\"", "\"1.0\"", "\"\"", "\"a b\"", "/images/1.png"]
        );
    }
}
