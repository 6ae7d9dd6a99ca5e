//! Which of several nodes: shares of 100,000 keys, what moves when nodes come and go, and what the nodes' loads change.

use baton::flow::{Endpoint, NodeId};
use baton::policy::{Chooser, ClusterFile, Decision, Examination, Load, Nodes, Policy, key_hash};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const KEYS: usize = 100_000;
const KEYS_OF_NODES: [&str; 5] = [
    "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=",
    "jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8=",
    "5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE=",
    "oFd4hsMpOY6MXoSkcBiZnLH4f5znr8ftvAs8RlhWu4o=",
    "VtkmcUKWbvF7CJhEs1UgvrtKFldSYJ6LQKmnSrYggTo=",
];

/// A policy for the first of these nodes, with one rule for everything.
fn policy(nodes: &[&str], send_to: &str) -> Policy {
    policy_at(nodes[0], nodes, &format!("rules: [{{ name: all, send_to: {send_to} }}]"))
}

fn policy_at(node: &str, nodes: &[&str], more: &str) -> Policy {
    let numbered = || nodes.iter().enumerate();
    let of_nodes: String = numbered()
        .map(|(at, name)| format!("  {name}: {{ address: 10.77.0.{}, public_key: \"{}\" }}\n", at + 1, KEYS_OF_NODES[at]))
        .collect();
    let frontends: Vec<String> = numbered().map(|(at, name)| format!("{name}: '10.77.0.{}:80'", at + 1)).collect();
    let text = format!(
        "cluster: test\noverlay: {{ port: 7400, aliases: 198.18.0.0/16 }}\nnodes:\n{of_nodes}services:\n  web:\n    \
         frontends: {{ {} }}\n    {more}\n",
        frontends.join(", ")
    );
    let file = ClusterFile::parse("test.yaml", &text).unwrap_or_else(|report| panic!("{report}"));
    file.compile(node).unwrap()
}

/// What the nodes do, as a test says.
#[derive(Clone)]
struct World {
    own: NodeId,
    loads: Vec<Load>,
}

impl Nodes for World {
    fn own(&self) -> NodeId {
        self.own
    }
    fn load(&self, node: NodeId) -> Load {
        self.loads[usize::from(node.0)]
    }
}

fn world(policy: &Policy) -> World {
    World { own: policy.node, loads: vec![Load::IDLE; policy.nodes.len()] }
}

#[allow(clippy::disallowed_methods)] // An origin; only differences to it are used.
fn origin() -> Instant {
    Instant::now()
}

fn decide(policy: &Policy, request: &str, client: &str) -> Decision {
    let client: Endpoint = client.parse::<SocketAddr>().unwrap().into();
    let head = format!("{}\r\n\r\n", request.replace('\n', "\r\n"));
    match policy.services[0].examine(head.as_bytes(), client) {
        Examination::Decided(decision) => decision,
        Examination::NeedMore => panic!("{request} is a whole request"),
    }
}

/// The whole order, by name.
fn order(policy: &Policy, world: &World, chooser: &mut Chooser, key: u64, now: Instant) -> Vec<String> {
    let choice = policy.services[0].choices().next().unwrap();
    let order = chooser.choose(choice, Some(key), world, now);
    order.as_slice().iter().map(|node| policy.nodes[usize::from(node.0)].name.clone()).collect()
}

fn first(policy: &Policy, world: &World, chooser: &mut Chooser, key: u64) -> String {
    order(policy, world, chooser, key, origin()).first().cloned().unwrap_or_default()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..KEYS).map(|number| key_hash(format!("/objects/{number}").as_bytes()))
}

/// Where each key goes.
fn placed(policy: &Policy) -> Vec<String> {
    let (world, mut chooser) = (world(policy), Chooser::new(1));
    keys().map(|key| first(policy, &world, &mut chooser, key)).collect()
}

fn counted(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// Within five standard deviations of what its share asks for: by chance once in a million.
fn assert_share(count: usize, share: f64) {
    let (expected, deviation) = (KEYS as f64 * share, (KEYS as f64 * share * (1.0 - share)).sqrt());
    assert!((count as f64 - expected).abs() < 5.0 * deviation, "{count} instead of {expected}");
}

// ---- hash -----------------------------------------------------------------------------------------------------------

#[test]
fn keys_are_spread_by_weight() {
    let placed = placed(&policy(&["a", "b", "c"], "{ nodes: { a: 1, b: 2, c: 5 }, by: hash(path) }"));
    let counts = counted(&placed);
    for (node, weight) in [("a", 1.0), ("b", 2.0), ("c", 5.0)] {
        assert_share(counts[node], weight / 8.0);
    }
}

#[test]
fn a_node_that_comes_takes_its_share_and_moves_nothing_else() {
    let before = placed(&policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path) }"));
    // It is numbered differently, its neighbours have other addresses, and the file has another order.
    let after = placed(&policy(&["a", "aa", "b", "c"], "{ nodes: [c, aa, b, a], by: hash(path) }"));
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| *after == "aa"));
    assert_share(moved.len(), 0.25);
}

#[test]
fn a_node_that_goes_is_shared_out_and_moves_nothing_else() {
    let before = placed(&policy(&["a", "b", "c", "d"], "{ nodes: { a: 1, b: 1, c: 2, d: 4 }, by: hash(path) }"));
    let after = placed(&policy(&["a", "b", "c", "d"], "{ nodes: { a: 1, b: 1, c: 2, d: 0 }, by: hash(path) }"));
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || before == "d"));
    let inherited: Vec<String> =
        before.iter().zip(&after).filter(|(before, _)| *before == "d").map(|(_, after)| after.clone()).collect();
    let counts = counted(&inherited);
    assert_share(inherited.len(), 0.5);
    // Over all others, by their weights.
    for (node, share) in [("a", 0.125), ("b", 0.125), ("c", 0.25)] {
        assert_share(counts[node], share);
    }
}

#[test]
fn more_weight_draws_keys_to_that_node_only() {
    let before = placed(&policy(&["a", "b", "c"], "{ nodes: { a: 2, b: 2, c: 2 }, by: hash(path) }"));
    let after = placed(&policy(&["a", "b", "c"], "{ nodes: { a: 2, b: 3, c: 2 }, by: hash(path) }"));
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || after == "b"));
    assert_share(counted(&after)["b"], 3.0 / 7.0);
}

#[test]
fn every_node_computes_the_same_order() {
    let nodes = ["a", "b", "c", "d", "e"];
    let rules = |order: &str| format!("rules: [{{ send_to: {{ nodes: {order}, by: hash(path) }} }}]");
    let at = |node: &str, order: &str| policy_at(node, &nodes, &rules(order));
    let at: Vec<Policy> =
        vec![at("a", "[a, b, c, d, e]"), at("b", "[e, d, c, b, a]"), at("e", "{ c: 1, a: 1, e: 1, b: 1, d: 1 }")];
    let worlds: Vec<World> = at.iter().map(world).collect();
    for key in keys().take(20_000) {
        let orders: Vec<Vec<String>> =
            at.iter().zip(&worlds).map(|(policy, world)| order(policy, world, &mut Chooser::new(7), key, origin())).collect();
        assert!(orders[0].len() == 5 && orders.iter().all(|order| *order == orders[0]), "{orders:?}");
    }
}

#[test]
fn a_key_whose_node_is_down_is_still_its_key() {
    let policy = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path) }");
    let (up, mut chooser) = (world(&policy), Chooser::new(1));
    let mut down = up.clone();
    down.loads[1].takes = false;
    for key in keys().take(1_000) {
        // Whoever asks passes it over, counts that, and goes on in the same order.
        assert_eq!(order(&policy, &up, &mut chooser, key, origin()), order(&policy, &down, &mut chooser, key, origin()));
    }
}

#[test]
fn the_key_is_the_value_wherever_it_stands_and_else_the_client() {
    let policy = policy_at(
        "a",
        &["a", "b"],
        "rules:
      - { name: cookie, when: { path: /c }, send_to: { nodes: [a, b], by: 'hash(cookie:Session)' } }
      - { name: header, when: { path: /h }, send_to: { nodes: [a, b], by: 'hash(header:X-Session)' } }
      - { name: query, when: { path: /q }, send_to: { nodes: [a, b], by: 'hash(query:s)' } }
      - { name: json, when: { path: /j }, send_to: { nodes: [a, b], by: 'hash(json:/model)' } }
      - { name: host, when: { path: /host }, send_to: { nodes: [a, b], by: hash(host) } }
      - { name: path, when: { path: '/p/*' }, send_to: { nodes: [a, b], by: hash(path) } }
    default: { nodes: [a, b], by: hash(client) }",
    );
    let key = |request: &str| decide(&policy, request, "192.0.2.7:4000").key;
    let session = Some(key_hash(b"xyz"));
    assert_eq!(key("GET /c HTTP/1.0\nCookie: other=1; Session=xyz"), session);
    assert_eq!(key("GET /c HTTP/1.0\nCookie: other=1\nCookie: Session=xyz; Session=no"), session);
    assert_eq!(key("GET /h HTTP/1.0\nx-session: xyz\nx-session: no"), session);
    assert_eq!(key("GET /q?t=no&s=x%79z&s=no HTTP/1.0"), session);
    let body = |body: &str| format!("POST /j HTTP/1.1\nHost: x\nContent-Length: {}\n\n{body}", body.len());
    let key_of_body = |text: &str| {
        let bytes = text.replace('\n', "\r\n");
        match policy.services[0].examine(bytes.as_bytes(), "192.0.2.7:4000".parse::<SocketAddr>().map(Endpoint::from).unwrap()) {
            Examination::Decided(decision) => Some(decision.key),
            Examination::NeedMore => None,
        }
    };
    assert_eq!(key_of_body(&body("{\"model\": \"xyz\"}")), Some(session));
    assert_eq!(key_of_body(&body("{\"model\": \"xyz\"}")[..60]), None, "the body is waited for");
    assert_eq!(key_of_body(&body("{}")), Some(Some(key_hash(&[192, 0, 2, 7]))));
    assert_eq!(key("GET /host HTTP/1.1\nHost: XYZ:80"), session);
    assert_eq!(key("GET /p/a%20b?c HTTP/1.0"), Some(key_hash(b"/p/a b")));
    let client = Some(key_hash(&[192, 0, 2, 7]));
    for without in ["GET /c HTTP/1.0", "GET /c HTTP/1.0\nCookie: session=xyz", "GET /h HTTP/1.0", "GET /host HTTP/1.0"] {
        assert_eq!(key(without), client, "{without}");
    }
    assert_eq!((key("GET /else HTTP/1.0"), key("GET /../x HTTP/1.0")), (client, client));
    let of_client = |client: &str| decide(&policy, "GET /else HTTP/1.0", client).key;
    assert_eq!(of_client("[2001:db8::1]:1"), of_client("[2001:db8::ffff:1]:2"), "the same network");
    assert_ne!(of_client("[2001:db8::1]:1"), of_client("[2001:db8:0:1::1]:1"));
}

/// Many servers merge slashes: what is put under `/a//b` must not be on a node that nobody asks for `/a/b`.
#[test]
fn a_path_that_is_another_key_with_its_slashes_merged_chooses_nobody() {
    let by_path = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path) }");
    let decided = |policy: &Policy, target: &str| {
        let decision = decide(policy, &format!("GET {target} HTTP/1.1\nHost: x"), "203.0.113.7:4000");
        (decision.rule.to_string(), decision.note.map(|note| note.label()))
    };
    assert_eq!(decided(&by_path, "/a/b"), ("all".to_owned(), None));
    assert_eq!(decided(&by_path, "/a//b"), ("default".to_owned(), Some("path_slashes")));
    let by_host = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(host) }");
    assert_eq!(decided(&by_host, "/a//b"), ("all".to_owned(), None), "the same key, whichever way it is read");
}

#[test]
fn bounded_load_passes_a_full_node_over_and_moves_only_its_keys() {
    let policy = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path), bound: 1.25 }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    for (load, connections) in world.loads.iter_mut().zip([100, 100, 100]) {
        load.connections = connections;
    }
    let before: Vec<String> = keys().take(10_000).map(|key| first(&policy, &world, &mut chooser, key)).collect();
    // With 300 connections and the new one, each may have 1.25 * 301 / 3 = 125.4.., so 126.
    world.loads[1].connections = 125;
    let almost: Vec<String> = keys().take(10_000).map(|key| first(&policy, &world, &mut chooser, key)).collect();
    assert_eq!(before, almost);
    world.loads[1].connections = 150;
    let after: Vec<String> = keys().take(10_000).map(|key| first(&policy, &world, &mut chooser, key)).collect();
    assert!(after.iter().all(|node| node != "b"));
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || before == "b"));
}

#[test]
fn bounded_load_holds_for_one_key_alone() {
    let policy = policy(&["a", "b", "c"], "{ nodes: { a: 1, b: 1, c: 2 }, by: hash(path), bound: 1.5 }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    let key = key_hash(b"/the/busy/one");
    for _connection in 0..1_000 {
        let node = first(&policy, &world, &mut chooser, key);
        world.loads["abc".find(&node).unwrap()].connections += 1;
    }
    let most = |weight: u32| (1_000 * 15 * weight).div_ceil(40) + 1;
    for (load, weight) in world.loads.iter().zip([1, 1, 2]) {
        assert!(load.connections <= most(weight), "{:?}", world.loads);
    }
}

// ---- round_robin, random, least_connections -------------------------------------------------------------------------

#[test]
fn turns_are_exact_and_evenly_spread() {
    let policy = policy(&["a", "b", "c"], "{ nodes: { a: 5, b: 1, c: 1 }, by: round_robin }");
    let (world, mut chooser) = (world(&policy), Chooser::new(1));
    let mut turn = || first(&policy, &world, &mut chooser, 0);
    let turns: Vec<String> = (0..14).map(|_| turn()).collect();
    assert_eq!(turns.concat(), "aabacaaaabacaa");
    let many: Vec<String> = (0..7_000).map(|_| turn()).collect();
    assert_eq!(counted(&many), BTreeMap::from([("a", 5_000), ("b", 1_000), ("c", 1_000)]));
}

#[test]
fn a_node_that_cannot_has_no_turn_and_none_is_owed_to_it() {
    let policy = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: round_robin }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    world.loads[1].takes = false;
    let turns: Vec<String> = (0..6).map(|_| first(&policy, &world, &mut chooser, 0)).collect();
    assert_eq!(turns.concat(), "acacac");
    world.loads[1].takes = true;
    let turns: Vec<String> = (0..300).map(|_| first(&policy, &world, &mut chooser, 0)).collect();
    assert_eq!(counted(&turns), BTreeMap::from([("a", 100), ("b", 100), ("c", 100)]));
    world.loads = vec![Load { takes: false, ..Load::IDLE }; 3];
    assert_eq!(order(&policy, &world, &mut chooser, 0, origin()), Vec::<String>::new());
}

#[test]
fn turns_go_on_where_they_were_after_a_reload() {
    let nodes = ["a", "b", "c"];
    let send_to = "{ nodes: [a, b, c], by: round_robin }";
    let rule = |name: &str| policy_at("a", &nodes, &format!("rules: [{{ name: {name}, send_to: {send_to} }}]"));
    let (before, after, other) = (rule("x"), rule("x"), rule("y"));
    let (world, mut chooser) = (world(&before), Chooser::new(1));
    assert_eq!(first(&before, &world, &mut chooser, 0), "a");
    chooser.keep(after.services[0].choices());
    assert_eq!(first(&after, &world, &mut chooser, 0), "b");
    chooser.keep(other.services[0].choices());
    assert_eq!(first(&other, &world, &mut chooser, 0), "a", "another rule");
    chooser.keep(before.services[0].choices());
    assert_eq!(first(&before, &world, &mut chooser, 0), "a", "forgotten with it");
}

#[test]
fn a_node_that_starts_slowly_has_a_part_of_its_turns() {
    let policy = policy(&["a", "b"], "{ nodes: [a, b], by: round_robin }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    world.loads[1].start = 64;
    let turns: Vec<String> = (0..500).map(|_| first(&policy, &world, &mut chooser, 0)).collect();
    assert_eq!(counted(&turns), BTreeMap::from([("a", 400), ("b", 100)]));
}

#[test]
fn random_follows_weights_and_the_less_busy_of_two() {
    let policy = policy(&["a", "b", "c", "d"], "{ nodes: { a: 1, b: 1, c: 1, d: 3 }, by: random }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    for _connection in 0..6_000 {
        let node = first(&policy, &world, &mut chooser, 0);
        world.loads["abcd".find(&node).unwrap()].connections += 1;
    }
    for (load, weight) in world.loads.iter().zip([1, 1, 1, 3]) {
        let share = f64::from(load.connections) / f64::from(1_000 * weight);
        assert!((0.97..1.03).contains(&share), "{:?}", world.loads);
    }
    // The busiest of all is never the less busy of two.
    world.loads[0].connections = 1_000_000;
    for _connection in 0..1_000 {
        let order = order(&policy, &world, &mut chooser, 0, origin());
        assert!(order[0] != "a" && order.len() == 4, "{order:?}");
    }
}

#[test]
fn the_same_seed_draws_the_same() {
    let policy = policy(&["a", "b", "c", "d"], "{ nodes: [a, b, c, d], by: random }");
    let world = world(&policy);
    let draws = |seed: u64| {
        let mut chooser = Chooser::new(seed);
        (0..200).map(|_| first(&policy, &world, &mut chooser, 0)).collect::<Vec<String>>()
    };
    assert_eq!(draws(5), draws(5));
    assert_ne!(draws(5), draws(6));
}

#[test]
fn the_fewest_connections_for_the_weight_and_among_equals_each_in_turn() {
    let policy = policy(&["a", "b", "c"], "{ nodes: { a: 1, b: 2, c: 1 }, by: least_connections }");
    let (mut world, mut chooser) = (world(&policy), Chooser::new(1));
    for (load, connections) in world.loads.iter_mut().zip([10, 16, 12]) {
        load.connections = connections;
    }
    assert_eq!(order(&policy, &world, &mut chooser, 0, origin()), ["b", "a", "c"]);
    for _connection in 0..362 {
        let node = first(&policy, &world, &mut chooser, 0);
        world.loads["abc".find(&node).unwrap()].connections += 1;
    }
    let connections: Vec<u32> = world.loads.iter().map(|load| load.connections).collect();
    assert_eq!(connections, [100, 200, 100]);
    let equal = self::policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: least_connections }");
    let idle = self::world(&equal);
    let turns: Vec<String> = (0..300).map(|_| first(&equal, &idle, &mut chooser, 0)).collect();
    assert_eq!(counted(&turns), BTreeMap::from([("a", 100), ("b", 100), ("c", 100)]));
}

// ---- locality -------------------------------------------------------------------------------------------------------

/// A cluster whose keys stay where they are, until `low` and `high` say otherwise.
struct Cache {
    policy: Policy,
    world: World,
    chooser: Chooser,
    now: Instant,
}

impl Cache {
    fn new() -> Self {
        let policy = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: locality(path), low: 10, high: 20, decay: 20s }");
        Self { world: world(&policy), policy, chooser: Chooser::new(1), now: origin() }
    }

    fn loads(&mut self, connections: [u32; 3]) {
        for (load, connections) in self.world.loads.iter_mut().zip(connections) {
            load.connections = connections;
        }
    }

    fn order(&mut self, key: u64) -> Vec<String> {
        order(&self.policy, &self.world, &mut self.chooser, key, self.now)
    }

    fn ask(&mut self, key: u64) -> String {
        self.order(key).remove(0)
    }
}

/// Whose first node by the hash is `a`.
fn key_of_a() -> u64 {
    let policy = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path) }");
    let (world, mut chooser) = (world(&policy), Chooser::new(1));
    keys().find(|key| first(&policy, &world, &mut chooser, *key) == "a").unwrap()
}

#[test]
fn a_new_target_goes_where_the_hash_says_so_front_ends_agree() {
    let mut cache = Cache::new();
    let hashed = policy(&["a", "b", "c"], "{ nodes: [a, b, c], by: hash(path) }");
    let idle = world(&hashed);
    for key in keys().take(500) {
        assert_eq!(cache.order(key), order(&hashed, &idle, &mut Chooser::new(1), key, origin()));
    }
}

#[test]
fn a_target_stays_with_its_node_unless_that_is_overloaded() {
    let (mut cache, key) = (Cache::new(), key_of_a());
    assert_eq!(cache.ask(key), "a");
    cache.loads([20, 0, 5]);
    assert_eq!(cache.ask(key), "a", "not above high");
    cache.loads([30, 10, 10]);
    assert_eq!(cache.ask(key), "a", "nobody below low");
    cache.loads([30, 10, 9]);
    assert_eq!(cache.ask(key), "c", "the idlest");
    assert_eq!(cache.order(key), ["c", "a", "b"], "then the other replica");
    cache.loads([5, 0, 9]);
    assert_eq!(cache.ask(key), "a", "the idler of the two that have it, not the idlest of all");
}

#[test]
fn twice_the_high_mark_is_too_much_whatever_the_others_do() {
    let (mut cache, key) = (Cache::new(), key_of_a());
    assert_eq!(cache.ask(key), "a");
    cache.loads([39, 30, 35]);
    assert_eq!(cache.ask(key), "a");
    cache.loads([40, 30, 35]);
    assert_eq!(cache.ask(key), "b");
}

#[test]
fn a_set_of_nodes_shrinks_when_it_has_not_changed_for_long() {
    let (mut cache, key) = (Cache::new(), key_of_a());
    assert_eq!(cache.ask(key), "a");
    cache.loads([30, 9, 5]);
    assert_eq!(cache.ask(key), "c");
    cache.loads([12, 0, 5]);
    cache.now += Duration::from_secs(20);
    assert_eq!(cache.ask(key), "c");
    cache.loads([4, 0, 5]);
    assert_eq!(cache.ask(key), "a", "both have it still");
    cache.now += Duration::from_millis(1);
    cache.loads([12, 0, 5]);
    assert_eq!(cache.ask(key), "c");
    cache.loads([4, 0, 5]);
    assert_eq!(cache.ask(key), "c", "the busier one has given it up");
}

#[test]
fn a_node_that_is_gone_loses_its_targets() {
    let (mut cache, key) = (Cache::new(), key_of_a());
    assert_eq!(cache.ask(key), "a");
    cache.world.loads[0].takes = false;
    let inherits = cache.ask(key);
    assert_ne!(inherits, "a");
    cache.world.loads[0].takes = true;
    assert_eq!(cache.ask(key), inherits, "the cache is there now");
}

#[test]
fn the_table_of_targets_is_bounded_and_forgets_the_longest_unused() {
    let (mut cache, key) = (Cache::new(), key_of_a());
    cache.loads([30, 9, 0]);
    assert_eq!(cache.ask(key), "c", "above high from the first");
    cache.loads([0, 0, 0]);
    for number in 0..baton::limits::LOCALITY_TARGETS_MAX - 1 {
        cache.ask(key_hash(&number.to_le_bytes()));
    }
    assert_eq!(cache.ask(key), "c", "remembered, and the newest now");
    assert_eq!(cache.chooser.targets_remembered(), baton::limits::LOCALITY_TARGETS_MAX);
    for number in 0..baton::limits::LOCALITY_TARGETS_MAX {
        cache.ask(key_hash(&(number + 1_000_000).to_le_bytes()));
    }
    assert_eq!(cache.chooser.targets_remembered(), baton::limits::LOCALITY_TARGETS_MAX);
    assert_eq!(cache.ask(key), "a", "new again");
}

// ---- otherwise, canary ----------------------------------------------------------------------------------------------

#[test]
fn otherwise_says_how_many_are_asked() {
    for (otherwise, count) in [("next", 3), ("local", 1), ("reset", 1), ("[next, reset]", 3)] {
        for by in ["hash(path)", "round_robin", "random", "least_connections", "locality(path)"] {
            let policy = policy(&["a", "b", "c"], &format!("{{ nodes: [a, b, c], by: {by}, otherwise: {otherwise} }}"));
            assert_eq!(order(&policy, &world(&policy), &mut Chooser::new(1), 5, origin()).len(), count, "{by} {otherwise}");
        }
    }
}

fn in_canary(percent: &str, name: &str, of: &str) -> Vec<bool> {
    let rule = format!("rules: [{{ name: {name}, canary: {{ percent: {percent}, of: {of} }}, send_to: b }}]");
    let policy = policy_at("a", &["a", "b"], &rule);
    let is_in = |number: usize| {
        let request = format!("GET / HTTP/1.0\nCookie: s={number}\nX-User: {number}");
        let client = format!("10.{}.{}.{}:9", number >> 16 & 255, number >> 8 & 255, number & 255);
        &*decide(&policy, &request, &client).rule == name
    };
    (0..20_000).map(is_in).collect()
}

#[test]
fn a_canary_has_its_percentage_and_raising_it_only_adds() {
    for of in ["client", "cookie:s", "header:x-user"] {
        let mut before = vec![false; 20_000];
        for percent in ["0", "0.5", "5", "25", "100"] {
            let now = in_canary(percent, "new", of);
            let count = now.iter().filter(|is_in| **is_in).count();
            let share: f64 = percent.parse::<f64>().unwrap() / 100.0;
            let deviation = (20_000.0 * share * (1.0 - share)).sqrt();
            assert!((count as f64 - 20_000.0 * share).abs() <= 5.0 * deviation, "{of} {percent}: {count}");
            assert!(before.iter().zip(&now).all(|(before, now)| *now || !*before), "somebody was moved back");
            before = now;
        }
    }
}

#[test]
fn canaries_of_other_names_are_other_clients() {
    let (one, other) = (in_canary("50", "one", "client"), in_canary("50", "other", "client"));
    let both = one.iter().zip(&other).filter(|(one, other)| **one && **other).count();
    assert!((4_500..5_500).contains(&both), "{both}");
    assert_eq!(in_canary("50", "one", "client"), one);
}

#[test]
fn what_has_no_such_key_is_in_no_canary() {
    let rules = "rules: [{ name: new, canary: { percent: 100, of: 'cookie:s' }, send_to: b }]";
    let policy = policy_at("a", &["a", "b"], rules);
    assert_eq!(&*decide(&policy, "GET / HTTP/1.0", "192.0.2.1:1").rule, "default");
    assert_eq!(&*decide(&policy, "GET / HTTP/1.0\nCookie: s=", "192.0.2.1:1").rule, "new");
}
