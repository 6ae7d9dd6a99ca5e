//! One owner, whatever happens: all interleavings of small worlds, with the real engine. `docs/ownership.md` says what is
//! explored and what is left out.

mod act;
mod client;
mod explore;
mod fingerprint;
mod finish;
mod kernel;
mod rules;
mod world;

use act::{Act, Budget, Fault, act, acts};
use client::Sends;
use explore::{Explored, explore};
use world::{Policies, World};

const WHOLE: &[&str] = &["GET /images/cat HTTP/1.1\r\nHost: shop\r\n\r\n"];
const PARTS: &[&str] = &["GET /images/c", "at HTTP/1.1\r\nHost: shop\r\n\r\n"];

/// How much is explored: 0 in a debug build, 1 in a release build, or `BATON_DEPTH`. From 2 on there is one more fault and
/// one more deadline in each world, which takes hours.
fn depth() -> u8 {
    let by_default = if cfg!(debug_assertions) { 0 } else { 1 };
    std::env::var("BATON_DEPTH").map_or(by_default, |depth| depth.parse().expect("BATON_DEPTH is a small number"))
}

/// Explores everything within so many faults of these kinds, deadlines that pass, and packets that are repeated.
fn all(name: &str, parts: &[&str], prepare: impl Fn(&mut World), (faults, kinds, time, repeats): (u8, &[Fault], u8, u8)) {
    let mut world = World::new(&Policies::new(), parts);
    prepare(&mut world);
    let more = depth().saturating_sub(1);
    let (faults, time) = (if faults > 0 { faults + more } else { 0 }, if time > 0 { time + more } else { 0 });
    let budget = Budget::new(faults, kinds, time, repeats);
    let explored: Explored = explore(&world, budget).unwrap_or_else(|broken| panic!("{name}: {broken}"));
    println!("{name}: {faults} faults of {kinds:?}, {time} deadlines, {repeats} repeats: {explored:?}");
}

#[test]
fn any_one_fault() {
    all("any one fault", WHOLE, |_| {}, (1, &Fault::ALL, 0, 0));
}

#[test]
fn a_deadline_passes() {
    all("a deadline", WHOLE, |_| {}, (0, &[], 1, 0));
}

#[test]
fn deadlines_pass_and_packets_are_repeated() {
    if depth() == 0 {
        return;
    }
    all("time", WHOLE, |_| {}, (0, &[], 1, 1));
}

#[test]
fn a_request_in_two_parts() {
    if depth() == 0 {
        return;
    }
    all("two parts", PARTS, |_| {}, (1, &[Fault::Break], 1, 0));
}

#[test]
fn the_session_breaks_and_resumes() {
    if depth() == 0 {
        return;
    }
    all("broken sessions", WHOLE, |_| {}, (2, &[Fault::Break, Fault::HearTwice], 0, 0));
}

#[test]
fn the_session_breaks_while_time_passes() {
    if depth() == 0 {
        return;
    }
    all("broken sessions and time", WHOLE, |_| {}, (1, &[Fault::Break], 1, 0));
}

#[test]
fn a_process_dies_anywhere() {
    if depth() == 0 {
        return;
    }
    all("a crash", WHOLE, |_| {}, (1, &[Fault::Crash, Fault::CrashDuring], 0, 1));
}

#[test]
fn a_back_end_that_refuses_means_the_local_server() {
    all("refusal", WHOLE, |world| world.nodes[1].kernel.listens = false, (1, &Fault::ALL, 0, 0));
}

#[test]
fn a_back_end_that_cannot_take_the_connection_returns_it() {
    if depth() == 0 {
        return;
    }
    let is_full = |world: &mut World| world.nodes[1].kernel.is_full = true;
    all("full accept queue", WHOLE, is_full, (1, &[Fault::Crash, Fault::Break], 1, 0));
}

/// Of the world before, what lies behind the commit, and a crash alone: found by itself it is found soon.
#[test]
fn a_front_end_that_dies_behind_its_commit_may_be_given_the_connection_back() {
    if depth() == 0 {
        return;
    }
    let is_committed = |world: &mut World| {
        world.nodes[1].kernel.is_full = true;
        come_to(
            world,
            &[Act::Client(Sends::Syn), Act::Read(0), Act::Client(Sends::Part(0)), Act::Hear(1), Act::Read(1), Act::Hear(0)],
        );
        assert!(world.labels(0).contains(&("front-end", "handed-off")), "{:?}", world.labels(0));
    };
    all("returned to a front-end born anew", WHOLE, is_committed, (1, &[Fault::Crash], 1, 0));
}

/// Goes through these, which cost nothing.
fn come_to(world: &mut World, schedule: &[Act]) {
    let mut budget = Budget::default();
    for next in schedule {
        assert!(acts(world, &budget).contains(next), "{next:?} cannot happen");
        act(world, &mut budget, *next);
    }
}

/// What is lost, or dies, while a deadline passes.
#[test]
fn a_process_dies_while_time_passes() {
    if depth() == 0 {
        return;
    }
    all("a crash and time", WHOLE, |_| {}, (1, &[Fault::Crash, Fault::CrashDuring, Fault::Lose], 1, 0));
}

#[test]
fn a_stalled_front_end_leaves_the_connection_to_its_kernel() {
    if depth() == 0 {
        return;
    }
    all("stall", WHOLE, |_| {}, (2, &[Fault::Hang, Fault::Slip, Fault::Lose], 0, 1));
}

#[test]
fn nodes_drain_and_policies_change() {
    if depth() == 0 {
        return;
    }
    all("drain and reload", WHOLE, |_| {}, (2, &[Fault::Drain, Fault::Reload], 0, 0));
}

#[test]
fn a_front_end_that_is_removed_restarts() {
    if depth() == 0 {
        return;
    }
    all("removed and restarted", WHOLE, |_| {}, (2, &[Fault::Crash, Fault::Reload], 0, 0));
}

#[test]
fn kernels_that_give_cookies_or_lose_requests() {
    if depth() == 0 {
        return;
    }
    let give_cookies = |world: &mut World| world.nodes[0].kernel.gives_cookies = true;
    all("cookies", WHOLE, give_cookies, (1, &[Fault::Prune, Fault::Crash, Fault::Break], 0, 1));
}

/// `TRY=faults,deadlines,repeats[,kinds and conditions...]`: one world of one's own choice.
#[test]
fn any_other_world() {
    let Ok(text) = std::env::var("TRY") else { return };
    let mut words = text.split(',');
    let mut number = || words.next().unwrap().parse::<u8>().unwrap();
    let (f, t, r) = (number(), number(), number());
    let rest: Vec<&str> = words.collect();
    let kinds: Vec<Fault> = if rest.is_empty() {
        Fault::ALL.to_vec()
    } else {
        Fault::ALL.into_iter().filter(|kind| rest.contains(&format!("{kind:?}").as_str())).collect()
    };
    let parts = if rest.contains(&"parts") { PARTS } else { WHOLE };
    let prepare = |world: &mut World| {
        for (index, node) in world.nodes.iter_mut().enumerate() {
            node.kernel.gives_cookies = rest.contains(&["cookiesa", "cookiesb"][index]);
            node.kernel.is_full = rest.contains(&["fulla", "fullb"][index]);
        }
        if rest.contains(&"down") {
            world.nodes[1].kernel.listens = false;
        }
    };
    all(&text, parts, prepare, (f, &kinds, t, r));
}
