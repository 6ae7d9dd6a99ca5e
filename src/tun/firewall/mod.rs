//! What the firewall of this host does to packets that cannot be tried.
//!
//! Packets tell more than rules (`probe`), but nobody can send one in from the network. So the rules of others are read
//! and followed with the packets that will come, as far as they can be understood: an answer is "passes", "is dropped"
//! or "may be dropped". Rules of the older iptables (not iptables-nft) cannot be read this way.

mod packet;
pub(super) mod remedy;
mod ways;

pub(super) use packet::{Back, Packet};
pub(super) use ways::{Consequence, link_ways, ways};

use super::family::Family;
use super::nft::{self, TABLE};
use anyhow::Context;
use packet::Truth;
use serde_json::Value;

/// The kernel does not jump deeper.
const DEPTH_MAX: usize = 16;
/// Rules followed for one packet: more is a firewall whose chains call each other again and again.
const STEPS_MAX: usize = 100_000;

/// The rules of all tables but ours.
#[derive(Debug)]
pub(super) struct Firewall {
    chains: Vec<Chain>,
}

#[derive(Debug)]
struct Chain {
    family: String,
    table: String,
    name: String,
    base: Option<Base>,
    rules: Vec<Vec<Value>>,
}

#[derive(Debug)]
struct Base {
    kind: String,
    hook: String,
    drops: bool,
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    Passes,
    /// Somebody's chain drops some such packets; which one.
    MayBeDropped(String),
    /// Somebody's chain drops it; which one.
    Dropped(String),
}

/// What a chain may do, as far as it could be followed.
#[derive(Clone, Copy, Default)]
struct Ends {
    accepts: bool,
    drops: bool,
    continues: bool,
}

impl Firewall {
    pub(super) fn read() -> anyhow::Result<Self> {
        let listing = nft::list_ruleset().context("listing the rules of others")?;
        Ok(Self::parse(&listing))
    }

    fn parse(objects: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut chains: Vec<Chain> = Vec::new();
        for chain in objects.iter().map(|object| &object["chain"]).filter(|chain| !chain.is_null()) {
            let base = chain["hook"].as_str().map(|hook| Base {
                kind: text(&chain["type"]),
                hook: hook.to_owned(),
                drops: chain["policy"] == "drop",
            });
            let (family, table, name) = (text(&chain["family"]), text(&chain["table"]), text(&chain["name"]));
            if table != TABLE {
                chains.push(Chain { family, table, name, base, rules: Vec::new() });
            }
        }
        for rule in objects.iter().map(|object| &object["rule"]).filter(|rule| !rule.is_null()) {
            let holds = |chain: &&mut Chain| {
                rule["family"] == *chain.family && rule["table"] == *chain.table && rule["chain"] == *chain.name
            };
            if let Some(chain) = chains.iter_mut().find(holds) {
                chain.rules.push(rule["expr"].as_array().cloned().unwrap_or_default());
            }
        }
        Self { chains }
    }

    /// What the chains of a hook do to a packet; the worst.
    pub(super) fn judge(&self, hook: &str, packet: &Packet) -> Judgement {
        let mut worst = Judgement::Passes;
        let own = if packet.family == Family::V4 { "ip" } else { "ip6" };
        for chain in self.chains.iter().filter(|chain| chain.family == own || chain.family == "inet") {
            // NAT passes by what is not tracked, and drops nothing.
            let Some(base) = chain.base.as_ref().filter(|base| base.hook == hook && base.kind != "nat") else { continue };
            let mut steps = 0;
            let mut ends = self.follow(chain, packet, 0, &mut steps);
            ends.drops |= ends.continues && base.drops;
            ends.accepts |= ends.continues && !base.drops;
            let name = || {
                let policy = if base.drops { ", policy drop" } else { "" };
                format!("{} {} {} ({hook}{policy})", chain.family, chain.table, chain.name)
            };
            match (ends.drops, ends.accepts) {
                (true, false) => return Judgement::Dropped(name()),
                (true, true) => worst = Judgement::MayBeDropped(name()),
                (false, _) => {}
            }
        }
        worst
    }

    fn follow(&self, chain: &Chain, packet: &Packet, depth: usize, steps: &mut usize) -> Ends {
        let mut ends = Ends::default();
        for rule in &chain.rules {
            *steps += 1;
            if depth > DEPTH_MAX || *steps > STEPS_MAX {
                return Ends { accepts: true, drops: true, continues: true };
            }
            if self.apply(chain, rule, packet, depth, steps, &mut ends) == Next::Ends {
                return ends;
            }
        }
        ends.continues = true;
        ends
    }

    /// One rule: statements from left to right, until one does not match or gives a verdict.
    fn apply(&self, chain: &Chain, rule: &[Value], packet: &Packet, depth: usize, steps: &mut usize, ends: &mut Ends) -> Next {
        let mut certain = true;
        for statement in rule {
            let Some((name, content)) = statement.as_object().and_then(|object| object.iter().next()) else {
                // A bare word such as "notrack".
                continue;
            };
            match name.as_str() {
                "match" => match packet.matches(content) {
                    Truth::No => return Next::Goes,
                    Truth::Maybe => certain = false,
                    Truth::Yes => {}
                },
                "vmap" => return self.map(chain, content, packet, depth, steps, ends, certain),
                "counter" | "log" | "comment" | "mangle" | "notrack" | "set" | "map" | "meter" => {}
                "accept" | "drop" | "reject" | "return" | "jump" | "goto" | "queue" => {
                    return self.verdict(chain, statement, packet, depth, steps, ends, certain);
                }
                // A limit, something of iptables', or newer than this program: it may match, and may drop.
                "xt" if content["type"] == "target" => {
                    ends.drops = true;
                    return Next::Goes;
                }
                _ => certain = false,
            }
        }
        Next::Goes
    }

    #[allow(clippy::too_many_arguments)]
    fn map(
        &self,
        chain: &Chain,
        map: &Value,
        packet: &Packet,
        depth: usize,
        steps: &mut usize,
        ends: &mut Ends,
        certain: bool,
    ) -> Next {
        let Some(entries) = map["data"]["set"].as_array() else {
            // A named map, whose elements were not listed.
            (ends.accepts, ends.drops) = (true, true);
            return Next::Goes;
        };
        for entry in entries {
            let (Some(key), Some(verdict)) = (entry.get(0), entry.get(1)) else { continue };
            match packet.has(&map["key"], key) {
                Truth::No => {}
                Truth::Yes => return self.verdict(chain, verdict, packet, depth, steps, ends, certain),
                Truth::Maybe => {
                    self.verdict(chain, verdict, packet, depth, steps, ends, false);
                }
            }
        }
        Next::Goes
    }

    #[allow(clippy::too_many_arguments)]
    fn verdict(
        &self,
        chain: &Chain,
        verdict: &Value,
        packet: &Packet,
        depth: usize,
        steps: &mut usize,
        ends: &mut Ends,
        certain: bool,
    ) -> Next {
        let Some((name, content)) = verdict.as_object().and_then(|object| object.iter().next()) else { return Next::Goes };
        let mut goes = false;
        match name.as_str() {
            "accept" => ends.accepts = true,
            "drop" | "reject" => ends.drops = true,
            "queue" => (ends.accepts, ends.drops) = (true, true),
            "return" => ends.continues = true,
            _ => {
                let target = self
                    .chains
                    .iter()
                    .find(|other| other.family == chain.family && other.table == chain.table && content["target"] == *other.name);
                let inner = target.map_or(Ends::default(), |target| self.follow(target, packet, depth + 1, steps));
                ends.accepts |= inner.accepts;
                ends.drops |= inner.drops;
                if name == "goto" { ends.continues |= inner.continues } else { goes = inner.continues }
            }
        }
        if goes || !certain { Next::Goes } else { Next::Ends }
    }
}

/// Whether the next rule of a chain may see the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

#[cfg(test)]
mod tests;
