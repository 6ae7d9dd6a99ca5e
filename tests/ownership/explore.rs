//! All schedules within a budget, short ones first; a world that was there before is not gone through again.

use crate::act::{Act, Budget, act, acts};
use crate::fingerprint::Fingerprints;
use crate::finish::End;
use crate::world::World;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;

/// What was gone through.
#[derive(Default, Debug)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    /// The longest schedule.
    pub longest: usize,
    /// States from which the rest was run without faults, by how the connection then ended.
    pub ends: BTreeMap<End, usize>,
    /// States after which nothing can happen any more within the budget.
    pub last: usize,
}

/// A schedule that breaks a rule.
pub struct Broken {
    pub rule: String,
    pub schedule: Vec<Act>,
    /// It is only broken when the rest is run without faults.
    pub in_the_end: bool,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}", self.rule, if self.in_the_end { " (when no more faults follow)" } else { "" })?;
        self.schedule.iter().enumerate().try_for_each(|(index, act)| writeln!(f, "  {:>3}. {act:?}", index + 1))
    }
}

/// From every state the rest is run to the answer; from one in so many, until all is forgotten.
const TO_THE_LAST_ONE_IN: u128 = 64;

/// Schedules are gone through by their length until there are so many states, since what is wrong is mostly found by a short one;
/// then depth first, as there is no room for all that is yet to be gone on from.
const BREADTH_FIRST_STATES: usize = 8_000;

struct Frame {
    world: World,
    budget: Budget,
    schedule: Vec<Act>,
}

/// Goes through everything.
pub fn explore(start: &World, of_all: Budget) -> Result<Explored, Broken> {
    let mut explored = Explored { states: 1, ..Explored::default() };
    let mut fingerprints = Fingerprints::default();
    let mut known = HashSet::from([fingerprints.of(start, &of_all)]);
    let mut frames = VecDeque::from([Frame { world: start.clone(), budget: of_all, schedule: Vec::new() }]);
    let next = |frames: &mut VecDeque<Frame>, states| {
        if states < BREADTH_FIRST_STATES { frames.pop_front() } else { frames.pop_back() }
    };
    while let Some(frame) = next(&mut frames, explored.states) {
        let acts = acts(&frame.world, &frame.budget);
        explored.last += usize::from(acts.is_empty());
        for next in acts {
            let (mut world, mut budget) = (frame.world.clone(), frame.budget);
            act(&mut world, &mut budget, next);
            explored.steps += 1;
            let schedule: Vec<Act> = frame.schedule.iter().copied().chain([next]).collect();
            if let Some(rule) = world.seen.broken.clone() {
                return Err(shortest(start, of_all, Broken { rule, schedule, in_the_end: false }));
            }
            let fingerprint = fingerprints.of(&world, &budget);
            if !known.insert(fingerprint) {
                continue;
            }
            explored.states += 1;
            explored.longest = explored.longest.max(schedule.len());
            match world.clone().finish(fingerprint % TO_THE_LAST_ONE_IN == 0) {
                Ok(end) => *explored.ends.entry(end).or_default() += 1,
                Err(rule) => return Err(shortest(start, of_all, Broken { rule, schedule, in_the_end: true })),
            }
            frames.push_back(Frame { world, budget, schedule });
        }
    }
    Ok(explored)
}

/// Leaves out whatever the schedule does not need to break a rule.
fn shortest(start: &World, budget: Budget, mut broken: Broken) -> Broken {
    let mut index = 0;
    while index < broken.schedule.len() {
        let mut shorter = broken.schedule.clone();
        shorter.remove(index);
        match replay(start, budget, &shorter) {
            Some((rule, in_the_end, length)) => {
                shorter.truncate(length);
                broken = Broken { rule, schedule: shorter, in_the_end };
                index = 0;
            }
            None => index += 1,
        }
    }
    broken
}

/// The rule that a schedule breaks, whether only in the end, and after how many steps.
pub fn replay(start: &World, mut budget: Budget, schedule: &[Act]) -> Option<(String, bool, usize)> {
    let mut world = start.clone();
    for (index, next) in schedule.iter().enumerate() {
        if !acts(&world, &budget).contains(next) {
            return None;
        }
        act(&mut world, &mut budget, *next);
        if let Some(rule) = world.seen.broken {
            return Some((rule, false, index + 1));
        }
    }
    let rule = world.finish(true).err()?;
    Some((rule, true, schedule.len()))
}
