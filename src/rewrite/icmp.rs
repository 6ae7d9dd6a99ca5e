//! ICMP and ICMPv6 errors that quote a TCP segment of one of our connections (RFC 792, RFC 4443).
//!
//! A router or the client complains about a packet from the server: mostly that it is too big (path MTU discovery).
//! The complaint goes to the front-end's address, since that was the packet's source, but only the owner's kernel can
//! act on it, and only when it recognises the quoted packet as one it sent. A quote may end after the first 8 octets
//! of TCP: the ports and the sequence number (RFC 792). All that is needed is in them.

use super::checksum;
use super::checksum::{Coverage, Field};
use super::coordinates::{Seq, Wire};
use super::ip::{Extent, Family, IpLayout, Upper};
use super::octets::{replace, u16_at, u32_at};
use super::segment::{Malformed, field};
use super::translate::Shifts;
use crate::flow::{Endpoint, FlowKey};

/// Octets before the quoted packet; the same in both families and all error types.
const ICMP_HEADER: usize = 8;
const ICMP_CHECKSUM: usize = 2;
/// What of TCP every quote has.
const TCP_QUOTED_MIN: usize = 8;

/// Whether `packet` is an ICMP or ICMPv6 error quoting a TCP segment from a server to a client, and of which connection.
///
/// Anything else is [`Malformed::Protocol`]. Sender and checksum are not judged here: the kernel does both.
pub fn quoted_flow(packet: &[u8]) -> Result<FlowKey, Malformed> {
    let error = QuotingError::locate(packet)?;
    let quote = &packet[error.quote_at()..error.outer.end()];
    let tcp = &quote[error.inner.transport()..];
    Ok(FlowKey {
        frontend: Endpoint::new(error.inner.source(quote), u16_at(tcp, field::SOURCE_PORT)),
        client: Endpoint::new(error.inner.destination(quote), u16_at(tcp, field::DESTINATION_PORT)),
    })
}

/// Rewrites an error about a translated packet so that the owner's kernel recognises its own: outer destination and the
/// quoted source become the alias, the quoted sequence number becomes the kernel's. Checksums stay right: the ICMP one
/// over everything, the quoted IPv4 header's. (The quoted TCP checksum, when it is inside the quote, is updated too.)
///
/// On an error nothing has been rewritten.
pub fn translate_quoted(packet: &mut [u8], shifts: &Shifts) -> Result<(), Malformed> {
    let error = QuotingError::locate(packet)?;
    let (outer, inner) = (error.outer, error.inner);
    let alias = shifts.alias;

    let destination = outer.set_destination(packet, alias.address).ok_or(Malformed::Version)?;
    let quote = &mut packet[error.quote_at()..outer.end()];
    let source = inner.set_source(quote, alias.address).ok_or(Malformed::Version)?;

    let tcp = &mut quote[inner.transport()..inner.end()];
    let seq = shifts.seq.to_local(Seq::<Wire>::new(u32_at(tcp, field::SEQ)));
    let header =
        replace(tcp, field::SOURCE_PORT, alias.port.to_be_bytes()).and(replace(tcp, field::SEQ, seq.raw().to_be_bytes()));
    let mut quoted = source.header.and(header);
    if tcp.len() >= field::CHECKSUM + 2 {
        let sum = checksum::updated(u16_at(tcp, field::CHECKSUM), Field::Complete, header, Coverage::Segment);
        let sum = checksum::updated(sum, Field::Complete, source.pseudo_header, Coverage::PseudoHeader);
        quoted = quoted.and(replace(tcp, field::CHECKSUM, sum.to_be_bytes()));
    }

    // Only ICMPv6 has a pseudo-header (RFC 4443, section 2.3).
    let change = match outer.family {
        Family::V4 => quoted,
        Family::V6 => quoted.and(destination.pseudo_header),
    };
    let message = &mut packet[outer.transport()..outer.end()];
    let sum = change.apply(u16_at(message, ICMP_CHECKSUM));
    message[ICMP_CHECKSUM..ICMP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Where things are in an error: the packet it came in, and the packet it quotes.
struct QuotingError {
    outer: IpLayout,
    /// Counts from [`QuotingError::quote_at`].
    inner: IpLayout,
}

impl QuotingError {
    fn locate(packet: &[u8]) -> Result<Self, Malformed> {
        let outer = IpLayout::locate(packet, Upper::Icmp, Extent::Whole)?;
        let message = &packet[outer.transport()..outer.end()];
        let (header, quote) = message.split_first_chunk::<ICMP_HEADER>().ok_or(Malformed::Truncated)?;
        if !is_error(outer.family, header[0]) {
            return Err(Malformed::Protocol);
        }
        let inner = IpLayout::locate(quote, Upper::Tcp, Extent::Quoted)?;
        if inner.family != outer.family {
            return Err(Malformed::Version);
        }
        if inner.end() - inner.transport() < TCP_QUOTED_MIN {
            return Err(Malformed::Truncated);
        }
        Ok(Self { outer, inner })
    }

    fn quote_at(&self) -> usize {
        self.outer.transport() + ICMP_HEADER
    }
}

/// Types that tell a sender what became of its packet. Not the redirect, which is for the host and not the connection,
/// nor the source quench, which nobody must heed any more (RFC 6633).
const fn is_error(family: Family, message_type: u8) -> bool {
    match family {
        // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
        Family::V4 => matches!(message_type, 3 | 11 | 12),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        Family::V6 => matches!(message_type, 1..=4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec};
    use crate::rewrite::{Local, Segment, SeqShift, ToClientLocal, ToClientWire};
    use crate::rewrite::{WindowRescale, WindowScale};
    use std::net::IpAddr;

    const ROUTER: [u8; 4] = [203, 0, 113, 1];
    const ROUTER_V6: [u16; 8] = [0x2001, 0xdb8, 0, 0xffff, 0, 0, 0, 1];

    /// An error of `message_type` from a router to the sender of `quote`, with right checksums.
    fn error(message_type: u8, quote: &[u8]) -> Vec<u8> {
        let mut message = vec![message_type, 4, 0, 0, 0, 0, 5, 120];
        message.extend_from_slice(quote);
        if quote[0] >> 4 == 4 {
            let sum = checksum::of(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            packet.extend_from_slice(&ROUTER);
            packet.extend_from_slice(&quote[12..16]);
            let length = (20 + message.len()) as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            let sum = checksum::of(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            [packet, message].concat()
        } else {
            let destination: [u8; 16] = quote[8..24].try_into().unwrap();
            let (source, destination) = (IpAddr::from(ROUTER_V6), IpAddr::from(destination));
            let sum = checksum::with_pseudo_header(source, destination, 58, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            packet[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
            for address in [source, destination] {
                let IpAddr::V6(address) = address else { unreachable!() };
                packet.extend_from_slice(&address.octets());
            }
            [packet, message].concat()
        }
    }

    fn icmp_checksums_are_right(packet: &[u8]) -> bool {
        let ip = IpLayout::locate(packet, Upper::Icmp, Extent::Whole).unwrap();
        let message = &packet[ip.transport()..];
        ip.header_checksum_is_right(packet)
            && 0 == match ip.family {
                Family::V4 => checksum::of(message),
                Family::V6 => checksum::with_pseudo_header(ip.source(packet), ip.destination(packet), 58, message),
            }
    }

    /// What the owner's kernel sent and what left for the client, in both families.
    fn sent() -> [(Shifts, Vec<u8>, Vec<u8>, Endpoint); 2] {
        let alias = Endpoint::new([198, 18, 0, 1].into(), 8080);
        let alias_v6 = Endpoint::new([0xfd00, 0xba70, 0, 0, 0, 0, 0, 1].into(), 8080);
        [(alias, server(), client()), (alias_v6, server_v6(), client_v6())].map(|(alias, frontend, client)| {
            let shifts = Shifts {
                frontend,
                alias,
                seq: SeqShift::between(Seq::new(7), Seq::<Local>::new(0x8000_0000)),
                timestamps: None,
                window: WindowRescale { kernel: WindowScale::new(7), promised: WindowScale::new(7), mss: 1460 },
            };
            let local = spec::<ToClientLocal>(alias, client).build();
            let wire = shifts.to_client(local.clone());
            (shifts, local.into_inner(), wire.into_inner(), client)
        })
    }

    fn too_big(quote: &[u8]) -> u8 {
        if quote[0] >> 4 == 4 { 3 } else { 2 }
    }

    #[test]
    fn a_quote_tells_the_connection() {
        for (shifts, _, wire, client) in sent() {
            let flow = quoted_flow(&error(too_big(&wire), &wire)).unwrap();
            assert_eq!(flow, FlowKey { client, frontend: shifts.frontend });
        }
    }

    #[test]
    fn a_translated_quote_is_the_packet_the_kernel_sent() {
        for (shifts, local, wire, _) in sent() {
            let mut packet = error(too_big(&wire), &wire);
            translate_quoted(&mut packet, &shifts).unwrap();
            assert_eq!(packet, error(too_big(&wire), &local));
            assert!(icmp_checksums_are_right(&packet));
            let quote = &packet[packet.len() - local.len()..];
            assert!(Segment::<_, ToClientWire>::parse(quote).unwrap().checksums_are_right());
        }
    }

    #[test]
    fn eight_octets_of_tcp_are_enough_and_seven_are_not() {
        for (shifts, local, wire, client) in sent() {
            let header = wire.len() - 25;
            for quoted in header + 8..=wire.len() {
                let mut packet = error(too_big(&wire), &wire[..quoted]);
                assert_eq!(quoted_flow(&packet).unwrap().client, client);
                translate_quoted(&mut packet, &shifts).unwrap();
                assert!(icmp_checksums_are_right(&packet));
                assert_eq!(packet[packet.len() - quoted..][..header + 8], local[..header + 8]);
            }
            let packet = error(too_big(&wire), &wire[..header + 7]);
            assert_eq!(quoted_flow(&packet).unwrap_err(), Malformed::Truncated);
        }
    }

    #[test]
    fn the_mtu_a_router_tells_is_carried() {
        for (shifts, _, wire, _) in sent() {
            let mut packet = error(too_big(&wire), &wire);
            let mtu_at = packet.len() - wire.len() - 2;
            translate_quoted(&mut packet, &shifts).unwrap();
            assert_eq!(u16_at(&packet, mtu_at), 1_400);
        }
    }

    #[test]
    fn the_first_fragment_of_a_packet_names_its_connection_and_a_later_one_does_not() {
        let [(_, _, mut wire, client), _] = sent();
        wire[6] = 0x20;
        assert_eq!(quoted_flow(&error(11, &wire)).unwrap().client, client);
        wire[7] = 1;
        assert_eq!(quoted_flow(&error(11, &wire)).unwrap_err(), Malformed::Fragment);
    }

    #[test]
    fn only_errors_are_errors() {
        let [(_, _, wire, _), (_, _, wire_v6, _)] = sent();
        for echo_redirect_quench in [0, 4, 5, 8] {
            let packet = error(echo_redirect_quench, &wire);
            assert_eq!(quoted_flow(&packet).unwrap_err(), Malformed::Protocol);
        }
        for echo_or_redirect in [128, 129, 137] {
            let packet = error(echo_or_redirect, &wire_v6);
            assert_eq!(quoted_flow(&packet).unwrap_err(), Malformed::Protocol);
        }
    }

    #[test]
    fn an_error_about_something_else_than_tcp_is_not_ours() {
        let [(_, _, mut wire, _), _] = sent();
        wire[9] = 17;
        assert_eq!(quoted_flow(&error(3, &wire)).unwrap_err(), Malformed::Protocol);
    }

    #[test]
    fn shifts_of_the_other_family_change_nothing() {
        let [(shifts, ..), (_, _, wire_v6, _)] = sent();
        let before = error(2, &wire_v6);
        let mut packet = before.clone();
        assert_eq!(translate_quoted(&mut packet, &shifts), Err(Malformed::Version));
        assert_eq!(packet, before);
    }

    #[test]
    fn every_shortened_error_is_refused_without_a_panic() {
        for (shifts, _, wire, _) in sent() {
            let packet = error(too_big(&wire), &wire);
            for length in 0..packet.len() {
                let mut short = packet[..length].to_vec();
                assert_eq!(translate_quoted(&mut short, &shifts), Err(Malformed::Truncated));
            }
        }
    }
}
