//! The two versions of the internet protocol, where the kernel's interfaces differ only in a name or a number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn of_prefix(prefix: &ipnet::IpNet) -> Self {
        Self::of(prefix.addr())
    }

    /// `AF_INET` or `AF_INET6`.
    pub(super) fn number(self) -> u8 {
        (match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }) as u8
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::BOTH.into_iter().find(|family| family.number() == number)
    }

    /// Octets of an address.
    pub(super) fn address_length(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    pub(super) fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The address in the first octets of `bytes`; None when there are too few.
    pub(super) fn address_from(self, bytes: &[u8]) -> Option<IpAddr> {
        match self {
            Self::V4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            Self::V6 => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Appends the octets of an address in network order.
pub(super) fn append_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}
