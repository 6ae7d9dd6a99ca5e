//! Setters. Every one of them keeps the TCP checksum (and the IPv4 header checksum) right by RFC 1624 incremental update.
//!
//! A wrong checksum stays wrong by the same difference: a corrupt segment is not made to look sound. A partial checksum
//! ([`checksum::Field::Partial`]) stays partial and right.

use super::{ACCURATE_ECN, Flags, Layout, Leg, Segment, field, is_sack};
use crate::flow::Endpoint;
use crate::rewrite::checksum::{self, Change, Coverage};
use crate::rewrite::coordinates::{Seq, Timestamp};
use crate::rewrite::ip::AddressChange;
use crate::rewrite::octets::{array_at, replace, u16_at, u32_at};
use crate::rewrite::options::{self, Place, kind, length};

/// Setters. Every one of them keeps the TCP checksum (and the IPv4 header checksum) right by RFC 1624 incremental update.
impl<B: AsRef<[u8]> + AsMut<[u8]>, L: Leg> Segment<B, L> {
    /// Rewrites source address and port (same family; panics in debug builds otherwise).
    pub fn set_source(&mut self, to: Endpoint) {
        let ip = self.layout.ip;
        let change = ip.set_source(self.bytes.as_mut(), to.address);
        self.set_endpoint(change, field::SOURCE_PORT, to.port);
    }

    /// Rewrites destination address and port (same family; panics in debug builds otherwise).
    pub fn set_destination(&mut self, to: Endpoint) {
        let ip = self.layout.ip;
        let change = ip.set_destination(self.bytes.as_mut(), to.address);
        self.set_endpoint(change, field::DESTINATION_PORT, to.port);
    }

    /// Rewrites the sequence number.
    pub fn set_seq(&mut self, to: Seq<L::Sender>) {
        self.write(field::SEQ, to.raw().to_be_bytes());
    }

    /// Rewrites the acknowledgement number.
    pub fn set_ack(&mut self, to: Seq<L::Receiver>) {
        self.write(field::ACK, to.raw().to_be_bytes());
    }

    /// Rewrites the window field.
    pub fn set_window(&mut self, to: u16) {
        self.write(field::WINDOW, to.to_be_bytes());
    }

    /// Rewrites flags (not AE).
    pub fn set_flags(&mut self, to: Flags) {
        self.write(field::FLAGS, [to.0]);
    }

    /// Clears the AE flag.
    pub fn clear_accurate_ecn(&mut self) {
        let octet = self.tcp()[field::DATA_OFFSET];
        self.write(field::DATA_OFFSET, [octet & !ACCURATE_ECN]);
    }

    /// Lowers the MSS option to at most `limit`; does nothing when there is none (then the peer uses 536 or 1220).
    pub fn clamp_mss(&mut self, limit: u16) {
        self.for_each_option(|segment, option| {
            let value = option.body().start;
            if option.is(kind::MSS, length::MSS) && u16_at(segment.options(), value) > limit {
                segment.write(field::OPTIONS + value, limit.to_be_bytes());
            }
        });
    }

    /// Rewrites the timestamp option's values, if there is one.
    ///
    /// When a sender repeats the option, all of them get the values: receivers differ in which one they take.
    pub fn set_timestamps(&mut self, tsval: Timestamp<L::Sender>, tsecr: Timestamp<L::Receiver>) {
        if self.layout.timestamps.is_none() {
            return;
        }
        self.for_each_option(|segment, option| {
            if option.is(kind::TIMESTAMPS, length::TIMESTAMPS) {
                let value = field::OPTIONS + option.body().start;
                segment.write(value, tsval.raw().to_be_bytes());
                segment.write(value + 4, tsecr.raw().to_be_bytes());
            }
        });
    }

    /// Overwrites every option of this kind with no-operation bytes; whether there was one.
    pub fn blank_option(&mut self, kind: u8) -> bool {
        self.blank_options(kind, &[])
    }

    /// The same for the options of this kind whose value begins with `prefix`, such as an experiment's identifier (RFC 6994).
    pub fn blank_options(&mut self, kind: u8, prefix: &[u8]) -> bool {
        let mut found = false;
        self.for_each_option(|segment, option| {
            if option.kind == kind && segment.options()[option.body()].starts_with(prefix) {
                found = true;
                for at in option.start..option.end {
                    segment.write(field::OPTIONS + at, [options::kind::NO_OPERATION]);
                }
            }
        });
        if found {
            match kind {
                options::kind::TIMESTAMPS => self.layout.timestamps = None,
                options::kind::SACK => self.layout.has_sack = false,
                _ => {}
            }
        }
        found
    }

    /// Maps both edges of every SACK block (they are numbers of the receiver's space: the bytes it sent).
    pub fn map_sack(&mut self, map: impl Fn(Seq<L::Receiver>) -> Seq<L::Receiver>) {
        if !self.layout.has_sack {
            return;
        }
        self.for_each_option(|segment, option| {
            if is_sack(option) {
                for edge in option.body().step_by(4) {
                    let mapped = map(Seq::new(u32_at(segment.options(), edge)));
                    segment.write(field::OPTIONS + edge, mapped.raw().to_be_bytes());
                }
            }
        });
    }

    /// Visits every option; the visitor may rewrite any option's value, or the option it is given altogether.
    fn for_each_option(&mut self, mut visit: impl FnMut(&mut Self, Place)) {
        let mut at = 0;
        while let Some(Ok(option)) = options::next(self.options(), at) {
            at = option.end;
            visit(self, option);
        }
    }

    /// Finishes an endpoint of which the address has been rewritten.
    fn set_endpoint(&mut self, address: Option<AddressChange>, port_at: usize, port: u16) {
        debug_assert!(address.is_some(), "an endpoint of one IP family cannot go into a packet of the other");
        if let Some(address) = address {
            self.update_checksum(address.pseudo_header, Coverage::PseudoHeader);
            self.write(port_at, port.to_be_bytes());
        }
    }

    /// Overwrites octets of the TCP header, `at` octets from its start.
    fn write<const N: usize>(&mut self, at: usize, new: [u8; N]) {
        if array_at(self.tcp(), at) != new {
            let change = replace(self.tcp_mut(), at, new);
            self.update_checksum(change, Coverage::Segment);
        }
    }

    fn update_checksum(&mut self, change: Change, coverage: Coverage) {
        let holds = self.offload.checksum();
        let tcp = self.tcp_mut();
        let field = checksum::updated(u16_at(tcp, field::CHECKSUM), holds, change, coverage);
        tcp[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&field.to_be_bytes());
    }

    fn tcp_mut(&mut self) -> &mut [u8] {
        let Layout { ip, .. } = self.layout;
        &mut self.bytes.as_mut()[ip.transport()..ip.end()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec, with_options};
    use crate::rewrite::{ToServerWire, options::kind};

    type Parsed = Segment<Vec<u8>, ToServerWire>;

    fn both_families() -> [Parsed; 2] {
        [spec(client(), server()).build(), spec(client_v6(), server_v6()).build()]
    }

    fn parse(bytes: Vec<u8>) -> Parsed {
        Segment::parse(bytes).unwrap()
    }

    #[test]
    fn every_plain_setter_sets_and_keeps_checksums_right() {
        for mut segment in both_families() {
            segment.set_seq(Seq::new(0xdead_beef));
            segment.set_ack(Seq::new(0xffff_ffff));
            segment.set_window(0xffff);
            segment.set_flags(Flags::FIN.with(Flags::ACK));
            assert_eq!(segment.seq(), Seq::new(0xdead_beef));
            assert_eq!(segment.ack(), Seq::new(0xffff_ffff));
            assert_eq!(segment.window(), 0xffff);
            assert_eq!(segment.flags(), Flags::FIN.with(Flags::ACK));
            assert_eq!(segment.payload(), b"hello");
            assert!(segment.checksums_are_right());
        }
    }

    #[test]
    fn addresses_are_in_the_pseudo_header_too() {
        for mut segment in both_families() {
            let (source, destination) = (segment.source(), segment.destination());
            segment.set_source(Endpoint { port: 1, ..destination });
            segment.set_destination(Endpoint { port: 2, ..source });
            assert_eq!(segment.source(), Endpoint { port: 1, ..destination });
            assert_eq!(segment.destination(), Endpoint { port: 2, ..source });
            assert!(segment.checksums_are_right());
        }
    }

    #[test]
    fn a_corrupt_segment_stays_corrupt() {
        for segment in both_families() {
            let mut bytes = segment.into_inner();
            *bytes.last_mut().unwrap() ^= 0x40;
            let mut segment = parse(bytes);
            segment.set_source(Endpoint { port: 9, ..segment.source() });
            segment.set_seq(Seq::new(7));
            segment.set_window(1);
            assert!(!segment.checksums_are_right());
        }
    }

    #[test]
    fn the_mss_is_lowered_but_never_raised() {
        let mut segment = parse(with_options(&[2, 4, 5, 180]));
        segment.clamp_mss(9_000);
        assert_eq!(segment.mss(), Some(1_460));
        segment.clamp_mss(1_400);
        assert_eq!(segment.mss(), Some(1_400));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn an_mss_at_an_odd_place_is_lowered_too() {
        let mut segment = parse(with_options(&[1, 2, 4, 5, 180, 0, 0, 0]));
        segment.clamp_mss(536);
        assert_eq!(segment.mss(), Some(536));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn timestamps_behind_an_unknown_option_at_an_odd_place_are_rewritten() {
        let mut segment = parse(with_options(&[34, 5, 9, 9, 9, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0]));
        segment.set_timestamps(Timestamp::new(0x0102_0304), Timestamp::new(0xfffe_fdfc));
        assert_eq!(segment.timestamps(), Some((Timestamp::new(0x0102_0304), Timestamp::new(0xfffe_fdfc))));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn a_segment_without_timestamps_gets_none() {
        let mut segment = parse(with_options(&[1, 1, 1, 1]));
        let before = segment.packet().to_vec();
        segment.set_timestamps(Timestamp::new(1), Timestamp::new(2));
        assert_eq!(segment.packet(), before);
    }

    #[test]
    fn repeated_timestamps_all_get_the_values() {
        let once = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let mut segment = parse(with_options(&once.repeat(2)));
        segment.set_timestamps(Timestamp::new(7), Timestamp::new(8));
        assert_eq!(segment.packet()[40..60], [8, 10, 0, 0, 0, 7, 0, 0, 0, 8].repeat(2));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn a_blanked_option_is_gone_and_its_neighbours_are_not() {
        let mut segment = parse(with_options(&[2, 4, 5, 180, 34, 6, 1, 2, 3, 4, 34, 2, 1, 3, 3, 7]));
        assert!(segment.blank_option(kind::FAST_OPEN));
        assert!(!segment.has_option(kind::FAST_OPEN));
        assert!(!segment.blank_option(kind::FAST_OPEN));
        assert_eq!(segment.mss(), Some(1_460));
        assert_eq!(segment.window_scale().map(|scale| scale.shift()), Some(7));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn of_the_experiments_only_the_one_that_is_meant_is_blanked() {
        let options = [254, 6, 0xe2, 0xd4, 0xc3, 0xd9, 254, 4, 0xf9, 0x89, 254, 2, 254, 8, 0xf9, 0x89, 1, 2, 3, 4, 3, 3, 7, 0];
        let mut segment = parse(with_options(&options));
        assert!(segment.blank_options(kind::EXPERIMENT, &options::FAST_OPEN_EXPERIMENT));
        let blanked = [254, 6, 0xe2, 0xd4, 0xc3, 0xd9, 1, 1, 1, 1, 254, 2, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7, 0];
        assert_eq!(segment.options(), blanked);
        assert!(!segment.blank_options(kind::EXPERIMENT, &options::FAST_OPEN_EXPERIMENT));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn blanked_timestamps_and_sack_are_forgotten() {
        let options = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let mut segment = parse(with_options(&options));
        assert_eq!(segment.sack_blocks().count(), 1);
        assert!(segment.blank_option(kind::TIMESTAMPS));
        assert!(segment.blank_option(kind::SACK));
        assert_eq!(segment.timestamps(), None);
        assert_eq!(segment.sack_blocks().count(), 0);
    }

    #[test]
    fn all_edges_of_all_sack_blocks_are_mapped() {
        let options = [1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 5, 255, 255, 255, 254, 0, 0, 0, 3, 0];
        let mut segment = parse(with_options(&options));
        segment.map_sack(|edge| edge.plus(10));
        let blocks: Vec<_> = segment.sack_blocks().map(|(left, right)| (left.raw(), right.raw())).collect();
        assert_eq!(blocks, [(11, 15), (8, 13)]);
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn clearing_accurate_ecn_leaves_the_data_offset() {
        let mut bytes = with_options(&[1, 1, 1, 1]);
        bytes[32] |= ACCURATE_ECN;
        let mut segment = parse(bytes);
        assert!(segment.accurate_ecn());
        segment.clear_accurate_ecn();
        assert!(!segment.accurate_ecn());
        assert_eq!(segment.packet()[32], 0x60);
    }
}
