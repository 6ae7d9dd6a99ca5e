//! The nf_tables rules, as text for `nft -f`: which packets are captured, guarded or dropped.
//!
//! Everything lies in one table, replaced in one transaction. Only the guard sets outlive a transaction: a connection
//! that was handed away before a crash must not be answered by this host's kernel after it.

mod bypass;
mod link;
mod present;

pub use bypass::HOP_LIMIT_TEACHES;
pub(super) use bypass::{Bypass, LOCAL_FULL, LOCAL_PASSED, LOCAL_TAUGHT, local_set};
pub(super) use link::{LINK_MASK, Links, MARK_LINK, learned_set, learned_set_of, passed_counter, taken_counter};
pub(super) use present::rules_in;

use super::family::Family;
use super::heartbeat::{ADDRESS_V4, ADDRESS_V6, SOURCE_PORT};
use crate::doctor::refusal;
use crate::flow::Endpoint;
use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// The table, of family inet.
pub(super) const TABLE: &str = "baton";
/// Packets to own front-ends: into the TUN, and to the local stack when it is gone (fail-open).
pub(super) const MARK_CAPTURED: u32 = 0x7;
/// Packets of connections that live elsewhere: into the TUN, and nowhere when it is gone (fail-closed).
pub(super) const MARK_GUARDED: u32 = 0x8;
/// How long a heartbeat keeps capture going.
const ALIVE_TIMEOUT: &str = "1s";

/// The name of the guard set of one family.
pub(super) fn guard_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "guard4",
        Family::V6 => "guard6",
    }
}

/// A device that packets of one family for front-ends come in by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ingress {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) forwarding: Forwarding,
}

/// Whether a device forwarded packets before baton did anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forwarding {
    /// It did, to wherever the host's administrator wants.
    Before,
    /// It did not: baton switches it on, and nothing but the TUN may profit from that.
    OnlyForUs,
}

/// What the rules are about.
#[derive(Clone, Debug)]
pub(super) struct Ruleset<'a> {
    pub(super) device: &'a str,
    pub(super) frontends: &'a [Endpoint],
    /// Those of them that other nodes have, too.
    pub(super) shared: &'a [Endpoint],
    pub(super) aliases: &'a [IpNet],
    pub(super) ingress: &'a [Ingress],
    /// Families no device of which forwarded before, while now all do.
    pub(super) not_a_router: &'a [Family],
    pub(super) guards_max: usize,
    pub(super) tracking: Tracking,
    pub(super) bypass: Bypass,
    /// Packets without the overlay; none where no service may do that.
    pub(super) links: Option<Links<'a>>,
}

/// What to do with the host's connection tracking: it sees only halves of our connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tracking {
    /// `notrack` for our packets.
    Bypassed,
    /// This kernel has no `notrack`, hence no tracking either.
    Absent,
}

impl Tracking {
    fn statement(self) -> &'static str {
        match self {
            Self::Bypassed => "notrack ",
            Self::Absent => "",
        }
    }
}

/// The words of a family's rules.
struct Words {
    digit: char,
    version: &'static str,
    ip: &'static str,
    address: &'static str,
    /// Fragments go to the local stack whole or not at all: captured are only packets that are none. One fragment that
    /// is the whole packet is none (RFC 6946).
    unfragmented: &'static [&'static str],
    /// Clients that packets can be forwarded for.
    routable: &'static str,
    /// Errors about packets of a connection; the number of the protocol stands in the quoted header.
    errors: &'static str,
    quotes_tcp: &'static str,
    redirect: &'static str,
}

fn words(family: Family) -> Words {
    match family {
        Family::V4 => Words {
            digit: '4',
            version: "ipv4",
            ip: "ip",
            address: "ipv4_addr",
            unfragmented: &["ip frag-off & 0x3fff == 0"],
            routable: "",
            errors: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
            quotes_tcp: "@th,136,8 6",
            redirect: "icmp type redirect",
        },
        Family::V6 => Words {
            digit: '6',
            version: "ipv6",
            ip: "ip6",
            address: "ipv6_addr",
            unfragmented: &["exthdr frag missing", "frag frag-off 0 frag more-fragments 0"],
            // What comes from a link-local address is not forwarded, nor what goes there (RFC 4291, section 2.5.6).
            routable: "ip6 saddr != fe80::/10 ",
            errors: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
            quotes_tcp: "@th,112,8 6",
            redirect: "icmpv6 type nd-redirect",
        },
    }
}

impl Ruleset<'_> {
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(|&family| {
            self.frontends.iter().any(|frontend| Family::of(frontend.address) == family)
                || self.aliases.iter().any(|prefix| Family::of_prefix(prefix) == family)
        })
    }

    fn only_for_us(&self) -> impl Iterator<Item = &Ingress> {
        self.ingress.iter().filter(|ingress| ingress.forwarding == Forwarding::OnlyForUs)
    }

    fn frontends_of(&self, family: Family) -> impl Iterator<Item = &Endpoint> {
        self.frontends.iter().filter(move |frontend| Family::of(frontend.address) == family)
    }

    /// The transaction that makes the table as it should be, whatever was in it; guards stay.
    pub(super) fn install(&self, left_over: &LeftOver) -> String {
        let mut text = format!("add table inet {TABLE}\nflush table inet {TABLE}\n");
        for chain in &left_over.chains {
            let _ = writeln!(text, "delete chain inet {TABLE} {chain}");
        }
        for set in left_over.sets.iter().filter(|set| !is_guard_set(set)) {
            let _ = writeln!(text, "delete set inet {TABLE} {set}");
        }
        for counter in &left_over.counters {
            let _ = writeln!(text, "delete counter inet {TABLE} {counter}");
        }
        let _ = writeln!(text, "table inet {TABLE} {{");
        self.write_sets(&mut text);
        self.write_links(&mut text);
        self.write_chains(&mut text);
        text.push_str("}\n");
        text
    }

    /// The transaction that keeps devices that are about to forward from forwarding elsewhere, as the whole table does for
    /// those it was made with.
    pub(super) fn restrict(&self, new_ingress: &[Ingress]) -> String {
        let mut text = String::new();
        for Ingress { name, family, .. } in new_ingress.iter().filter(|ingress| ingress.forwarding == Forwarding::OnlyForUs) {
            let Words { version, redirect, .. } = words(*family);
            let device = self.device;
            let _ = writeln!(
                text,
                "insert rule inet {TABLE} output oifname \"{name}\" {redirect} drop\n\
                 add rule inet {TABLE} forward meta nfproto {version} iifname \"{name}\" oifname != \"{device}\" drop"
            );
        }
        text
    }

    /// The transaction for other front-end addresses, and for devices that are new. Whatever the kernel does at this moment
    /// it does by the sets before or by those after. `known` are all there have ever been.
    pub(super) fn replace_frontends(&self, new_ingress: &[Ingress], known: &BTreeSet<Endpoint>) -> String {
        let mut text = String::new();
        let mut add = |set: &str, digit: char, elements: BTreeSet<String>| {
            if !elements.is_empty() {
                let elements: Vec<String> = elements.into_iter().collect();
                let _ = writeln!(text, "add element inet {TABLE} {set}{digit} {{ {} }}", elements.join(", "));
            }
        };
        for family in self.families() {
            let Words { digit, .. } = words(family);
            let is_of_family = |endpoint: &&Endpoint| Family::of(endpoint.address) == family;
            let names = new_ingress.iter().filter(|ingress| ingress.family == family);
            add("ingress", digit, names.map(|ingress| format!("\"{}\"", ingress.name)).collect());
            // Adding what is there is fine.
            add("addresses", digit, known.iter().filter(is_of_family).map(|frontend| frontend.address.to_string()).collect());
        }
        for family in self.families() {
            let Words { digit, .. } = words(family);
            for (set, endpoints) in [("frontends", self.frontends), ("shared", self.shared)] {
                let _ = writeln!(text, "flush set inet {TABLE} {set}{digit}");
                let endpoints: BTreeSet<String> = endpoints_of(endpoints, family).collect();
                if !endpoints.is_empty() {
                    let endpoints: Vec<String> = endpoints.into_iter().collect();
                    let _ = writeln!(text, "add element inet {TABLE} {set}{digit} {{ {} }}", endpoints.join(", "));
                }
            }
        }
        text
    }

    fn write_sets(&self, text: &mut String) {
        // Every port there is: a set just large enough would refuse the first heartbeat after a pause, since an element
        // that timed out counts until it is collected, and ports may be added later.
        let room = 65_536;
        for (set, key) in [("alive", "inet_service"), ("beating", "nf_proto")] {
            let _ = writeln!(text, "  set {set} {{ type {key}; flags dynamic,timeout; timeout {ALIVE_TIMEOUT}; size {room}; }}");
        }
        // Guard sets of both families always: nobody must ask which ones there are.
        for family in Family::BOTH {
            let Words { address, .. } = words(family);
            let _ = writeln!(
                text,
                "  set {} {{ type {address} . inet_service . {address} . inet_service; size {}; }}",
                guard_set(family),
                self.guards_max
            );
        }
        for family in self.families() {
            let Words { digit, address, .. } = words(family);
            let addresses = self.frontends_of(family).map(|frontend| frontend.address.to_string());
            let prefixes = self.aliases.iter().filter(|prefix| Family::of_prefix(prefix) == family).map(IpNet::trunc);
            let names = self.ingress.iter().filter(|ingress| ingress.family == family).map(|ingress| &ingress.name);
            let _ = write!(
                text,
                "  set ingress{digit} {{ type ifname; {} }}\n  \
                   set frontends{digit} {{ type {address} . inet_service; {} }}\n  \
                   set shared{digit} {{ type {address} . inet_service; {} }}\n  \
                   set addresses{digit} {{ type {address}; {} }}\n  \
                   set aliases{digit} {{ type {address}; flags interval; auto-merge; {} }}\n",
                elements(names.map(|name| format!("\"{name}\""))),
                elements(endpoints_of(self.frontends, family)),
                elements(endpoints_of(self.shared, family)),
                elements(addresses),
                elements(prefixes.map(|prefix| prefix.to_string()))
            );
        }
        self.write_bypass_sets(text);
    }

    fn write_chains(&self, text: &mut String) {
        let device = self.device;
        let notrack = self.tracking.statement();

        self.write_bypass_chains(text);
        text.push_str("  chain from_tun {\n");
        for (ip, address) in [("ip", IpAddr::from(ADDRESS_V4)), ("ip6", ADDRESS_V6.into())] {
            // Three rules: a set that cannot be updated ends its rule, and must not end more.
            for action in ["update @alive { udp dport }", "update @beating { meta nfproto }", "drop"] {
                let _ = writeln!(text, "    {ip} saddr {address} udp sport {SOURCE_PORT} {action}");
            }
        }
        if self.tracking == Tracking::Bypassed {
            text.push_str("    notrack\n");
        }
        self.write_lessons(text);
        text.push_str("  }\n  chain capture {\n");
        for family in self.families() {
            let Words { digit, ip, unfragmented, routable, .. } = words(family);
            for whole in unfragmented {
                let captured = format!(
                    "iifname @ingress{digit} {whole} {routable}{ip} daddr . tcp dport @frontends{digit} tcp dport @alive"
                );
                let _ = match self.bypass {
                    Bypass::Learned => writeln!(text, "    {captured} goto bypass{digit}"),
                    Bypass::Never => writeln!(text, "    {captured} {notrack}meta mark set {MARK_CAPTURED:#x}"),
                };
            }
        }
        text.push_str("  }\n  chain answers {\n");
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            self.write_oblivion(family, text);
            let _ = writeln!(
                text,
                "    {ip} saddr . tcp sport @frontends{digit} tcp sport @alive tcp flags & (syn | ack) == (syn | ack) \
                 meta mark set {MARK_CAPTURED:#x}"
            );
            // A RST that answers a segment of no connection: another node may have that one.
            let _ = writeln!(
                text,
                "    {ip} saddr . tcp sport @shared{digit} tcp sport @alive tcp flags & (rst | ack) == rst \
                 meta mark set {MARK_CAPTURED:#x}"
            );
            if self.tracking == Tracking::Bypassed {
                let _ = writeln!(text, "    {ip} saddr . tcp sport @frontends{digit} tcp sport @alive notrack");
            }
        }
        let _ = writeln!(
            text,
            "  }}\n  chain prerouting {{\n    type filter hook prerouting priority -300; policy accept;\n    \
             iifname \"{device}\" goto from_tun"
        );
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            let _ = writeln!(text, "    {ip} daddr @aliases{digit} drop");
        }
        text.push_str("    iifname \"lo\" return\n");
        self.write_link_arrivals(text);
        for family in Family::BOTH {
            let Words { digit, ip, .. } = words(family);
            let _ = writeln!(
                text,
                "    {ip} saddr . tcp sport . {ip} daddr . tcp dport @guard{digit} \
                 {notrack}meta mark set {MARK_GUARDED:#x} return"
            );
        }
        for family in self.families() {
            let Words { digit, ip, errors, quotes_tcp, .. } = words(family);
            let _ = writeln!(
                text,
                "    iifname @ingress{digit} {errors} {quotes_tcp} {ip} daddr @addresses{digit} meta nfproto @beating \
                 {notrack}meta mark set {MARK_CAPTURED:#x} return"
            );
        }
        text.push_str("    jump capture\n  }\n  chain output {\n    type route hook output priority -300; policy accept;\n");
        self.write_link_departures(text);
        // This host forwards what it serves for itself from an alias, and tells itself when that is too big for the way
        // to the client. The error never comes in from outside.
        for family in self.families() {
            let Words { digit, ip, errors, quotes_tcp, .. } = words(family);
            let _ = writeln!(
                text,
                "    oifname \"lo\" {errors} {quotes_tcp} {ip} daddr @addresses{digit} meta nfproto @beating \
                 {notrack}meta mark set {MARK_CAPTURED:#x} return"
            );
        }
        text.push_str("    oifname \"lo\" return\n");
        // Who forwards also says that there is a shorter way. A host that is no router does not.
        for &family in self.not_a_router {
            let _ = writeln!(text, "    {} drop", words(family).redirect);
        }
        for Ingress { name, family, .. } in self.only_for_us() {
            let _ = writeln!(text, "    oifname \"{name}\" {} drop", words(*family).redirect);
        }
        if self.tracking == Tracking::Bypassed {
            for family in self.families() {
                let Words { digit, ip, .. } = words(family);
                let _ = writeln!(text, "    {ip} saddr @aliases{digit} notrack return");
            }
        }
        text.push_str("    jump answers\n  }\n  chain forward {\n    type filter hook forward priority -1; policy accept;\n");
        // Whatever went wrong above: nothing leaves from an alias.
        for family in self.families() {
            let Words { digit, ip, .. } = words(family);
            let _ = writeln!(text, "    {ip} saddr @aliases{digit} oifname != \"{device}\" drop");
        }
        if self.links.is_some() {
            let _ = writeln!(text, "    meta mark & {LINK_MASK:#x} == {MARK_LINK:#x} accept");
        }
        for &family in self.not_a_router {
            let version = words(family).version;
            let _ = writeln!(text, "    meta nfproto {version} iifname != \"{device}\" oifname != \"{device}\" drop");
        }
        for Ingress { name, family, .. } in self.only_for_us() {
            let version = words(*family).version;
            let _ = writeln!(text, "    meta nfproto {version} iifname \"{name}\" oifname != \"{device}\" drop");
        }
        text.push_str("  }\n");
    }
}

/// Those of a family, as elements of a set.
fn endpoints_of(endpoints: &[Endpoint], family: Family) -> impl Iterator<Item = String> {
    let of_family = endpoints.iter().filter(move |endpoint| Family::of(endpoint.address) == family);
    of_family.map(|endpoint| format!("{} . {}", endpoint.address, endpoint.port))
}

fn elements(elements: impl Iterator<Item = String>) -> String {
    let list: BTreeSet<String> = elements.collect();
    if list.is_empty() {
        return String::new();
    }
    format!("elements = {{ {} }}", list.into_iter().collect::<Vec<_>>().join(", "))
}

fn is_guard_set(set: &str) -> bool {
    Family::BOTH.into_iter().any(|family| guard_set(family) == set)
}

/// The transaction that ends capture of new and undecided connections. Guards, aliases, heartbeats and errors about
/// handed-off connections go on.
pub(super) fn release() -> String {
    format!("flush chain inet {TABLE} capture\nflush chain inet {TABLE} answers\n")
}

/// The transaction that removes everything.
pub(super) fn remove() -> String {
    // Adding first makes the deletion succeed also when somebody else was faster.
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// What an earlier life left in the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LeftOver {
    pub(super) chains: Vec<String>,
    pub(super) sets: Vec<String>,
    pub(super) counters: Vec<String>,
}

impl LeftOver {
    /// None when there is no such table.
    pub(super) fn find() -> anyhow::Result<Option<Self>> {
        let tables = run(&["-j", "list", "tables", "inet"], "").context("listing nf_tables tables")?;
        if !objects(&tables)?.iter().any(|object| object["table"]["name"] == TABLE) {
            return Ok(None);
        }
        // Without the elements: there may be a million guards.
        let table = run(&["-j", "-t", "list", "table", "inet", TABLE], "").context("listing the table inet baton")?;
        let objects = objects(&table)?;
        let names = |kind: &str| -> Vec<String> {
            objects.iter().filter_map(|object| object[kind]["name"].as_str()).map(str::to_owned).collect()
        };
        let mut sets = names("set");
        sets.extend(names("map"));
        Ok(Some(Self { chains: names("chain"), sets, counters: names("counter") }))
    }

    /// Whether there is something that captures.
    pub(super) fn captures(&self) -> bool {
        ["capture", "answers"].iter().all(|chain| self.chains.iter().any(|name| name == chain))
    }

    /// Whether a table with these sets can be ours.
    pub(super) fn is_ours(&self) -> bool {
        Family::BOTH.into_iter().all(|family| self.sets.iter().any(|set| set == guard_set(family)))
    }
}

/// The comments of those rules of a chain that counted a packet.
pub(super) fn counted(chain: &str) -> anyhow::Result<Vec<String>> {
    let listing =
        run(&["-j", "list", "chain", "inet", TABLE, chain], "").with_context(|| format!("listing the chain {chain}"))?;
    let counted = |rule: &serde_json::Value| {
        let statements = rule["expr"].as_array()?;
        let packets = statements.iter().find_map(|statement| statement["counter"]["packets"].as_u64())?;
        (packets > 0).then(|| rule["comment"].as_str().map(str::to_owned)).flatten()
    };
    Ok(objects(&listing)?.iter().filter_map(|object| counted(&object["rule"])).collect())
}

fn objects(json: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut value: serde_json::Value = serde_json::from_str(json).context("reading what `nft -j` wrote")?;
    match value["nftables"].take() {
        serde_json::Value::Array(objects) => Ok(objects),
        _ => bail!("`nft -j` wrote something else than a list of objects"),
    }
}

/// Every rule of every table, without the elements of sets.
pub(super) fn list_ruleset() -> anyhow::Result<Vec<serde_json::Value>> {
    objects(&run(&["-j", "-t", "list", "ruleset"], "")?)
}

/// The base chains of others that drop what no rule accepts.
pub(super) fn dropping_chains() -> anyhow::Result<Vec<String>> {
    let listing = objects(&run(&["-j", "list", "chains"], "").context("listing chains")?)?;
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let chains = listing.iter().map(|object| &object["chain"]);
    let dropping = chains.filter(|chain| chain["policy"] == "drop" && chain["table"] != TABLE);
    Ok(dropping.map(|chain| format!("{} {} {}", word(&chain["family"]), word(&chain["table"]), word(&chain["name"]))).collect())
}

/// What nft says of itself, such as `nftables v1.0.6 (Lester Gooch #5)`.
pub(super) fn version() -> anyhow::Result<String> {
    Ok(run(&["--version"], "")?.lines().next().unwrap_or_default().trim().to_owned())
}

/// Applies a transaction; all of it or nothing.
pub(super) fn apply(text: &str) -> anyhow::Result<()> {
    run(&["-f", "-"], text).map(drop)
}

/// Has the kernel look at a transaction without applying it.
pub(super) fn check(text: &str) -> anyhow::Result<()> {
    run(&["-c", "-f", "-"], text).map(drop)
}

/// Runs nft and gives what it wrote.
fn run(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    // A daemon's PATH may lack the directories of system programs.
    let mut found = ["nft", "/usr/sbin/nft", "/sbin/nft"].into_iter().filter_map(|program| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            spawned => Some(spawned),
        }
    });
    let mut child = match found.next() {
        None => return Err(refusal("nft is missing", "install nftables (Debian: `apt install nftables`)")),
        Some(Err(error)) => {
            return Err(refusal(format!("nft cannot be started ({error})"), "install nftables anew, and see to its permissions"));
        }
        Some(Ok(child)) => child,
    };
    if let Some(mut standard_input) = child.stdin.take() {
        // nft may end before it has read everything; then its exit status says more than our broken pipe.
        let _ = standard_input.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context("waiting for nft")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {}: {}", arguments.join(" "), errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::NodeId;

    fn text(left_over: &LeftOver) -> String {
        text_of(left_over, &[])
    }

    fn text_of(left_over: &LeftOver, not_a_router: &[Family]) -> String {
        let ingress = [
            Ingress { family: Family::V4, name: "eth0".into(), forwarding: Forwarding::OnlyForUs },
            Ingress { family: Family::V4, name: "br-1".into(), forwarding: Forwarding::Before },
        ];
        let ruleset = Ruleset {
            device: "bt0",
            frontends: &[Endpoint::new([10, 77, 0, 1].into(), 80)],
            shared: &[],
            aliases: &["198.18.0.0/16".parse().unwrap()],
            ingress: &ingress,
            not_a_router,
            guards_max: 1000,
            tracking: Tracking::Bypassed,
            links: None,
            bypass: Bypass::Learned,
        };
        ruleset.install(left_over)
    }

    fn line(text: &str, part: &str) -> Option<usize> {
        text.lines().position(|line| line.contains(part))
    }

    #[test]
    fn a_guard_wins_over_capture() {
        let text = text(&LeftOver::default());
        assert!(line(&text, "@guard4").unwrap() < line(&text, "jump capture").unwrap());
    }

    #[test]
    fn a_guard_wins_over_what_was_learned_and_a_syn_is_never_looked_up() {
        let text = text(&LeftOver::default());
        let prerouting = line(&text, "chain prerouting").unwrap();
        let guard = text.lines().skip(prerouting).position(|line| line.contains("@guard4")).unwrap() + prerouting;
        assert!(line(&text, "jump capture").unwrap() > guard);
        let goto = line(&text, "goto bypass4").unwrap();
        assert!(goto > line(&text, "chain capture").unwrap() && goto < line(&text, "chain answers").unwrap());
        let rules = line(&text, "chain bypass4").unwrap();
        let syn = line(&text, "tcp flags & (syn | ack) == syn delete @local4").unwrap();
        assert_eq!(syn, rules + 1);
        assert!(text.lines().nth(syn).unwrap().ends_with("meta mark set 0x7 return"));
        // What a late packet taught between SYN and SYN-ACK is forgotten, too.
        let answers = line(&text, "chain answers").unwrap();
        let forgets = "tcp flags & (syn | ack) == (syn | ack) delete @local4 { ip daddr . tcp dport . ip saddr . tcp sport }";
        assert!(line(&text, forgets).unwrap() > answers);
        assert!(text.contains("tcp flags & (fin | syn | rst) == 0x0 socket wildcard 0 jump learn4"));
    }

    #[test]
    fn without_bypass_there_is_no_trace_of_it() {
        let ruleset = Ruleset {
            device: "bt0",
            frontends: &[Endpoint::new([10, 77, 0, 1].into(), 80)],
            shared: &[],
            aliases: &["198.18.0.0/16".parse().unwrap()],
            ingress: &[],
            not_a_router: &[],
            guards_max: 1000,
            tracking: Tracking::Bypassed,
            bypass: Bypass::Never,
            links: None,
        };
        let text = ruleset.install(&LeftOver::default());
        for word in ["local", "bypass", "learn", "direct", "arrived", "socket"] {
            assert!(!text.contains(word), "{word}");
        }
        assert!(text.contains("tcp dport @alive notrack meta mark set 0x7"));
    }

    #[test]
    fn alias_packets_are_dropped_before_anything_else_may_let_them_in() {
        let text = text(&LeftOver::default());
        let drop = line(&text, "ip daddr @aliases4 drop").unwrap();
        assert!(line(&text, "goto from_tun").unwrap() < drop);
        assert!(drop < line(&text, "iifname \"lo\" return").unwrap());
    }

    #[test]
    fn guards_survive_a_new_transaction_and_nothing_else_does() {
        let left_over = LeftOver {
            chains: vec!["prerouting".into(), "older".into()],
            sets: vec!["guard4".into(), "alive".into()],
            counters: vec!["local_taught".into()],
        };
        let text = text(&left_over);
        assert!(text.contains("delete chain inet baton older"));
        assert!(text.contains("delete set inet baton alive"));
        assert!(text.contains("delete counter inet baton local_taught"));
        assert!(!text.contains("delete set inet baton guard4"));
    }

    #[test]
    fn other_front_ends_replace_those_before_in_one_transaction_and_old_addresses_stay() {
        let ingress = [Ingress { family: Family::V4, name: "eth1".into(), forwarding: Forwarding::OnlyForUs }];
        let (before, after) = ([10, 77, 0, 1], [10, 77, 0, 9]);
        let frontends = [Endpoint::new(after.into(), 81)];
        let ruleset = Ruleset {
            device: "bt0",
            frontends: &frontends,
            shared: &frontends,
            aliases: &["198.18.0.0/16".parse().unwrap()],
            ingress: &[],
            not_a_router: &[],
            guards_max: 1000,
            tracking: Tracking::Bypassed,
            links: None,
            bypass: Bypass::Learned,
        };
        let known = [Endpoint::new(before.into(), 80), frontends[0]].into();
        assert_eq!(
            ruleset.replace_frontends(&ingress, &known),
            "\
add element inet baton ingress4 { \"eth1\" }
add element inet baton addresses4 { 10.77.0.1, 10.77.0.9 }
flush set inet baton frontends4
add element inet baton frontends4 { 10.77.0.9 . 81 }
flush set inet baton shared4
add element inet baton shared4 { 10.77.0.9 . 81 }
"
        );
        assert_eq!(
            ruleset.restrict(&ingress),
            "\
insert rule inet baton output oifname \"eth1\" icmp type redirect drop
add rule inet baton forward meta nfproto ipv4 iifname \"eth1\" oifname != \"bt0\" drop
"
        );
    }

    #[test]
    fn over_links_a_syn_is_never_looked_up_and_a_peer_is_never_forwarded_to() {
        let received = [Endpoint::new([10, 77, 0, 2].into(), 80)];
        let peers = [(Family::V4, NodeId(1)), (Family::V4, NodeId(2))];
        let ruleset = Ruleset {
            device: "bt0",
            frontends: &[Endpoint::new([10, 77, 0, 1].into(), 80)],
            shared: &[],
            aliases: &["198.18.0.0/16".parse().unwrap()],
            ingress: &[],
            not_a_router: &[],
            guards_max: 1000,
            tracking: Tracking::Bypassed,
            links: Some(Links { received: &received, peers: &peers }),
            bypass: Bypass::Learned,
        };
        let text = ruleset.install(&LeftOver::default());
        let flow = "ip saddr . tcp sport . ip daddr . tcp dport";
        let rules: Vec<&str> = text.lines().skip_while(|line| *line != "  chain on_link4 {").skip(1).collect();
        let expected = [
            format!("    tcp flags & (syn | ack) == syn delete @learned4_1 {{ {flow} }}"),
            format!("    tcp flags & (syn | ack) == syn delete @learned4_2 {{ {flow} }}"),
            format!("    tcp flags & (syn | ack) == syn delete @learned4 {{ {flow} }}"),
            "    tcp flags & (syn | ack) == syn return".to_owned(),
            "    ether saddr @neighbours return".to_owned(),
            format!(
                "    {flow} @learned4_1 update @learned4_1 {{ {flow} }} update @learned4 {{ {flow} }} notrack meta mark set \
                 0xba70001 counter name link_taken4_1 accept"
            ),
        ];
        assert_eq!(rules[..6], expected);
        assert!(text.contains("counter name meta mark map { 0xba70001 : \"link_passed4_1\", 0xba70002 : \"link_passed4_2\" }"));
        // What a peer sends begins nothing here, and probes, whose source is a front-end, teach nothing.
        let arrives = "ip daddr . tcp dport @received4 tcp flags & (syn | ack) != syn notrack meta mark set 0x8 return";
        assert!(text.contains(arrives));
        assert!(text.contains(&format!("meta mark 0xba70001 ip saddr != @addresses4 update @learned4_1 {{ {flow} }}")));
        assert!(line(&text, "chain passed").is_some());
    }

    #[test]
    fn only_a_device_that_did_not_forward_before_is_kept_from_forwarding() {
        let text = text(&LeftOver::default());
        assert!(text.contains("meta nfproto ipv4 iifname \"eth0\" oifname != \"bt0\" drop"));
        assert!(!text.contains("iifname \"br-1\" oifname"));
    }

    #[test]
    fn a_host_that_is_no_router_does_not_speak_like_one() {
        let text = text(&LeftOver::default());
        assert!(text.contains("oifname \"eth0\" icmp type redirect drop"));
        assert!(!text.contains("oifname \"br-1\" icmp type redirect"));
    }

    #[test]
    fn where_all_devices_forward_for_us_none_forwards_for_others() {
        let text = text_of(&LeftOver::default(), &[Family::V6]);
        assert!(text.contains("meta nfproto ipv6 iifname != \"bt0\" oifname != \"bt0\" drop"));
        assert!(text.contains("    icmpv6 type nd-redirect drop"));
        assert!(!text.contains("meta nfproto ipv4 iifname != \"bt0\""));
    }
}
