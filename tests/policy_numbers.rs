//! Every number of a cluster file is bounded: whatever is written in its place is taken or refused at its line and column,
//! and nothing overflows.

use baton::policy::ClusterFile;
use std::ops::Range;
use std::path::Path;

/// In place of the digits; what stands around them, such as a unit, stays.
const DIGITS: &[&str] = &[
    "0",
    "-1",
    "-0",
    "1",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999999999999999999999",
    "0.0000000000000000000000000000000000001",
    "1e400",
    "-1e400",
    "1e-400",
    "1e19",
    ".inf",
    "-.inf",
    ".nan",
    "0x7fffffffffffffff",
    "0xffffffffffffffffff",
    "0o7777777777777777777777777",
    "1_000",
    "٣",
];

/// In place of the whole value.
const VALUES: &[&str] = &[
    "99999999999999999999h",
    "18446744073709551615y",
    "584942417355y",
    "18446744073709551615ns 18446744073709551615s",
    "-1s",
    "0s",
    "0ns",
    "1.5s",
    "1e3s",
    "18446744073709551615GiB",
    "17179869184GiB",
    "-1KiB",
    "0B",
    "~",
    "\"\"",
];

/// Of all that can stand in a number's place each number gets one in so many.
const STEP: usize = 7;

fn every_field() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/every-field.yaml");
    std::fs::read_to_string(path).unwrap()
}

/// Where digits are, keys and comments left out.
fn numbers(text: &str) -> Vec<Range<usize>> {
    let mut found = vec![];
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.find(" #").map_or(line, |comment| &line[..comment]);
        if !code.contains("public_key") && !code.starts_with('#') {
            let mut at = 0;
            while let Some(first) = code[at..].find(|c: char| c.is_ascii_digit()).map(|first| at + first) {
                at = code[first..].find(|c: char| !c.is_ascii_digit()).map_or(code.len(), |length| first + length);
                found.push(start + first..start + at);
            }
        }
        start += line.len();
    }
    found
}

/// Whether the file is taken. Whatever is wrong with it has a place.
#[track_caller]
fn is_taken(text: &str, change: &str) -> bool {
    match ClusterFile::parse("changed.yaml", text) {
        Ok(file) => {
            let _ = (file.hash(), file.warnings.to_string());
            for node in &file.nodes {
                file.compile(&node.name).unwrap_or_else(|error| panic!("{change}: {error}"));
            }
            true
        }
        Err(report) => {
            assert!(report.has_errors(), "{change}");
            for problem in &report.problems {
                let (line, column) = problem.position.unwrap_or_else(|| panic!("{change}: {problem}"));
                let text = text.lines().nth(line - 1).unwrap_or_else(|| panic!("{change}: line {line} of {problem}"));
                assert!((1..=text.chars().count() + 1).contains(&column), "{change}: column {column} of {problem}");
                assert!(!problem.remedy.is_empty(), "{change}: {problem}");
            }
            let _ = report.to_string();
            false
        }
    }
}

#[test]
fn every_number_is_taken_or_refused_at_its_place() {
    let text = every_field();
    assert!(is_taken(&text, "nothing"));
    let numbers = numbers(&text);
    assert!(numbers.len() > 100, "{}", numbers.len());
    let (mut taken, mut refused) = (0, 0);
    for (index, number) in numbers.into_iter().enumerate() {
        let rest = &text[number.end..];
        let value_end = number.end + rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(0);
        let changes = DIGITS.iter().map(|digits| (number.clone(), digits));
        let changes = changes.chain(VALUES.iter().map(|value| (number.start..value_end, value)));
        // Numbers of one kind have neighbours of the same kind: together they see all of these.
        for (range, new) in changes.skip(index % STEP).step_by(STEP) {
            let mut changed = text.clone();
            changed.replace_range(range, new);
            let line = text[..number.start].lines().count();
            let change = format!("line {line}: {} becomes {new}", &text[number.clone()]);
            *(if is_taken(&changed, &change) { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(taken > 20 && refused > 400, "{taken} taken, {refused} refused");
}

/// The fields with bounds, alone in their lines: what is beyond is refused in the very line.
#[test]
fn what_is_beyond_a_bound_is_refused_where_it_stands() {
    let text = every_field();
    for (written, beyond) in [
        ("port: 7400", &["port: 0", "port: 65536", "port: -1", "port: 1e400", "port: 18446744073709551616"][..]),
        ("inspect_timeout: 5s", &["inspect_timeout: 9ms", "inspect_timeout: 61s", "inspect_timeout: 99999999999999999999h"]),
        ("inspect_bytes_max: 16KiB", &["inspect_bytes_max: 255", "inspect_bytes_max: 257KiB", "inspect_bytes_max: 1e400"]),
        ("silence_timeout: 60s", &["silence_timeout: 99ms", "silence_timeout: 2h", "silence_timeout: 584942417355y"]),
        ("handoff_timeout: 1s", &["handoff_timeout: 0s", "handoff_timeout: 31s", "handoff_timeout: -1s"]),
        ("weight: 2", &["weight: -1", "weight: 1001", "weight: 9223372036854775808", "weight: 1e400", "weight: .nan"]),
        ("percent: 2.5", &["percent: -0.01", "percent: 100.01", "percent: 1e400", "percent: .nan", "percent: 0.001"]),
        ("bound: 1.25", &["bound: 1", "bound: 100.01", "bound: .inf", "bound: -1", "bound: 1e-400"]),
        ("low: 25", &["low: 0", "low: 65", "low: 1000001", "low: -9223372036854775808"]),
        ("decay: 20s", &["decay: 999ms", "decay: 2days", "decay: 99999999999999999999h"]),
        ("connections: 1000000", &["connections: 0", "connections: 16000001", "connections: 1e400", "connections: -1"]),
        ("first_flight_bytes: 64MiB", &["first_flight_bytes: 65GiB", "first_flight_bytes: 18446744073709551615GiB"]),
        ("linger: 60s", &["linger: 0s", "linger: 61m", "linger: 18446744073709551615s"]),
        ("drain_timeout: 30s", &["drain_timeout: -1s", "drain_timeout: 25h", "drain_timeout: 1e400"]),
    ] {
        let line = text.lines().position(|line| line.contains(written)).unwrap_or_else(|| panic!("{written}")) + 1;
        for beyond in beyond {
            let changed = text.replacen(written, beyond, 1);
            let report = ClusterFile::parse("changed.yaml", &changed).expect_err(beyond);
            let lines: Vec<usize> = report.problems.iter().filter_map(|problem| Some(problem.position?.0)).collect();
            assert!(lines.contains(&line), "{beyond} in line {line}: {report}");
        }
    }
}
