use super::*;
use serde_json::json;

fn packet(from: &str, to: &str) -> Packet {
    Packet {
        family: Family::V4,
        protocol: "tcp",
        from_device: Some(from.into()),
        to_device: Some(to.into()),
        source: None,
        destination: Some("10.77.0.1".parse().unwrap()),
        source_port: None,
        destination_port: Some(80),
        back: Back::OtherByMark,
        state: Some("untracked"),
    }
}

fn base(policy: &str) -> Value {
    json!({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}})
}

fn chain(name: &str) -> Value {
    json!({"chain": {"family": "ip", "table": "filter", "name": name}})
}

fn rule(chain: &str, expressions: &[Value]) -> Value {
    json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": expressions}})
}

fn is(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn device(key: &str, name: &str) -> Value {
    is(json!({"meta": {"key": key}}), json!(name))
}

fn judged(objects: &[Value], packet: &Packet) -> &'static str {
    match Firewall::parse(objects).judge("forward", packet) {
        Judgement::Passes => "passes",
        Judgement::MayBeDropped(_) => "may be dropped",
        Judgement::Dropped(_) => "dropped",
    }
}

const ACCEPT: fn() -> Value = || json!({"accept": null});
const DROP: fn() -> Value = || json!({"drop": null});

#[test]
fn a_policy_decides_what_no_rule_does() {
    let to_tun = packet("eth0", "bt0");
    assert_eq!(judged(&[base("accept")], &to_tun), "passes");
    assert_eq!(judged(&[base("drop")], &to_tun), "dropped");
    assert_eq!(judged(&[base("drop"), rule("FORWARD", &[device("oifname", "bt0"), ACCEPT()])], &to_tun), "passes");
    assert_eq!(judged(&[base("drop"), rule("FORWARD", &[device("oifname", "bt*"), ACCEPT()])], &to_tun), "passes");
    assert_eq!(judged(&[base("drop"), rule("FORWARD", &[device("iifname", "bt0"), ACCEPT()])], &to_tun), "dropped");
}

#[test]
fn another_hook_and_our_own_table_say_nothing() {
    let mut input = base("drop");
    input["chain"]["hook"] = json!("input");
    let mut ours = base("drop");
    ours["chain"]["table"] = json!("baton");
    assert_eq!(judged(&[input, ours], &packet("eth0", "bt0")), "passes");
}

#[test]
fn what_is_not_tracked_is_neither_established_nor_invalid() {
    let state = |names: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": names}});
    let invalid = [base("accept"), rule("FORWARD", &[state(json!("invalid")), DROP()])];
    let established = [base("drop"), rule("FORWARD", &[state(json!(["established", "related"])), ACCEPT()])];
    let untracked = packet("eth0", "bt0");
    assert_eq!(judged(&invalid, &untracked), "passes");
    assert_eq!(judged(&established, &untracked), "dropped");
    let tracked = Packet { state: None, ..untracked };
    assert_eq!(judged(&invalid, &tracked), "may be dropped");
}

#[test]
fn chains_like_those_of_docker_are_followed() {
    let jump = |target: &str| json!({"jump": {"target": target}});
    let docker = |user: &[Value]| {
        let mut objects = vec![base("drop"), chain("DOCKER-USER"), chain("DOCKER-FORWARD")];
        objects.push(rule("FORWARD", &[json!({"counter": {"packets": 0, "bytes": 0}}), jump("DOCKER-USER")]));
        objects.push(rule("FORWARD", &[jump("DOCKER-FORWARD")]));
        objects.push(rule("DOCKER-FORWARD", &[device("iifname", "docker0"), ACCEPT()]));
        objects.extend(user.iter().cloned());
        objects.push(rule("DOCKER-USER", &[json!({"return": null})]));
        objects
    };
    assert_eq!(judged(&docker(&[]), &packet("eth0", "bt0")), "dropped");
    assert_eq!(judged(&docker(&[]), &packet("docker0", "eth0")), "passes");
    let user = [rule("DOCKER-USER", &[device("oifname", "bt0"), ACCEPT()])];
    assert_eq!(judged(&docker(&user), &packet("eth0", "bt0")), "passes");
}

#[test]
fn what_is_not_understood_is_a_doubt() {
    let strange = [base("drop"), rule("FORWARD", &[json!({"xt": {"type": "match", "name": "bpf"}}), ACCEPT()])];
    assert_eq!(judged(&strange, &packet("eth0", "bt0")), "may be dropped");
    let named = is(json!({"payload": {"protocol": "ip", "field": "saddr"}}), json!("@blocked"));
    assert_eq!(judged(&[base("accept"), rule("FORWARD", &[named, DROP()])], &packet("eth0", "bt0")), "may be dropped");
}

#[test]
fn ports_addresses_and_maps_are_compared() {
    let to_tun = packet("eth0", "bt0");
    let port = |right: Value| is(json!({"payload": {"protocol": "tcp", "field": "dport"}}), right);
    let accepts = |expression: Value| judged(&[base("drop"), rule("FORWARD", &[expression, ACCEPT()])], &to_tun);
    assert_eq!(accepts(port(json!(80))), "passes");
    assert_eq!(accepts(port(json!({"set": [22, 80]}))), "passes");
    assert_eq!(accepts(port(json!({"range": [1, 79]}))), "dropped");
    let address = |right: Value| is(json!({"payload": {"protocol": "ip", "field": "daddr"}}), right);
    assert_eq!(accepts(address(json!({"prefix": {"addr": "10.77.0.0", "len": 24}}))), "passes");
    assert_eq!(accepts(address(json!("10.77.0.2"))), "dropped");
    let map = json!({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["lo", {"accept": null}], ["eth0", {"drop": null}]]}}});
    assert_eq!(judged(&[base("accept"), rule("FORWARD", &[map])], &to_tun), "dropped");
}

#[test]
fn a_reverse_path_filter_finds_no_route_by_our_mark() {
    let filter = |flags: Value| {
        let missing = is(json!({"fib": {"result": "oif", "flags": flags}}), json!(false));
        [base("accept"), rule("FORWARD", &[missing, DROP()])]
    };
    let captured = packet("eth0", "bt0");
    assert_eq!(judged(&filter(json!(["saddr", "iif"])), &captured), "passes");
    assert_eq!(judged(&filter(json!(["saddr", "mark", "iif"])), &captured), "dropped");
    let from_tun = Packet { back: Back::Other, ..packet("bt0", "eth0") };
    assert_eq!(judged(&filter(json!(["saddr", "iif"])), &from_tun), "dropped");
}

#[test]
fn chains_that_call_each_other_for_ever_are_left() {
    let jump = json!({"jump": {"target": "a"}});
    let objects =
        [base("accept"), chain("a"), rule("FORWARD", std::slice::from_ref(&jump)), rule("a", std::slice::from_ref(&jump))];
    assert_eq!(judged(&objects, &packet("eth0", "bt0")), "may be dropped");
}
