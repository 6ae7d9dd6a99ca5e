//! Applications that take handed-off connections on other ports than clients connect to.

use super::world::{Network, World, text_of_service};
use super::{SECOND, ask, get};
use baton::rewrite::Flags;
use smoltcp::socket::tcp::Socket;

const FRONTENDS: &str = "a: [\"10.77.0.1:80\", \"10.77.0.1:8000\"]";
const SERVERS: &str = "a: { port: 8001 }, b: { port: 8080 }";

/// a is the front-end, with two ports; b only serves what a hands off.
fn world(seed: u64, network: Network, body_bytes: usize) -> World {
    World::with_service(seed, network, body_bytes, FRONTENDS, SERVERS)
}

fn run_to_the_end(world: &mut World, client: usize) {
    world.run_until(world.now + 120 * SECOND, |world| world.clients[client].is_done);
}

#[test]
fn a_back_end_answers_on_its_own_port_and_the_client_knows_only_the_front_ends() {
    let mut world = world(101, Network::default(), 100_000);
    for (client_port, frontend_port) in [(50_000, 80), (50_001, 8000)] {
        let client = world.connect_client_to(frontend_port, client_port, vec![(0, get("/images/cat"))]);
        run_to_the_end(&mut world, client);
        assert!(world.was_answered_by(client, "b", 100_000));
        let segments = world.to_client.iter().filter(|segment| segment.destination().port == client_port);
        let sources: Vec<u16> = segments.map(|segment| segment.source().port).collect();
        assert!(sources.len() > 60 && sources.iter().all(|port| *port == frontend_port));
    }
    assert_eq!(world.nodes[1].server.accepted_on, [8080, 8080]);
    assert_eq!(world.nodes[0].server.accepted_on, [0; 0]);
    assert_eq!(world.fallbacks(0), []);
}

#[test]
fn one_client_port_reaches_two_front_end_ports_at_once() {
    let mut world = world(102, Network::default(), 400_000);
    let both = [80, 8000].map(|frontend| world.connect_client_to(frontend, 50_000, vec![(0, get("/images/cat"))]));
    world.run_until(120 * SECOND, |world| both.iter().all(|client| world.clients[*client].is_done));
    for client in both {
        assert!(world.was_answered_by(client, "b", 400_000));
    }
    assert_eq!(world.nodes[1].server.accepted_on, [8080, 8080]);
    assert_eq!(world.counter(0, "handoffs_committed_total"), 2);
}

#[test]
fn with_loss_on_every_path_ports_are_translated_alike() {
    for seed in 0..50 {
        let mut world = world(seed, Network { loss_permille: 50, ..Network::default() }, 40_000);
        let client = ask(&mut world, "/images/cat");
        let server = if world.nodes[1].server.requests.len() == 1 { "b" } else { "a" };
        assert!(world.was_answered_by(client, server, 40_000), "seed {seed}: not the answer of {server}");
        assert!(server == "b" || !world.fallbacks(0).is_empty(), "seed {seed}: local without a counted reason");
    }
}

#[test]
fn a_local_answer_comes_from_the_front_ends_own_port() {
    let mut world = world(103, Network::default(), 5_000);
    for (client_port, frontend_port) in [(50_000, 80), (50_001, 8000)] {
        let client = world.connect_client_to(frontend_port, client_port, vec![(0, get("/"))]);
        run_to_the_end(&mut world, client);
        assert!(world.was_answered_by(client, "a", 5_000));
    }
    assert_eq!(world.nodes[0].server.accepted_on, [80, 8000]);
    assert_eq!(world.counter(0, "released_local_total"), 2);
}

#[test]
fn a_parked_client_is_served_on_the_nodes_own_server_port() {
    let mut world = world(104, Network::default(), 5_000);
    let client = world.connect_client_to(8000, 50_000, vec![(10 * SECOND, get("/"))]);
    run_to_the_end(&mut world, client);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.nodes[0].server.accepted_on, [8001]);
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
    assert_eq!(world.counter(0, "resets_total"), 0);
}

#[test]
fn a_clients_reset_reaches_the_application_on_its_port() {
    let mut world = world(105, Network::default(), 3_000_000);
    let client = world.connect_client_to(8000, 50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    assert!(!world.clients[client].received.is_empty() && !world.clients[client].is_done);
    let handle = world.clients[client].handle;
    world.client.sockets.get_mut::<Socket>(handle).abort();
    world.run_until(SECOND, |_| false);
    let sent = world.nodes[1].payload_sent;
    world.run_until(10 * SECOND, |_| false);
    assert_eq!(world.nodes[1].payload_sent, sent, "the application's kernel goes on sending");
    assert_eq!(world.counter(0, "handoffs_closed_total"), 1);
    assert_eq!(world.counter(1, "connections_back_end"), 0);
}

#[test]
fn a_client_that_closes_first_still_gets_the_whole_answer() {
    let mut world = world(106, Network::default(), 300_000);
    let client = world.connect_client_to(8000, 50_000, vec![(0, get("/images/cat"))]);
    world.run_until(30_000, |_| false);
    let handle = world.clients[client].handle;
    world.client.sockets.get_mut::<Socket>(handle).close();
    run_to_the_end(&mut world, client);
    assert!(world.was_answered_by(client, "b", 300_000));
    // The client's last acknowledgement is on its way.
    world.run_until(world.now + SECOND, |_| false);
    assert_eq!(world.counter(0, "handoffs_closed_total"), 1);
    assert!(world.to_client.iter().all(|segment| !segment.flags().contains(Flags::RST)));
}

#[test]
fn a_front_end_born_anew_finds_connections_on_other_ports_again() {
    let mut world = world(107, Network::default(), 3_000_000);
    let client = world.connect_client_to(8000, 50_000, vec![(0, get("/images/cat"))]);
    world.run_until(200_000, |_| false);
    world.rebirth(0);
    world.run_until(world.now + SECOND, |_| false);
    world.connect_control();
    run_to_the_end(&mut world, client);
    assert!(world.was_answered_by(client, "b", 3_000_000));
    assert_eq!(world.counter(0, "adopted_total"), 1);
}

#[test]
fn an_application_that_listens_on_another_port_than_the_file_says_is_down() {
    let mut world = world(108, Network::default(), 5_000);
    let node = &mut world.nodes[1];
    node.server.stop(&mut node.kernel);
    node.server = super::host::Server::new(&mut node.kernel, "b", &[80], 8, 5_000);
    let client = ask(&mut world, "/images/cat");
    assert_eq!(world.nodes[0].server.accepted_on, [80]);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"refused_application_down\"}".to_owned(), 1)]);
}

#[test]
fn nodes_with_different_files_refuse_each_other_with_a_reason_and_the_local_server_answers() {
    let a = text_of_service(FRONTENDS, SERVERS);
    // At b: other servers, another address, another name of the service.
    let without_b = text_of_service(FRONTENDS, "a: { port: 8001 }").replace("send_to: b", "send_to: a");
    let elsewhere = text_of_service("a: \"10.77.0.1:8000\"", SERVERS);
    let renamed = a.replace("  web:", "  site:");
    for (b, reason) in
        [(without_b, "refused_not_a_server"), (elsewhere, "refused_unknown_frontend"), (renamed, "refused_unknown_service")]
    {
        let mut world = World::with_files(109, Network::default(), 5_000, [&a, &b]);
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "a", 5_000), "{reason}");
        assert_eq!(world.fallbacks(0), [(format!("fallbacks_total{{reason=\"{reason}\"}}"), 1)]);
        assert_eq!(world.counter(1, "offers_refused_total"), 1);
    }
}

#[test]
fn each_node_goes_by_its_own_file_for_its_own_port() {
    let b = text_of_service(FRONTENDS, "a: { port: 8001 }, b: { port: 9090 }");
    let mut world = World::with_files(110, Network::default(), 5_000, [&text_of_service(FRONTENDS, SERVERS), &b]);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    assert_eq!(world.nodes[1].server.accepted_on, [9090]);
}

#[test]
fn a_connection_that_its_front_end_gave_up_is_destroyed_on_its_own_port() {
    let mut world = world(111, Network { client_delay: 100_000, ..Network::default() }, 20_000_000);
    let client = world.connect_client_to(8000, 50_000, vec![(0, get("/images/cat"))]);
    world.run_until(SECOND, |_| false);
    world.break_control();
    world.run_until(world.now + 31 * SECOND, |world| world.clients[client].is_done);
    assert_eq!(world.counter(0, "resets_total"), 1);
    world.connect_control();
    world.run_until(world.now + SECOND, |_| false);
    assert_eq!(world.counter(1, "disowned_total"), 1);
    let sent = world.nodes[1].payload_sent;
    world.run_until(world.now + 10 * SECOND, |_| false);
    assert_eq!(world.nodes[1].payload_sent, sent);
    assert_eq!(world.nodes[1].server.open_connections(&world.nodes[1].kernel), 0);
}
