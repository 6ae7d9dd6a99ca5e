//! A decision by host or path asks for no memory, and ten thousand rules cost hardly more than ten.

#[path = "../benches/policy/allocations.rs"]
mod allocations;
#[allow(dead_code)]
#[path = "../benches/policy/samples.rs"]
mod samples;

use allocations::{Counting, allocations};
use baton::policy::{Examination, Policy};
use samples::{browser, flow, policy, prefixes, tenants};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[track_caller]
fn assert_allocations(policy: &Policy, request: &[u8], rule: &str, expected: u64) {
    let service = &policy.services[0];
    let Examination::Decided(decision) = service.examine(request, flow()) else { panic!("{rule}: not decided") };
    assert_eq!(&*decision.rule, rule);
    assert_eq!(allocations(|| service.examine(request, flow())), expected, "{rule}");
}

#[test]
fn a_decision_by_host_or_path_allocates_nothing() {
    for count in [10, 2_000] {
        assert_allocations(&policy("http", &tenants(count)), &browser(), &format!("rule {count}"), 0);
        assert_allocations(&policy("http", &prefixes(count)), &browser(), &format!("rule {count}"), 0);
    }
    assert_allocations(&policy("http", ""), &browser(), "default", 0);
    let others =
        "      - { when: { host: '*.example.com', path: { regex: '/images/.*' }, cookie: { theme: dark } }, send_to: b }\n";
    assert_allocations(&policy("http", others), &browser(), "rule 1", 0);
}

#[test]
fn capitals_in_a_host_and_escapes_in_a_path_cost_one_each() {
    let request = b"GET /im%61ges/x HTTP/1.1\r\nHost: WWW.example.com\r\n\r\n";
    assert_allocations(&policy("http", &tenants(10)), request, "rule 10", 2);
}

/// The least of many short rounds: whatever else the machine does makes single ones longer.
#[allow(clippy::disallowed_methods)] // Time is what is measured.
fn least_of<const N: usize>(policies: [&Policy; N], request: &[u8]) -> [Duration; N] {
    let mut least = [Duration::MAX; N];
    for _round in 0..60 {
        for (policy, least) in policies.iter().zip(&mut least) {
            let began = Instant::now();
            for _ in 0..50 {
                std::hint::black_box(policy.services[0].examine(std::hint::black_box(request), flow()));
            }
            *least = began.elapsed().min(*least);
        }
    }
    least
}

/// `benches/policy` says what each costs. Here it is only that rules are not tried one after the other: that would cost some
/// hundred times as much.
#[test]
fn ten_thousand_rules_cost_at_most_three_times_what_ten_do() {
    for rules in [tenants, prefixes] {
        let policies = [10, 10_000].map(|count| policy("http", &rules(count)));
        let [few, many] = least_of([&policies[0], &policies[1]], &browser());
        assert!(many <= few * 3, "{few:?} for ten, {many:?} for ten thousand");
    }
}
