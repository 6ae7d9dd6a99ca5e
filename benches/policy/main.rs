//! What a decision costs: `cargo bench --bench policy`.
//!
//! Every line is the median of rounds that are interleaved with those of all other lines, so that whatever else the
//! machine does meets all of them. Quick with `-- --quick`.

#[path = "allocations.rs"]
mod allocations;
#[path = "samples.rs"]
mod samples;

use allocations::{Counting, allocations};
use baton::policy::{Examination, Policy};
use samples::{browser, flow, hello, http2, model, policy, prefixes, shortest, tenants};
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
    let start = Instant::now();
    black_box(policy("http", &tenants(10_000)));
    println!("reading a file of 10,000 rules: {} ms, {} kB", start.elapsed().as_millis(), tenants(10_000).len() / 1_000);
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

fn examine(line: &Line) -> Examination {
    line.policy.services[0].examine(&line.bytes, flow())
}
