//! What must be true of the host before anything on it is changed; each refusal says what to do about it.

use super::capture::CaptureConfig;
use super::family::Family;
use super::first_values::FirstValues;
use super::forwarding::Means;
use super::nft::{Bypass, Forwarding, Ingress, LeftOver, Ruleset, TABLE, Tracking};
use super::routing::{HostAddress, Link, LinkKind, Routing, TABLE_MAIN};
use super::sysctl;
use crate::doctor::refusal;
use crate::flow::Endpoint;
use anyhow::{Context, ensure};
use ipnet::IpNet;
use std::collections::BTreeSet;

/// Every front-end must be an address of this host, and no alias may be one.
pub(super) fn check_addresses(frontends: &[Endpoint], aliases: &[IpNet], addresses: &[HostAddress]) -> anyhow::Result<()> {
    for frontend in frontends {
        ensure!(
            addresses.iter().any(|host| host.address == frontend.address),
            refusal(
                format!("the front-end {frontend} is not an address of this host"),
                "`ip address` shows which there are; run with the `--node` name of this host, or correct the cluster file"
            )
        );
        ensure!(
            !frontend.address.is_loopback(),
            refusal(
                format!("the front-end {frontend} is a loopback address, which no client reaches"),
                "give an address that clients connect to"
            )
        );
    }
    for prefix in aliases {
        if let Some(host) = addresses.iter().find(|host| prefix.contains(&host.address)) {
            let what = format!("the alias prefix {prefix} contains {}, an address of this host", host.address);
            return Err(refusal(
                what,
                "choose a prefix that nobody uses, in `overlay.aliases` of the cluster file on every node",
            ));
        }
        ensure!(prefix.prefix_len() > 0, "the alias prefix {prefix} would be every address");
    }
    Ok(())
}

/// The devices that front-ends' packets come in by: those that forward already, those with a front-end's address, and
/// those the default route leaves by, and those that lead to peers on a link. A packet captured from any other device would not be forwarded to the TUN.
pub(super) fn ingress(
    routing: &mut Routing,
    config: &CaptureConfig,
    families: &[(Family, Means)],
    links: &[Link],
    addresses: &[HostAddress],
    first_values: &FirstValues,
) -> anyhow::Result<Vec<Ingress>> {
    let (device, frontends) = (config.device.as_str(), &config.frontends);
    let mut ingress = Vec::new();
    // Without a front-end address nothing is captured, and no device need forward into the TUN. Unless peers send their clients'
    // packets over a link.
    let receives = |family| config.links.iter().any(|link| Family::of(link.next_hop) == family && !link.received.is_empty());
    let has_frontend = |(family, _): &&(Family, Means)| {
        frontends.iter().any(|frontend| Family::of(frontend.address) == *family) || receives(*family)
    };
    for &(family, means) in families.iter().filter(has_frontend) {
        let of_frontends = addresses.iter().filter(|host| {
            frontends.iter().any(|frontend| frontend.address == host.address) && Family::of(host.address) == family
        });
        let mut wanted: BTreeSet<u32> = of_frontends.map(|host| host.link).collect();
        let routes = routing.routes(family, TABLE_MAIN).context("listing routes")?;
        wanted.extend(routes.iter().filter(|route| route.prefix_length == 0).flat_map(|route| &route.devices));
        for link in config.links.iter().filter(|link| Family::of(link.next_hop) == family && !link.received.is_empty()) {
            wanted.extend(routing.path(link.next_hop).context("looking up a route")?.map(|path| path.device));
        }
        for link in links.iter().filter(|link| link.kind == LinkKind::Other && link.name != device) {
            let forwarding = means.before(family, &link.name, first_values)?;
            if forwarding == Forwarding::Before || wanted.contains(&link.index) {
                ingress.push(Ingress { family, name: link.name.clone(), forwarding });
            }
        }
    }
    Ok(ingress)
}

/// Strict reverse path filtering is fine, since it asks for the route to the client without our mark. Unless it is told
/// to ask with it (`src_valid_mark`, which WireGuard's wg-quick switches on): then the route leads into the TUN.
pub(super) fn check_reverse_path(ingress: &[Ingress]) -> anyhow::Result<()> {
    for ingress in ingress.iter().filter(|ingress| ingress.family == Family::V4) {
        let value = |device: &str, setting: &str| -> anyhow::Result<u8> {
            Ok(sysctl::read(&sysctl::of_device(Family::V4, device, setting))?.and_then(|text| text.parse().ok()).unwrap_or(0))
        };
        let highest = |setting: &str| anyhow::Ok(value("all", setting)?.max(value(&ingress.name, setting)?));
        if highest("rp_filter")? == 1 && highest("src_valid_mark")? == 1 {
            let name = &ingress.name;
            return Err(refusal(
                format!(
                    "strict reverse path filtering on {name} would drop all captured packets: it looks up routes by mark \
                     (src_valid_mark=1, as wg-quick sets it, and rp_filter=1)"
                ),
                format!("`sysctl -w net/ipv4/conf/{name}/rp_filter=2`, or net.ipv4.conf.all.src_valid_mark=0"),
            ));
        }
    }
    Ok(())
}

/// Whether the table is ours to replace, and what is in it.
pub(super) fn left_over() -> anyhow::Result<LeftOver> {
    match LeftOver::find()? {
        None => Ok(LeftOver::default()),
        Some(left_over) if left_over.is_ours() => Ok(left_over),
        Some(_) => Err(refusal(
            format!("there is an nf_tables table `inet {TABLE}` that baton did not make"),
            format!("rename or delete it (`nft list table inet {TABLE}`)"),
        )),
    }
}

/// Has the kernel look at the rules, and finds out whether it knows `notrack` and can learn connections.
pub(super) fn check_rules(ruleset: &mut Ruleset<'_>, left_over: &LeftOver) -> anyhow::Result<()> {
    let Err(error) = super::nft::check(&ruleset.install(left_over)) else {
        return Ok(());
    };
    let wanted = ruleset.bypass;
    for (tracking, bypass) in [(Tracking::Absent, wanted), (Tracking::Bypassed, Bypass::Never), (Tracking::Absent, Bypass::Never)]
    {
        (ruleset.tracking, ruleset.bypass) = (tracking, bypass);
        if super::nft::check(&ruleset.install(left_over)).is_err() {
            continue;
        }
        if tracking == Tracking::Absent {
            log::info!("the kernel has no notrack; connection tracking is left alone");
        }
        if bypass != wanted {
            log::info!("the kernel cannot learn local connections (CONFIG_NFT_SOCKET?): they go through baton");
        }
        return Ok(());
    }
    let version = super::nft::version()?;
    Err(refusal(
        format!("{version} or the kernel refuses the rules: {error:#}"),
        "nftables 1.0 or newer and Linux 5.10 or newer with nf_tables are needed",
    ))
}
