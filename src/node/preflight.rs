//! What can be known before anything is touched: privileges and the TUN driver.

use anyhow::{Context, bail};
use std::path::Path;

/// capabilities(7): addresses, rules, routes, nftables, the TUN, and destroying sockets.
const CAP_NET_ADMIN: u32 = 12;
/// Where TUN devices are made.
const TUN_DRIVER: &str = "/dev/net/tun";

/// Refuses early and in words what would fail later with an error number.
pub fn check() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status; is /proc mounted?")?;
    if !has_capability(&status, CAP_NET_ADMIN) {
        bail!(
            "no privilege to change this host's network (CAP_NET_ADMIN); \
             run as root, or let the service manager grant it (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
        );
    }
    if !Path::new(TUN_DRIVER).exists() {
        bail!("{TUN_DRIVER} is not there; load the driver with `modprobe tun`, or give the container that device");
    }
    Ok(())
}

fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hexadecimal| u64::from_str_radix(hexadecimal.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << capability) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_counts() {
        assert!(has_capability("CapPrm:\t0\nCapEff:\t0000000000001000\n", CAP_NET_ADMIN));
        assert!(!has_capability("CapPrm:\t1000\nCapEff:\t0000000000000fff\n", CAP_NET_ADMIN));
        assert!(!has_capability("", CAP_NET_ADMIN));
    }
}
