//! ICMP and ICMPv6 errors that quote a TCP segment of one of our connections (RFC 792, RFC 4443).
//!
//! A router or the client complains about a packet from the server: mostly that it is too big (path MTU discovery).
//! The complaint goes to the front-end's address, since that was the packet's source, but only the owner's kernel can
//! act on it, and only when it recognises the quoted packet as one it sent. A quote may end after the first 8 octets
//! of TCP: the ports and the sequence number (RFC 792). All that is needed is in them.

use super::checksum;
use super::checksum::Coverage;
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
        client: Endpoint::new(
            error.inner.destination(quote),
            u16_at(tcp, field::DESTINATION_PORT),
        ),
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

    let destination = outer
        .set_destination(packet, alias.address)
        .ok_or(Malformed::Version)?;
    let quote = &mut packet[error.quote_at()..outer.end()];
    let source = inner
        .set_source(quote, alias.address)
        .ok_or(Malformed::Version)?;

    let tcp = &mut quote[inner.transport()..inner.end()];
    let seq = shifts
        .seq
        .to_local(Seq::<Wire>::new(u32_at(tcp, field::SEQ)));
    let header = replace(tcp, field::SOURCE_PORT, alias.port.to_be_bytes()).and(replace(
        tcp,
        field::SEQ,
        seq.raw().to_be_bytes(),
    ));
    let mut quoted = source.header.and(header);
    if tcp.len() >= field::CHECKSUM + 2 {
        let sum = checksum::updated(u16_at(tcp, field::CHECKSUM), header, Coverage::Segment);
        let sum = checksum::updated(sum, source.pseudo_header, Coverage::PseudoHeader);
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
        let (header, quote) = message
            .split_first_chunk::<ICMP_HEADER>()
            .ok_or(Malformed::Truncated)?;
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
