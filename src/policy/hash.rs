//! A hash of what a cluster file means, so that nodes can tell whether theirs say the same.
//!
//! The meaning is written as text, each thing in exactly one spelling and texts of the file in quotes, and hashed. A
//! field that a later version adds must be left out of that text when it has the value that earlier versions implied:
//! then nodes of both versions still agree.

use super::choice::{By, Choice, Otherwise};
use super::file::ClusterFile;
use super::matchers::{self, Matcher};
use super::when::{Condition, When};
use super::{Forward, HealthCheck, HttpQuestion, Mode, ProbePlan, Protocol, Question, Service, Target};
use std::fmt::{self, Write as _};

/// A hash of what a cluster file means: files that differ only in comments, spelling, the order of nodes, services or
/// addresses have the same. Nodes compare it when they meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyHash(pub [u8; 32]);

/// SHA-256 of the meaning.
pub(super) fn of(file: &ClusterFile) -> PolicyHash {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_meaning(file, &mut text);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    PolicyHash(hash)
}

fn write_meaning(file: &ClusterFile, text: &mut String) -> fmt::Result {
    writeln!(text, "cluster {:?} port {}", file.cluster, file.overlay_port)?;
    for prefix in &file.aliases {
        writeln!(text, "aliases {prefix}")?;
    }
    for node in &file.nodes {
        writeln!(text, "node {:?} {} {:?}", node.name, node.address, node.public_key)?;
    }
    for service in &file.services {
        write_service(file, service, text)?;
    }
    let limits = &file.limits;
    writeln!(text, "limits {} {}", limits.connections, limits.first_flight_bytes)?;
    writeln!(text, "times {} {}", limits.linger.as_nanos(), limits.drain_timeout.as_nanos())
}

fn write_service(file: &ClusterFile, service: &Service, text: &mut String) -> fmt::Result {
    let name = |id: crate::flow::NodeId| file.nodes.get(usize::from(id.0)).map_or("", |node| &node.name);
    let target = |target: &Target| match target {
        Target::Local => "local".to_owned(),
        Target::Node(id) => format!("node {}", name(*id)),
    };
    let targets = |choice: &Choice| -> Vec<String> { choice.targets().iter().map(target).collect() };
    let how = |choice: &Choice, text: &mut String| -> fmt::Result {
        if choice.by != By::Order {
            let weights: Vec<u32> = choice.members.iter().map(|member| member.weight).collect();
            writeln!(text, "by {} {weights:?}", choice.by.spelt())?;
        }
        if choice.otherwise != Otherwise::DEFAULT {
            writeln!(text, "otherwise {}", choice.otherwise.word())?;
        }
        Ok(())
    };
    writeln!(text, "service {:?}", service.name)?;
    if service.inspect != Protocol::Http {
        writeln!(text, "inspect {}", service.inspect.word())?;
    }
    if !service.proxies.is_empty() {
        writeln!(text, "proxies {:?}", service.proxies.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    }
    for time in [service.inspect_timeout, service.silence_timeout, service.handoff_timeout] {
        writeln!(text, "time {}", time.as_nanos())?;
    }
    writeln!(text, "bytes {}", service.inspect_bytes_max)?;
    write_health(service, text)?;
    for (node, endpoint) in &service.frontends {
        writeln!(text, "frontend {:?} {endpoint}", name(*node))?;
    }
    for (node, port) in &service.servers {
        writeln!(text, "server {:?} {port}", name(*node))?;
    }
    for rule in &service.rules {
        writeln!(text, "rule {:?} {:?}", rule.name, targets(&rule.choice))?;
        how(&rule.choice, text)?;
        if let Some(canary) = &rule.canary {
            writeln!(text, "canary {canary}")?;
        }
        write_when(&rule.when, text)?;
    }
    if service.mode != Mode::Route {
        writeln!(text, "mode observe")?;
    }
    if service.forward != Forward::Overlay {
        writeln!(text, "forward {}", service.forward.word())?;
    }
    writeln!(text, "default {:?}", targets(&service.default.choice))?;
    how(&service.default.choice, text)
}

fn write_health(service: &Service, text: &mut String) -> fmt::Result {
    if !service.slow_start.is_zero() {
        writeln!(text, "slow start {}", service.slow_start.as_nanos())?;
    }
    if let Some(health) = &service.health {
        let HealthCheck { question, port, interval, timeout, rise, fall } = health;
        match question {
            Question::Tcp => writeln!(text, "health tcp")?,
            Question::Http(HttpQuestion { path, host, status, body }) => {
                writeln!(text, "health http {path:?} {host:?} {status:?} {body:?}")?;
            }
        }
        writeln!(text, "health {} {} {rise} {fall}", interval.as_nanos(), timeout.as_nanos())?;
        if let Some(port) = port {
            writeln!(text, "health port {port}")?;
        }
    }
    if let Some(ProbePlan { interval, timeout, rise, fall, enforce }) = &service.probe {
        writeln!(text, "probe {} {} {rise} {fall} {enforce}", interval.as_nanos(), timeout.as_nanos())?;
    }
    Ok(())
}

/// The matchers of the first version stand in fixed places, also those that were not given; all others only where they
/// are.
fn write_when(when: &When, text: &mut String) -> fmt::Result {
    let tests = |which: &str| -> Vec<&Matcher> {
        let tests = when.conditions.iter().filter_map(|condition| match condition {
            Condition::Test(matcher) if matcher.name() == which => Some(matcher),
            _ => None,
        });
        tests.collect()
    };
    let always = |which: &str, text: &mut String| {
        let spelling = tests(which).first().map_or_else(|| "[]".to_owned(), |matcher| matcher.spelling());
        writeln!(text, "{which} {spelling}")
    };
    for which in ["host", "path", "method"] {
        always(which, text)?;
    }
    let placed = ["host", "path", "method", "client"];
    let others = || matchers::NAMES.iter().filter(|which| !placed.contains(which));
    for matcher in others().flat_map(|which| tests(which)) {
        writeln!(text, "{} {}", matcher.name(), matcher.spelling())?;
    }
    always("client", text)?;
    for condition in &when.conditions {
        let (word, branches) = match condition {
            Condition::Test(_) => continue,
            Condition::Any(branches) => ("any", branches.as_slice()),
            Condition::All(branches) => ("all", branches.as_slice()),
            Condition::Not(inner) => ("not", std::slice::from_ref(&**inner)),
        };
        for branch in branches {
            writeln!(text, "{word} (")?;
            write_when(branch, text)?;
            writeln!(text, ")")?;
        }
        writeln!(text, "end of {word}")?;
    }
    Ok(())
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHOP, file};

    #[test]
    fn comments_spelling_and_order_of_names_do_not_matter() {
        let written_otherwise = SHOP
            .replace("cluster:", "# a comment\ncluster:")
            .replace("inspect_timeout: 5s", "inspect_timeout: 5000ms")
            .replace("path: \"/images/*\"", "path: ['/images/*']")
            .replace("a: \"10.77.0.1:80\", b: \"10.77.0.2:80\"", "b: \"10.77.0.2:80\", a: \"10.77.0.1:80\"");
        assert_ne!(SHOP, written_otherwise);
        assert_eq!(file(SHOP).hash(), file(&written_otherwise).hash());
    }

    #[test]
    fn every_change_of_meaning_matters() {
        let changes = [
            ("cluster: shop", "cluster: shop2"),
            ("7400", "7401"),
            ("198.18.0.0/24", "198.18.0.0/23"),
            ("address: 10.77.0.3", "address: 10.77.0.4"),
            ("  web:", "  web2:"),
            ("b: \"10.77.0.2:80\"", "b: \"10.77.0.9:80\""),
            ("inspect_timeout: 5s", "inspect_timeout: 6s"),
            ("name: images", "name: pictures"),
            ("/images/*", "/images/?"),
            ("GET", "PUT"),
            ("x-shard: \"7\"", "x-shard: true"),
            ("192.0.2.0/24", "192.0.2.0/25"),
            ("img.example.com", "img.example.net"),
            ("[c, b, local]", "[b, c, local]"),
            ("default: local", "default: c"),
            ("linger: 60s", "linger: 61s"),
            ("inspect_timeout: 5s", "inspect_timeout: 5s\n    forward: link"),
            ("inspect_timeout: 5s", "inspect_timeout: 5s\n    forward: auto"),
        ];
        let mut hashes = std::collections::HashSet::from([file(SHOP).hash()]);
        for (from, to) in changes {
            assert!(SHOP.contains(from), "{from}");
            assert!(hashes.insert(file(&SHOP.replace(from, to)).hash()), "{from} -> {to}");
        }
    }

    #[test]
    fn every_change_of_what_is_asked_of_tls_matters() {
        let host = "when: { host: img.example.com }";
        let http =
            [("path: \"/images/*\", method: [GET, HEAD]", "client: 10.0.0.0/8"), ("header: { x-shard: \"7\" }", "alpn: h2")];
        let tls = http.iter().fold(SHOP.replace("inspect_timeout", "inspect: tls\n    inspect_timeout"), |text, (from, to)| {
            text.replace(from, to)
        });
        let mut hashes = std::collections::HashSet::from([file(SHOP).hash()]);
        for when in ["sni: a", "sni: b", "sni: '*.a'", "sni: true", "sni: false", "sni: 'true'", "alpn: a", "alpn: [a, true]"] {
            assert!(hashes.insert(file(&tls.replace(host, &format!("when: {{ {when} }}"))).hash()), "{when}");
        }
        let neither = SHOP.replace("rules:", "rules: []\n    inspect: PROTOCOL\n    ignored:");
        let neither = neither.split("    ignored:").next().unwrap_or_default();
        let [http, tls] = ["http", "tls"].map(|protocol| file(&neither.replace("PROTOCOL", protocol)).hash());
        assert_ne!(http, tls);
    }

    #[test]
    fn every_change_of_how_servers_are_checked_matters() {
        let mut hashes = std::collections::HashSet::from([file(SHOP).hash()]);
        for fields in [
            "slow_start: 1s",
            "health: { tcp: true }",
            "health: { tcp: true, port: 81 }",
            "health: { http: / }",
            "health: { http: /a }",
            "health: { http: /, host: a }",
            "health: { http: /, status: 200 }",
            "health: { http: /, status: [200, 204] }",
            "health: { http: /, status: 200-204 }",
            "health: { http: /, body: ok }",
            "health: { tcp: true, interval: 3s }",
            "health: { tcp: true, timeout: 500ms }",
            "health: { tcp: true, rise: 1 }",
            "health: { tcp: true, fall: 1 }",
            "health: { tcp: true }\n    probe: off",
            "health: { tcp: true }\n    probe: { interval: 5s }",
            "health: { tcp: true }\n    probe: { timeout: 1s }",
            "health: { tcp: true }\n    probe: { rise: 2 }",
            "health: { tcp: true }\n    probe: { fall: 1 }",
            "health: { tcp: true }\n    probe: { enforce: true }",
        ] {
            let text = SHOP.replace("inspect_timeout: 5s", &format!("inspect_timeout: 5s\n    {fields}"));
            assert!(hashes.insert(file(&text).hash()), "{fields}");
        }
        let spelt_out = "health: { http: /, host: localhost, status: 200-299, interval: 2000ms, timeout: 1s, rise: 2, fall: 3 }\n    \
                         probe: { interval: 10s, timeout: 2s, rise: 1, fall: 2, enforce: false }\n    slow_start: 0s";
        let text = SHOP.replace("inspect_timeout: 5s", &format!("inspect_timeout: 5s\n    {spelt_out}"));
        assert!(!hashes.insert(file(&text).hash()), "the defaults are what is left out");
    }

    #[test]
    fn the_hash_stays_the_same_between_versions() {
        assert_eq!(file(SHOP).hash().to_string(), "c5aeae2533e34ca9bf39c9251475c3d3cbe3195813ab70d76aea071a5341e20d");
    }
}
