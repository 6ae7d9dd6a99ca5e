//! What handshakes teach kernels of their clients' round trips.

use super::world::{Network, World};
use super::{SECOND, ask, get};

const MILLISECOND: u64 = 1_000;

/// A client 300 ms away.
fn far() -> Network {
    Network { client_delay: 150 * MILLISECOND, ..Network::default() }
}

/// Its request comes this long after its acknowledgement.
fn ask_after(world: &mut World, path: &str, after: u64) -> usize {
    // Connected after a round trip; the acknowledgement leaves at once.
    let round_trip = 300 * MILLISECOND;
    let client = world.connect_client(50_000, vec![(round_trip + after, get(path))]);
    world.run_until(world.now + 120 * SECOND, |world| world.clients[client].is_done);
    client
}

#[test]
fn a_replayed_handshake_gives_no_sample_of_a_client_far_away() {
    let mut world = World::new(1, far(), 5_000);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    assert_eq!(world.samples, [None]);
}

#[test]
fn a_replayed_handshake_says_a_millisecond_of_a_client_nearby() {
    let mut world = World::new(2, Network { client_delay: 200, ..Network::default() }, 5_000);
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    assert_eq!(world.samples, [Some(1)]);
}

#[test]
fn a_parked_client_far_away_gives_no_sample_when_it_is_served_locally() {
    let mut world = World::new(3, far(), 5_000);
    let client = ask_after(&mut world, "/", 5 * SECOND);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
    assert_eq!(world.samples, [None]);
}

#[test]
fn what_is_released_at_once_stays_as_it_is() {
    let mut world = World::new(4, far(), 5_000);
    let client = ask(&mut world, "/");
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.samples, [Some(300)]);
    assert_eq!(world.counter(0, "drops_total{reason=\"syn_ack_absorbed\"}"), 0, "no SYN was repeated");
}

#[test]
fn after_a_hold_the_local_kernel_learns_the_round_trip_without_the_hold() {
    for after in [30, 100, 700] {
        let mut world = World::new(5, far(), 5_000);
        let client = ask_after(&mut world, "/", after * MILLISECOND);
        assert!(world.was_answered_by(client, "a", 5_000));
        assert_eq!(world.samples, [Some(300)], "held for {after} ms");
        assert_eq!(world.counter(0, "drops_total{reason=\"syn_ack_absorbed\"}"), 1, "the fresh SYN-ACK is for us alone");
        assert_eq!(world.counter(0, "released_local_total"), 1);
    }
}

#[test]
fn a_hold_in_which_the_kernel_has_repeated_its_syn_ack_gives_no_sample() {
    let mut world = World::new(6, far(), 5_000);
    let client = ask_after(&mut world, "/", 1_800 * MILLISECOND);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.samples, [None]);
}

#[test]
fn a_kernel_that_does_not_answer_a_repeated_syn_gets_what_was_withheld_as_it_is() {
    let mut world = World::new(7, far(), 5_000);
    world.ignore_repeated_syns = true;
    let request = get("/");
    let (first, second) = (request.clone(), get("/second"));
    // The second request arrives while the first one still waits for the kernel's answer.
    let client = world.connect_client(50_000, vec![(800 * MILLISECOND, first), (805 * MILLISECOND, second)]);
    world.run_until(world.now + 120 * SECOND, |world| world.clients[client].is_done);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.samples, [Some(810)], "500 ms of hold, and the patience");
    assert_eq!(world.counter(0, "released_local_total"), 1);
    assert_eq!(world.counter(0, "first_flight_bytes"), 0);
}

#[test]
fn the_echo_of_a_syn_cookie_is_never_changed() {
    // A cookie keeps what was negotiated in its timestamp; only its own echo gives that back (`Requests::complete` asserts).
    let mut world = World::new(8, far(), 5_000);
    world.requests_are_cookies = true;
    let client = ask_after(&mut world, "/", 700 * MILLISECOND);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.samples, [Some(1_000)], "hold and all: nothing better can be had");

    let mut world = World::new(9, far(), 5_000);
    world.requests_are_cookies = true;
    let client = ask_after(&mut world, "/", 5 * SECOND);
    assert!(world.was_answered_by(client, "a", 5_000));
    assert_eq!(world.counter(0, "replays_to_self_total"), 1);
    assert_eq!(world.samples.len(), 1);
}

#[test]
fn a_client_whose_syn_ack_was_repeated_counts_as_far_unless_its_echo_says_otherwise() {
    let mut world = World::new(10, Network { client_delay: 200, ..Network::default() }, 5_000);
    world.lose_first_to_client = true;
    let client = ask(&mut world, "/images/cat");
    assert!(world.was_answered_by(client, "b", 5_000));
    assert_eq!(world.samples, [Some(1)], "it echoes the second SYN-ACK, and that it answered at once");
}
