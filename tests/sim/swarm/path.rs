//! What a host knows of the ways its packets take (RFC 1191, RFC 8201): smoltcp knows nothing of it, so what it sends is cut
//! behind it, as Linux cuts what it sends again.

use baton::rewrite::{Offload, Pieces};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// The least MTU that was heard of, by destination.
#[derive(Default)]
pub struct Paths {
    by_destination: BTreeMap<IpAddr, usize>,
}

impl Paths {
    /// Whether this is news.
    pub fn lower(&mut self, destination: IpAddr, mtu: usize) -> bool {
        let known = self.by_destination.entry(destination).or_insert(usize::MAX);
        let is_news = mtu < *known;
        *known = mtu.min(*known);
        is_news
    }

    /// A packet in pieces that fit.
    pub fn fit(&self, packet: Vec<u8>) -> Vec<Vec<u8>> {
        let mtu = self.by_destination.get(&super::world::destination(&packet)).copied().unwrap_or(usize::MAX);
        if packet.len() <= mtu {
            return vec![packet];
        }
        let offload = Offload { segment_bytes: NonZeroU16::new(u16::MAX), ..Offload::NONE };
        let Ok(mut pieces) = Pieces::of(&packet, &offload, mtu) else { return vec![packet] };
        let (mut all, mut out) = (Vec::new(), vec![0; packet.len()]);
        while let Some(length) = pieces.write_next(&mut out) {
            all.push(out[..length].to_vec());
        }
        all
    }
}
