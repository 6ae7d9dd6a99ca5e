//! What a tracked connection takes of memory, by an allocator that counts: everything the engine has, tables and deadlines
//! included, and nothing of the kernel's.

#[allow(dead_code)]
#[path = "../benches/policy/allocations.rs"]
mod allocations;
#[allow(dead_code)]
#[path = "../benches/engine/cluster.rs"]
mod cluster;

use allocations::{Counting, live_bytes};
use cluster::Cluster;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Asked for at the front-end and at the back-end.
const FRONT_MAX: i64 = 512;
const BACK_MAX: i64 = 1_024;

/// Octets for each of so many connections: at the front-end, and at the back-end.
fn octets_per_connection(count: u32) -> (i64, i64) {
    let (empty_front, empty_back) = octets_of(Cluster::new(1, 10));
    let mut cluster = Cluster::new(1, 10);
    for index in 0..count {
        cluster.hand_off(index);
    }
    assert_eq!(cluster.live(), (count as usize, count as usize));
    let (front, back) = octets_of(cluster);
    ((front - empty_front) / i64::from(count), (back - empty_back) / i64::from(count))
}

/// What goes when an engine does.
fn octets_of(cluster: Cluster) -> (i64, i64) {
    let Cluster { front, back, .. } = cluster;
    let before = live_bytes();
    drop(front);
    let between = live_bytes();
    drop(back);
    (before - between, between - live_bytes())
}

#[test]
fn a_handed_off_connection_is_small_at_both_ends() {
    // Tables double: so many fill them well, and with one more they have just grown.
    for count in [1_000, 3_584, 3_585, 4_097, 10_000] {
        let (front, back) = octets_per_connection(count);
        println!("{count}: {front} octets at the front-end, {back} at the back-end");
        assert!(front <= FRONT_MAX && back <= BACK_MAX, "{count}: {front} and {back}");
    }
}

#[test]
fn the_first_connection_costs_what_the_tables_begin_with() {
    let (front, back) = octets_per_connection(1);
    println!("1: {front} octets at the front-end, {back} at the back-end");
    assert!(front <= 8_192 && back <= 8_192);
}
