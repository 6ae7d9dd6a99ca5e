//! What must be true of the host before anything on it is changed; each refusal says what to do about it.

use super::family::Family;
use super::first_values::FirstValues;
use super::forwarding::Means;
use super::nft::{Forwarding, Ingress, LeftOver, Ruleset, TABLE, Tracking};
use super::routing::{HostAddress, Link, LinkKind, Routing, TABLE_MAIN};
use crate::flow::Endpoint;
use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use std::collections::BTreeSet;

/// The bit of CAP_NET_ADMIN (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Whether the process may change the network at all.
pub(super) fn check_privilege() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    ensure!(effective & (1 << CAP_NET_ADMIN) != 0, "CAP_NET_ADMIN is missing: run as root or give it that capability");
    Ok(())
}

/// Every front-end must be an address of this host, and no alias may be one.
pub(super) fn check_addresses(frontends: &[Endpoint], aliases: &[IpNet], addresses: &[HostAddress]) -> anyhow::Result<()> {
    for frontend in frontends {
        ensure!(
            addresses.iter().any(|host| host.address == frontend.address),
            "the front-end {frontend} is not an address of this host: `ip address` shows which there are"
        );
        ensure!(!frontend.address.is_loopback(), "the front-end {frontend} is a loopback address: no client reaches it");
    }
    for prefix in aliases {
        if let Some(host) = addresses.iter().find(|host| prefix.contains(&host.address)) {
            bail!("the alias prefix {prefix} contains {}, an address of this host: choose an unused prefix", host.address);
        }
        ensure!(prefix.prefix_len() > 0, "the alias prefix {prefix} would be every address");
    }
    Ok(())
}

/// The devices that front-ends' packets come in by: those that forward already, those with a front-end's address, and
/// those the default route leaves by. A packet captured from any other device would not be forwarded to the TUN.
pub(super) fn ingress(
    routing: &mut Routing,
    device: &str,
    families: &[(Family, Means)],
    frontends: &[Endpoint],
    links: &[Link],
    addresses: &[HostAddress],
    first_values: &FirstValues,
) -> anyhow::Result<Vec<Ingress>> {
    let mut ingress = Vec::new();
    // Without a front-end address nothing is captured, and no device need forward into the TUN.
    let has_frontend = |(family, _): &&(Family, Means)| frontends.iter().any(|frontend| Family::of(frontend.address) == *family);
    for &(family, means) in families.iter().filter(has_frontend) {
        let of_frontends = addresses.iter().filter(|host| {
            frontends.iter().any(|frontend| frontend.address == host.address) && Family::of(host.address) == family
        });
        let mut wanted: BTreeSet<u32> = of_frontends.map(|host| host.link).collect();
        let routes = routing.routes(family, TABLE_MAIN).context("listing routes")?;
        wanted.extend(routes.iter().filter(|route| route.prefix_length == 0).flat_map(|route| &route.devices));
        for link in links.iter().filter(|link| link.kind == LinkKind::Other && link.name != device) {
            let forwarding = means.before(family, &link.name, first_values)?;
            if forwarding == Forwarding::Before || wanted.contains(&link.index) {
                ingress.push(Ingress { family, name: link.name.clone(), forwarding });
            }
        }
    }
    Ok(ingress)
}

/// Whether the table is ours to replace, and what is in it.
pub(super) fn left_over() -> anyhow::Result<LeftOver> {
    match LeftOver::find()? {
        None => Ok(LeftOver::default()),
        Some(left_over) if left_over.is_ours() => Ok(left_over),
        Some(_) => bail!(
            "there is an nf_tables table `inet {TABLE}` that baton did not make: rename or delete it \
             (`nft list table inet {TABLE}`)"
        ),
    }
}

/// Has the kernel look at the rules, and finds out whether it knows `notrack`.
pub(super) fn check_rules(ruleset: &mut Ruleset<'_>, left_over: &LeftOver) -> anyhow::Result<()> {
    let Err(error) = super::nft::check(&ruleset.install(left_over)) else {
        return Ok(());
    };
    ruleset.tracking = Tracking::Absent;
    if super::nft::check(&ruleset.install(left_over)).is_ok() {
        log::info!("the kernel has no notrack; connection tracking is left alone");
        return Ok(());
    }
    Err(error).context("nftables refuses the rules (nftables 1.0 and Linux 5.10 with nf_tables are needed)")
}
