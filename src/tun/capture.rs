//! Capture: addresses, rules, routes, sysctls and nft tables that bring a service's packets into the TUN.
//!
//! This module knows the order of things. Installing: what drops comes before what lets through, and nothing is
//! captured before the first heartbeat. Restoring: capture ends first, then aliases are closed and emptied while the
//! blackhole still stands, then everything else goes.

mod frontends;
mod present;

use super::device::Device;
use super::family::Family;
use super::firewall::{self, Consequence, Firewall};
use super::first_values::FirstValues;
use super::forwarding::Means;
use super::guard::Guards;
use super::host_lock::{HostLock, Namespace};
use super::learned::{self, Learned};
use super::link::LinkPeer;
pub use super::nft::HOP_LIMIT_TEACHES;
use super::nft::{Bypass, Forwarding, Ingress, Links, Ruleset, Tracking};
use super::routing::{Route, RouteKind, Routing, TABLE_DEFAULT};
use super::steering::Steering;
use super::{forwarding, heartbeat, nft, preflight, probe, requirements, sysctl, undo};
use crate::flow::{Endpoint, FlowKey, NodeId};
use anyhow::{Context, ensure};
use ipnet::IpNet;
use log::{debug, info, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The TUN's name.
    pub device: String,
    /// This node's front-end addresses.
    pub frontends: Vec<Endpoint>,
    /// Those of them that other nodes have, too.
    pub shared: Vec<Endpoint>,
    /// Other nodes' front-end addresses whose clients this node may answer; one of each service and family is enough.
    pub answered: Vec<Endpoint>,
    /// The addresses of all such front-ends.
    pub answered_addresses: Vec<IpAddr>,
    /// Alias prefixes.
    pub aliases: Vec<IpNet>,
    /// Where this node listens for others: the control channel (TCP) and the overlay (UDP).
    pub control: Option<Endpoint>,
    /// Ports of applications that take handed-off connections.
    pub server_ports: Vec<u16>,
    /// Where first values are kept for a start after a crash, usually under `/run/baton`.
    pub state_directory: std::path::PathBuf,
    /// Guards the set must hold.
    pub guards_max: usize,
    /// Peers that may be on the same link.
    pub links: Vec<LinkPeer>,
    /// Whether connections of the local server leave the TUN, where the kernel can learn them.
    pub bypass: bool,
}

impl CaptureConfig {
    /// Front-end addresses of peers whose clients' packets may come over a link.
    pub(super) fn received(&self) -> Vec<Endpoint> {
        self.links.iter().flat_map(|link| &link.received).copied().collect()
    }

    /// Peers that packets may go to over a link.
    pub(super) fn linked_peers(&self) -> Vec<(Family, NodeId)> {
        let sends = self.links.iter().filter(|link| link.sends.is_some());
        sends.map(|link| (Family::of(link.next_hop), link.peer)).collect()
    }

    /// Peers that may be on the same link.
    pub(super) fn linked(&self, family: Family) -> Vec<NodeId> {
        self.links.iter().filter(|link| Family::of(link.next_hop) == family).map(|link| link.peer).collect()
    }

    /// Whether anything of a family is to be captured.
    pub(super) fn has(&self, family: Family) -> bool {
        self.frontends.iter().any(|frontend| Family::of(frontend.address) == family)
            || self.aliases.iter().any(|prefix| Family::of_prefix(prefix) == family)
    }
}

/// An installed capture. Dropping it restores the host too, but only logs what goes wrong.
#[derive(Debug)]
pub struct Capture {
    pub(super) config: CaptureConfig,
    /// Index of the TUN.
    device: u32,
    pub(super) ingress: Vec<Ingress>,
    tracking: Tracking,
    bypass: Bypass,
    /// See [`Ruleset::not_a_router`].
    not_a_router: Vec<Family>,
    /// New connections are not captured any more.
    is_released: bool,
    steering: Vec<Steering>,
    /// What makes packets of each family be forwarded.
    means: BTreeMap<Family, Means>,
    pub(super) routing: Routing,
    first_values: FirstValues,
    pub(super) guards: Guards,
    guards_found: Vec<FlowKey>,
    heartbeats: Vec<Vec<u8>>,
    /// Every front-end address since this capture was installed.
    known: BTreeSet<Endpoint>,
    installed: Installed,
    /// Last: another process may start only when everything above is undone.
    _lock: HostLock,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Installed {
    Nothing,
    Rules,
}

impl Capture {
    /// An error that names the other baton, when one runs in this network namespace. For a start that is bound to fail:
    /// [`Self::install`] makes sure.
    pub fn check_alone(state_directory: &Path, device: &str) -> anyhow::Result<()> {
        HostLock::take(state_directory, device, &Namespace::current()?).map(drop)
    }

    /// Checks the host, then changes it; idempotent, also after a crash. On error the host is as it was.
    ///
    /// The TUN must exist. Nothing is captured before the first heartbeat is written to it.
    pub fn install(config: CaptureConfig) -> anyhow::Result<Self> {
        requirements::check_privilege()?;
        let namespace = Namespace::current()?;
        let lock = HostLock::take(&config.state_directory, &config.device, &namespace)?;
        let first_values = FirstValues::load(&config.state_directory, &config.device, &namespace)?;

        let mut routing = Routing::open().context("opening rtnetlink")?;
        let links = routing.links().context("listing network interfaces")?;
        let device = links.iter().find(|link| link.name == config.device).map(|link| link.index);
        let device = device.with_context(|| format!("there is no TUN device {}", config.device))?;
        let mut addresses = routing.addresses().context("listing addresses")?;
        addresses.retain(|host| host.link != device);
        ensure!(!config.frontends.is_empty() || !config.aliases.is_empty(), "no front-end and no alias to capture for");
        preflight::check_addresses(&config.frontends, &config.aliases, &addresses)?;

        let (received, linked_peers) = (config.received(), config.linked_peers());
        let mut ruleset = Ruleset {
            device: &config.device,
            frontends: &config.frontends,
            shared: &config.shared,
            aliases: &config.aliases,
            ingress: &[],
            not_a_router: &[],
            guards_max: config.guards_max,
            tracking: Tracking::Bypassed,
            links: (!config.links.is_empty()).then_some(Links { received: &received, peers: &linked_peers }),
            bypass: Bypass::wanted(config.bypass),
        };
        let mut families = Vec::new();
        let mut steering = Vec::new();
        for family in ruleset.families() {
            families.push((family, Means::of(family, &config.device, &first_values)?));
            let steps = Steering::new(family, Some(device), &config.aliases).with_links(config.linked(family));
            steps.check(&mut routing)?;
            steering.push(steps);
        }
        let ingress = preflight::ingress(&mut routing, &config, &families, &links, &addresses, &first_values)?;
        preflight::check_reverse_path(&ingress)?;
        ruleset.ingress = &ingress;
        let not_a_router = Means::not_a_router(&families);
        ruleset.not_a_router = &not_a_router;
        let left_over = preflight::left_over()?;
        preflight::check_rules(&mut ruleset, &left_over)?;
        let (tracking, bypass) = (ruleset.tracking, ruleset.bypass);
        let transaction = ruleset.install(&left_over);

        let mut capture = Self {
            heartbeats: heartbeat::packets(&config.frontends),
            known: config.frontends.iter().copied().collect(),
            guards: Guards::open().context("opening nfnetlink")?,
            guards_found: Vec::new(),
            installed: Installed::Rules,
            config,
            device,
            ingress,
            tracking,
            bypass,
            not_a_router,
            is_released: false,
            steering,
            means: families.into_iter().collect(),
            routing,
            first_values,
            _lock: lock,
        };
        // From here on a failure is undone by dropping the capture.
        capture.apply(&transaction)?;
        capture.guards_found = capture.guards.list().context("listing guards")?;
        info!(
            "capture installed device={} frontends={} guards_found={}",
            capture.config.device,
            capture.config.frontends.len(),
            capture.guards_found.len()
        );
        Ok(capture)
    }

    fn apply(&mut self, transaction: &str) -> anyhow::Result<()> {
        self.set_up_device()?;
        // Otherwise the kernel gives later packets of a connection to its SYN-RECV socket before routing, and drops
        // them when routing then says "forward". Also for IPv6.
        self.first_values.change("ipv4/tcp_early_demux", "0")?;
        for steering in &self.steering {
            steering.install(&mut self.routing)?;
        }
        nft::apply(transaction).context("installing the nf_tables rules")?;
        for steering in &self.steering {
            steering.open_aliases(&mut self.routing)?;
        }
        let answered = self.config.answered_addresses.clone();
        self.answer_for(&answered)?;
        if self.means.values().any(|&means| means == Means::Everywhere) {
            forwarding::turn_on_everywhere(&mut self.first_values)?;
        }
        for ingress in &self.ingress {
            forward_from(ingress, &self.means, &mut self.first_values)?;
        }
        Ok(())
    }

    /// Lets answers leave that have these addresses of other nodes as source, also where no route leads to them: loose
    /// reverse path filtering asks for any route, and IPv4 knows no other for a device. These are of last resort, in a table
    /// that is asked after the main one, and vanish with the TUN.
    pub fn answer_for(&mut self, addresses: &[IpAddr]) -> anyhow::Result<()> {
        for address in addresses.iter().filter(|address| address.is_ipv4()) {
            let route = Route {
                destination: IpNet::from(*address),
                table: TABLE_DEFAULT,
                kind: RouteKind::Unicast,
                device: Some(self.device),
                metric: None,
                gateway: None,
            };
            self.routing.add_route(&route).with_context(|| format!("adding a route of last resort to {address}"))?;
        }
        Ok(())
    }

    /// Settings of the TUN itself: they go with it, so nobody need remember them.
    fn set_up_device(&self) -> anyhow::Result<()> {
        let device = &self.config.device;
        // What baton writes has this host's addresses as source, or a client's that strict reverse path filtering
        // expects elsewhere.
        for (setting, value) in [("accept_local", "1"), ("rp_filter", "2"), ("forwarding", "1"), ("send_redirects", "0")] {
            sysctl::write(&sysctl::of_device(Family::V4, device, setting), value)?;
        }
        // An administrator may have switched IPv6 off for devices to come, and this is one.
        if self.means.contains_key(&Family::V6) {
            sysctl::write(&sysctl::of_device(Family::V6, device, "disable_ipv6"), "0")?;
        }
        let forwarding = forwarding::setting(Family::V6, device);
        if sysctl::read(&forwarding)?.is_some() {
            sysctl::write(&forwarding, "1")?;
        }
        Ok(())
    }

    /// Whether the host's firewall lets captured packets and their answers pass; call it before the first heartbeat.
    ///
    /// Nothing that it sends reaches an application or the network. On error, drop the capture: with it local
    /// connections would break. It cannot try the way from the network into the TUN, nor those of aliases: for these
    /// the firewall's rules are read.
    pub fn probe(&mut self, device: &Device) -> anyhow::Result<()> {
        probe::run(device, &mut self.routing, &self.config.frontends, &self.config.answered)?;
        let firewall = match Firewall::read() {
            Ok(firewall) => firewall,
            Err(error) => {
                warn!("the firewall's rules cannot be read, only tried: {error:#}");
                return Ok(());
            }
        };
        for way in firewall::ways(&self.config, &self.ingress, self.tracking == Tracking::Absent) {
            match way.blocked(&firewall) {
                None => {}
                Some(blocked) if !blocked.certain => debug!("{:#}", blocked.error),
                Some(blocked) if way.consequence == Consequence::BreaksLocalConnections => return Err(blocked.error),
                Some(blocked) => warn!("{:#}", blocked.error),
            }
        }
        Ok(())
    }

    /// Guards found in the kernel, from an earlier life.
    pub fn guards_found(&self) -> &[FlowKey] {
        &self.guards_found
    }

    /// Adds and removes guards in one transaction.
    ///
    /// A guard that exists may be added, and one that does not may be removed. `StorageFull` when the set is full: then
    /// nothing was changed. More than a hundred changes are several transactions.
    pub fn change_guards(&mut self, add: &[FlowKey], remove: &[FlowKey]) -> io::Result<()> {
        self.guards.change(add, remove)
    }

    /// What the kernel has learned of connections that the local server serves; None where it cannot.
    pub fn learned(&self) -> io::Result<Option<Learned>> {
        match self.bypass {
            Bypass::Never => Ok(None),
            Bypass::Learned => learned::ask(&self.means.keys().copied().collect::<Vec<_>>()).map(Some),
        }
    }

    /// The packets that show the kernel this process is alive, one per service port; write them to the TUN every
    /// `limits::HEARTBEAT_INTERVAL`.
    pub fn heartbeats(&self) -> &[Vec<u8>] {
        &self.heartbeats
    }

    /// Stops capturing new and undecided connections; guards and aliases stay.
    pub fn release(&mut self) -> anyhow::Result<()> {
        self.is_released = true;
        nft::apply(&nft::release()).context("removing the capture rules")
    }

    /// Puts the host back as it was. What then still lives on aliases is destroyed.
    pub fn restore(mut self) -> anyhow::Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        if self.installed == Installed::Nothing {
            return Ok(());
        }
        self.installed = Installed::Nothing;
        let undone = undo::undo(Some(self.device), &self.config.aliases, &mut self.routing, &mut self.first_values);
        for line in &undone.lines {
            debug!("restoring the host: {line}");
        }
        for error in &undone.failures {
            warn!("restoring the host: {error:#}");
        }
        // All are in the log; the first one is told.
        undone.failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// The smallest MTU of links that lead to these addresses (the overlay must fit).
    ///
    /// A peer that no route leads to now is passed over; without any, the answer is Ethernet's 1500.
    pub fn mtu_towards(&self, peers: &[IpAddr]) -> anyhow::Result<u16> {
        const ETHERNET: u32 = 1500;
        let mut routing = Routing::open().context("opening rtnetlink")?;
        let links = routing.links().context("listing network interfaces")?;
        let mut smallest = None;
        for &peer in peers {
            let path = routing.path(peer).with_context(|| format!("looking up the route to {peer}"))?;
            let Some(path) = path else {
                warn!("no route to peer={peer} now, its link's MTU is not considered");
                continue;
            };
            let link = links.iter().find(|link| link.index == path.device).map_or(ETHERNET, |link| link.mtu);
            let mtu = path.mtu.filter(|&mtu| mtu > 0).map_or(link, |route| route.min(link));
            smallest = Some(smallest.map_or(mtu, |smallest: u32| smallest.min(mtu)));
        }
        Ok(smallest.unwrap_or(ETHERNET).min(u32::from(u16::MAX)) as u16)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Failures are logged as they happen; there is nobody left to tell.
        let _ = self.undo();
    }
}

/// Lets a device forward packets from the network to the TUN, if that is a setting of its own.
fn forward_from(ingress: &Ingress, means: &BTreeMap<Family, Means>, first_values: &mut FirstValues) -> anyhow::Result<()> {
    if ingress.forwarding == Forwarding::OnlyForUs && means.get(&ingress.family) == Some(&Means::PerDevice) {
        let setting = |device| forwarding::setting(ingress.family, device);
        first_values.change_of_device(&setting(&ingress.name), "1", &setting("all"))?;
    }
    Ok(())
}
