//! Policy routing: which marked or alias packets go into the TUN, and where they go without one.
//!
//! Two tables. The *open* one has only the TUN's route: without the TUN it is empty, and the look-up goes on to the
//! local stack. The *closed* one has a blackhole below the TUN's route: without the TUN packets end there.

use super::family::Family;
use super::nft::{MARK_CAPTURED, MARK_GUARDED};
use super::routing::{HostAddress, PROTOCOL_BATON, PROTOCOL_KERNEL, Route, RouteKind, Routing, Rule, Selector, TABLE_LOCAL};
use crate::doctor::refusal;
use anyhow::{Context, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Fail-open: captured packets.
pub(super) const TABLE_OPEN: u32 = 7770;
/// Fail-closed: guarded packets, and what the local stack sends from aliases.
pub(super) const TABLE_CLOSED: u32 = 7771;
/// Preferences of our rules. Low ones, so that hardly any rule of others can stand before or among them.
const PREFERENCE_ALIAS: u32 = 1;
const PREFERENCE_GUARDED: u32 = 2;
const PREFERENCE_CAPTURED: u32 = 3;
/// Where the rule for the local table waits meanwhile: the kernel has it at 0, before all others.
const PREFERENCE_LOCAL: u32 = 9;
const METRIC_TUN: u32 = 1;
const METRIC_BLACKHOLE: u32 = 1000;

/// The rules and routes of one family.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    family: Family,
    /// The TUN; None when it is gone, and its routes and address with it.
    device: Option<u32>,
    aliases: Vec<IpNet>,
}

impl Steering {
    pub(super) fn new(family: Family, device: Option<u32>, aliases: &[IpNet]) -> Self {
        let aliases = aliases.iter().filter(|prefix| Family::of_prefix(prefix) == family).map(IpNet::trunc).collect();
        Self { family, device, aliases }
    }

    /// What is to be undone in one family: what this life installed and what earlier ones left. None when nothing is.
    pub(super) fn found(
        family: Family,
        device: Option<u32>,
        aliases: &[IpNet],
        routing: &mut Routing,
    ) -> anyhow::Result<Option<Self>> {
        let rules = routing.rules(family).context("listing policy rules")?;
        let mut ours = rules.iter().filter(|rule| rule.protocol == PROTOCOL_BATON).peekable();
        if ours.peek().is_none() {
            return Ok(None);
        }
        let mut steering = Self::new(family, device, aliases);
        for rule in ours {
            if let Selector::LocalFrom(prefix) = rule.selector
                && !steering.aliases.contains(&prefix)
            {
                steering.aliases.push(prefix);
            }
        }
        Ok(Some(steering))
    }

    /// Every prefix whose packets are kept from leaving.
    pub(super) fn aliases(&self) -> &[IpNet] {
        &self.aliases
    }

    /// Whether nobody else uses our tables, preferences and marks.
    pub(super) fn check(&self, routing: &mut Routing) -> anyhow::Result<()> {
        let rules = routing.rules(self.family).context("listing policy rules")?;
        for rule in rules.iter().filter(|rule| rule.protocol != PROTOCOL_BATON) {
            let is_local = is_local(rule);
            if rule.preference <= PREFERENCE_LOCAL && (!is_local || is_ours(rule.preference)) {
                return Err(refusal(
                    format!("preferences 0 to {PREFERENCE_LOCAL} of policy rules are needed, but there is `{rule}`"),
                    "move it to a later one",
                ));
            }
            if matches!(rule.selector, Selector::Mark(MARK_CAPTURED | MARK_GUARDED)) {
                return Err(refusal(
                    format!("the marks {MARK_CAPTURED:#x} and {MARK_GUARDED:#x} are needed, but `{rule}` uses one"),
                    "let that rule and whoever sets its mark use another one",
                ));
            }
        }
        ensure!(!rules.is_empty(), no_policy_routing(self.family));
        ensure!(
            rules.iter().any(is_local),
            refusal(
                format!("no policy rule of {} looks up the table of local addresses", self.family),
                "put the kernel's own back: `ip rule add pref 0 lookup local` (`ip -6 rule` for IPv6)"
            )
        );
        for table in [TABLE_OPEN, TABLE_CLOSED] {
            let routes = routing.routes(self.family, table).context("listing routes")?;
            ensure!(
                routes.iter().all(|route| route.protocol == PROTOCOL_BATON),
                refusal(
                    format!("routing table {table} is needed, but somebody else has routes in it"),
                    format!("see `ip route show table {table}`, and move them to another table")
                )
            );
        }
        Ok(())
    }

    /// The TUN's own IPv4 address. Loose reverse path filtering refuses everything from a device that has none.
    fn own_address(&self) -> Option<HostAddress> {
        let alias = self.aliases.first()?.network();
        let link = self.device.filter(|_| self.family == Family::V4)?;
        Some(HostAddress { link, address: alias })
    }

    /// Routes first, then the rules that lead to them; nothing carries a mark yet, so local traffic is not touched.
    /// Aliases become local addresses only with [`Steering::open_aliases`].
    pub(super) fn install(&self, routing: &mut Routing) -> anyhow::Result<()> {
        if let Some(address) = self.own_address() {
            routing.add_address(address).with_context(|| format!("giving the TUN the address {}", address.address))?;
        }
        for route in [self.blackhole(), self.tun_route(TABLE_CLOSED), self.tun_route(TABLE_OPEN)] {
            routing.add_route(&route).context("adding a route")?;
        }
        for rule in self.rules() {
            routing.add_rule(&rule).with_context(|| format!("adding `{rule}`"))?;
        }
        // Both rules for a moment: no look-up ever misses the local table.
        let first = self.local_rule(0, PROTOCOL_KERNEL);
        if routing.rules(self.family)?.iter().any(|rule| is_local(rule) && rule.preference == 0) {
            let later = self.local_rule(PREFERENCE_LOCAL, PROTOCOL_BATON);
            routing.add_rule(&later).with_context(|| format!("adding `{later}`"))?;
            routing.delete_rule(&first).with_context(|| format!("deleting `{first}`"))?;
        }
        Ok(())
    }

    /// Makes the aliases local addresses.
    pub(super) fn open_aliases(&self, routing: &mut Routing) -> anyhow::Result<()> {
        for route in self.alias_routes() {
            let prefix = route.destination;
            routing.add_route(&route).with_context(|| format!("making the aliases {prefix} local"))?;
        }
        Ok(())
    }

    /// From now on what the local stack sends from aliases ends in the blackhole, and nothing new reaches them.
    pub(super) fn close_aliases(&self, routing: &mut Routing) -> anyhow::Result<()> {
        routing.add_route(&self.blackhole()).context("adding the blackhole route")?;
        routing.delete_route(&self.tun_route(TABLE_CLOSED)).context("deleting the TUN's route")?;
        for route in self.alias_routes() {
            routing.delete_route(&route).context("deleting the aliases' route")?;
        }
        Ok(())
    }

    /// Removes all rules and routes; says what. The sockets on aliases must be gone, and nothing be marked any more.
    pub(super) fn remove(&self, routing: &mut Routing) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        let rules = routing.rules(self.family)?;
        if rules.iter().any(|rule| is_local(rule) && rule.protocol == PROTOCOL_BATON) {
            let first = self.local_rule(0, PROTOCOL_KERNEL);
            routing.add_rule(&first).with_context(|| format!("adding `{first}`"))?;
            lines.push(format!("put back `{first}`"));
        }
        // Also rules of an earlier life with other alias prefixes.
        for rule in rules.iter().filter(|rule| rule.protocol == PROTOCOL_BATON) {
            routing.delete_rule(rule).with_context(|| format!("deleting `{rule}`"))?;
            lines.push(format!("deleted `{rule}`"));
        }
        for table in [TABLE_OPEN, TABLE_CLOSED] {
            let routes = routing.routes(self.family, table).context("listing routes")?;
            if routes.iter().any(|route| route.protocol == PROTOCOL_BATON) {
                lines.push(format!("emptied routing table {table} of {}", self.family));
            }
        }
        for route in [self.tun_route(TABLE_OPEN), self.tun_route(TABLE_CLOSED), self.blackhole()] {
            routing.delete_route(&route).context("deleting a route")?;
        }
        if let Some(address) = self.own_address() {
            routing.delete_address(address).context("deleting the TUN's address")?;
        }
        Ok(lines)
    }

    fn rules(&self) -> Vec<Rule> {
        let rule =
            |preference, selector, table| Rule { family: self.family, preference, selector, table, protocol: PROTOCOL_BATON };
        // By address, not by mark: this one must hold also when somebody flushes all nf_tables rules.
        let aliases = self.aliases.iter().map(|prefix| rule(PREFERENCE_ALIAS, Selector::LocalFrom(*prefix), TABLE_CLOSED));
        aliases
            .chain([
                rule(PREFERENCE_GUARDED, Selector::Mark(MARK_GUARDED), TABLE_CLOSED),
                rule(PREFERENCE_CAPTURED, Selector::Mark(MARK_CAPTURED), TABLE_OPEN),
            ])
            .collect()
    }

    fn local_rule(&self, preference: u32, protocol: u8) -> Rule {
        Rule { family: self.family, preference, selector: Selector::All, table: TABLE_LOCAL, protocol }
    }

    fn everywhere(&self) -> IpNet {
        match self.family {
            Family::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }

    fn tun_route(&self, table: u32) -> Route {
        let device = self.device;
        Route { destination: self.everywhere(), table, kind: RouteKind::Unicast, device, metric: Some(METRIC_TUN) }
    }

    fn blackhole(&self) -> Route {
        let metric = Some(METRIC_BLACKHOLE);
        Route { destination: self.everywhere(), table: TABLE_CLOSED, kind: RouteKind::Blackhole, device: None, metric }
    }

    /// One route makes a whole prefix local; thousands of addresses would do the same, slowly.
    fn alias_routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.aliases.iter().map(|prefix| Route {
            destination: *prefix,
            table: TABLE_LOCAL,
            kind: RouteKind::Local,
            device: self.device,
            metric: None,
        })
    }
}

fn no_policy_routing(family: Family) -> anyhow::Error {
    refusal(
        format!("there are no policy rules of {family} at all"),
        "the kernel needs CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES; if somebody deleted the rules, put \
         them back: `ip rule add pref 0 lookup local`, `ip rule add pref 32766 lookup main` (`ip -6 rule` for IPv6)",
    )
}

fn is_local(rule: &Rule) -> bool {
    rule.selector == Selector::All && rule.table == TABLE_LOCAL
}

fn is_ours(preference: u32) -> bool {
    [PREFERENCE_ALIAS, PREFERENCE_GUARDED, PREFERENCE_CAPTURED].contains(&preference)
}
