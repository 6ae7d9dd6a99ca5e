//! The cluster file: any text is read in bounded time, and is refused at a place that is in it, or compiles.

use baton::flow::{Endpoint, NodeId};
use baton::policy::{ClusterFile, Problem, Report};
use std::time::{Duration, Instant};

const NAME: &str = "fuzz.yaml";
/// For a text of a few kilobytes, in a debug build with sanitizers, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[allow(clippy::disallowed_methods)] // How long it takes is what is asked.
pub fn run(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let start = Instant::now();
    match ClusterFile::parse(NAME, &text) {
        Ok(file) => accepted(&file, &text),
        Err(report) => {
            assert!(report.has_errors(), "refused without an error");
            place(&report, &text);
        }
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

/// Every problem says where, in this text, and what to do; nothing in it can move a cursor.
fn place(report: &Report, text: &str) {
    for problem in &report.problems {
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
        assert_eq!(problem.file, NAME);
        is_in(problem, text);
    }
    let printed = report.to_string();
    assert!(!printed.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{printed:?}");
    assert!(report.problems.is_empty() || printed.starts_with(NAME));
}

fn is_in(problem: &Problem, text: &str) {
    let Some((line, column)) = problem.position else {
        assert!(text.len() > baton::limits::cluster_file::FILE_BYTES_MAX, "no place: {problem:?}");
        return;
    };
    let lines = text.lines().count().max(1);
    assert!((1..=lines).contains(&line), "line {line} of {lines}: {problem}");
    let characters = text.lines().nth(line - 1).map_or(0, |line| line.chars().count());
    assert!((1..=characters + 1).contains(&column), "column {column} of {characters} in line {line}: {problem}");
}

fn accepted(file: &ClusterFile, text: &str) {
    assert!(!file.warnings.has_errors());
    place(&file.warnings, text);
    assert!(!file.summary().is_empty() && !file.nodes.is_empty());
    let again = ClusterFile::parse("again.yaml", text).expect("the same text");
    assert_eq!(again.hash(), file.hash());
    for (index, node) in file.nodes.iter().enumerate() {
        let policy = file.compile(&node.name).expect("a node of the file");
        assert_eq!((policy.node, policy.hash), (NodeId(index as u16), file.hash()));
        let client = Endpoint::new([192, 0, 2, 1].into(), 40_000);
        for frontend in policy.own_frontends() {
            assert!(policy.is_own_frontend(frontend));
            let service = policy.service_of(frontend).expect("a front-end address has a service");
            for request in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01", &[0; 300_000]] {
                let explained = service.explain(request, Some(client.address));
                assert_eq!(service.examine(request, client), explained.examination);
                for target in explained.decision.targets().iter().filter_map(|target| target.node()) {
                    assert!(usize::from(target.0) < file.nodes.len() && target != policy.node, "{target:?}");
                }
            }
        }
    }
    let unknown = file.compile("no such node").expect_err("a name with spaces is no node's");
    assert!(!unknown.to_string().is_empty());
}
