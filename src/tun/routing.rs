//! Links, addresses, policy rules and routes (rtnetlink(7)).

use super::family::{Family, append_address};
use super::netlink::{self, Connection, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Writer, attribute, attributes};
use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::fmt;
use std::io;
use std::net::IpAddr;

/// The kernel's table of its own addresses.
pub(super) const TABLE_LOCAL: u32 = 255;
/// RT_TABLE_DEFAULT: asked when the main table knows no route.
pub(super) const TABLE_DEFAULT: u32 = 253;
/// The table with a host's ordinary routes.
pub(super) const TABLE_MAIN: u32 = 254;
/// Who made the kernel's first rules.
pub(super) const PROTOCOL_KERNEL: u8 = 2;
/// Who made ours: a number nobody has registered, so what an earlier life left is told from what others made.
pub(super) const PROTOCOL_BATON: u8 = 183;

// linux/fib_rules.h, which libc does not carry.
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;
const RTAX_MTU: u16 = 2;
// linux/rtnetlink.h and linux/neighbour.h, likewise.
const RTA_VIA: u16 = 18;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_USE: u8 = 1;
/// NUD_INCOMPLETE and NUD_FAILED: asked, and not answered.
const UNANSWERED: u16 = 0x01 | 0x20;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) kind: LinkKind,
}

/// Whether packets on a link have left the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkKind {
    Loopback,
    Other,
}

/// An address of this host and the link it is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HostAddress {
    pub(super) link: u32,
    pub(super) address: IpAddr,
}

/// A policy rule that looks up a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) preference: u32,
    pub(super) selector: Selector,
    pub(super) table: u32,
    pub(super) protocol: u8,
}

/// The packets a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Selector {
    All,
    /// Packets with exactly this mark.
    Mark(u32),
    /// Packets whose mark has these bits; perhaps only those of the local stack.
    Marks {
        mark: u32,
        mask: u32,
        from_here: bool,
    },
    /// Packets of the local stack from this prefix.
    LocalFrom(IpNet),
    /// Anything only others use.
    Foreign,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ip{} rule pref {} ", if self.family == Family::V6 { " -6" } else { "" }, self.preference)?;
        match &self.selector {
            Selector::All => write!(f, "from all")?,
            Selector::Mark(mark) => write!(f, "fwmark {mark:#x}")?,
            Selector::Marks { mark, mask, from_here } => {
                write!(f, "{}fwmark {mark:#x}/{mask:#x}", if *from_here { "iif lo " } else { "" })?;
            }
            Selector::LocalFrom(prefix) => write!(f, "iif lo from {prefix}")?,
            Selector::Foreign => write!(f, "(other selectors)")?,
        }
        match self.table {
            TABLE_LOCAL => f.write_str(" lookup local"),
            table => write!(f, " lookup {table}"),
        }
    }
}

/// What a route does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RouteKind {
    Unicast,
    Local,
    Blackhole,
}

impl RouteKind {
    fn number(self) -> u8 {
        match self {
            Self::Unicast => libc::RTN_UNICAST,
            Self::Local => libc::RTN_LOCAL,
            Self::Blackhole => libc::RTN_BLACKHOLE,
        }
    }

    /// A unicast route through a device is of link scope, a local one of host scope (rtnetlink(7)).
    fn scope(self) -> u8 {
        match self {
            Self::Unicast => libc::RT_SCOPE_LINK,
            Self::Local => libc::RT_SCOPE_HOST,
            Self::Blackhole => libc::RT_SCOPE_UNIVERSE,
        }
    }
}

/// A route to add or delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Route {
    pub(super) destination: IpNet,
    pub(super) table: u32,
    pub(super) kind: RouteKind,
    pub(super) device: Option<u32>,
    pub(super) metric: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
}

impl Route {
    fn scope(&self) -> u8 {
        if self.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { self.kind.scope() }
    }
}

/// A route found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FoundRoute {
    pub(super) prefix_length: u8,
    pub(super) devices: Vec<u32>,
    pub(super) protocol: u8,
}

/// Where the kernel would send a packet, and how large it may be by the route itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) device: u32,
    pub(super) mtu: Option<u32>,
    /// Through a router; none where the destination is on the link itself.
    pub(super) gateway: Option<Gateway>,
    /// To this host itself.
    pub(super) is_local: bool,
}

/// The router of a route; its address may be of the other family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gateway(pub(super) Option<IpAddr>);

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Neighbour {
    /// Its Ethernet address; none while it does not answer, or where there are no such addresses.
    pub(super) ethernet: Option<[u8; 6]>,
}

/// A connection to the kernel's routing.
#[derive(Debug)]
pub(super) struct Routing {
    connection: Connection,
    /// Without it the kernel ignores the filters of a listing and gives everything.
    strict: bool,
}

impl Routing {
    pub(super) fn open() -> io::Result<Self> {
        let connection = Connection::open(NETLINK_ROUTE)?;
        let strict = connection.set_strict_checks().is_ok();
        Ok(Self { connection, strict })
    }

    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let writer = self.connection.request(libc::RTM_GETLINK, NLM_F_DUMP);
        writer.fixed(&[0; 16]);
        self.connection.dump(parse_link)
    }

    pub(super) fn addresses(&mut self) -> io::Result<Vec<HostAddress>> {
        let writer = self.connection.request(libc::RTM_GETADDR, NLM_F_DUMP);
        writer.fixed(&[0; 8]);
        self.connection.dump(parse_address)
    }

    pub(super) fn rules(&mut self, family: Family) -> io::Result<Vec<Rule>> {
        let writer = self.connection.request(libc::RTM_GETRULE, NLM_F_DUMP);
        writer.fixed(&[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        match self.connection.dump(|message| parse_rule(family, message)) {
            // A kernel without IPv6 has no rules of it.
            Err(error) if matches!(netlink::error_number(&error), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(Vec::new()),
            rules => rules,
        }
    }

    /// The routes of one table; a table that does not exist is empty.
    pub(super) fn routes(&mut self, family: Family, table: u32) -> io::Result<Vec<FoundRoute>> {
        let strict = self.strict;
        let writer = self.connection.request(libc::RTM_GETROUTE, NLM_F_DUMP);
        writer.fixed(&[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        if strict {
            writer.attribute_u32(libc::RTA_TABLE, table);
        }
        match self.connection.dump(|message| parse_route(table, message)) {
            Err(error) if netlink::error_number(&error) == Some(libc::ENOENT) => Ok(Vec::new()),
            routes => routes,
        }
    }

    /// Adds a rule; one that is there already is fine.
    pub(super) fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        write_rule(writer, rule);
        unless(self.connection.execute(), libc::EEXIST)
    }

    /// Deletes a rule; one that is not there is fine.
    pub(super) fn delete_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_DELRULE, NLM_F_ACK);
        write_rule(writer, rule);
        unless(self.connection.execute(), libc::ENOENT)
    }

    /// Adds a route; one that is there already is fine.
    pub(super) fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        write_route(writer, route, route.scope());
        unless(self.connection.execute(), libc::EEXIST)
    }

    /// Deletes a route; one that is not there is fine.
    pub(super) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_DELROUTE, NLM_F_ACK);
        // Of whatever scope.
        write_route(writer, route, libc::RT_SCOPE_NOWHERE);
        unless(unless(self.connection.execute(), libc::ESRCH), libc::ENODEV)
    }

    /// Where the kernel would send a packet for this address; None when nowhere.
    pub(super) fn path(&mut self, destination: IpAddr) -> io::Result<Option<Path>> {
        let family = Family::of(destination);
        let bits = 8 * family.address_length() as u8;
        let writer = self.connection.request(libc::RTM_GETROUTE, 0);
        writer.fixed(&[family.number(), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut address = Vec::new();
        append_address(&mut address, destination);
        writer.attribute(libc::RTA_DST, &address);
        match self.connection.ask(parse_path) {
            Ok(path) => Ok(path.flatten()),
            Err(error) => match netlink::error_number(&error) {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// What the kernel knows of this address on a link; None when nobody has asked for it.
    pub(super) fn neighbour(&mut self, link: u32, address: IpAddr) -> io::Result<Option<Neighbour>> {
        let writer = self.connection.request(libc::RTM_GETNEIGH, 0);
        write_neighbour(writer, link, address, 0);
        match self.connection.ask(parse_neighbour) {
            Ok(neighbour) => Ok(neighbour.flatten()),
            Err(error) if netlink::error_number(&error) == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel ask who has this address, as if a packet went there.
    pub(super) fn resolve(&mut self, link: u32, address: IpAddr) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE);
        write_neighbour(writer, link, address, NTF_USE);
        self.connection.execute()
    }

    /// Gives a link an address for its own use: of host scope, so no packet is ever sent from it.
    pub(super) fn add_address(&mut self, address: HostAddress) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        write_address(writer, address);
        unless(self.connection.execute(), libc::EEXIST)
    }

    /// Takes it away; a missing one, or a missing link, is fine.
    pub(super) fn delete_address(&mut self, address: HostAddress) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_DELADDR, NLM_F_ACK);
        write_address(writer, address);
        unless(unless(self.connection.execute(), libc::EADDRNOTAVAIL), libc::ENODEV)
    }

    /// Sets what a TUN needs, then brings it up.
    pub(super) fn bring_up(&mut self, link: u32, mtu: u32, queue_length: u32) -> io::Result<()> {
        let writer = self.connection.request(libc::RTM_NEWLINK, NLM_F_ACK);
        let up = libc::IFF_UP as u32;
        let mut header = vec![0, 0, 0, 0];
        header.extend_from_slice(&link.to_ne_bytes());
        header.extend_from_slice(&up.to_ne_bytes());
        header.extend_from_slice(&up.to_ne_bytes());
        writer.fixed(&header);
        writer.attribute_u32(libc::IFLA_MTU, mtu);
        writer.attribute_u32(libc::IFLA_TXQLEN, queue_length);
        self.connection.execute()
    }
}

/// Success also when the error is only this one.
fn unless(result: io::Result<()>, number: i32) -> io::Result<()> {
    match result {
        Err(error) if netlink::error_number(&error) == Some(number) => Ok(()),
        result => result,
    }
}

fn write_rule(writer: &mut Writer, rule: &Rule) {
    let source_length = match &rule.selector {
        Selector::LocalFrom(prefix) => prefix.prefix_len(),
        _ => 0,
    };
    // The table stands in its attribute: the header has only one octet for it.
    writer.fixed(&[rule.family.number(), 0, source_length, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0]);
    writer.attribute_u32(FRA_PRIORITY, rule.preference);
    writer.attribute_u32(FRA_TABLE, rule.table);
    writer.attribute(FRA_PROTOCOL, &[rule.protocol]);
    match &rule.selector {
        Selector::All | Selector::Foreign => {}
        Selector::Mark(mark) => {
            writer.attribute_u32(FRA_FWMARK, *mark);
            writer.attribute_u32(FRA_FWMASK, u32::MAX);
        }
        Selector::Marks { mark, mask, from_here } => {
            writer.attribute_u32(FRA_FWMARK, *mark);
            writer.attribute_u32(FRA_FWMASK, *mask);
            if *from_here {
                writer.attribute_name(FRA_IIFNAME, "lo");
            }
        }
        Selector::LocalFrom(prefix) => {
            let mut address = Vec::new();
            append_address(&mut address, prefix.network());
            writer.attribute(FRA_SRC, &address);
            writer.attribute_name(FRA_IIFNAME, "lo");
        }
    }
}

fn write_route(writer: &mut Writer, route: &Route, scope: u8) {
    let family = Family::of_prefix(&route.destination);
    let length = route.destination.prefix_len();
    let kind = route.kind.number();
    writer.fixed(&[family.number(), length, 0, 0, 0, PROTOCOL_BATON, scope, kind, 0, 0, 0, 0]);
    writer.attribute_u32(libc::RTA_TABLE, route.table);
    if length > 0 {
        let mut address = Vec::new();
        append_address(&mut address, route.destination.network());
        writer.attribute(libc::RTA_DST, &address);
    }
    if let Some(device) = route.device {
        writer.attribute_u32(libc::RTA_OIF, device);
    }
    if let Some(gateway) = route.gateway {
        let mut address = Vec::new();
        append_address(&mut address, gateway);
        writer.attribute(libc::RTA_GATEWAY, &address);
    }
    if let Some(metric) = route.metric {
        writer.attribute_u32(libc::RTA_PRIORITY, metric);
    }
}

fn write_neighbour(writer: &mut Writer, link: u32, address: IpAddr, flags: u8) {
    let mut header = vec![Family::of(address).number(), 0, 0, 0];
    header.extend_from_slice(&link.to_ne_bytes());
    header.extend_from_slice(&[0, 0, flags, 0]);
    writer.fixed(&header);
    let mut bytes = Vec::new();
    append_address(&mut bytes, address);
    writer.attribute(NDA_DST, &bytes);
}

fn parse_neighbour(message: Message<'_>) -> Option<Neighbour> {
    let (header, rest) = message.payload.split_first_chunk::<12>()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let answered = state & UNANSWERED == 0;
    Some(Neighbour { ethernet: attribute(rest, NDA_LLADDR).filter(|_| answered).and_then(|bytes| bytes.try_into().ok()) })
}

fn write_address(writer: &mut Writer, address: HostAddress) {
    let family = Family::of(address.address);
    let bits = 8 * family.address_length() as u8;
    let mut header = vec![family.number(), bits, 0, libc::RT_SCOPE_HOST];
    header.extend_from_slice(&address.link.to_ne_bytes());
    writer.fixed(&header);
    let mut bytes = Vec::new();
    append_address(&mut bytes, address.address);
    writer.attribute(libc::IFA_LOCAL, &bytes);
    writer.attribute(libc::IFA_ADDRESS, &bytes);
}

fn parse_link(message: Message<'_>) -> Option<Link> {
    let (header, rest) = message.payload.split_first_chunk::<16>()?;
    let flags = netlink::number(&header[8..12])?;
    let loopback = flags & libc::IFF_LOOPBACK as u32 != 0;
    Some(Link {
        index: netlink::number(&header[4..8])?,
        name: netlink::name(attribute(rest, libc::IFLA_IFNAME)?),
        mtu: netlink::number(attribute(rest, libc::IFLA_MTU)?)?,
        kind: if loopback { LinkKind::Loopback } else { LinkKind::Other },
    })
}

fn parse_address(message: Message<'_>) -> Option<HostAddress> {
    let (header, rest) = message.payload.split_first_chunk::<8>()?;
    let family = Family::from_number(header[0])?;
    // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL ours.
    let bytes = attribute(rest, libc::IFA_LOCAL).or_else(|| attribute(rest, libc::IFA_ADDRESS))?;
    Some(HostAddress { link: netlink::number(&header[4..8])?, address: family.address_from(bytes)? })
}

fn parse_rule(family: Family, message: Message<'_>) -> Option<Rule> {
    let (header, rest) = message.payload.split_first_chunk::<12>()?;
    if header[0] != family.number() {
        return None;
    }
    let number_of = |kind| attribute(rest, kind).and_then(netlink::number);
    let inverted = netlink::number(&header[8..12])? & FIB_RULE_INVERT != 0;
    let only_ours_or_none = header[1] == 0 && header[3] == 0 && header[7] == FR_ACT_TO_TBL && !inverted;
    let others = [FRA_OIFNAME, FRA_L3MDEV, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE];
    let source = attribute(rest, FRA_SRC)
        .and_then(|bytes| family.address_from(bytes))
        .and_then(|address| IpNet::new(address, header[2]).ok());
    let device = attribute(rest, FRA_IIFNAME).map(netlink::name);
    let selector = if !only_ours_or_none || others.iter().any(|&kind| attribute(rest, kind).is_some()) {
        Selector::Foreign
    } else {
        match (source, device.as_deref(), number_of(FRA_FWMARK), number_of(FRA_FWMASK)) {
            (None, None, None, None) => Selector::All,
            (None, None, Some(mark), Some(u32::MAX) | None) => Selector::Mark(mark),
            (None, None, Some(mark), Some(mask)) => Selector::Marks { mark, mask, from_here: false },
            (None, Some("lo"), Some(mark), mask) => Selector::Marks { mark, mask: mask.unwrap_or(u32::MAX), from_here: true },
            (Some(prefix), Some("lo"), None, None) => Selector::LocalFrom(prefix),
            _ => Selector::Foreign,
        }
    };
    Some(Rule {
        family,
        preference: number_of(FRA_PRIORITY).unwrap_or(0),
        selector,
        table: number_of(FRA_TABLE).unwrap_or(u32::from(header[4])),
        protocol: attribute(rest, FRA_PROTOCOL).and_then(|bytes| bytes.first().copied()).unwrap_or(0),
    })
}

fn parse_route(table: u32, message: Message<'_>) -> Option<FoundRoute> {
    let (header, rest) = message.payload.split_first_chunk::<12>()?;
    let found = attribute(rest, libc::RTA_TABLE).and_then(netlink::number).unwrap_or(u32::from(header[4]));
    if found != table {
        return None;
    }
    let mut devices: Vec<u32> = attribute(rest, libc::RTA_OIF).and_then(netlink::number).into_iter().collect();
    devices.extend(attribute(rest, libc::RTA_MULTIPATH).into_iter().flat_map(next_hop_devices));
    Some(FoundRoute { prefix_length: header[1], devices, protocol: header[5] })
}

/// The devices of a multipath route: each hop is a length, two octets, a device, and attributes (struct rtnexthop).
fn next_hop_devices(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let device = netlink::number(bytes.get(4..8)?)?;
        bytes = bytes.get(length.max(8).next_multiple_of(4)..).unwrap_or_default();
        Some(device)
    })
}

fn parse_path(message: Message<'_>) -> Option<Path> {
    let (header, rest) = message.payload.split_first_chunk::<12>()?;
    let mtu = attribute(rest, libc::RTA_METRICS)
        .and_then(|metrics| attributes(metrics).find_map(|(kind, bytes)| (kind == RTAX_MTU).then_some(bytes)))
        .and_then(netlink::number);
    let gateway = attribute(rest, libc::RTA_GATEWAY)
        .map(|bytes| Gateway(Family::from_number(header[0]).and_then(|family| family.address_from(bytes))))
        .or_else(|| attribute(rest, RTA_VIA).map(|_| Gateway(None)));
    let device = netlink::number(attribute(rest, libc::RTA_OIF)?)?;
    Some(Path { device, mtu, gateway, is_local: header[7] == libc::RTN_LOCAL })
}
