//! Things done wrong on purpose, so that each rule is seen to catch something.

use super::plan::{Plan, Without};
use super::run::{difference, is_comparable, is_second_time};
use super::world::World;
use baton::rewrite::{Segment, ToClientWire};

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Some answers leave another node than the one whose kernel made them.
    OtherNodeSends,
    /// An octet of an answer is another, and the checksum right.
    OtherOctet,
    /// What a kernel sends from an alias leaves as it is.
    AliasLeaves,
    /// Guards are written, and the host takes no notice of them.
    NoGuards,
    /// A timestamp for the client goes back.
    TimestampGoesBack,
    /// No answer reaches the client.
    AnswersLost,
    /// The client's packets are dropped without a count.
    DroppedUncounted,
    /// A RST that is not forged is taken for one.
    ResetOfTheClient,
    /// A process that starts destroys all connections of its kernel.
    StartDestroysAll,
    /// An application is given a request that another has had.
    RequestAgain,
    /// Answers lose their ECN bits.
    MarksLost,
    /// Routers drop what is too big, and say nothing.
    ErrorsLost,
    /// What is for another node's connection is given to the kernel where it arrived.
    AnyKernelAnswers,
    /// The network of the second run is not that of the first.
    OtherNetwork,
    /// Clients are told of a little less room than there is: no promise is broken.
    LessRoom,
}

impl Sabotage {
    /// Changes a packet on its way to a client; its checksum is right afterwards.
    pub fn change(self, packet: &mut Vec<u8>) {
        let Ok(segment) = Segment::<_, ToClientWire>::parse(packet.clone()) else { return };
        let payload = segment.payload().len();
        match self {
            Self::OtherOctet if payload > 30 => {
                // Two octets of one word apart change places with what balances them.
                let at = packet.len() - payload + ((payload / 2) & !1);
                let (first, second) = (packet[at], packet[at + 2]);
                if first < 255 && second > 0 {
                    (packet[at], packet[at + 2]) = (first + 1, second - 1);
                }
            }
            Self::MarksLost if payload > 0 => super::ecn::mark(packet, 0),
            Self::TimestampGoesBack if payload > 0 => {
                let Ok(mut segment) = Segment::<_, ToClientWire>::parse(packet.as_mut_slice()) else { return };
                if let Some((tsval, tsecr)) = segment.timestamps() {
                    segment.set_timestamps(tsval.plus(u32::MAX - 5_000), tsecr);
                }
            }
            Self::LessRoom if payload > 0 => {
                let Ok(mut segment) = Segment::<_, ToClientWire>::parse(packet.as_mut_slice()) else { return };
                let room = segment.window();
                if room > 100 {
                    segment.set_window(room - 1);
                }
            }
            _ => {}
        }
    }
}

/// Whether this rule tells, in one of some seeds.
fn is_caught(sabotage: Sabotage, rule: &str, without: &Without) -> bool {
    (0..400).any(|seed| {
        let mut world = World::new(Plan::of(seed, without), false, false);
        world.sabotage = Some(sabotage);
        world.run().broken.is_some_and(|said| said.starts_with(rule))
    })
}

#[test]
fn each_rule_catches_what_breaks_it() {
    if is_second_time() {
        return;
    }
    for (sabotage, rule) in [
        (Sabotage::OtherNodeSends, "rule 1 "),
        (Sabotage::OtherOctet, "rule 2 "),
        (Sabotage::AliasLeaves, "rule 3 "),
        (Sabotage::NoGuards, "rule 3 "),
        (Sabotage::TimestampGoesBack, "rule 4 "),
        (Sabotage::AnswersLost, "rule 5 "),
        (Sabotage::DroppedUncounted, "rule 6 "),
        (Sabotage::ResetOfTheClient, "rule 7 "),
        (Sabotage::StartDestroysAll, "rule 8 "),
        (Sabotage::RequestAgain, "rule 10 "),
        (Sabotage::MarksLost, "rule 11 "),
        (Sabotage::ErrorsLost, "rule 5 "),
    ] {
        assert!(is_caught(sabotage, rule, &Without::default()), "{rule}does not catch {sabotage:?}");
    }
}

#[test]
fn each_rule_catches_what_breaks_it_where_the_syn_decides() {
    if is_second_time() {
        return;
    }
    let with_on_syn = Without { with_on_syn: true, ..Without::default() };
    for (sabotage, rule) in [
        (Sabotage::AnyKernelAnswers, "rule 5 "),
        (Sabotage::OtherNodeSends, "rule 1 "),
        (Sabotage::OtherOctet, "rule 2 "),
        (Sabotage::AliasLeaves, "rule 3 "),
        (Sabotage::TimestampGoesBack, "rule 4 "),
        (Sabotage::AnswersLost, "rule 5 "),
        (Sabotage::DroppedUncounted, "rule 6 "),
        (Sabotage::StartDestroysAll, "rule 8 "),
        (Sabotage::RequestAgain, "rule 10 "),
    ] {
        assert!(is_caught(sabotage, rule, &with_on_syn), "{rule}does not catch {sabotage:?}");
    }
}

/// Rule 9.
#[test]
fn the_same_seed_gives_the_same_trace_to_the_octet() {
    if is_second_time() {
        return;
    }
    let trace = |seed, sabotage| {
        let mut world = World::new(Plan::of(seed, &Without::default()), true, false);
        world.sabotage = sabotage;
        if sabotage == Some(Sabotage::OtherNetwork) {
            world.random = drill::random::Random::new(!seed);
        }
        let outcome = world.run();
        (outcome.trace.hash(), outcome.trace.lines, outcome.trace.to_clients)
    };
    for seed in 0..if cfg!(debug_assertions) { 10 } else { 40 } {
        assert!(trace(seed, None) == trace(seed, None), "seed {seed} has two traces");
    }
    let differs = |seed| trace(seed, None) != trace(seed, Some(Sabotage::OtherNetwork));
    assert!((0..40).any(differs), "another network leaves another trace");
}

/// With and without shifts: what is different is told, also where it breaks no rule.
#[test]
fn what_differs_without_shifts_is_told() {
    if is_second_time() {
        return;
    }
    let run = |seed, sabotage, is_relabelled| {
        let mut world = World::new(Plan::of(seed, &Without::default()), false, is_relabelled);
        world.sabotage = sabotage;
        world.run()
    };
    let is_told = (0..40).filter(|seed| is_comparable(&Plan::of(*seed, &Without::default()))).any(|seed| {
        let (with, without) = (run(seed, Some(Sabotage::LessRoom), false), run(seed, None, true));
        assert_eq!(without.broken, None, "seed {seed}");
        with.broken.is_none() && without.zero_shifts > 0 && difference(&with, &without).is_some()
    });
    assert!(is_told, "a window that is smaller with shifts looks the same without");
}
