//! What the kernel has learned of connections that the local server serves, as it tells when asked.

use super::family::Family;
use super::netlink::{self, Connection, NLM_F_DUMP};
use super::nft;
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::io;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETSET: u16 = NFNL_SUBSYS_NFTABLES << 8 | 10;
const NFT_MSG_GETOBJ: u16 = NFNL_SUBSYS_NFTABLES << 8 | 19;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
/// Since Linux 6.16.
const NFTA_SET_COUNT: u16 = 20;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFT_OBJECT_COUNTER: u32 = 1;
/// struct nfgenmsg for the family inet.
const GENERIC_HEADER: [u8; 4] = [1, 0, 0, 0];

/// Counts since the start, and what there is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Learned {
    /// Packets that taught.
    pub taught: u64,
    /// Packets that should have, but the set was full.
    pub full: u64,
    /// Packets that did not go through the TUN.
    pub passed: u64,
    /// Connections in the sets, those that are over but not forgotten included; newer kernels tell.
    pub held: Option<u64>,
}

/// Asks the kernel: three short answers.
pub(super) fn ask(families: &[Family]) -> io::Result<Learned> {
    let mut connection = Connection::open(NETLINK_NETFILTER)?;
    let mut learned = Learned::default();
    for (name, packets) in all_counters(&mut connection)? {
        match name.as_str() {
            nft::LOCAL_TAUGHT => learned.taught = packets,
            nft::LOCAL_FULL => learned.full = packets,
            nft::LOCAL_PASSED => learned.passed = packets,
            _ => {}
        }
    }
    for family in families {
        let writer = connection.request(NFT_MSG_GETSET, 0);
        writer.fixed(&GENERIC_HEADER);
        writer.attribute_name(NFTA_SET_TABLE, nft::TABLE);
        writer.attribute_name(NFTA_SET_NAME, &nft::local_set(*family));
        let count = connection.ask(|message| {
            let count = netlink::attribute(message.payload.get(4..)?, NFTA_SET_COUNT)?;
            Some(u64::from(u32::from_be_bytes(count.try_into().ok()?)))
        })?;
        learned.held = count.flatten().map(|count| count + learned.held.unwrap_or(0)).or(learned.held);
    }
    Ok(learned)
}

/// All named counters of our table, in packets; none where somebody has removed it.
pub(super) fn counters() -> io::Result<Vec<(String, u64)>> {
    all_counters(&mut Connection::open(NETLINK_NETFILTER)?)
}

fn all_counters(connection: &mut Connection) -> io::Result<Vec<(String, u64)>> {
    let writer = connection.request(NFT_MSG_GETOBJ, NLM_F_DUMP);
    writer.fixed(&GENERIC_HEADER);
    writer.attribute_name(NFTA_OBJ_TABLE, nft::TABLE);
    writer.attribute(NFTA_OBJ_TYPE, &NFT_OBJECT_COUNTER.to_be_bytes());
    connection.dump(|message| counter(message.payload))
}

fn counter(payload: &[u8]) -> Option<(String, u64)> {
    let body = payload.get(4..)?;
    let packets = netlink::attribute(netlink::attribute(body, NFTA_OBJ_DATA)?, NFTA_COUNTER_PACKETS)?;
    let name = netlink::name(netlink::attribute(body, NFTA_OBJ_NAME)?);
    Some((name, u64::from_be_bytes(packets.try_into().ok()?)))
}
