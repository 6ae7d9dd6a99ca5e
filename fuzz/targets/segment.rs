//! IP and TCP headers: parsing, every setter, translation both ways, cutting.
//!
//! Everything is done twice: by `rewrite`, and by a model that overwrites fields in a copy. All octets must come out alike
//! but the checksums, and what those miss to being right must not change (`sums::residue`): right stays right, wrong stays
//! wrong, partial stays partial.

use super::input::Input;
use super::sums::{self, TCP};
use baton::flow::Endpoint;
use baton::rewrite::options::kind;
use baton::rewrite::{
    Flags, Leg, Offload, Pieces, Segment, Seq, SeqShift, Shifts, Timestamp, TimestampShift, ToClientLocal, ToServerWire,
    WindowRescale, WindowScale,
};
use std::net::IpAddr;
use std::num::NonZeroU16;

const SEQ: usize = 4;
const ACK: usize = 8;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;

/// Octets of choices before the packet.
const CHOICES: usize = 64;

pub fn run(octets: &[u8]) {
    let (choices, packet) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    let mut packet = packet.to_vec();
    let mode = input.u8();
    if mode & 1 != 0
        && let (Some(declared), true) = (sums::declared_len(&packet), packet.len() < 3_000)
    {
        // A length that fits is hard to find by chance; one that does not is easy.
        packet.resize(declared, 0xa5);
    }
    read_tun_header(&packet);
    let transport = sums::transport(&packet, TCP);
    let partial_checksum = match mode >> 1 & 3 {
        0 | 1 => None,
        2 => transport.map(|at| at as u16),
        _ => Some(input.u16()),
    };
    let segment_bytes = if mode & 0x08 != 0 { NonZeroU16::new(input.u16()) } else { None };
    let offload = Offload { partial_checksum, segment_bytes, ecn: mode & 0x10 != 0 };
    if mode & 0x20 != 0 {
        repair(&mut packet, partial_checksum.is_some());
    }
    cut(&packet, &offload, usize::from(input.u16()));
    let Ok(segment) = Segment::<_, ToServerWire>::parse_offloaded(packet.clone(), offload) else {
        return;
    };
    assert!(transport.is_some(), "a segment whose TCP header cannot be found");
    let before = Model::of(segment.packet(), offload);
    before.agrees_with(&segment);
    completes(&segment, &before);
    let shifts = shifts(&mut input, before.is_v4());
    let mut seen = before.clone();
    seen.translate_to_client(&shifts);
    let translated = shifts.to_client(segment.clone().reinterpret::<ToClientLocal>());
    seen.agrees_with(&translated);
    let mut seen = before.clone();
    seen.translate_to_server(&shifts);
    let translated = shifts.to_server(segment.clone());
    seen.agrees_with(&translated);
    set(&mut input, segment, before, offload);
}

/// The kernel's header before a packet, which may be anything.
fn read_tun_header(octets: &[u8]) {
    let mut frame = octets.to_vec();
    if let Ok(offload) = baton::tun::offload::read_header(&mut frame) {
        let packet = &frame[baton::tun::offload::HEADER_BYTES..];
        let _ = Segment::<_, ToServerWire>::parse_offloaded(packet, offload);
    }
}

/// Makes the checksums right, as far as there are any.
fn repair(packet: &mut [u8], partial: bool) {
    sums::repair_ip(packet);
    let Some(length) = sums::declared_len(packet).filter(|length| *length <= packet.len()) else { return };
    let packet = &mut packet[..length];
    let Some(at) = sums::transport(packet, TCP).filter(|at| at + 20 <= length) else { return };
    sums::repair_upper(packet, at, TCP, CHECKSUM);
    if partial {
        let (source, destination) = sums::addresses(packet);
        let sum = match sums::pseudo(source, destination, TCP, packet.len() - at) {
            0 => 0xffff,
            sum => sum as u16,
        };
        packet[at + CHECKSUM..at + CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn shifts(input: &mut Input<'_>, v4: bool) -> Shifts {
    let frontend = endpoint(input, v4);
    let alias = endpoint(input, v4);
    Shifts {
        frontend,
        alias,
        seq: SeqShift::between(Seq::new(input.u32()), Seq::new(input.u32())),
        timestamps: input.bool().then(|| TimestampShift::between(Timestamp::new(input.u32()), Timestamp::new(input.u32()))),
        window: WindowRescale { kernel: WindowScale::new(input.u8()), promised: WindowScale::new(input.u8()), mss: input.u16() },
    }
}

fn endpoint(input: &mut Input<'_>, v4: bool) -> Endpoint {
    let (number, port) = (input.u32(), input.u16());
    let address: IpAddr = match v4 {
        true => number.to_be_bytes().into(),
        false => (u128::from(number) << 96 | u128::from(number.rotate_left(9))).to_be_bytes().into(),
    };
    Endpoint::new(address, port)
}

/// Setters in any order.
fn set(input: &mut Input<'_>, mut segment: Segment<Vec<u8>, ToServerWire>, mut model: Model, offload: Offload) {
    for _ in 0..8 {
        let (what, to) = (input.u8(), input.u32());
        let [high, .., low] = to.to_be_bytes();
        let port = to as u16;
        match what % 11 {
            0 => {
                let end = endpoint(input, model.is_v4());
                segment.set_source(end);
                model.set_end(end, true);
            }
            1 => {
                let end = endpoint(input, model.is_v4());
                segment.set_destination(end);
                model.set_end(end, false);
            }
            2 => {
                segment.set_seq(Seq::new(to));
                model.put(SEQ, &to.to_be_bytes());
            }
            3 => {
                segment.set_ack(Seq::new(to));
                model.put(ACK, &to.to_be_bytes());
            }
            4 => {
                segment.set_window(port);
                model.put(WINDOW, &port.to_be_bytes());
            }
            5 => {
                segment.set_flags(Flags(low));
                model.put(FLAGS, &[low]);
            }
            6 => {
                segment.clear_accurate_ecn();
                let octet = model.tcp()[12] & 0xfe;
                model.put(12, &[octet]);
            }
            7 => {
                segment.clamp_mss(port);
                for at in model.options(kind::MSS, Some(4)) {
                    let mss = u16::from_be_bytes([model.tcp()[at + 2], model.tcp()[at + 3]]);
                    model.put(at + 2, &mss.min(port).to_be_bytes());
                }
            }
            8 => {
                segment.set_timestamps(Timestamp::new(to), Timestamp::new(!to));
                model.set_timestamps(to, !to);
            }
            9 => {
                let kind = [kind::MSS, kind::TIMESTAMPS, kind::SACK, kind::FAST_OPEN, kind::MPTCP, high][usize::from(low) % 6];
                let places = if kind < 2 { Vec::new() } else { model.options(kind, None) };
                assert_eq!(segment.blank_option(kind), !places.is_empty());
                for at in places {
                    let length = usize::from(model.tcp()[at + 1]);
                    model.put(at, &vec![kind::NO_OPERATION; length]);
                }
                assert!(!segment.has_option(kind));
            }
            _ => {
                segment.map_sack(|edge| edge.plus(to));
                model.shift_sack(to);
            }
        }
        model.agrees_with(&segment);
        reads_the_same(&segment, offload);
    }
}

/// What a segment remembers of itself is what a fresh look finds.
fn reads_the_same(segment: &Segment<Vec<u8>, ToServerWire>, offload: Offload) {
    let Ok(fresh) = Segment::<_, ToServerWire>::parse_offloaded(segment.packet(), offload) else {
        assert!(segment.is_super_segment() && segment.flags().contains(Flags::SYN), "no segment any more");
        return;
    };
    assert_eq!(fresh.timestamps(), segment.timestamps());
    assert!(fresh.sack_blocks().eq(segment.sack_blocks()));
    assert_eq!(fresh.to_string(), segment.to_string());
    assert_eq!(fresh.checksums_are_right(), segment.checksums_are_right());
}

/// A packet as octets, what its checksums miss to being right, and what they hold.
#[derive(Clone)]
struct Model {
    packet: Vec<u8>,
    transport: usize,
    partial: bool,
    /// Of the IPv4 header, and of what the TCP checksum holds.
    missing: (u32, u32),
    /// The TCP checksum had a spelling that no sender writes.
    odd_zero: bool,
}

impl Model {
    fn of(packet: &[u8], offload: Offload) -> Self {
        let transport = sums::transport(packet, TCP).expect("a segment has a TCP header");
        let mut model = Self {
            packet: packet.to_vec(),
            transport,
            partial: offload.partial_checksum.is_some(),
            missing: (0, 0),
            odd_zero: false,
        };
        model.missing = (sums::ip_residue(packet), model.tcp_missing(packet));
        model.odd_zero = model.has_odd_zero(packet);
        model
    }

    fn is_v4(&self) -> bool {
        self.packet[0] >> 4 == 4
    }

    fn tcp(&self) -> &[u8] {
        &self.packet[self.transport..]
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        let at = self.transport + at;
        self.packet[at..at + octets.len()].copy_from_slice(octets);
    }

    fn header(&self) -> usize {
        usize::from(self.tcp()[12] >> 4) * 4
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.tcp()[at..at + 4].try_into().expect("four octets"))
    }

    /// Where in the TCP header options of this kind (and length) begin.
    fn options(&self, kind: u8, length: Option<u8>) -> Vec<usize> {
        let (tcp, mut at, mut found) = (self.tcp(), 20, Vec::new());
        while at < self.header() && tcp[at] != 0 {
            if tcp[at] == 1 {
                at += 1;
                continue;
            }
            if tcp[at] == kind && length.is_none_or(|length| tcp[at + 1] == length) {
                found.push(at);
            }
            at += usize::from(tcp[at + 1]);
        }
        found
    }

    fn set_end(&mut self, end: Endpoint, source: bool) {
        let (v4, v6, port) = if source { (12, 8, 0) } else { (16, 24, 2) };
        match end.address {
            IpAddr::V4(address) => self.packet[v4..v4 + 4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => self.packet[v6..v6 + 16].copy_from_slice(&address.octets()),
        }
        self.put(port, &end.port.to_be_bytes());
    }

    fn timestamps(&self) -> Option<(u32, u32)> {
        let at = *self.options(kind::TIMESTAMPS, Some(10)).last()?;
        Some((self.u32_at(at + 2), self.u32_at(at + 6)))
    }

    fn set_timestamps(&mut self, tsval: u32, tsecr: u32) {
        for at in self.options(kind::TIMESTAMPS, Some(10)) {
            self.put(at + 2, &tsval.to_be_bytes());
            self.put(at + 6, &tsecr.to_be_bytes());
        }
    }

    fn shift_sack(&mut self, by: u32) {
        for at in self.options(kind::SACK, None) {
            let length = usize::from(self.tcp()[at + 1]) - 2;
            for edge in (0..length).step_by(4).filter(|_| length.is_multiple_of(8)) {
                let moved = self.u32_at(at + 2 + edge).wrapping_add(by);
                self.put(at + 2 + edge, &moved.to_be_bytes());
            }
        }
    }

    fn translate_to_client(&mut self, shifts: &Shifts) {
        self.set_end(shifts.frontend, true);
        let seq = self.u32_at(SEQ).wrapping_add(shifts.seq.amount() as u32);
        self.put(SEQ, &seq.to_be_bytes());
        if let (Some(shift), Some((tsval, tsecr))) = (shifts.timestamps, self.timestamps()) {
            self.set_timestamps(tsval.wrapping_add(shift.amount() as u32), tsecr);
        }
        if self.tcp()[FLAGS] & 0x06 == 0 {
            let field = u64::from(u16::from_be_bytes([self.tcp()[WINDOW], self.tcp()[WINDOW + 1]]));
            let octets = field << shifts.window.kernel.shift();
            let mut units = (octets >> shifts.window.promised.shift()).min(0xffff);
            if units == 0 && octets > 0 && octets >= u64::from(shifts.window.mss) {
                units = 1;
            }
            self.put(WINDOW, &(units as u16).to_be_bytes());
        }
    }

    fn translate_to_server(&mut self, shifts: &Shifts) {
        self.set_end(shifts.alias, false);
        if self.tcp()[FLAGS] & 0x10 != 0 {
            let by = (shifts.seq.amount() as u32).wrapping_neg();
            let ack = self.u32_at(ACK).wrapping_add(by);
            self.put(ACK, &ack.to_be_bytes());
            self.shift_sack(by);
            if let (Some(shift), Some((tsval, tsecr))) = (shifts.timestamps, self.timestamps())
                && tsecr != 0
            {
                self.set_timestamps(tsval, tsecr.wrapping_sub(shift.amount() as u32));
            }
        }
    }

    /// What the TCP checksum misses to being right: as a complete one, or as the sum over the pseudo-header.
    fn tcp_missing(&self, packet: &[u8]) -> u32 {
        if !self.partial {
            return sums::upper_residue(packet, self.transport, TCP);
        }
        let (source, destination) = sums::addresses(packet);
        let sum = sums::pseudo(source, destination, TCP, packet.len() - self.transport);
        let field = sums::residue(&packet[self.transport + CHECKSUM..self.transport + CHECKSUM + 2]);
        (field + 0xffff - sum) % 0xffff
    }

    /// 0xffff as a checksum, or 0 as a sum: the same number, but no sender writes it, and some receivers compare.
    fn has_odd_zero(&self, packet: &[u8]) -> bool {
        let odd = if self.partial { 0 } else { 0xff };
        let at = self.transport + CHECKSUM;
        packet[at..at + 2] == [odd, odd]
    }

    fn agrees_with<L: Leg>(&self, segment: &Segment<Vec<u8>, L>) {
        let packet = segment.packet();
        let mut expected = self.packet.clone();
        let checksum = self.transport + CHECKSUM;
        expected[checksum..checksum + 2].copy_from_slice(&packet[checksum..checksum + 2]);
        if self.is_v4() {
            expected[10..12].copy_from_slice(&packet[10..12]);
        }
        assert_eq!(packet, expected, "something else was rewritten");
        assert_eq!((sums::ip_residue(packet), self.tcp_missing(packet)), self.missing, "checksums");
        assert!(self.odd_zero || !self.has_odd_zero(packet), "a checksum in the other spelling of zero");
        let (ip, tcp) = self.missing;
        assert_eq!(segment.checksums_are_right(), ip == 0 && (self.partial || tcp == 0));
        assert_eq!(segment.payload(), &self.tcp()[self.header()..]);
        let _ = (segment.seq_end(), segment.mss(), segment.window_scale(), segment.sack_permitted(), segment.traffic_class());
        assert!(!segment.to_string().is_empty());
    }
}

/// A plain copy has the same octets and, if the sum over the pseudo-header was right, a right checksum.
fn completes(segment: &Segment<Vec<u8>, ToServerWire>, before: &Model) {
    let completed = segment.completed();
    assert_eq!(completed.len(), segment.packet().len());
    let plain = Segment::<_, ToServerWire>::parse(completed.as_slice()).expect("a completed segment is one");
    assert_eq!(plain.payload(), segment.payload());
    let missing = sums::upper_residue(&completed, before.transport, TCP);
    assert_eq!(missing == 0, before.missing.1 == 0, "completing made a wrong checksum right, or a right one wrong");
    if !before.partial {
        assert_eq!(completed, segment.packet());
    }
}

/// Cutting: the pieces say what the whole says.
fn cut(packet: &[u8], offload: &Offload, packet_bytes_max: usize) {
    let mut out = vec![0; 70_000];
    let Ok(mut pieces) = Pieces::of(packet, offload, packet_bytes_max) else { return };
    let packet = &packet[..sums::declared_len(packet).expect("a length")];
    let at = sums::transport(packet, TCP).expect("a TCP header");
    let headers = at + usize::from(packet[at + 12] >> 4) * 4;
    let whole = Model::of(packet, *offload);
    let payload_max = offload
        .segment_bytes
        .map_or(usize::MAX, |bytes| usize::from(bytes.get()).min(packet_bytes_max.saturating_sub(headers)).max(1));
    let count = packet[headers..].len().div_ceil(payload_max).max(1);
    // Many tiny pieces take long and say nothing new.
    if count > 600 {
        return;
    }
    let mut payload = Vec::new();
    let flags = packet[at + FLAGS];
    let number = |octets: &[u8]| u16::from_be_bytes([octets[0], octets[1]]);
    for index in 0..count {
        let length = pieces.write_next(&mut out).expect("a piece");
        let piece = &out[..length];
        assert_eq!(sums::declared_len(piece), Some(length));
        assert!(length - headers <= payload_max);
        let (is_first, is_last) = (index == 0, index + 1 == count);
        let expected = flags & if is_last { 0xff } else { !0x09 } & if is_first { 0xff } else { !0x80 };
        assert_eq!(piece[at + FLAGS], expected);
        let seq = whole.u32_at(SEQ).wrapping_add(payload.len() as u32);
        assert_eq!(piece[at + SEQ..at + SEQ + 4], seq.to_be_bytes());
        if whole.is_v4() {
            assert_eq!(number(&piece[4..]), number(&packet[4..]).wrapping_add(index as u16));
        }
        // A super-segment comes from a kernel, which vouches for it: only a sum that is there can be wrong.
        let right = (whole.missing.1 == 0 || (count > 1 && !whole.partial), count > 1 || whole.missing.0 == 0);
        let is = (sums::upper_residue(piece, at, TCP) == 0, sums::ip_residue(piece) == 0);
        assert_eq!(is, right, "checksums of piece {index} of {count}");
        payload.extend_from_slice(&piece[headers..]);
    }
    assert_eq!(pieces.write_next(&mut out), None);
    assert_eq!(payload, packet[headers..]);
}
