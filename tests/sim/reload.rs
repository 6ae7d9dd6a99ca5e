//! A new policy while connections are in every state.

use super::world::{Network, World};
use super::{SECOND, ask, get};
use baton::control::message::Message;
use baton::handoff::SocketState;

/// Node a's front-end address ceases; the service has only b's.
const WITHOUT_A: &[(&str, &str)] = &[
    (r#"{ a: "10.77.0.1:80", b: "10.77.0.2:80" }"#, r#"{ b: "10.77.0.2:80" }"#),
    ("    rules:", "    servers: { a: { port: 80 }, b: { port: 80 } }\n    rules:"),
];
/// Images are not b's any more.
const IMAGES_STAY: &[(&str, &str)] = &[("send_to: b", "send_to: local")];
/// Another service, so that the numbers of services and rules change, and a front-end's aliases too.
const ANOTHER_FIRST: &[(&str, &str)] = &[(
    "services:\n",
    "services:\n  api:\n    frontends: { a: \"10.77.0.1:79\" }\n    rules: [{ name: nothing, when: { path: /none }, send_to: local }]\n",
)];

fn finish(world: &mut World, client: usize) {
    world.run_until(world.now + 120 * SECOND, |world| world.clients[client].is_done);
}

#[test]
fn a_new_rule_holds_for_the_next_connection_and_not_for_those_handed_off() {
    let mut world = World::new(1, Network::default(), 2_000_000);
    let first = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    assert!(!world.clients[first].is_done, "in the middle of its answer");
    for node in 0..2 {
        world.replace_policy(node, IMAGES_STAY);
    }
    let second = world.connect_client(50_001, vec![(0, get("/images/cat"))]);
    finish(&mut world, first);
    finish(&mut world, second);
    assert!(world.was_answered_by(first, "b", 2_000_000));
    assert!(world.was_answered_by(second, "a", 2_000_000));
    assert_eq!(world.counter(0, "handoffs_committed_total"), 1);
    assert_eq!(world.fallbacks(0), []);
}

#[test]
fn a_request_half_read_is_decided_by_the_new_policy() {
    let mut world = World::new(2, Network::default(), 5_000);
    let (first, second) = (get("/images/cat")[..10].to_vec(), get("/images/cat")[10..].to_vec());
    let client = world.connect_client(50_000, vec![(0, first), (30_000, second)]);
    world.run_until(25_000, |_| false);
    world.replace_policy(0, IMAGES_STAY);
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "released_local_total"), 1);
}

#[test]
fn a_shorter_time_for_silent_clients_holds_at_once() {
    let mut world = World::new(3, Network::default(), 5_000);
    let client = world.connect_client(50_000, vec![(20 * SECOND, get("/images/cat"))]);
    world.run_until(SECOND, |_| false);
    world.replace_policy(0, &[("    rules:", "    silence_timeout: 1500ms\n    rules:")]);
    world.run_until(1_600_000, |_| false);
    assert_eq!(world.counter(0, "released_local_total"), 1);
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
}

#[test]
fn policies_may_change_at_any_moment_of_a_handoff() {
    // From the SYN to the answer, at either node, with loss and without.
    for (seed, at) in (0..100).map(|step| (step, 250 * step)) {
        for (node, changes) in [(0, ANOTHER_FIRST), (1, ANOTHER_FIRST), (0, IMAGES_STAY), (0, WITHOUT_A), (1, WITHOUT_A)] {
            let loss_permille = if seed % 2 == 0 { 0 } else { 30 };
            let mut world = World::new(seed, Network { loss_permille, ..Network::default() }, 20_000);
            let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
            world.run_until(at, |_| false);
            world.replace_policy(node, changes);
            finish(&mut world, client);
            let requests = (world.nodes[0].server.requests.len(), world.nodes[1].server.requests.len());
            assert!(requests == (0, 1) || requests == (1, 0), "at {at}: the request reached {requests:?} applications");
            let server = if requests.1 == 1 { "b" } else { "a" };
            assert!(world.was_answered_by(client, server, 20_000), "at {at}: not the answer of {server}");
            assert_eq!(world.counter(0, "resets_total"), 0, "at {at}");
            world.run_until(world.now + 200 * SECOND, |_| false);
            for node in 0..2 {
                for gauge in ["connections_front_end", "connections_back_end", "connections_lingering", "first_flight_bytes"] {
                    assert_eq!(world.counter(node, gauge), 0, "at {at}: {gauge} of node {node}");
                }
                assert!(world.nodes[node].guards.is_empty());
            }
        }
    }
}

#[test]
fn connections_of_a_removed_front_end_that_were_handed_off_go_on_until_they_end() {
    let mut world = World::new(5, Network::default(), 2_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    for node in 0..2 {
        world.replace_policy(node, WITHOUT_A);
    }
    // Longer than the address is remembered without connections.
    world.run_until(world.now + 15 * SECOND, |world| world.clients[client].is_done);
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "b", 2_000_000));
    let next = world.connect_client(50_001, vec![(0, get("/images/cat"))]);
    finish(&mut world, next);
    assert!(world.was_answered_by(next, "a", 2_000_000), "the local server's, without us");
    assert_eq!(world.counter(0, "connections_total"), 1);
}

#[test]
fn connections_of_a_removed_front_end_go_on_even_if_its_node_is_born_anew() {
    let mut world = World::new(12, Network::default(), 2_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    world.replace_policy(0, WITHOUT_A);
    world.rebirth_with(0, WITHOUT_A);
    world.connect_control();
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "b", 2_000_000));
    assert_eq!(world.counter(0, "adopted_total"), 1);
}

#[test]
fn undecided_connections_of_a_removed_front_end_are_the_local_servers() {
    let mut world = World::new(6, Network::default(), 5_000);
    let silent = world.connect_client(50_000, vec![(SECOND, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    assert_eq!(world.counter(0, "connections_undecided"), 1);
    world.replace_policy(0, WITHOUT_A);
    assert_eq!(world.counter(0, "connections_front_end"), 0);
    assert_eq!(world.counter(0, "released_local_total"), 1);
    finish(&mut world, silent);
    assert!(world.was_answered_by(silent, "a", 5_000));
}

#[test]
fn an_offer_of_a_removed_front_end_is_withdrawn() {
    let mut world = World::new(7, Network::default(), 5_000);
    world.swallow = Some(|message| matches!(message, Message::Accept(_)));
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(SECOND, |world| world.counter(0, "connections_offered") == 1);
    world.replace_policy(0, WITHOUT_A);
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"frontend_removed\"}".to_owned(), 1)]);
    assert_eq!(world.nodes[1].server.requests.len(), 0);
}

#[test]
fn a_parked_client_of_a_removed_front_end_is_served_by_a_replay_to_self() {
    let mut world = World::new(8, Network::default(), 5_000);
    let client = world.connect_client(50_000, vec![(10 * SECOND, get("/images/cat"))]);
    world.run_until(5 * SECOND, |_| false);
    assert_eq!(world.counter(0, "connections_parked"), 1);
    world.replace_policy(0, WITHOUT_A);
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
    assert_eq!(world.socket_at_frontend(50_000), SocketState::Absent, "through an alias");
}

#[test]
fn a_connection_returned_after_its_front_end_was_removed_is_served_all_the_same() {
    let mut world = World::new(9, Network::default(), 5_000);
    world.swallow = Some(|message| matches!(message, Message::Commit { .. }));
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(SECOND, |world| world.counter(0, "handoffs_committed_total") == 1);
    world.swallow = None;
    world.replace_policy(0, WITHOUT_A);
    // The owner has never heard of the commit: it expires there, and is returned when it is repeated.
    world.run_until(world.now + 6 * SECOND, |_| false);
    world.break_control();
    world.connect_control();
    finish(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"returned\"}".to_owned(), 1)]);
}

#[test]
fn a_front_end_that_is_removed_and_added_again_hands_off_as_before() {
    let mut world = World::new(10, Network::default(), 5_000);
    world.replace_policy(0, WITHOUT_A);
    world.replace_policy(0, &[]);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    assert_eq!(world.counter(0, "handoffs_committed_total"), 1);
}

#[test]
fn a_changed_file_at_the_back_end_alone_means_a_refusal_and_the_local_server() {
    let mut world = World::new(11, Network::default(), 5_000);
    world.replace_policy(1, WITHOUT_A);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"refused_unknown_frontend\"}".to_owned(), 1)]);
}
