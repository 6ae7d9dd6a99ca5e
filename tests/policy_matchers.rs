//! What rules can ask of a request, each matcher by what it takes and what it refuses.

mod common;

use baton::flow::{Endpoint, FlowKey};
use baton::policy::{Ambiguity, Examination, Explanation, Policy};
use common::policy_with;
use std::net::SocketAddr;

/// A file whose one rule has these conditions.
fn policy(when: &str) -> Policy {
    let text = format!(
        r#"
  web:
    frontends: {{ a: ["10.77.0.1:80", "10.77.0.1:8080", "10.77.1.1:80"], b: "10.77.0.2:80" }}
    servers: {{ a: {{ port: 80 }}, b: {{ port: 80 }} }}
    inspect_bytes_max: 600
    rules:
      - {{ name: earlier, when: {{ path: /earlier }}, send_to: b }}
      - {{ name: asked, when: {when}, send_to: b }}
      - {{ name: later, when: {{ path: /later }}, send_to: b }}
"#
    );
    policy_with(&text)
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn flow(frontend: &str) -> FlowKey {
    FlowKey { client: endpoint("192.0.2.7:4000"), frontend: endpoint(frontend) }
}

fn explain(when: &str, request: &str) -> Explanation {
    let policy = policy(when);
    let service = policy.service_named("web").unwrap();
    let explanation = service.explain(request.as_bytes(), flow("10.77.0.1:80"));
    assert_eq!(service.examine(request.as_bytes(), flow("10.77.0.1:80")), explanation.examination);
    explanation
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn post(body: &str, fields: &str) -> String {
    format!("POST /v1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

fn rule(when: &str, request: &str) -> String {
    explain(when, request).decision.rule.to_string()
}

#[track_caller]
fn fits(when: &str, requests: &[&str]) {
    for request in requests {
        assert_eq!(rule(when, request), "asked", "{when}: {request}");
    }
}

#[track_caller]
fn does_not_fit(when: &str, requests: &[&str]) {
    for request in requests {
        assert_eq!(rule(when, request), "default", "{when}: {request}");
    }
}

fn reason(when: &str, request: &str) -> (String, Option<String>, String) {
    let unmet = explain(when, request).tried.swap_remove(1).unmet.unwrap();
    (unmet.condition, unmet.seen, unmet.reason)
}

#[test]
fn hosts_are_whole_or_below_a_name() {
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    fits("{ host: ['*.Example.com', b] }", &[&host("a.example.com:80"), &host("A.B.EXAMPLE.COM."), &host("b")]);
    does_not_fit("{ host: ['*.example.com', b] }", &[&host("example.com"), &host("badexample.com"), &host("a.b"), &host("")]);
}

#[test]
fn paths_have_four_forms() {
    let [a_b, ab, star] = ["/a/b", "/ab", "/a*"].map(|path| get(path, ""));
    fits("{ path: '/a*' }", &[&a_b, &ab, &star]);
    fits("{ path: { exact: '/a*' } }", &[&star]);
    does_not_fit("{ path: { exact: '/a*' } }", &[&a_b, &ab]);
    fits("{ path: { prefix: [/a/, /x] } }", &[&a_b]);
    does_not_fit("{ path: { prefix: /a/ } }", &[&ab, &star]);
    fits("{ path: { regex: '/[a-c]/?b' } }", &[&a_b, &ab]);
    does_not_fit("{ path: { regex: '/a' } }", &[&a_b, &ab, &star]);
    fits("{ path: { glob: '/?b', exact: /x } }", &[&ab]);
    fits("{ path: [{ regex: '(?i)/A/.*' }, /ab] }", &[&a_b, &ab]);
    fits("{ path: { regex: '/é+' } }", &[&get("/%C3%A9%c3%a9", "")]);
}

#[test]
fn headers_may_be_absent_or_begin_with_something() {
    let [none, one, two] = ["", "X-A: v1\r\n", "X-A: w1\r\nx-a: v2\r\n"].map(|fields| get("/", fields));
    fits("{ header: { x-a: true } }", &[&one, &two]);
    does_not_fit("{ header: { x-a: true } }", &[&none]);
    fits("{ header: { x-a: false } }", &[&none]);
    does_not_fit("{ header: { x-a: false } }", &[&one, &two]);
    fits("{ header: { x-a: { prefix: v } } }", &[&one, &two]);
    fits("{ header: { x-a: [false, v1] } }", &[&none, &one]);
    does_not_fit("{ header: { x-a: [false, v1] } }", &[&two]);
    fits("{ header: { x-a: { regex: 'v[0-9]' } } }", &[&one, &two]);
    does_not_fit("{ header: { x-a: 'v*' } }", &[&one, &two]);
    fits("{ header: { x-a: { glob: 'v*' } } }", &[&one, &two]);
}

#[test]
fn query_parameters_are_compared_decoded() {
    let [none, plain, decoded, empty] = ["/", "/?b=2&user=al+b", "/?user=al%20b", "/?user"].map(|target| get(target, ""));
    fits("{ query: { user: al b } }", &[&plain, &decoded]);
    does_not_fit("{ query: { user: al b } }", &[&none, &empty]);
    fits("{ query: { user: true } }", &[&plain, &decoded, &empty]);
    fits("{ query: { user: false } }", &[&none]);
    fits("{ query: { user: { prefix: al } } }", &[&plain, &decoded]);
    fits("{ query: { user: '' } }", &[&empty]);
    let (condition, seen, reason) = reason("{ query: { user: x } }", &plain);
    assert_eq!((&*condition, seen.as_deref()), ("query user", Some("al b")));
    assert_eq!(reason, "query parameter user has the value \"al b\", which is none of its values");
}

#[test]
fn cookies_are_compared_letter_by_letter() {
    let [none, one, other] =
        ["Cookie: SESSION=x\r\n", "Cookie: a=1; session=abc\r\n", "Cookie: session=abd; b\r\n"].map(|fields| get("/", fields));
    fits("{ cookie: { session: abc } }", &[&one]);
    does_not_fit("{ cookie: { session: abc } }", &[&none, &other]);
    fits("{ cookie: { session: { regex: 'ab[cd]' } } }", &[&one, &other]);
    fits("{ cookie: { session: false } }", &[&none]);
}

#[test]
fn a_parameter_or_cookie_that_is_there_twice_must_fit_each_time() {
    for (when, not, same, differing) in [
        ("{ query: { a: '1' } }", "{ not: { query: { a: '1' } } }", get("/?a=1&a=1", ""), get("/?a=1&a=2", "")),
        (
            "{ cookie: { a: '1' } }",
            "{ not: { cookie: { a: '1' } } }",
            get("/", "Cookie: a=1; a=1\r\n"),
            get("/", "Cookie: a=1\r\nCookie: a=2\r\n"),
        ),
    ] {
        fits(when, &[&same]);
        does_not_fit(when, &[&differing]);
        does_not_fit(not, &[&same, &differing]);
        let (_, seen, reason) = reason(when, &differing);
        assert_eq!(seen.as_deref(), Some("1, 2"));
        assert!(reason.ends_with("a several times, and not every value fits"), "{reason}");
    }
}

#[test]
fn front_ends_are_told_apart_by_address_and_port() {
    let at = |when: &str, frontend: &str| {
        let policy = policy(when);
        match policy.service_named("web").unwrap().examine(get("/", "").as_bytes(), flow(frontend)) {
            Examination::Decided(decision) => &*decision.rule == "asked",
            Examination::NeedMore => panic!("a whole request"),
        }
    };
    for (when, both, port, address) in [
        ("{ frontend: '10.77.0.1:8080' }", true, false, false),
        ("{ frontend: 10.77.1.1 }", false, false, true),
        ("{ frontend: 80 }", false, true, true),
        ("{ frontend: [8080, 10.77.1.1] }", true, false, true),
    ] {
        assert_eq!(at(when, "10.77.0.1:8080"), both, "{when}");
        assert_eq!(at(when, "10.77.0.1:80"), port, "{when}");
        assert_eq!(at(when, "10.77.1.1:80"), address, "{when}");
    }
}

const MODEL: &str = "{ json: { /model: 'llama*' } }";

#[test]
fn a_field_of_a_json_body_decides() {
    fits(MODEL, &[&post(r#"{"model": "llama3"}"#, ""), &post(r#" {"stream": true, "model": "llama"} "#, "X: y\r\n")]);
    does_not_fit(
        MODEL,
        &[&post(r#"{"model": "mistral"}"#, ""), &post(r#"{"model": ["llama"]}"#, ""), &post("{}", ""), &get("/", "")],
    );
    fits("{ json: { /options/seed: '7', /stream: 'true' } }", &[&post(r#"{"options": {"seed": 7.0}, "stream": true}"#, "")]);
    fits("{ json: { /stream: true } }", &[&post(r#"{"stream": false}"#, ""), &post(r#"{"stream": null}"#, "")]);
    fits("{ json: { /stream: false } }", &[&post("{}", ""), &get("/", "")]);
    fits("{ json: { /m: { exact: 'a*' } } }", &[&post(r#"{"m": "a*"}"#, "")]);
    let (condition, seen, reason) = reason(MODEL, &post(r#"{"model": "mistral"}"#, ""));
    assert_eq!((&*condition, seen.as_deref()), ("json /model", Some("mistral")));
    assert_eq!(reason, "the body has \"mistral\" at /model, which is none of its values");
}

#[test]
fn a_body_is_waited_for_only_if_a_rule_asks_before_another_decides() {
    let whole = post(r#"{"model": "llama3"}"#, "");
    let head = whole.find("\r\n\r\n").unwrap() + 4;
    for length in head..whole.len() {
        assert!(explain(MODEL, &whole[..length]).needs_more(), "{length}");
    }
    assert_eq!(rule(MODEL, &(whole.clone() + "GET /next")), "asked");
    assert_eq!(rule(MODEL, &whole.replace("/v1", "/earlier")[..head + 5]), "earlier");
    assert!(explain(MODEL, &whole.replace("/v1", "/later")[..head + 3]).needs_more());
    assert_eq!(rule(MODEL, &whole.replace("/v1", "/later").replace("llama3", "x-3210")), "later");
    assert_eq!(rule("{ method: PUT, json: { /model: x } }", &whole[..head]), "default", "another condition fails already");
}

#[test]
fn a_chunked_body_is_read_too() {
    let request =
        "POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"model\"\r\nA\r\n: \"llama\"}\r\n0\r\n\r\n";
    let end = request.len() - 2;
    assert!(explain(MODEL, &request[..end - 1]).needs_more());
    assert_eq!(rule(MODEL, &request[..end]), "asked");
    assert_eq!(rule(MODEL, request), "asked");
}

#[test]
fn a_body_that_is_not_read_fits_nothing_and_is_not_waited_for() {
    let good = r#"{"model": "llama3"}"#;
    let long = format!("{{\"x\": \"{}\", \"model\": \"llama3\"}}", "y".repeat(600));
    for request in [
        post(good, "Expect: 100-continue\r\n"),
        post(good, "Content-Encoding: gzip\r\n"),
        post(&long, ""),
        post(&long, "")[..200].to_owned(),
        post("model=llama3", ""),
        post(r#"{"model": "llama3"} "#, "")[..].replace("} ", "}}"),
    ] {
        for when in [MODEL, "{ not: { json: { /model: 'llama*' } } }", "{ json: { /model: false } }"] {
            let explanation = explain(when, &request);
            assert!(!explanation.needs_more(), "{request}");
            assert_eq!(&*explanation.decision.rule, "default", "{when} {request}");
        }
        assert_eq!(rule(MODEL, &request.replace("/v1", "/later")), "later");
    }
    let (_, seen, reason) = reason(MODEL, &post("model=llama3", ""));
    assert_eq!((seen, &*reason), (None, "the body is not read: it is no JSON, too long, compressed, or not sent unasked"));
}

#[test]
fn a_body_that_can_be_read_in_two_ways_is_ambiguous() {
    for body in [r#"{"model": "llama3", "model": "x"}"#, r#"{"Model": "llama3"}"#] {
        let explanation = explain(MODEL, &post(body, ""));
        assert_eq!((explanation.ambiguity(), &*explanation.decision.rule), (Some(Ambiguity::JsonName), "default"));
        assert_eq!(rule(MODEL, &post(body, "").replace("/v1", "/later")), "default", "no rule decides");
        assert_eq!(rule(MODEL, &post(body, "").replace("/v1", "/earlier")), "earlier");
        assert_eq!(rule("{ json: { /other: x } }", &post(body, "").replace("/v1", "/later")), "later", "nobody asks for it");
    }
}

#[test]
fn what_may_be_looked_at_bounds_the_waiting() {
    let length = 600;
    let body = format!("{{\"model\": \"llama3\", \"x\": \"{}\"}}", "y".repeat(700));
    let request = format!("POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}", body.len());
    assert!(explain(MODEL, &request[..length - 1]).needs_more());
    assert_eq!(rule(MODEL, &request[..length]), "default");
    assert_eq!(rule(MODEL, &request), "default");
}
