//! What a decision costs: `cargo bench --bench policy`.
//!
//! Every line is the median of rounds that are interleaved with those of all other lines, so that whatever else the
//! machine does meets all of them. Quick with `-- --quick`.

#[path = "allocations.rs"]
mod allocations;
#[path = "samples.rs"]
mod samples;

use allocations::{Counting, allocations};
use baton::policy::{ClusterFile, Examination, Looks, Policy};
use samples::{browser, endless, flow, hello, http2, largest, model, policy, prefixes, shortest, tenants, text};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Line {
    name: &'static str,
    policy: Policy,
    bytes: Vec<u8>,
    /// That must decide.
    rule: String,
    /// Nanoseconds of one decision, a value for each round.
    rounds: Vec<f64>,
}

const ITERATIONS: u32 = 2_000;

#[allow(clippy::disallowed_methods)] // Time is what is measured.
fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 5 } else { 101 };
    let line = |name, policy, bytes: Vec<u8>, rule: &str| Line { name, policy, bytes, rule: rule.to_owned(), rounds: Vec::new() };
    let of_json = "      - { when: { json: { /model: 'llama*' } }, send_to: b }\n";
    let by_name = "      - { when: { sni: '*.example.com' }, send_to: b }\n";
    let mut lines = vec![
        line("browser, no rule (inspection)", policy("http", ""), browser(), "default"),
        line("browser, 10 rules host+prefix", policy("http", &tenants(10)), browser(), "rule 10"),
        line("browser, 1,000 rules host+prefix", policy("http", &tenants(1_000)), browser(), "rule 1000"),
        line("browser, 10,000 rules host+prefix", policy("http", &tenants(10_000)), browser(), "rule 10000"),
        line("browser, 10 prefixes of one host", policy("http", &prefixes(10)), browser(), "rule 10"),
        line("browser, 10,000 prefixes of one host", policy("http", &prefixes(10_000)), browser(), "rule 10000"),
        line("shortest request, no rule (inspection)", policy("http", ""), shortest(), "default"),
        line("shortest, 10 rules host+prefix", policy("http", &tenants(10)), shortest(), "rule 10"),
        line("shortest, 1,000 rules host+prefix", policy("http", &tenants(1_000)), shortest(), "rule 1000"),
        line("shortest, 10,000 rules host+prefix", policy("http", &tenants(10_000)), shortest(), "rule 10000"),
        line("shortest, 10 prefixes of one host", policy("http", &prefixes(10)), shortest(), "rule 10"),
        line("shortest, 10,000 prefixes of one host", policy("http", &prefixes(10_000)), shortest(), "rule 10000"),
        line("POST of 1.2 kB, JSON field", policy("http", of_json), model(), "rule 1"),
        line("HTTP/2 first flight, 10 rules host+prefix", policy("http", &tenants(10)), http2(), "rule 10"),
        line("ClientHello of 1,700 octets, SNI", policy("tls", by_name), hello(), "rule 1"),
    ];
    read_files(rounds.min(15));
    if std::env::args().any(|argument| argument == "--reading") {
        return;
    }
    send_octet_by_octet(rounds.min(15));
    for line in &lines {
        let Examination::Decided(decision) = examine(line) else { panic!("{}: not decided", line.name) };
        assert_eq!(*decision.rule, line.rule, "{}", line.name);
    }
    for _ in 0..rounds {
        for line in &mut lines {
            let start = Instant::now();
            for _ in 0..ITERATIONS {
                black_box(examine(black_box(line)));
            }
            line.rounds.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(ITERATIONS));
        }
    }
    println!("{:40} {:>6} {:>9} {:>9} {:>11}", "inspect and decide", "octets", "median ns", "least ns", "allocations");
    for line in &mut lines {
        line.rounds.sort_by(f64::total_cmp);
        let median = line.rounds[line.rounds.len() / 2];
        let count = allocations(|| examine(line));
        println!("{:40} {:6} {median:9.0} {:9.0} {count:11}", line.name, line.bytes.len(), line.rounds[0]);
    }
}

/// What a reload costs: milliseconds of the processor for all that is done with a file before it can be in force.
fn read_files(rounds: usize) {
    println!("{:40} {:>6} {:>9} {:>9}", "read a cluster file", "kB", "median ms", "least ms");
    let files = [("10 rules", tenants(10)), ("10,000 rules", tenants(10_000)), ("10,000 rules, the largest file", largest())];
    for (name, rules) in files {
        let text = text("http", &rules);
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..rounds {
            let before = processor_time();
            let file = ClusterFile::parse("bench.yaml", &text).unwrap_or_else(|report| panic!("{report}"));
            black_box(file.compile("a").unwrap_or_else(|error| panic!("{error}")));
            times.push((processor_time() - before) * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{name:40} {:6} {:9.1} {:9.1}", text.len() / 1_000, times[times.len() / 2], times[0]);
    }
}

/// Seconds that this thread has run: a file takes longer than a turn of the scheduler, and others have theirs between.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanoseconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

/// What a client costs in all that sends what is never complete octet by octet.
#[allow(clippy::disallowed_methods)]
fn send_octet_by_octet(rounds: usize) {
    println!("{:40} {:>6} {:>9} {:>9} {:>11}", "octet by octet", "octets", "median us", "least us", "looked at");
    for (name, policy, bytes) in endless() {
        let mut times: Vec<f64> = Vec::new();
        let mut octets = 0;
        for _ in 0..rounds {
            let mut looks = Looks::default();
            let start = Instant::now();
            for length in 1..=bytes.len() {
                let looked = policy.services[0].look(&bytes[..length], flow(), &mut looks);
                if looked != Examination::NeedMore {
                    break;
                }
            }
            times.push(start.elapsed().as_secs_f64() * 1e6);
            octets = looks.octets();
        }
        times.sort_by(f64::total_cmp);
        println!("{name:40} {:6} {:9.0} {:9.0} {octets:11}", bytes.len(), times[times.len() / 2], times[0]);
    }
}

fn examine(line: &Line) -> Examination {
    line.policy.services[0].examine(&line.bytes, flow())
}
