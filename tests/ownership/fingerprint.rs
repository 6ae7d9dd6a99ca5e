//! Whether two worlds are the same: everything an engine knows (its `Debug` text, so that nothing can be forgotten here)
//! with moments as distances from the node's own clock, without counters and the text of the policy; and the rest of the
//! world as it is.

use crate::act::Budget;
use crate::world::{Node, World};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// The text of an engine, brought into one form.
fn write_engine(node: &Node, origin: Instant, scratch: &mut String, text: &mut Vec<u8>) {
    scratch.clear();
    let Some(engine) = &node.engine else { return text.push(0) };
    write!(scratch, "{engine:?}").expect("a string takes everything");
    let mut rest = scratch.as_str();
    let now = node.now.duration_since(origin).as_nanos() as i128;
    // `Instant` shows seconds and nanoseconds since some moment before the origin; only differences are used.
    let origin_shown = moment(&format!("{origin:?}")).map_or(0, |(nanoseconds, _)| nanoseconds);
    while let Some(found) = rest.find(['I', 'p', 'c']) {
        let (before, from) = rest.split_at(found);
        text.extend_from_slice(before.as_bytes());
        if let Some((nanoseconds, length)) = moment(from) {
            text.extend_from_slice(&(nanoseconds - origin_shown - now).to_le_bytes());
            rest = &from[length..];
        } else if from.starts_with("policy: Policy {") || from.starts_with("counters: Counters {") {
            rest = after_braces(from);
        } else {
            text.push(from.as_bytes()[0]);
            rest = &from[1..];
        }
    }
    text.extend_from_slice(rest.as_bytes());
}

/// The moment a text begins with, and the length of that.
fn moment(text: &str) -> Option<(i128, usize)> {
    let rest = text.strip_prefix("Instant { tv_sec: ")?;
    let (seconds, rest) = rest.split_once(", tv_nsec: ")?;
    let (nanoseconds, rest) = rest.split_once(" }")?;
    let total = seconds.parse::<i128>().ok()? * 1_000_000_000 + nanoseconds.parse::<i128>().ok()?;
    Some((total, text.len() - rest.len()))
}

fn after_braces(text: &str) -> &str {
    let mut depth = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return &text[index + 1..],
            b'}' => depth -= 1,
            _ => {}
        }
    }
    ""
}

/// Reused buffers.
#[derive(Default)]
pub struct Fingerprints {
    scratch: String,
    text: Vec<u8>,
}

impl Fingerprints {
    pub fn of(&mut self, world: &World, budget: &Budget) -> u128 {
        self.text.clear();
        for node in &world.nodes {
            write_engine(node, world.policies.origin, &mut self.scratch, &mut self.text);
        }
        self.scratch.clear();
        write!(self.scratch, "{:?}", world.session.to).expect("a string takes everything");
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(&self.text);
            hasher.write(self.scratch.as_bytes());
            for node in &world.nodes {
                (node.life, &node.kernel, node.is_guarded, &node.tun, node.is_hung, node.policy, node.captures).hash(&mut hasher);
            }
            (world.session.is_intact, world.session.is_up, &world.client, &world.overlay).hash(&mut hasher);
            (world.loses_next, world.armed, world.seen.memory()).hash(&mut hasher);
            budget.hash(&mut hasher);
            hasher.finish()
        };
        u128::from(half(0)) << 64 | u128::from(half(1))
    }
}
