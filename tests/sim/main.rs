//! Complete handoffs in virtual time: two real engines, simulated kernels, a simulated network.

mod by_hand;
mod host;
mod offload;
mod ports;
mod reload;
mod requests;
mod swarm;
mod timing;
mod world;

use baton::control::message::Message;
use baton::flow::Endpoint;
use baton::handoff::SocketState;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToServerWire};
use world::{Family, Lack, Network, World, client_end, has_offload};

const SECOND: u64 = 1_000_000;

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes()
}

/// A SYN that the client did not send.
fn forged_syn(port: u16) -> Vec<u8> {
    forged(port, Flags::SYN, 0xdead_beef, 0, &[])
}

/// Data that the client did not send.
fn forged_data(port: u16, seq: u32, ack: u32) -> Vec<u8> {
    forged(port, Flags::ACK, seq, ack, b"forged")
}

fn forged(port: u16, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let forged = SegmentSpec::<ToServerWire> {
        source: client_end(Family::V4, port),
        destination: Endpoint::new(Family::V4.node(0), 80),
        seq: Seq::new(seq),
        ack: Seq::new(ack),
        flags,
        window: 1_000,
        mss: flags.contains(Flags::SYN).then_some(1_460),
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload,
    };
    forged.build().into_inner()
}

/// One client, one request, run to the end of the connection.
fn ask(world: &mut World, path: &str) -> usize {
    let client = world.connect_client(50_000, vec![(0, get(path))]);
    world.run_until(world.now + 120 * SECOND, |world| world.clients[client].is_done);
    client
}

#[test]
fn a_request_for_a_peer_is_answered_by_the_peer_and_the_client_cannot_tell() {
    for family in Family::BOTH {
        let mut world = World::new(1, Network::of(family), 100_000);
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "b", 100_000));
        assert_eq!(world.counter(0, "handoffs_committed_total"), 1);
        assert_eq!(world.counter(1, "handoffs_accepted_total"), 1);
        assert_eq!(world.fallbacks(0), []);
        assert_eq!(world.nodes[0].payload_sent, 0, "no byte of the answer may come from the front-end");
        assert_eq!(world.nodes[0].server.accepted_from, [], "the front-end's application never knew");
        assert_eq!(world.nodes[1].server.accepted_from, [(family.client(), 50_000)], "the back-end's sees the true client");
        assert_eq!(world.socket_at_frontend(50_000), SocketState::Absent, "the front-end's kernel has forgotten its half");
        let syn_ack = world.to_client.iter().find(|segment| segment.flags().contains(Flags::SYN)).expect("a SYN-ACK");
        assert_eq!(
            syn_ack.mss(),
            Some(1_500 - 56 - 20 - family.header_bytes()),
            "what the client sends must fit into the overlay"
        );
    }
}

#[test]
fn super_segments_are_used_where_hosts_have_offload() {
    for family in Family::BOTH {
        let mut world = World::new(1, Network::of(family), 100_000);
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "b", 100_000));
        let (read, written) = world.super_segments;
        assert_eq!((read > 3, written > 3), (has_offload(), has_offload()), "read {read}, written {written}");
    }
}

#[test]
fn a_request_of_several_segments_that_comes_in_one_piece_is_inspected_and_handed_off() {
    // The shorter one fits into what a client may send at first; the longer one is acknowledged early, and parked.
    for (path, server, octets) in
        [("/images/cat", "b", 1_900), ("/", "a", 1_900), ("/images/cat", "b", 12_000), ("/", "a", 12_000)]
    {
        let mut request = get(path);
        request.truncate(request.len() - 2);
        request.extend(format!("X-Long: {}\r\n\r\n", "x".repeat(octets)).into_bytes());
        let mut world = World::new(9, Network::default(), 20_000);
        let client = world.connect_client(50_000, vec![(0, request.clone())]);
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert_eq!(world.super_segments.0 > 0, has_offload());
        assert!(world.was_answered_by(client, server, 20_000), "not the answer of {server}");
        assert_eq!(world.nodes[usize::from(server == "b")].server.requests, [request]);
        assert_eq!(world.fallbacks(0), []);
    }
}

#[test]
fn a_local_request_is_answered_locally_and_forgotten() {
    for family in Family::BOTH {
        let mut world = World::new(2, Network::of(family), 10_000);
        let client = ask(&mut world, "/");
        assert!(world.was_answered_by(client, "a", 10_000));
        assert_eq!(world.counter(0, "released_local_total"), 1);
        assert_eq!(world.counter(0, "handoffs_committed_total"), 0);
        assert_eq!(world.counter(0, "connections_front_end"), 0, "nothing is kept of a local connection");
        assert!(world.nodes[0].guards.is_empty());
    }
}

#[test]
fn with_loss_on_every_path_the_answer_is_still_whole_and_from_one_server() {
    for (seed, family) in (0..200).map(|seed| (seed, Family::BOTH[seed as usize % 2])) {
        let mut world = World::new(seed, Network { loss_permille: 50, ..Network::of(family) }, 40_000);
        let client = ask(&mut world, "/images/cat");
        let requests = (world.nodes[0].server.requests.len(), world.nodes[1].server.requests.len());
        assert!(requests == (0, 1) || requests == (1, 0), "seed {seed}: the request reached {requests:?} applications");
        let server = if requests.1 == 1 { "b" } else { "a" };
        assert!(world.was_answered_by(client, server, 40_000), "seed {seed}: not the answer of {server}");
        assert!(requests.1 == 1 || !world.fallbacks(0).is_empty(), "seed {seed}: local without a counted reason");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, Network { loss_permille: 80, ..Network::default() }, 30_000);
        ask(&mut world, "/images/cat");
        (world.trace, world.said)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn tables_and_guards_are_empty_after_lingering() {
    for family in Family::BOTH {
        let mut world = World::new(3, Network::of(family), 1_000);
        ask(&mut world, "/images/cat");
        assert_eq!(world.nodes[0].guards.len(), 1, "the guard stays while the connection lingers");
        world.run_until(world.now + 130 * SECOND, |_| false);
        for node in 0..2 {
            for gauge in [
                "connections_front_end",
                "connections_back_end",
                "connections_lingering",
                "first_flight_bytes",
                "commits_unsettled",
            ] {
                assert_eq!(world.counter(node, gauge), 0, "{gauge} of node {node}");
            }
            assert!(world.nodes[node].guards.is_empty());
        }
    }
}

#[test]
fn a_request_in_one_octet_segments_is_acknowledged_early_and_handed_off() {
    for family in Family::BOTH {
        let mut world = World::new(4, Network::of(family), 5_000);
        let pieces = get("/images/cat").into_iter().enumerate().map(|(index, byte)| (index as u64 * 3_000, vec![byte])).collect();
        let client = world.connect_client(50_000, pieces);
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert!(world.was_answered_by(client, "b", 5_000));
        assert!(world.counter(0, "early_acknowledgements_total") > 0);
        assert_eq!(world.counter(0, "handoffs_committed_total"), 1);
    }
}

#[test]
fn a_client_silent_for_ten_seconds_is_parked_and_then_handed_off() {
    for family in Family::BOTH {
        let mut world = World::new(5, Network::of(family), 5_000);
        let client = world.connect_client(50_000, vec![(10 * SECOND, get("/images/cat"))]);
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert!(world.was_answered_by(client, "b", 5_000));
        assert_eq!(world.counter(0, "parked_total"), 1);
    }
}

#[test]
fn a_parked_client_with_a_local_request_is_served_by_a_replay_to_self() {
    for family in Family::BOTH {
        let mut world = World::new(6, Network::of(family), 5_000);
        let client = world.connect_client(50_000, vec![(10 * SECOND, get("/"))]);
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert!(world.was_answered_by(client, "a", 5_000));
        assert_eq!(world.counter(0, "replays_to_self_total"), 1);
        assert_eq!(world.counter(0, "handoffs_committed_total"), 0);
    }
}

#[test]
fn a_back_end_whose_application_is_down_refuses_and_the_local_server_answers() {
    for family in Family::BOTH {
        let mut world = World::new(8, Network::of(family), 5_000);
        let node = &mut world.nodes[1];
        node.server.stop(&mut node.kernel);
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "a", 5_000));
        assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"refused_application_down\"}".to_owned(), 1)]);
    }
}

#[test]
fn a_guard_that_cannot_be_written_means_no_handoff() {
    let mut world = World::new(9, Network::default(), 5_000);
    world.let_guards_fail(0);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "handoffs_committed_total"), 0);
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"guard_failed\"}".to_owned(), 1)]);
    assert_eq!(world.nodes[1].server.accepted_from, []);
}

#[test]
fn a_peer_that_is_down_is_passed_over() {
    let mut world = World::new(10, Network::default(), 5_000);
    world.break_control();
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"peer_down\"}".to_owned(), 1)]);
}

#[test]
fn an_offer_without_an_answer_ends_at_its_deadline() {
    let mut world = World::new(11, Network::default(), 5_000);
    world.swallow = Some(|message| matches!(message, Message::Accept(_)));
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"deadline\"}".to_owned(), 1)]);
    assert_eq!(world.nodes[1].server.accepted_from, []);
}

#[test]
fn a_commit_lost_with_its_session_is_repeated_and_applied_once() {
    for family in Family::BOTH {
        let mut world = World::new(12, Network::of(family), 5_000);
        world.swallow = Some(|message| matches!(message, Message::Commit { .. }));
        let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
        world.run_until(200_000, |world| world.counter(0, "handoffs_committed_total") == 1);
        world.swallow = None;
        world.break_control();
        world.connect_control();
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert!(world.was_answered_by(client, "b", 5_000));
        assert_eq!(world.nodes[1].server.requests.len(), 1);
        assert_eq!(world.nodes[0].server.requests.len(), 0);
    }
}

#[test]
fn a_commit_repeated_after_the_owner_has_served_and_forgotten_the_connection_is_not_returned() {
    let mut world = World::new(33, Network::default(), 5_000);
    world.swallow = Some(|message| matches!(message, Message::Delivered { .. } | Message::Closed { .. }));
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    world.run_until(world.now + 200 * SECOND, |_| false);
    assert_eq!(world.counter(1, "connections_lingering"), 0, "forgotten at the owner");
    world.swallow = None;
    world.break_control();
    world.connect_control();
    world.run_until(world.now + 10 * SECOND, |_| false);
    assert_eq!(world.fallbacks(0), []);
    assert_eq!((world.nodes[0].server.requests.len(), world.nodes[1].server.requests.len()), (0, 1));
    assert_eq!(world.counter(0, "connections_front_end"), 0);
}

#[test]
fn a_broken_session_does_not_disturb_a_connection_handed_off_before() {
    let mut world = World::new(13, Network::default(), 2_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    assert!(!world.clients[client].is_done);
    world.break_control();
    world.run_until(world.now + 2 * SECOND, |_| false);
    world.connect_control();
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "b", 2_000_000));
}

#[test]
fn a_forged_syn_into_a_handed_off_connection_changes_nothing() {
    let mut world = World::new(14, Network::default(), 500_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    world.send_to_node(0, forged_syn(50_000));
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "b", 500_000));
}

#[test]
fn a_forged_syn_into_an_undecided_connection_acknowledges_nothing() {
    let mut world = World::new(20, Network::default(), 5_000);
    // Half a request; then somebody else's SYN for the same ends.
    let (first, second) = (get("/")[..10].to_vec(), get("/")[10..].to_vec());
    let client = world.connect_client(50_000, vec![(0, first), (40_000, second)]);
    world.run_until(30_000, |_| false);
    world.send_to_node(0, forged_syn(50_000));
    world.run_until(42_000, |_| false);
    assert_eq!(world.counter(0, "challenge_acks_total"), 1);
    let isn = world.isn_of_client(50_000);
    let acknowledged = world.to_client.iter().map(|segment| segment.ack().since(&isn)).max();
    assert_eq!(acknowledged, Some(1), "only the kernel may say that bytes arrived");
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 5_000));
}

#[test]
fn a_corrupt_syn_does_not_end_the_lingering_of_a_connection() {
    let mut world = World::new(24, Network::default(), 5_000);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    let before = world.counter(0, "connections_lingering");
    let mut syn = forged_syn(50_000);
    syn[27] ^= 0x01;
    world.send_to_node(0, syn);
    world.run_until(world.now + SECOND, |_| false);
    assert_eq!(world.counter(0, "drops_total{reason=\"checksum\"}"), 1);
    assert_eq!((before, world.counter(0, "connections_lingering")), (1, 1));
    assert_eq!(world.nodes[0].guards.len(), 1, "the guard stays while the connection lingers");
}

#[test]
fn forged_data_into_an_undecided_connection_does_not_make_it_local() {
    // Half a request; then data of somebody who knows neither sequence space: half of all numbers acknowledge something.
    for (seq, ack) in [(0x2000_0000, 0x2000_0000), (0x2000_0000, 100), (100, 0x2000_0000), (0x9000_0000, 0x7fff_0000)] {
        let mut world = World::new(23, Network::default(), 5_000);
        let (first, second) = (get("/images/cat")[..10].to_vec(), get("/images/cat")[10..].to_vec());
        let client = world.connect_client(50_000, vec![(0, first), (40_000, second)]);
        world.run_until(30_000, |_| false);
        let isn = world.isn_of_client(50_000).raw();
        let frontend_isn = world.to_client[0].seq().raw();
        world.send_to_node(0, forged_data(50_000, isn.wrapping_add(seq), frontend_isn.wrapping_add(ack)));
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        assert_eq!(world.fallbacks(0), [], "seq + {seq:x}, ack + {ack:x}");
        assert!(world.was_answered_by(client, "b", 5_000), "seq + {seq:x}, ack + {ack:x}");
    }
}

#[test]
fn a_corrupt_segment_is_never_part_of_a_first_flight() {
    let mut world = World::new(21, Network::default(), 5_000);
    let client = world.connect_client(50_000, vec![(20_000, get("/images/cat"))]);
    world.run_until(21_000, |_| false);
    let mut packet = world.intercept().expect("the request is on its way");
    let last = packet.len() - 1;
    packet[last - 20] ^= 0x01;
    world.send_to_node(0, packet);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert_eq!(world.counter(0, "drops_total{reason=\"checksum\"}"), 1);
    assert_eq!(world.nodes[1].server.requests, [get("/images/cat")]);
    assert!(world.was_answered_by(client, "b", 5_000));
}

#[test]
fn a_request_that_reached_the_local_kernel_unseen_is_not_handed_off_too() {
    let mut world = World::new(22, Network::default(), 5_000);
    let client = world.connect_client(50_000, vec![(20_000, get("/images/cat"))]);
    world.run_until(21_000, |_| false);
    let packet = world.intercept().expect("the request is on its way");
    world.slip_to_kernel(0, packet.clone());
    world.send_to_node(0, packet);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert_eq!((world.nodes[0].server.requests.len(), world.nodes[1].server.requests.len()), (1, 0));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"kernel_went_on\"}".to_owned(), 1)]);
    assert!(world.was_answered_by(client, "a", 5_000));
}

#[test]
fn an_owner_whose_ingress_gave_the_connection_up_sends_nothing_more_for_it() {
    let mut world = World::new(23, Network { client_delay: 100_000, ..Network::default() }, 20_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(SECOND, |_| false);
    world.break_control();
    // Both live, but the ingress must take the owner for dead.
    world.run_until(world.now + 31 * SECOND, |world| world.clients[client].is_done);
    assert_eq!(world.counter(0, "resets_total"), 1);
    world.connect_control();
    world.run_until(world.now + SECOND, |_| false);
    assert_eq!(world.counter(1, "disowned_total"), 1);
    let sent = world.nodes[1].payload_sent;
    world.run_until(world.now + 10 * SECOND, |_| false);
    assert_eq!(world.nodes[1].payload_sent, sent);
}

#[test]
fn a_fragment_of_a_handed_off_connection_never_reaches_the_kernel_that_gave_it_away() {
    let mut world = World::new(28, Network::default(), 1_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(100_000, |_| false);
    let mut fragment = (0..100)
        .find_map(|_| {
            world.run_until(world.now + 1_000, |_| false);
            world.intercept()
        })
        .expect("an acknowledgement is on its way");
    fragment[6] = 0x20; // More fragments.
    world.send_to_node(0, fragment);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert_eq!(world.counter(0, "drops_total{reason=\"fragment\"}"), 1);
    assert!(world.was_answered_by(client, "b", 1_000_000));
}

#[test]
fn a_request_that_two_servers_could_read_differently_stays_local_and_is_counted_by_kind() {
    let mut world = World::new(29, Network::default(), 2_000);
    let request = b"GET /images/cat HTTP/1.1\r\nHost: shop\r\nHost: other\r\n\r\n".to_vec();
    let client = world.connect_client(50_000, vec![(0, request)]);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 2_000));
    let kinds: Vec<_> = world.nodes[0].engine.counters().into_iter().filter(|(name, _)| name.starts_with("ambiguous")).collect();
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    assert_eq!(kinds[0].1, 1);
}

#[test]
fn a_front_end_born_anew_finds_its_handed_off_connections_again() {
    for family in Family::BOTH {
        let mut world = World::new(24, Network::of(family), 3_000_000);
        let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
        world.run_until(200_000, |_| false);
        world.rebirth(0);
        world.run_until(world.now + SECOND, |_| false);
        world.connect_control();
        world.run_until(world.now + 60 * SECOND, |world| world.clients[client].is_done);
        assert!(world.was_answered_by(client, "b", 3_000_000));
        assert_eq!(world.counter(0, "adopted_total"), 1);
    }
}

#[test]
fn a_connection_returned_to_a_front_end_born_anew_is_reset() {
    let mut world = World::new(36, Network::default(), 5_000);
    world.accept_queues_are_full = true;
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(SECOND, |world| world.counter(0, "handoffs_committed_total") == 1);
    world.run_until(world.now + 10_000, |_| false);
    world.rebirth(0);
    world.connect_control();
    world.run_until(world.now + 30 * SECOND, |world| world.clients[client].is_done);
    assert_eq!((world.counter(0, "adopted_total"), world.counter(1, "handoffs_returned_total")), (1, 1));
    assert!(world.clients[client].is_done, "reset, not left waiting");
    assert_eq!(world.nodes[1].server.requests.len(), 0);
}

#[test]
fn a_back_end_born_anew_has_lost_its_connections_and_their_clients_are_told() {
    let mut world = World::new(25, Network::default(), 3_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(200_000, |_| false);
    world.rebirth(1);
    world.connect_control();
    world.run_until(world.now + SECOND, |world| world.clients[client].is_done);
    assert!(world.clients[client].is_done, "reset, not left waiting");
    assert_eq!(world.counter(0, "resets_total"), 1);
}

#[test]
fn a_client_whose_connection_lost_all_its_nodes_begins_anew_at_once() {
    let mut world = World::new(26, Network::default(), 3_000_000);
    world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(200_000, |_| false);
    world.rebirth(1);
    world.rebirth(0);
    let handle = world.clients[0].handle;
    world.client.sockets.remove(handle);
    world.clients.clear();
    // The same port again, while nobody knows yet that the connection before is dead.
    let client = world.connect_client(50_000, vec![(0, get("/"))]);
    world.run_until(world.now + 100_000, |_| false);
    assert!(world.counter(0, "drops_total{reason=\"orphan\"}") > 0);
    world.connect_control();
    let began = world.now;
    world.run_until(began + 60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 3_000_000));
    assert!(world.now - began < 10 * SECOND, "as soon as the peers have said what they own");
}

#[test]
fn a_parked_client_is_served_even_when_its_kernel_answers_the_replay_only_after_a_second() {
    let mut world = World::new(30, Network::default(), 2_000);
    world.swallow_syn_acks_from_alias_until = 11 * SECOND;
    let client = world.connect_client(50_000, vec![(10 * SECOND, get("/"))]);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 2_000));
    assert_eq!(world.counter(0, "resets_total"), 0);
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
}

#[test]
fn a_back_end_whose_kernel_keeps_no_request_refuses() {
    let mut world = World::new(31, Network::default(), 2_000);
    world.requests_are_cookies = true;
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "a", 2_000));
    assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"refused_backlog_full\"}".to_owned(), 1)]);
}

const LACKS: [Lack; 4] = [
    |syn_ack| assert!(syn_ack.blank_option(4), "SACK-permitted"),
    |syn_ack| assert!(syn_ack.blank_option(3), "window scale"),
    |syn_ack| syn_ack.set_flags(syn_ack.flags().without(Flags::ECE)),
    |syn_ack| assert!(syn_ack.blank_option(8), "timestamps"),
];

#[test]
fn a_back_end_that_lacks_what_the_client_was_promised_refuses_and_the_local_server_answers() {
    for lack in LACKS {
        let mut world = World::new(32, Network::default(), 40_000);
        (world.ecn, world.lacks) = (true, [None, Some(lack)]);
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "a", 40_000));
        assert_eq!(world.fallbacks(0), [("fallbacks_total{reason=\"refused_promise\"}".to_owned(), 1)]);
        assert_eq!(world.nodes[1].server.requests.len(), 0, "the back-end's application knew nothing");
        assert_eq!(world.counter(1, "connections_back_end"), 0);
    }
}

#[test]
fn what_only_the_front_end_lacks_any_back_end_can_do_without() {
    for family in Family::BOTH {
        for (index, lack) in LACKS.into_iter().enumerate() {
            let mut world = World::new(33, Network::of(family), 40_000);
            (world.ecn, world.lacks) = (true, [Some(lack), None]);
            let client = ask(&mut world, "/images/cat");
            assert!(world.was_answered_by(client, "b", 40_000), "{index}");
            assert_eq!((world.fallbacks(0), world.counter(0, "handoffs_committed_total")), (vec![], 1));
            let with_timestamps = world.to_client.iter().filter(|segment| segment.timestamps().is_some()).count();
            assert_eq!(with_timestamps, if index == 3 { 0 } else { world.to_client.len() }, "on every segment, or on none");
        }
    }
}

#[test]
fn after_a_lost_syn_ack_an_early_acknowledgement_carries_the_timestamp_of_the_one_that_arrived() {
    let mut world = World::new(32, Network::default(), 2_000);
    world.lose_first_to_client = true;
    let (first, second) = (get("/images/cat")[..10].to_vec(), get("/images/cat")[10..].to_vec());
    let client = world.connect_client(50_000, vec![(0, first), (4 * SECOND, second)]);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "b", 2_000));
    assert_eq!(world.counter(0, "early_acknowledgements_total"), 1);
    let tsvals: Vec<_> = world.to_client.iter().filter_map(|segment| segment.timestamps()).map(|(tsval, _)| tsval).collect();
    assert!(tsvals.windows(2).all(|pair| pair[1].since(&pair[0]) >= 0), "{:?}", world.trace);
}

#[test]
fn a_first_flight_whose_rest_the_kernel_lacks_is_delivered_for_as_long_as_the_connection_lives() {
    let mut world = World::new(35, Network::default(), 2_000);
    // The client's own copies are gone: it was told early that all of this arrived.
    world.lose_rest_of_flight_until = 3 * SECOND;
    let request = format!("GET /images/cat HTTP/1.1\r\nHost: shop\r\nX-Padding: {}\r\n\r\n", "x".repeat(4_000)).into_bytes();
    let (first, second) = (request[..2_000].to_vec(), request[2_000..].to_vec());
    let client = world.connect_client(50_000, vec![(0, first), (200_000, second)]);
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.counter(0, "early_acknowledgements_total") > 0);
    assert!(world.now > 3 * SECOND, "the rest was really missing");
    assert!(world.was_answered_by(client, "b", 2_000));
    assert_eq!(world.nodes[1].server.requests, [request]);
}

#[test]
fn a_late_syn_ack_of_a_released_connection_is_not_taken_for_a_new_one() {
    let mut world = World::new(27, Network { client_delay: 700_000, ..Network::default() }, 3_000);
    let client = world.connect_client(50_000, vec![(0, get("/"))]);
    // With a round trip of 1.4 s both SYN and SYN-ACK are sent twice.
    world.run_until(60 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 3_000));
    assert_eq!(world.fallbacks(0), []);
    assert_eq!(world.counter(0, "connections_total"), 1);
    assert_eq!(world.counter(0, "connections_front_end"), 0);
}

#[test]
fn a_client_that_uses_its_port_again_at_once_gets_the_right_server_every_time() {
    for family in Family::BOTH {
        let mut world = World::new(15, Network::of(family), 3_000);
        for round in 0..20 {
            let (path, server) = if round % 2 == 0 { ("/images/cat", "b") } else { ("/", "a") };
            let client = ask(&mut world, path);
            assert!(world.was_answered_by(client, server, 3_000), "round {round}");
            let handle = world.clients[client].handle;
            world.client.sockets.remove(handle);
            world.clients.clear();
        }
        assert_eq!(world.fallbacks(0), []);
    }
}

#[test]
fn a_syn_that_overtakes_the_news_that_the_connection_before_is_over_waits_for_it() {
    // Between nodes news takes longer than from the client.
    let mut world = World::new(34, Network { client_delay: 1_000, node_delay: 40_000, ..Network::default() }, 3_000);
    for round in 0..6 {
        let began = world.now;
        let client = ask(&mut world, "/images/cat");
        assert!(world.was_answered_by(client, "b", 3_000), "round {round}");
        assert!(world.now - began < SECOND, "round {round}: the client had to send its SYN again");
        let handle = world.clients[client].handle;
        world.client.sockets.remove(handle);
        world.clients.clear();
    }
}

#[test]
fn every_segment_the_client_sees_lies_in_one_sequence_space() {
    for family in Family::BOTH {
        let mut world = World::new(16, Network { loss_permille: 20, ..Network::of(family) }, 50_000);
        ask(&mut world, "/images/cat");
        let isn = world.to_client.iter().find(|segment| segment.flags().contains(Flags::SYN)).expect("a SYN-ACK").seq();
        let farthest = world.to_client.iter().map(|segment| segment.seq_end().since(&isn)).max().expect("segments");
        let nearest = world.to_client.iter().map(|segment| segment.seq().since(&isn)).min().expect("segments");
        let answer_bytes = world.clients[0].received.len() as i32;
        assert_eq!((nearest, farthest), (0, 1 + answer_bytes + 1), "from the SYN to the FIN, and nothing else");
    }
}

#[test]
fn timestamps_never_go_back_for_the_client() {
    for family in Family::BOTH {
        let mut world = World::new(17, Network::of(family), 50_000);
        let client = world.connect_client(50_000, vec![(10 * SECOND, get("/images/cat"))]);
        world.run_until(60 * SECOND, |world| world.clients[client].is_done);
        let tsvals: Vec<_> = world.to_client.iter().filter_map(|segment| segment.timestamps()).map(|(tsval, _)| tsval).collect();
        assert!(tsvals.len() > 30);
        assert!(tsvals.windows(2).all(|pair| pair[1].since(&pair[0]) >= 0));
    }
}

#[test]
fn a_client_that_resets_with_much_in_flight_is_known_to_be_gone_at_once() {
    let mut world = World::new(36, Network { client_delay: 100, ..Network::default() }, 3_000_000);
    let client = world.connect_client(50_000, vec![(0, get("/images/cat"))]);
    world.run_until(60 * SECOND, |world| world.clients[client].received.len() > 500_000);
    let handle = world.clients[client].handle;
    // What is still on its way to it is answered with a reset each.
    world.client.sockets.get_mut::<smoltcp::socket::tcp::Socket>(handle).abort();
    world.run_until(world.now + 200_000, |_| false);
    assert_eq!(world.counter(0, "handoffs_closed_total"), 1);
    assert_eq!(world.counter(1, "connections_back_end"), 0);
}
