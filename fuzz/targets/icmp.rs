//! ICMP errors and the packet quoted in them.

use super::input::Input;
use super::sums::{self, ICMP, ICMP_V6, TCP};
use baton::flow::{Endpoint, FlowKey};
use baton::rewrite::{Malformed, Seq, SeqShift, Shifts, WindowRescale, WindowScale, icmp};
use std::net::IpAddr;

/// Octets of choices before the packet.
const CHOICES: usize = 32;
const ICMP_HEADER: usize = 8;

pub fn run(octets: &[u8]) {
    let (choices, packet) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    let mut packet = packet.to_vec();
    let mode = input.u8();
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let protocol = if is_v4 { ICMP } else { ICMP_V6 };
    if mode & 1 != 0 {
        fit_lengths(&mut packet);
    }
    if mode & 2 != 0 {
        repair(&mut packet, protocol);
    }
    // Sometimes of the other family.
    let alias = alias(&mut input, is_v4 != (mode & 0x1c == 0x1c));
    let shifts = Shifts {
        frontend: Endpoint::new([192, 0, 2, 1].into(), 80),
        alias,
        seq: SeqShift::between(Seq::new(input.u32()), Seq::new(input.u32())),
        timestamps: None,
        window: WindowRescale { kernel: WindowScale::NONE, promised: WindowScale::NONE, mss: 0 },
    };
    let flow = icmp::quoted_flow(&packet);
    let mut translated = packet.clone();
    let result = icmp::translate_quoted(&mut translated, &shifts);
    let fits = alias.address.is_ipv4() == is_v4;
    match (flow, result) {
        (Ok(flow), Ok(())) => {
            assert!(fits);
            compare(&packet, &translated, protocol, flow, &shifts);
        }
        (Ok(_), Err(Malformed::Version)) if !fits => assert_eq!(packet, translated),
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            assert_eq!(packet, translated, "refused, yet rewritten");
        }
        (one, other) => panic!("{one:?} but {other:?}"),
    }
}

fn alias(input: &mut Input<'_>, v4: bool) -> Endpoint {
    let (number, port) = (input.u32(), input.u16());
    let address: IpAddr = match v4 {
        true => number.to_be_bytes().into(),
        false => (0xfd00_u128 << 112 | u128::from(number)).to_be_bytes().into(),
    };
    Endpoint::new(address, port)
}

/// The outer packet is as long as the octets.
fn fit_lengths(packet: &mut [u8]) {
    let length = packet.len();
    match packet.first().map(|first| first >> 4) {
        Some(4) if (20..65_536).contains(&length) => packet[2..4].copy_from_slice(&(length as u16).to_be_bytes()),
        Some(6) if (40..65_576).contains(&length) => packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes()),
        _ => {}
    }
}

fn repair(packet: &mut [u8], protocol: u8) {
    let Some(length) = sums::declared_len(packet).filter(|length| *length <= packet.len()) else { return };
    let packet = &mut packet[..length];
    sums::repair_ip(packet);
    if let Some(at) = sums::transport(packet, protocol).filter(|at| at + ICMP_HEADER <= length) {
        if packet.len() > at + ICMP_HEADER {
            sums::repair_ip(&mut packet[at + ICMP_HEADER..]);
        }
        sums::repair_upper(packet, at, protocol, 2);
    }
}

/// Rewritten are the outer destination, the quoted source and sequence number, and checksums; nothing else.
fn compare(before: &[u8], after: &[u8], protocol: u8, flow: FlowKey, shifts: &Shifts) {
    let end = sums::declared_len(before).expect("a length");
    assert_eq!(before[end..], after[end..], "octets behind the packet");
    let (before, after) = (&before[..end], &after[..end]);
    let outer = sums::transport(before, protocol).expect("ICMP");
    let quote = outer + ICMP_HEADER;
    let inner = sums::transport(&before[quote..], TCP).expect("a quoted segment");
    // A quote may be shorter than the packet was, but padding behind a short packet is no part of it.
    let quote_end = quote + sums::declared_len(&before[quote..]).expect("a length").min(before.len() - quote);
    let quoted_checksum = quote_end >= quote + inner + 18;

    let mut expected = before.to_vec();
    let mut carry = |at: usize, count: usize| expected[at..at + count].copy_from_slice(&after[at..at + count]);
    carry(outer + 2, 2);
    if quoted_checksum {
        carry(quote + inner + 16, 2);
    }
    if protocol == ICMP {
        carry(10, 2);
        carry(quote + 10, 2);
    }
    match shifts.alias.address {
        IpAddr::V4(address) => {
            expected[16..20].copy_from_slice(&address.octets());
            expected[quote + 12..quote + 16].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            expected[24..40].copy_from_slice(&address.octets());
            expected[quote + 8..quote + 24].copy_from_slice(&address.octets());
        }
    }
    let tcp = quote + inner;
    expected[tcp..tcp + 2].copy_from_slice(&shifts.alias.port.to_be_bytes());
    let seq = u32::from_be_bytes(before[tcp + 4..tcp + 8].try_into().expect("four octets"));
    expected[tcp + 4..tcp + 8].copy_from_slice(&seq.wrapping_sub(shifts.seq.amount() as u32).to_be_bytes());
    assert_eq!(after, expected, "something else was rewritten");

    let missing = |packet: &[u8]| {
        let (source, destination) = sums::addresses(&packet[quote..]);
        let quoted = sums::pseudo(source, destination, TCP, 0) + sums::residue(&packet[tcp..quote_end]);
        (
            sums::ip_residue(packet),
            sums::upper_residue(packet, outer, protocol),
            sums::ip_residue(&packet[quote..]),
            quoted_checksum.then_some(quoted % 0xffff),
        )
    };
    assert_eq!(missing(after), missing(before), "checksums");
    assert_eq!(icmp::quoted_flow(after), Ok(FlowKey { frontend: shifts.alias, ..flow }));
}
