//! Which alias addresses a front-end address has: the same answer on every node, from the file alone.
//!
//! The front-end addresses of a family are numbered in sorted order. Number `i` has the addresses from
//! `prefix + 1 + i * ALIASES_PER_FRONTEND`; the prefix's own address is left out, and so is the last one of an IPv4
//! prefix (its broadcast address).

use crate::flow::Endpoint;
use crate::limits::ALIASES_PER_FRONTEND;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefix of an address's family.
pub(super) fn prefix_for(address: IpAddr, prefixes: &[IpNet]) -> Option<IpNet> {
    prefixes.iter().copied().find(|prefix| prefix.network().is_ipv4() == address.is_ipv4())
}

/// The aliases of front-end address number `index` of the prefix's family; empty if the prefix has no room for them.
pub(super) fn aliases(prefix: IpNet, index: usize) -> Vec<IpAddr> {
    if index >= capacity(prefix) {
        return Vec::new();
    }
    let first = 1 + index * ALIASES_PER_FRONTEND;
    (first..first + ALIASES_PER_FRONTEND).map(|offset| nth(prefix.network(), offset)).collect()
}

/// For how many front-end addresses a prefix has aliases.
pub(super) fn capacity(prefix: IpNet) -> usize {
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    let addresses = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    let unusable = if prefix.network().is_ipv4() { 2 } else { 1 };
    let usable = usize::try_from(addresses.saturating_sub(unusable)).unwrap_or(usize::MAX / 2);
    usable / ALIASES_PER_FRONTEND
}

/// The longest prefix length of a family that has aliases for so many front-end addresses.
pub(super) fn longest_prefix_len(is_ipv4: bool, frontends: usize) -> u8 {
    let needed = frontends * ALIASES_PER_FRONTEND + if is_ipv4 { 2 } else { 1 };
    let host_bits = needed.next_power_of_two().trailing_zeros();
    let all = if is_ipv4 { 32 } else { 128 };
    u8::try_from(all - host_bits).unwrap_or(0)
}

fn nth(base: IpAddr, offset: usize) -> IpAddr {
    match base {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).unwrap_or(0);
            Ipv4Addr::from(u32::from(base).wrapping_add(offset)).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(offset as u128)).into(),
    }
}

/// All front-end addresses, sorted, so that the number of one within its family is its position there.
pub(super) fn numbered(endpoints: impl Iterator<Item = Endpoint>) -> Vec<(Endpoint, usize)> {
    let mut sorted: Vec<Endpoint> = endpoints.collect();
    sorted.sort_unstable();
    sorted.dedup();
    let (mut v4, mut v6) = (0, 0);
    sorted
        .into_iter()
        .map(|endpoint| {
            let next = if endpoint.address.is_ipv4() { &mut v4 } else { &mut v6 };
            *next += 1;
            (endpoint, *next - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn aliases_of_two_front_end_addresses_never_overlap_and_stay_in_the_prefix() {
        for prefix in [net("198.18.0.0/20"), net("fd00:ba70::/100")] {
            let mut seen = HashSet::new();
            for index in 0..capacity(prefix).min(70) {
                let aliases = aliases(prefix, index);
                assert_eq!(aliases.len(), ALIASES_PER_FRONTEND);
                for alias in aliases {
                    assert!(prefix.contains(&alias) && alias != prefix.network() && alias != prefix.broadcast());
                    assert!(seen.insert(alias));
                }
            }
        }
    }

    #[test]
    fn a_prefix_without_room_gives_none() {
        assert_eq!(capacity(net("198.18.0.0/26")), 0);
        assert_eq!(capacity(net("198.18.0.0/25")), 1);
        assert!(aliases(net("198.18.0.0/25"), 1).is_empty());
        assert_eq!(capacity(net("fd00::/121")), 1);
        assert!(capacity(net("::/0")) > 1 << 40);
        assert_eq!(capacity(net("0.0.0.0/0")), (1 << 26) - 1);
    }

    #[test]
    fn the_prefix_length_that_is_said_to_suffice_does() {
        for frontends in 1..200 {
            let v4 = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), longest_prefix_len(true, frontends)).unwrap();
            assert!(capacity(v4) >= frontends);
            let v6 = IpNet::new(Ipv6Addr::UNSPECIFIED.into(), longest_prefix_len(false, frontends)).unwrap();
            assert!(capacity(v6) >= frontends);
        }
        assert_eq!(longest_prefix_len(true, 1), 25);
    }

    #[test]
    fn families_are_numbered_apart_and_in_order() {
        let all = ["10.0.0.2:80", "[fd77::1]:80", "10.0.0.1:443", "10.0.0.1:80"].map(endpoint);
        let numbers = numbered(all.into_iter());
        let of = |text: &str| numbers.iter().find(|entry| entry.0 == endpoint(text)).unwrap().1;
        assert_eq!((of("10.0.0.1:80"), of("10.0.0.1:443"), of("10.0.0.2:80"), of("[fd77::1]:80")), (0, 1, 2, 0));
    }
}
