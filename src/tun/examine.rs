//! `baton doctor`, the host's part: the checks that a start makes, and some that it cannot make or need not refuse for.
//!
//! Nothing is changed. What a start finds out with a TUN and packets is read from rules here (`firewall`).

use super::capture::CaptureConfig;
use super::family::Family;
use super::firewall::{self, Consequence, Firewall};
use super::first_values::FirstValues;
use super::forwarding::Means;
use super::host_lock::{self, Namespace};
use super::nft::{Bypass, Forwarding, Ingress, LeftOver, Links, Ruleset, Tracking};
use super::routing::{HostAddress, Link, LinkKind, Routing};
use super::sock_diag::SockDiag;
use super::steering::Steering;
use super::{device, nft, preflight, requirements, sysctl};
use crate::doctor::{Findings, refusal};
use anyhow::Context;
use std::path::Path;

/// Looks at the host, with the eyes of this configuration when there is one. Gives what the baton says of itself that
/// runs in this network namespace, if one does.
pub fn examine(name: &str, state_directory: &Path, config: Option<&CaptureConfig>, findings: &mut Findings) -> Option<String> {
    findings.check("privilege", requirements::check_privilege(), |()| requirements::privileges());
    findings.check("TUN driver", requirements::check_tun_driver(), |()| "/dev/net/tun can be opened".to_owned());
    findings.check("settings", requirements::check_settings(), |()| "kernel settings can be changed".to_owned());
    let checked = requirements::check_state_directory(state_directory);
    findings.check("state directory", checked, |()| format!("{} is writable", state_directory.display()));
    let nft = findings.check("nft", requirements::check_nft(), Clone::clone);
    if let Some(version) = nft.as_ref().filter(|version| !requirements::is_tried_version(version)) {
        findings.warning("nft", format!("{version} is older than what was tried"), "install nftables 1.0 or newer");
    }
    findings.check("open files", requirements::check_open_files(), |maximum| format!("up to {maximum}"));
    check_sock_diag(findings);

    let running = running(state_directory, findings);
    let look = Look { name, state_directory, nft: nft.is_some(), running: running.is_some() };
    if let Err(error) = look.at_the_network(config, findings) {
        findings.refused("network", &error);
    }
    running
}

fn running(state_directory: &Path, findings: &mut Findings) -> Option<String> {
    let holder = Namespace::current().and_then(|namespace| host_lock::holder(state_directory, &namespace));
    match holder {
        Ok(None) => findings.ok("other batons", "none runs in this network namespace"),
        Ok(Some(holder)) => {
            findings.ok("other batons", format!("one runs here ({holder}); what it holds is not counted as taken"));
            return Some(holder);
        }
        Err(error) => findings.doubted("other batons", &error),
    }
    None
}

fn check_sock_diag(findings: &mut Findings) {
    let sockets = SockDiag::open().context("opening sock_diag").and_then(|mut sockets| {
        sockets.check_destroy().map_err(|error| {
            refusal(
                format!("sockets of handed-off connections cannot be destroyed: {error}"),
                "a kernel with CONFIG_INET_DIAG_DESTROY; without, stopping while such connections live leaves them behind",
            )
        })
    });
    match sockets {
        Ok(()) => findings.ok("sock_diag", "sockets can be asked for and destroyed"),
        Err(error) => findings.doubted("sock_diag", &error),
    }
}

struct Look<'a> {
    name: &'a str,
    state_directory: &'a Path,
    nft: bool,
    running: bool,
}

impl Look<'_> {
    fn at_the_network(&self, config: Option<&CaptureConfig>, findings: &mut Findings) -> anyhow::Result<()> {
        let namespace = Namespace::current()?;
        let first_values = FirstValues::load(self.state_directory, self.name, &namespace);
        let first_values = findings.check("first values", first_values, |values| match values.is_empty() {
            true => "no setting is changed".to_owned(),
            false => format!("saved in {}", values.path().display()),
        });
        let mut routing = Routing::open().context("opening rtnetlink")?;
        let links = routing.links().context("listing network interfaces")?;
        self.at_the_device(&links, findings);
        let left_over = if self.nft {
            findings.check("nft table", preflight::left_over(), |_| "inet baton is free or ours".into())
        } else {
            None
        };
        self.at_what_was_left(&mut routing, left_over.as_ref(), first_values.as_ref(), findings)?;
        self.at_tcp(findings);

        let aliases = config.map_or(&[][..], |config| &config.aliases);
        let mut families = vec![Family::V4];
        if let Some(config) = config {
            families = Family::BOTH.into_iter().filter(|family| config.has(*family)).collect();
        }
        for &family in &families {
            let checked = Steering::new(family, None, aliases).check(&mut routing);
            findings.check("policy rules", checked, |()| format!("preferences, tables and marks of {family} are free or ours"));
        }
        let Some(first_values) = first_values else { return Ok(()) };
        let mut means = Vec::new();
        for &family in &families {
            // The TUN has what a new device has by default.
            let found = Means::of(family, "default", &first_values);
            means.extend(found.as_ref().ok().map(|means| (family, *means)));
            findings.check("forwarding", found, |means| match means {
                Means::Given => format!("is on for all devices, {family}"),
                Means::PerDevice => format!("can be switched on for single devices, {family}"),
                Means::Everywhere => format!("can be switched on for all devices, which stay a host's, {family}"),
            });
        }
        if let Some(config) = config {
            self.at_the_configuration(config, &means, &links, &mut routing, &first_values, left_over.as_ref(), findings)?;
        } else if self.nft {
            check_rules_of_others(findings);
        }
        Ok(())
    }

    fn at_the_device(&self, links: &[Link], findings: &mut Findings) {
        let name = self.name;
        let ours = links.iter().find(|link| link.name == name).filter(|_| self.running);
        let widest = links.iter().filter(|link| link.kind == LinkKind::Other && link.name != name).map(|link| link.mtu).max();
        match (ours, widest) {
            (Some(link), Some(widest)) if link.mtu < widest => findings.warning(
                "device",
                format!(
                    "{name} has MTU {}, and a link is wider ({widest}): clients may be remembered with too small a path",
                    link.mtu
                ),
                "stop and start baton, which chooses the MTU of the widest link",
            ),
            (Some(link), _) => findings.ok("device", format!("{name} is the running baton's, MTU {}", link.mtu)),
            (None, _) => {
                findings.check("device", device::check_free(name, links), |()| format!("the name {name} is free"));
            }
        }
    }

    /// A baton that was killed leaves much behind, on purpose.
    fn at_what_was_left(
        &self,
        routing: &mut Routing,
        table: Option<&LeftOver>,
        first_values: Option<&FirstValues>,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        if self.running {
            return Ok(());
        }
        let mut left = Vec::new();
        if table.is_some_and(|table| table.is_ours()) {
            left.push("the table inet baton");
        }
        for family in Family::BOTH {
            if Steering::found(family, None, &[], routing)?.is_some() {
                left.push(if family == Family::V4 { "policy rules (IPv4)" } else { "policy rules (IPv6)" });
            }
        }
        if first_values.is_some_and(|values| !values.is_empty()) {
            left.push("changed settings");
        }
        if left.is_empty() {
            findings.ok("left-overs", "a baton that was killed left nothing");
        } else {
            let what = format!("a baton that was killed left {}", left.join(", "));
            findings.warning("left-overs", what, "the next start takes over; `baton cleanup` puts the host back without one");
        }
        Ok(())
    }

    /// What a handed-off connection needs is promised by one kernel and kept by another.
    fn at_tcp(&self, findings: &mut Findings) {
        const WANTED: [(&str, &str); 3] = [("tcp_sack", "1"), ("tcp_timestamps", "1"), ("tcp_window_scaling", "1")];
        let read = |name: &str| sysctl::read(&format!("ipv4/{name}")).ok().flatten();
        let off: Vec<&str> =
            WANTED.iter().filter(|(name, _)| read(name).as_deref() == Some("0")).map(|(name, _)| *name).collect();
        if off.is_empty() {
            findings.ok("TCP settings", "SACK, timestamps and window scaling are on");
        } else {
            let what = format!(
                "net.ipv4.{} is 0: connections that were promised it elsewhere cannot be handed to this node",
                off.join(", net.ipv4.")
            );
            findings.warning("TCP settings", what, "set it alike on all nodes; 1 is the kernel's own value");
        }
        if read("tcp_syncookies").as_deref() == Some("2") {
            findings.warning(
                "TCP settings",
                "net.ipv4.tcp_syncookies is 2: every connection begins with a cookie, and none is handed off",
                "set it to 1",
            );
        }
        if read("tcp_early_demux").is_some_and(|value| value == "0") && !self.running {
            findings.ok("TCP settings", "net.ipv4.tcp_early_demux is 0 already, as it must be while baton runs");
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn at_the_configuration(
        &self,
        config: &CaptureConfig,
        families: &[(Family, Means)],
        links: &[Link],
        routing: &mut Routing,
        first_values: &FirstValues,
        left_over: Option<&LeftOver>,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        let own = links.iter().find(|link| link.name == self.name).map(|link| link.index);
        let mut addresses: Vec<HostAddress> = routing.addresses().context("listing addresses")?;
        addresses.retain(|host| Some(host.link) != own);
        let checked = preflight::check_addresses(&config.frontends, &config.aliases, &addresses);
        findings.check("addresses", checked, |()| "front-ends are this host's, alias prefixes nobody's".to_owned());
        let ingress = preflight::ingress(routing, config, families, links, &addresses, first_values)?;
        let names: Vec<String> = ingress.iter().map(ingress_name).collect();
        findings.ok(
            "captured from",
            if names.is_empty() {
                "no device: this node has no front-end address, or its devices are not there yet".to_owned()
            } else {
                names.join(", ")
            },
        );
        let reverse_path = preflight::check_reverse_path(&ingress);
        findings.check("reverse path", reverse_path, |()| "does not ask for captured packets' routes by their mark".to_owned());

        let Some(left_over) = left_over else { return Ok(()) };
        let not_a_router = Means::not_a_router(families);
        let (received, linked_peers) = (config.received(), config.linked_peers());
        let mut ruleset = Ruleset {
            device: self.name,
            frontends: &config.frontends,
            shared: &config.shared,
            aliases: &config.aliases,
            ingress: &ingress,
            not_a_router: &not_a_router,
            guards_max: config.guards_max,
            tracking: Tracking::Bypassed,
            links: (!config.links.is_empty()).then_some(Links { received: &received, peers: &linked_peers }),
            bypass: Bypass::wanted(config.bypass),
        };
        let checked = preflight::check_rules(&mut ruleset, left_over);
        let (tracking, bypass) = (ruleset.tracking, ruleset.bypass);
        findings.check("rules", checked, |()| {
            let tracking = match tracking {
                Tracking::Bypassed => "connection tracking is passed by",
                Tracking::Absent => "it has no connection tracking",
            };
            let lacks = match bypass {
                Bypass::Never if config.bypass => {
                    "; it cannot learn local connections (CONFIG_NFT_SOCKET), which go through baton"
                }
                Bypass::Never | Bypass::Learned => "",
            };
            format!("the kernel takes all of them; {tracking}{lacks}")
        });
        check_firewall(config, &ingress, tracking, findings);
        Ok(())
    }
}

fn ingress_name(ingress: &Ingress) -> String {
    let Ingress { family, name, forwarding } = ingress;
    match forwarding {
        Forwarding::Before => format!("{name} ({family}, which forwards already)"),
        Forwarding::OnlyForUs => format!("{name} ({family}, which will forward for baton only)"),
    }
}

fn check_firewall(config: &CaptureConfig, ingress: &[Ingress], tracking: Tracking, findings: &mut Findings) {
    let firewall = match Firewall::read() {
        Ok(firewall) => firewall,
        Err(error) => return findings.doubted("firewall", &error),
    };
    let mut passes = true;
    for way in firewall::ways(config, ingress, tracking == Tracking::Absent) {
        let Some(blocked) = way.blocked(&firewall) else { continue };
        passes = false;
        if blocked.certain && way.consequence == Consequence::BreaksLocalConnections {
            findings.refused("firewall", &blocked.error);
        } else {
            findings.doubted("firewall", &blocked.error);
        }
    }
    if passes {
        findings.ok("firewall", "no rule that nft lists drops what must pass");
    }
    check_iptables(findings);
}

/// Without a configuration: whether there is a policy of drop at all.
fn check_rules_of_others(findings: &mut Findings) {
    match nft::dropping_chains() {
        Ok(chains) if chains.is_empty() => findings.ok("firewall", "no chain of others has the policy drop"),
        Ok(chains) => findings.warning(
            "firewall",
            format!("chains with the policy drop: {}", chains.join(", ")),
            "`baton doctor --node NAME CLUSTER.yaml` follows them with the packets that will come",
        ),
        Err(error) => findings.doubted("firewall", &error),
    }
    check_iptables(findings);
}

/// Rules of the older iptables are in no list of nft's.
fn check_iptables(findings: &mut Findings) {
    let tables: Vec<&str> = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty()))
        .collect();
    if !tables.is_empty() {
        findings.warning(
            "firewall",
            format!("there are rules of iptables-legacy, which cannot be read here ({})", tables.join(", ")),
            "see that `iptables-legacy -S FORWARD` and `-S INPUT` accept bt0; `baton run` tries it with packets",
        );
    }
}
