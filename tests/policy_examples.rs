//! Every example is a file that can be used as it is, and does what its comments say: beside `NAME.yaml` is `NAME.expected`,
//! with a line for each case,
//!
//! ```text
//! ARGUMENTS OF `baton explain`  =>  RULE: NODES
//! ```
//!
//! The nodes are asked in this order; `one of` stands before those of which another is chosen each time, `or reset` behind
//! those whose client is reset when none of them can.

use assert_cmd::Command;
use baton::policy::{ClusterFile, Policy};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// Their names without the ending.
fn examples() -> Vec<String> {
    let names = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)).collect();
    names.sort();
    names
}

fn example(name: &str, node: &str) -> Policy {
    let file = ClusterFile::read(&path(&format!("{name}.yaml"))).unwrap_or_else(|report| panic!("{report}"));
    assert!(file.warnings.is_empty(), "{}", file.warnings);
    file.compile(node).unwrap_or_else(|error| panic!("{error}"))
}

/// The words of a line as a shell reads them, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!is_quoted, "an open quote: {line}");
    words.extend(word);
    words
}

/// What the real command says, as the right side of a line; and who was asked about.
fn explained(name: &str, arguments: &str) -> (serde_json::Value, String) {
    let mut command = Command::cargo_bin("baton").unwrap();
    let file = path(&format!("{name}.yaml"));
    let output = command.arg("explain").arg(file).args(words(arguments)).arg("--json").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {arguments}: {errors}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = answer["candidates"].as_array().unwrap().iter().map(|node| node.as_str().unwrap());
    let mut nodes = nodes.collect::<Vec<_>>().join(" ");
    if answer["answered_by"].is_null() {
        nodes.insert_str(0, "one of ");
    }
    if answer["or_reset"] == true && answer["candidates"].as_array().unwrap().last() != Some(&answer["node"]) {
        nodes.push_str(" or reset");
    }
    let rule = answer["rule"].as_str().unwrap();
    let said = match answer["outcome"].as_str() {
        Some("ambiguous") => format!("{rule} ({}): {nodes}", answer["ambiguity"].as_str().unwrap()),
        Some("incomplete") => format!("{rule} (incomplete): {nodes}"),
        _ => format!("{rule}: {nodes}"),
    };
    (answer, said)
}

/// All rules and defaults of an example that can decide, as `service/rule`.
fn rules(name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path(&format!("{name}.yaml"))).unwrap();
    let file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let mut rules = BTreeSet::new();
    for (service, fields) in file["services"].as_mapping().unwrap() {
        let service = service.as_str().unwrap();
        rules.insert(format!("{service}/default"));
        for (index, rule) in fields.get("rules").and_then(|rules| rules.as_sequence()).into_iter().flatten().enumerate() {
            let name = rule.get("name").map_or_else(|| format!("rule {}", index + 1), |name| name.as_str().unwrap().to_owned());
            rules.insert(format!("{service}/{name}"));
            if rule.get("when").is_none() && rule.get("canary").is_none() {
                rules.remove(&format!("{service}/default"));
            }
        }
    }
    rules
}

/// What is wrong with the cases of an example.
fn wrong(name: &str, expected: &str) -> Vec<String> {
    let mut wrong = vec![];
    let mut undecided = rules(name);
    for reason in expected.lines().filter_map(|line| line.strip_prefix("# No case: ")) {
        let rule = reason.split('.').next().unwrap();
        assert!(undecided.remove(rule), "{name}: there is no {rule}");
    }
    for line in expected.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((arguments, expected)) = line.rsplit_once("=>") else {
            wrong.push(format!("{name}: no `=>` in: {line}"));
            continue;
        };
        let (answer, said) = explained(name, arguments.trim());
        if said != expected.trim() {
            wrong.push(format!("{name}: {} => {said}, not {}", arguments.trim(), expected.trim()));
        }
        let (service, rule) = (answer["service"].as_str().unwrap(), answer["rule"].as_str().unwrap());
        if answer["outcome"] == "decided" {
            undecided.remove(&format!("{service}/{rule}"));
        }
    }
    wrong.extend(undecided.into_iter().map(|rule| format!("{name}: no case is decided by {rule}")));
    wrong
}

#[test]
fn every_example_answers_as_is_written_beside_it_and_every_rule_has_a_case() {
    let names = examples();
    assert!(names.len() >= 12, "{names:?}");
    let expected = |name: &String| {
        let path = path(&format!("{name}.expected"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let wrong: Vec<String> = names.iter().flat_map(|name| wrong(name, &expected(name))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_case_that_is_not_so_and_a_rule_without_a_case_are_found() {
    let right =
        "--node a --service web --http 'GET /images/1' => pictures: b\n--node a --service web --http 'GET /' => default: a\n";
    assert_eq!(wrong("two-nodes", right), Vec::<String>::new());
    assert_eq!(wrong("two-nodes", &right.replace(": b", ": a")).len(), 1);
    let (one, _) = right.split_once('\n').unwrap();
    assert_eq!(wrong("two-nodes", one), ["two-nodes: no case is decided by web/default"]);
}

#[test]
fn every_example_is_for_every_of_its_nodes() {
    for name in examples() {
        let file = ClusterFile::read(&path(&format!("{name}.yaml"))).unwrap_or_else(|report| panic!("{report}"));
        for node in &file.nodes {
            assert_eq!(example(&name, &node.name).hash, file.hash());
        }
    }
}

#[test]
fn back_ends_have_ports_of_their_own() {
    let policy = example("back-ends", "west");
    let service = policy.service_named("api").unwrap();
    let port = |name: &str| service.server_port(policy.node_named(name).unwrap());
    let ports = ["east", "west", "model-1", "model-2", "archive"].map(port);
    assert_eq!(ports, [80, 80, 8000, 8000, 9080].map(Some));
    for back_end in ["model-1", "model-2", "archive"] {
        let node = policy.node_named(back_end).unwrap();
        assert!(service.frontends.iter().all(|(owner, _)| *owner != node), "{back_end}");
    }
    let policy = example("subnets", "east");
    let next = policy.node_named("next").unwrap();
    assert_eq!(policy.service_named("api").unwrap().server_port(next), Some(8080));
    assert_eq!(policy.service_named("status").unwrap().server_port(next), None);
}

#[test]
fn every_field_says_the_default_where_there_is_one() {
    let every = example("every-field", "one");
    let fewest = example("two-nodes", "a");
    let (with, without) = (&every.services[0], &fewest.services[0]);
    assert_eq!(with.inspect_timeout, without.inspect_timeout);
    assert_eq!(with.inspect_bytes_max, without.inspect_bytes_max);
    assert_eq!(with.silence_timeout, without.silence_timeout);
    assert_eq!(with.handoff_timeout, without.handoff_timeout);
    let default = |service: &baton::policy::Service| (service.by_default(None).rule, service.by_default(None).targets());
    assert_eq!(default(with), default(without));
    assert_eq!(every.limits, fewest.limits);
}
