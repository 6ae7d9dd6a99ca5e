//! A decision by host or path asks for no memory, however many rules there are.

#[path = "../benches/policy/allocations.rs"]
mod allocations;
#[allow(dead_code)]
#[path = "../benches/policy/samples.rs"]
mod samples;

use allocations::{Counting, allocations};
use baton::policy::{Examination, Policy};
use samples::{browser, flow, policy, prefixes, tenants};

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
