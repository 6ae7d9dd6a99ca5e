//! The network of a world: its addresses, and what it does to packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IP version of a whole world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    pub fn client(self) -> IpAddr {
        self.host(100)
    }

    pub fn node(self, index: usize) -> IpAddr {
        self.host(index as u8 + 1)
    }

    /// A cluster file that is written for IPv4, in this family.
    pub(super) fn of_file(self, text: &str) -> String {
        match self {
            Self::V4 => text.to_owned(),
            Self::V6 => {
                let text = text.replace("198.18.0.0/16", "fd00:ba70::/64");
                (1..=2).fold(text, |text, number| {
                    let bracketed = text.replace(&format!("10.77.0.{number}:"), &format!("[fd77::{number}]:"));
                    bracketed.replace(&format!("10.77.0.{number}"), &format!("\"fd77::{number}\""))
                })
            }
        }
    }

    /// Octets of a packet before TCP.
    pub fn header_bytes(self) -> u16 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}
/// What the network does to packets.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    pub family: Family,
    /// Microseconds between client and nodes, one way.
    pub client_delay: u64,
    /// Microseconds between nodes, one way.
    pub node_delay: u64,
    /// Packets lost per thousand, on every path but the control channel.
    pub loss_permille: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { family: Family::V4, client_delay: 5_000, node_delay: 100, loss_permille: 0 }
    }
}

impl Network {
    /// The usual one, of this family.
    pub fn of(family: Family) -> Self {
        Self { family, ..Self::default() }
    }
}
