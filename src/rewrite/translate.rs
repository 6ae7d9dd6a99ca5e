//! Translation of a handed-off connection's segments between the client's view and the owner kernel's.
//!
//! | field | server to client | client to server |
//! |---|---|---|
//! | addresses, ports | alias becomes front-end | front-end becomes alias |
//! | seq | shifted | unchanged: the handshake was replayed with the client's own ISN |
//! | ack, SACK blocks | unchanged: they name the client's octets | shifted: they name the server's octets |
//! | TSval | shifted | unchanged |
//! | TSecr | unchanged | shifted |
//! | window | rescaled | unchanged: the handshake was replayed with the client's own scale |
//!
//! Flags, ECN bits, urgent pointer (relative to seq), DSCP, all other options and the payload are carried as they are.

use crate::flow::Endpoint;
use crate::rewrite::coordinates::{Seq, SeqShift, TimestampShift, WindowRescale, WindowScale};
use crate::rewrite::segment::{Flags, Segment, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};

/// Everything needed to translate a connection's segments; constant for the connection's life at one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shifts {
    /// The front-end address the client knows.
    pub frontend: Endpoint,
    /// The address the owner's kernel knows instead: an alias, and the port its application listens on.
    pub alias: Endpoint,
    /// Sequence numbers.
    pub seq: SeqShift,
    /// Timestamps, when both sides use them.
    pub timestamps: Option<TimestampShift>,
    /// Windows of the owner's kernel.
    pub window: WindowRescale,
}

impl Shifts {
    /// Of a connection whose handshake its owner's kernel made itself: nothing but the address differs.
    pub const fn of_address(frontend: Endpoint, alias: Endpoint) -> Self {
        let window = WindowRescale { kernel: WindowScale::NONE, promised: WindowScale::NONE, mss: 0 };
        Self { frontend, alias, seq: SeqShift::NONE, timestamps: None, window }
    }

    /// What the owner's kernel sent becomes what the client must see.
    pub fn to_client<B: AsRef<[u8]> + AsMut<[u8]>>(&self, segment: Segment<B, ToClientLocal>) -> Segment<B, ToClientWire> {
        let seq = self.seq.to_wire(segment.seq());
        let timestamps = self.timestamps.zip(segment.timestamps());
        let window = segment.window();

        let mut segment = segment.reinterpret::<ToClientWire>();
        segment.set_source(self.frontend);
        segment.set_seq(seq);
        if let Some((shift, (tsval, tsecr))) = timestamps {
            segment.set_timestamps(shift.to_wire(tsval), tsecr);
        }
        // "The window field in a segment where the SYN bit is set [...] MUST NOT be scaled" (RFC 7323, section 2.2),
        // and that of an RST is not read.
        if !segment.flags().intersects(Flags::SYN.with(Flags::RST)) {
            segment.set_window(self.window.rescale(window));
        }
        segment
    }

    /// What the client sent becomes what the owner's kernel must see.
    ///
    /// Without ACK, as in an RST that answers no segment, the acknowledgement number, SACK blocks and TSecr mean
    /// nothing and stay as they are (RFC 9293, section 3.1; RFC 7323, section 3.2).
    pub fn to_server<B: AsRef<[u8]> + AsMut<[u8]>>(&self, segment: Segment<B, ToServerWire>) -> Segment<B, ToServerLocal> {
        let ack = self.seq.to_local(segment.ack());
        let timestamps = self.timestamps.zip(segment.timestamps());

        let mut segment = segment.reinterpret::<ToServerLocal>();
        segment.set_destination(self.alias);
        if segment.flags().contains(Flags::ACK) {
            segment.set_ack(ack);
            segment.map_sack(|edge| self.seq.to_local(Seq::new(edge.raw())));
            // Senders that have nothing to echo write 0, and kernels take 0 as no echo; so it stays.
            if let Some((shift, (tsval, tsecr))) = timestamps
                && tsecr.raw() != 0
            {
                segment.set_timestamps(tsval, shift.to_local(tsecr));
            }
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec, with_options};
    use crate::rewrite::{Leg, Local, SegmentSpec, Timestamp, WindowScale, Wire};

    fn alias() -> Endpoint {
        Endpoint::new([198, 18, 0, 1].into(), 8080)
    }

    fn shifts() -> Shifts {
        Shifts {
            frontend: server(),
            alias: alias(),
            seq: SeqShift::between(Seq::<Wire>::new(100), Seq::<Local>::new(0xffff_ff00)),
            timestamps: Some(TimestampShift::between(Timestamp::<Wire>::new(9_000), Timestamp::<Local>::new(1_000))),
            window: WindowRescale { kernel: WindowScale::new(7), promised: WindowScale::new(9), mss: 1460 },
        }
    }

    fn from_kernel() -> SegmentSpec<'static, ToClientLocal> {
        SegmentSpec {
            seq: Seq::new(0xffff_ff01),
            ack: Seq::new(1_001),
            timestamps: Some((Timestamp::new(1_050), Timestamp::new(77))),
            ..spec(alias(), client())
        }
    }

    fn from_client() -> SegmentSpec<'static, ToServerWire> {
        SegmentSpec {
            ack: Seq::new(101),
            timestamps: Some((Timestamp::new(78), Timestamp::new(9_050))),
            ..spec(client(), server())
        }
    }

    fn as_sent<L: Leg>(segment: &Segment<Vec<u8>, L>) -> (u32, u32, Option<(u32, u32)>, u16) {
        let timestamps = segment.timestamps().map(|(tsval, tsecr)| (tsval.raw(), tsecr.raw()));
        (segment.seq().raw(), segment.ack().raw(), timestamps, segment.window())
    }

    #[test]
    fn the_client_sees_the_front_ends_address_numbers_clock_and_scale() {
        let segment = shifts().to_client(from_kernel().build());
        assert_eq!((segment.source(), segment.destination()), (server(), client()));
        assert_eq!(as_sent(&segment), (101, 1_001, Some((9_050, 77)), 502 >> 2));
        assert_eq!(segment.payload(), b"hello");
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn the_kernel_sees_its_own_address_numbers_and_clock() {
        let segment = shifts().to_server(from_client().build());
        assert_eq!((segment.source(), segment.destination()), (client(), alias()));
        assert_eq!(as_sent(&segment), (1_000, 0xffff_ff01, Some((78, 1_050)), 502));
        assert_eq!(segment.payload(), b"hello");
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn both_directions_work_alike_over_ipv6() {
        let alias = Endpoint::new([0xfd00, 0xba70, 0, 0, 0, 0, 0, 1].into(), 8080);
        let shifts = Shifts { frontend: server_v6(), alias, ..shifts() };
        let kernel = SegmentSpec { source: alias, destination: client_v6(), ..from_kernel() };
        let segment = shifts.to_client(kernel.build());
        assert_eq!((segment.source(), segment.destination()), (server_v6(), client_v6()));
        assert_eq!(as_sent(&segment), (101, 1_001, Some((9_050, 77)), 502 >> 2));
        assert!(segment.checksums_are_right());

        let client = SegmentSpec { source: client_v6(), destination: server_v6(), ..from_client() };
        let segment = shifts.to_server(client.build());
        assert_eq!((segment.source(), segment.destination()), (client_v6(), alias));
        assert_eq!(as_sent(&segment), (1_000, 0xffff_ff01, Some((78, 1_050)), 502));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn the_window_of_a_syn_or_an_rst_is_not_rescaled() {
        for flags in [Flags::SYN.with(Flags::ACK), Flags::RST, Flags::RST.with(Flags::ACK)] {
            let segment = shifts().to_client(SegmentSpec { flags, ..from_kernel() }.build());
            assert_eq!(segment.window(), 502);
        }
    }

    #[test]
    fn an_rst_moves_into_the_clients_sequence_space_like_any_segment() {
        let segment = shifts().to_client(SegmentSpec { flags: Flags::RST, ..from_kernel() }.build());
        assert_eq!(segment.seq().raw(), 101);
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn sack_blocks_of_the_client_move_with_its_ack() {
        // A D-SACK (RFC 2883): the first block lies below the acknowledgement number, and moves with the second.
        let options = [1, 1, 5, 18, 0, 0, 0, 101, 0, 0, 0, 111, 0, 0, 1, 1, 0, 0, 1, 2];
        let segment = Segment::<_, ToServerWire>::parse(with_options(&options)).unwrap();
        let segment = shifts().to_server(segment);
        let blocks: Vec<_> = segment.sack_blocks().map(|(left, right)| (left.raw(), right.raw())).collect();
        assert_eq!(blocks, [(0xffff_ff01, 0xffff_ff0b), (0xffff_ff9d, 0xffff_ff9e)]);
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn sack_blocks_of_the_server_name_client_octets_and_stay() {
        let options = [1, 1, 5, 10, 0, 0, 0, 101, 0, 0, 0, 111];
        let segment = Segment::<_, ToClientLocal>::parse(with_options(&options)).unwrap();
        let segment = shifts().to_client(segment);
        assert_eq!(segment.packet()[40..52], options);
    }

    #[test]
    fn without_ack_there_is_nothing_to_acknowledge_with() {
        let spec = SegmentSpec { flags: Flags::RST, ..from_client() };
        let segment = shifts().to_server(spec.build());
        assert_eq!(segment.destination(), alias());
        assert_eq!(as_sent(&segment), (1_000, 0, Some((78, 9_050)), 502));
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn a_tsecr_of_zero_echoes_nothing_and_stays_zero() {
        let timestamps = Some((Timestamp::new(78), Timestamp::new(0)));
        let segment = shifts().to_server(SegmentSpec { timestamps, ..from_client() }.build());
        assert_eq!(segment.timestamps(), Some((Timestamp::new(78), Timestamp::new(0))));
    }

    #[test]
    fn timestamps_nobody_negotiated_are_left_alone() {
        let shifts = Shifts { timestamps: None, ..shifts() };
        let segment = shifts.to_client(from_kernel().build());
        assert_eq!(segment.timestamps(), Some((Timestamp::new(1_050), Timestamp::new(77))));
    }

    /// Ports, numbers, the length of the header, options that become others: nothing that was damaged on its way is made to
    /// look sound.
    #[test]
    fn a_segment_with_one_wrong_bit_is_wrong_in_the_other_view_too() {
        // Timestamps, and a SACK block.
        let options = [8, 10, 0, 0, 0, 78, 0, 0, 35, 90, 5, 10, 0, 0, 0, 101, 0, 0, 0, 111];
        let sound = with_options(&options);
        let mut translated = 0;
        for bit in 20 * 8..sound.len() * 8 {
            let mut packet = sound.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            if let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.clone()) {
                assert!(!shifts().to_server(segment).checksums_are_right(), "to the server, bit {bit}");
                translated += 1;
            }
            if let Ok(segment) = Segment::<_, ToClientLocal>::parse(packet) {
                assert!(!shifts().to_client(segment).checksums_are_right(), "to the client, bit {bit}");
            }
        }
        assert!(translated > 300, "{translated}");
        assert!(shifts().to_server(Segment::<_, ToServerWire>::parse(sound).unwrap()).checksums_are_right());
    }
}
