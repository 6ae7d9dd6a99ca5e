//! Policy routing: which marked or alias packets go into the TUN, and where they go without one.
//!
//! Two tables. The *open* one has only the TUN's route: without the TUN it is empty, and the look-up goes on to the
//! local stack. The *closed* one has a blackhole below the TUN's route: without the TUN packets end there.
//!
//! For each peer that may be on the same link there are two more, by the peer's mark: one for what baton itself sends over
//! the link, and one for what the kernel forwards of connections it has learned. Each has a route while there is a way, and
//! without one the first kind of packet goes nowhere (baton is told) and the second kind is as if guarded.

use super::family::Family;
use super::nft::{LINK_MASK, MARK_CAPTURED, MARK_GUARDED, MARK_LINK};
use super::routing::{HostAddress, PROTOCOL_BATON, PROTOCOL_KERNEL, Route, RouteKind, Routing, Rule, Selector, TABLE_LOCAL};
use crate::doctor::refusal;
use crate::flow::NodeId;
use anyhow::{Context, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Fail-open: captured packets.
pub(super) const TABLE_OPEN: u32 = 7770;
/// Fail-closed: guarded packets, and what the local stack sends from aliases.
pub(super) const TABLE_CLOSED: u32 = 7771;
/// A blackhole only: what baton sends over a link that is not there.
const TABLE_NOWHERE: u32 = 7772;
/// The first of the tables for what baton sends over links, by the number of the peer; and for what the kernel forwards.
const TABLE_SEND: u32 = 8000;
const TABLE_FORWARD: u32 = TABLE_SEND + crate::limits::cluster_file::NODES_MAX as u32;
const TABLES_END: u32 = TABLE_FORWARD + crate::limits::cluster_file::NODES_MAX as u32;
/// Preferences of our rules. Low ones, so that hardly any rule of others can stand before or among them.
const PREFERENCE_ALIAS: u32 = 1;
const PREFERENCE_GUARDED: u32 = 2;
const PREFERENCE_CAPTURED: u32 = 3;
const PREFERENCE_SEND: u32 = 4;
const PREFERENCE_NOT_SENT: u32 = 5;
const PREFERENCE_FORWARD: u32 = 6;
const PREFERENCE_NOT_FORWARDED: u32 = 7;
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
    /// Peers that may be on the same link.
    links: Vec<NodeId>,
}

impl Steering {
    pub(super) fn new(family: Family, device: Option<u32>, aliases: &[IpNet]) -> Self {
        let aliases = aliases.iter().filter(|prefix| Family::of_prefix(prefix) == family).map(IpNet::trunc).collect();
        Self { family, device, aliases, links: Vec::new() }
    }

    /// With these peers perhaps on the same link.
    pub(super) fn with_links(self, links: Vec<NodeId>) -> Self {
        Self { links, ..self }
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
            let is_of_link = |mark| !self.links.is_empty() && mark & LINK_MASK == MARK_LINK;
            if matches!(rule.selector, Selector::Mark(mark) if mark == MARK_CAPTURED || mark == MARK_GUARDED || is_of_link(mark))
            {
                return Err(refusal(
                    format!(
                        "the marks {MARK_CAPTURED:#x}, {MARK_GUARDED:#x} and, for links, from {MARK_LINK:#x} on are needed, but `{rule}` uses one"
                    ),
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
        for table in self.tables() {
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
        self.close_links(routing)?;
        if !self.links.is_empty() {
            routing.add_route(&self.blackhole_in(TABLE_NOWHERE)).context("adding a route")?;
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
        let mut tables: Vec<u32> = self.tables();
        tables.extend(rules.iter().filter(|rule| rule.protocol == PROTOCOL_BATON).map(|rule| rule.table));
        tables.retain(|table| is_our_table(*table));
        tables.sort_unstable();
        tables.dedup();
        for table in tables.iter().copied().filter(|table| *table != TABLE_OPEN && *table != TABLE_CLOSED) {
            empty(self.family, table, routing)?;
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
            .chain(self.links.iter().flat_map(|peer| {
                let mark = MARK_LINK | u32::from(peer.0);
                [
                    rule(
                        PREFERENCE_SEND,
                        Selector::Marks { mark, mask: u32::MAX, from_here: true },
                        TABLE_SEND + u32::from(peer.0),
                    ),
                    rule(PREFERENCE_FORWARD, Selector::Mark(mark), TABLE_FORWARD + u32::from(peer.0)),
                ]
            }))
            .chain((!self.links.is_empty()).then(|| {
                rule(PREFERENCE_NOT_SENT, Selector::Marks { mark: MARK_LINK, mask: LINK_MASK, from_here: true }, TABLE_NOWHERE)
            }))
            .chain((!self.links.is_empty()).then(|| {
                rule(
                    PREFERENCE_NOT_FORWARDED,
                    Selector::Marks { mark: MARK_LINK, mask: LINK_MASK, from_here: false },
                    TABLE_CLOSED,
                )
            }))
            .collect()
    }

    /// Every table that may have a route of ours.
    fn tables(&self) -> Vec<u32> {
        let of_links = self.links.iter().map(|peer| u32::from(peer.0)).flat_map(|peer| [TABLE_SEND + peer, TABLE_FORWARD + peer]);
        [TABLE_OPEN, TABLE_CLOSED].into_iter().chain((!self.links.is_empty()).then_some(TABLE_NOWHERE)).chain(of_links).collect()
    }

    /// Takes away the ways over links that an earlier life left.
    fn close_links(&self, routing: &mut Routing) -> anyhow::Result<()> {
        for table in self.tables().into_iter().filter(|table| *table >= TABLE_SEND) {
            empty(self.family, table, routing)?;
        }
        Ok(())
    }

    fn local_rule(&self, preference: u32, protocol: u8) -> Rule {
        Rule { family: self.family, preference, selector: Selector::All, table: TABLE_LOCAL, protocol }
    }

    fn tun_route(&self, table: u32) -> Route {
        let device = self.device;
        let metric = Some(METRIC_TUN);
        Route { destination: everywhere(self.family), table, kind: RouteKind::Unicast, device, metric, gateway: None }
    }

    fn blackhole(&self) -> Route {
        self.blackhole_in(TABLE_CLOSED)
    }

    fn blackhole_in(&self, table: u32) -> Route {
        let metric = Some(METRIC_BLACKHOLE);
        Route { destination: everywhere(self.family), table, kind: RouteKind::Blackhole, device: None, metric, gateway: None }
    }

    /// One route makes a whole prefix local; thousands of addresses would do the same, slowly.
    fn alias_routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.aliases.iter().map(|prefix| Route {
            destination: *prefix,
            table: TABLE_LOCAL,
            kind: RouteKind::Local,
            device: self.device,
            metric: None,
            gateway: None,
        })
    }
}

/// Which packets a way over a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkWay {
    /// Those that baton itself sends.
    Send,
    /// Those of connections that the kernel has learned.
    Forward,
}

impl LinkWay {
    fn table(self, peer: NodeId) -> u32 {
        u32::from(peer.0)
            + match self {
                Self::Send => TABLE_SEND,
                Self::Forward => TABLE_FORWARD,
            }
    }

    /// Opens it.
    pub(super) fn open(self, peer: NodeId, device: u32, next_hop: IpAddr, routing: &mut Routing) -> io::Result<()> {
        routing.add_route(&link_route(Family::of(next_hop), self.table(peer), Some(device), Some(next_hop)))
    }

    /// Closes it; one that is closed is fine.
    pub(super) fn close(self, peer: NodeId, family: Family, routing: &mut Routing) -> io::Result<()> {
        routing.delete_route(&link_route(family, self.table(peer), None, None))
    }
}

fn link_route(family: Family, table: u32, device: Option<u32>, gateway: Option<IpAddr>) -> Route {
    let metric = Some(METRIC_TUN);
    Route { destination: everywhere(family), table, kind: RouteKind::Unicast, device, metric, gateway }
}

/// Deletes our routes in a table that has none but the default route: to everywhere, or to nowhere.
fn empty(family: Family, table: u32, routing: &mut Routing) -> anyhow::Result<()> {
    let routes = routing.routes(family, table).context("listing routes")?;
    for _ in routes.iter().filter(|route| route.protocol == PROTOCOL_BATON) {
        for kind in [RouteKind::Unicast, RouteKind::Blackhole] {
            let route = Route { kind, metric: None, ..link_route(family, table, None, None) };
            routing.delete_route(&route).context("deleting a route")?;
        }
    }
    Ok(())
}

fn is_our_table(table: u32) -> bool {
    matches!(table, TABLE_OPEN | TABLE_CLOSED | TABLE_NOWHERE) || (TABLE_SEND..TABLES_END).contains(&table)
}

fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
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
    (PREFERENCE_ALIAS..=PREFERENCE_NOT_FORWARDED).contains(&preference)
}
