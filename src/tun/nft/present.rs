//! Whether our rules are still there: others' programs may remove them (`nft flush ruleset`), and nobody is told.

use super::TABLE;
use crate::tun::netlink::{self, Connection};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::io;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFT_MSG_GETCHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// Rules of the chain, and jumps to it.
const NFTA_CHAIN_USE: u16 = 6;
/// struct nfgenmsg for the family inet.
const GENERIC_HEADER: [u8; 4] = [1, 0, 0, 0];

/// Whether each of these chains of our table has a rule: a short question for each.
pub(in crate::tun) fn rules_in(chains: &[&str]) -> io::Result<bool> {
    let mut connection = Connection::open(NETLINK_NETFILTER)?;
    for chain in chains {
        let writer = connection.request(NFT_MSG_GETCHAIN, 0);
        writer.fixed(&GENERIC_HEADER);
        writer.attribute_name(NFTA_CHAIN_TABLE, TABLE);
        writer.attribute_name(NFTA_CHAIN_NAME, chain);
        let rules = connection.ask(|message| {
            let rules = netlink::attribute(message.payload.get(4..)?, NFTA_CHAIN_USE)?;
            Some(u32::from_be_bytes(rules.try_into().ok()?))
        });
        match rules {
            // A kernel that does not say has the chain, at least.
            Ok(rules) if rules.flatten() != Some(0) => {}
            Ok(_) => return Ok(false),
            Err(error) if netlink::error_number(&error) == Some(libc::ENOENT) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
