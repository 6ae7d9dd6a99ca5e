//! Guards: one set element per connection that was handed away, written to nf_tables without a detour over `nft`.
//!
//! This is on the path of every handoff, so it is one batch of netlink messages, written by hand and answered before
//! the call returns. A guard has no timeout and nothing evicts it: it is no cache but the promise that this host's
//! kernel stays silent about the connection.

use super::family::{Family, append_address};
use super::netlink::{self, Connection, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, Writer};
use super::nft;
use crate::flow::{Endpoint, FlowKey, NodeId};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::io;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 13;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFPROTO_INET: u8 = 1;

/// The guard sets of the kernel.
#[derive(Debug)]
pub(super) struct Guards {
    connection: Connection,
    key: Vec<u8>,
}

impl Guards {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { connection: Connection::open(NETLINK_NETFILTER)?, key: Vec::with_capacity(40) })
    }

    /// All guards in the kernel.
    pub(super) fn list(&mut self) -> io::Result<Vec<FlowKey>> {
        let mut guards = Vec::new();
        for family in Family::BOTH {
            let writer = self.connection.request(NFT_MSG_GETSETELEM, NLM_F_DUMP);
            writer.fixed(&generic_header(NFPROTO_INET, 0));
            writer.attribute_name(NFTA_SET_ELEM_LIST_TABLE, nft::TABLE);
            writer.attribute_name(NFTA_SET_ELEM_LIST_SET, nft::guard_set(family));
            let found = self.connection.dump(|message| Some(parse_elements(family, message.payload)))?;
            guards.extend(found.into_iter().flatten());
        }
        Ok(guards)
    }

    /// Removes, then adds. Up to `crate::limits::GUARDS_PER_TRANSACTION_MAX` changes are one transaction; of more, each such part is.
    ///
    /// Adding what is there and removing what is missing are fine. When the set is full nothing of the transaction is
    /// applied, and the error is `StorageFull`.
    pub(super) fn change(&mut self, add: &[FlowKey], remove: &[FlowKey]) -> io::Result<()> {
        let (mut add, mut remove) = (add, remove);
        while !add.is_empty() || !remove.is_empty() {
            let (removed, later) = remove.split_at(remove.len().min(crate::limits::GUARDS_PER_TRANSACTION_MAX));
            remove = later;
            let room = if remove.is_empty() { crate::limits::GUARDS_PER_TRANSACTION_MAX - removed.len() } else { 0 };
            let (added, later) = add.split_at(add.len().min(room));
            add = later;
            self.transact(added, removed)?;
        }
        Ok(())
    }

    /// Makes the kernel forget connections that it forwards over links. It may have forgotten any of them by itself, so each is
    /// a transaction of its own.
    pub(super) fn unlearn(&mut self, flows: &[(NodeId, FlowKey)]) -> io::Result<()> {
        let sets = |(peer, flow): &(NodeId, FlowKey)| {
            let family = family_of(flow);
            [(nft::learned_set_of(family, *peer), *flow), (nft::learned_set(family), *flow)]
        };
        for (set, flow) in flows.iter().flat_map(sets) {
            let begin = self.connection.next_sequence();
            let removal = begin.wrapping_add(1);
            let end = removal.wrapping_add(1);
            let writer = &mut self.connection.writer;
            writer.clear();
            batch_mark(writer, NFNL_MSG_BATCH_BEGIN, begin);
            writer.begin(NFT_MSG_DELSETELEM, NLM_F_REQUEST | NLM_F_ACK, removal);
            write_elements(writer, &mut self.key, &set, std::iter::once(&flow));
            batch_mark(writer, NFNL_MSG_BATCH_END, end);
            self.connection.skip_to_sequence(end);
            self.connection.transmit()?;
            let mut failure = None;
            self.connection.acknowledgements(begin, removal, |_, error| {
                failure = Some(error).filter(|error| netlink::error_number(error) != Some(libc::ENOENT));
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    fn transact(&mut self, add: &[FlowKey], remove: &[FlowKey]) -> io::Result<()> {
        match self.attempt(add, remove)? {
            Outcome::Done => Ok(()),
            // The kernel refused all because of these; without them nothing is in the way.
            Outcome::Missing(missing) => {
                let present = remove.iter().enumerate().filter(|(index, _)| !missing.contains(index));
                let present: Vec<FlowKey> = present.map(|(_, flow)| *flow).collect();
                if add.is_empty() && present.is_empty() {
                    return Ok(());
                }
                match self.attempt(add, &present)? {
                    Outcome::Done => Ok(()),
                    Outcome::Missing(_) => Err(io::Error::other("guards vanished while they were removed")),
                }
            }
        }
    }

    fn attempt(&mut self, add: &[FlowKey], remove: &[FlowKey]) -> io::Result<Outcome> {
        let begin = self.connection.next_sequence();
        let first_removal = begin.wrapping_add(1);
        let writer = &mut self.connection.writer;
        writer.clear();
        let mut sequence = begin;
        batch_mark(writer, NFNL_MSG_BATCH_BEGIN, sequence);
        let additions = Family::BOTH.map(|family| add.iter().filter(move |flow| family_of(flow) == family));
        let mut messages = remove.len();
        messages += additions.iter().filter(|flows| (*flows).clone().next().is_some()).count();
        // Only the last message asks for an acknowledgement: the answers come in the order of the messages.
        let mut flags = || {
            messages -= 1;
            if messages == 0 { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST }
        };
        for flow in remove {
            sequence = sequence.wrapping_add(1);
            writer.begin(NFT_MSG_DELSETELEM, flags(), sequence);
            write_elements(writer, &mut self.key, nft::guard_set(family_of(flow)), std::iter::once(flow));
        }
        for (family, flows) in Family::BOTH.into_iter().zip(additions) {
            if flows.clone().next().is_some() {
                sequence = sequence.wrapping_add(1);
                writer.begin(NFT_MSG_NEWSETELEM, flags() | NLM_F_CREATE, sequence);
                write_elements(writer, &mut self.key, nft::guard_set(family), flows);
            }
        }
        let last = sequence;
        batch_mark(writer, NFNL_MSG_BATCH_END, sequence.wrapping_add(1));
        self.connection.skip_to_sequence(sequence.wrapping_add(1));
        self.connection.transmit()?;

        let mut missing = Vec::new();
        let mut failure = None;
        let removals = remove.len();
        self.connection.acknowledgements(begin, last, |answered, error| {
            let index = answered.wrapping_sub(first_removal) as usize;
            match netlink::error_number(&error) {
                Some(libc::ENOENT) if index < removals => missing.push(index),
                Some(libc::ENFILE) => failure = Some(full()),
                _ => failure = Some(error),
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None if missing.is_empty() => Ok(Outcome::Done),
            None => Ok(Outcome::Missing(missing)),
        }
    }
}

enum Outcome {
    Done,
    /// Nothing was changed, because these removals (by index) are of elements that are not there.
    Missing(Vec<usize>),
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the guard set is full")
}

fn family_of(flow: &FlowKey) -> Family {
    Family::of(flow.frontend.address)
}

/// struct nfgenmsg.
fn generic_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn batch_mark(writer: &mut Writer, kind: u16, sequence: u32) {
    writer.begin(kind, NLM_F_REQUEST, sequence);
    writer.fixed(&generic_header(0, NFNL_SUBSYS_NFTABLES));
    writer.end();
}

fn write_elements<'a>(writer: &mut Writer, key: &mut Vec<u8>, set: &str, flows: impl Iterator<Item = &'a FlowKey>) {
    writer.fixed(&generic_header(NFPROTO_INET, 0));
    writer.attribute_name(NFTA_SET_ELEM_LIST_TABLE, nft::TABLE);
    writer.attribute_name(NFTA_SET_ELEM_LIST_SET, set);
    let list = writer.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    for flow in flows {
        key.clear();
        for end in [flow.client, flow.frontend] {
            append_address(key, end.address);
            // Each field of a concatenation is padded to a register of four octets.
            key.extend_from_slice(&end.port.to_be_bytes());
            key.extend_from_slice(&[0; 2]);
        }
        let element = writer.open(NFTA_LIST_ELEM);
        let value = writer.open(NFTA_SET_ELEM_KEY);
        writer.attribute(NFTA_DATA_VALUE, key);
        writer.close(value);
        writer.close(element);
    }
    writer.close(list);
    writer.end();
}

fn parse_elements(family: Family, payload: &[u8]) -> Vec<FlowKey> {
    let body = payload.get(4..).unwrap_or_default();
    let list = netlink::attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    netlink::attributes(list)
        .filter(|(kind, _)| *kind == NFTA_LIST_ELEM)
        .filter_map(|(_, element)| netlink::attribute(element, NFTA_SET_ELEM_KEY))
        .filter_map(|key| parse_key(family, netlink::attribute(key, NFTA_DATA_VALUE)?))
        .collect()
}

fn parse_key(family: Family, key: &[u8]) -> Option<FlowKey> {
    let length = family.address_length();
    let end = |bytes: &[u8]| {
        let port = u16::from_be_bytes(*bytes.get(length..)?.first_chunk()?);
        Some(Endpoint::new(family.address_from(bytes)?, port))
    };
    Some(FlowKey { client: end(key)?, frontend: end(key.get(length + 4..)?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, frontend: &str) -> FlowKey {
        let endpoint = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        FlowKey { client: endpoint(client), frontend: endpoint(frontend) }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let v4 = flow("10.77.0.9:1000", "10.77.0.1:80");
        let v6 = flow("[fd77::9]:65535", "[fd77::1]:443");
        for (family, flow) in [(Family::V4, v4), (Family::V6, v6)] {
            let mut writer = Writer::default();
            writer.begin(NFT_MSG_NEWSETELEM, NLM_F_REQUEST, 1);
            write_elements(&mut writer, &mut Vec::new(), nft::guard_set(family), [flow, flow].iter());
            let payload = &writer.bytes()[16..];
            assert_eq!(parse_elements(family, payload), [flow, flow]);
        }
    }

    #[test]
    fn each_field_of_a_key_takes_whole_registers() {
        let mut key = Vec::new();
        let flow = flow("10.77.0.9:1000", "10.77.0.1:80");
        write_elements(&mut Writer::default(), &mut key, "guard4", std::iter::once(&flow));
        assert_eq!(key, [10, 77, 0, 9, 3, 232, 0, 0, 10, 77, 0, 1, 0, 80, 0, 0]);
    }

    #[test]
    fn a_key_that_is_too_short_is_no_guard() {
        assert_eq!(parse_key(Family::V4, &[10, 77, 0, 9, 3, 232, 0, 0, 10, 77, 0, 1]), None);
        assert_eq!(parse_key(Family::V6, &[0; 37]), None);
    }
}
