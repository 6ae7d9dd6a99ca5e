//! ICMP and ICMPv6 errors that quote a TCP segment of one of our connections (RFC 792, RFC 4443).

use crate::flow::FlowKey;
use crate::rewrite::Malformed;
use crate::rewrite::translate::Shifts;

/// Whether `packet` is an ICMP or ICMPv6 error quoting a TCP segment from a server to a client, and of which connection.
pub fn quoted_flow(packet: &[u8]) -> Result<FlowKey, Malformed> { let _ = packet; todo!() }

/// Rewrites an error about a translated packet so that the owner's kernel recognises its own: outer destination and the
/// quoted source become the alias, the quoted sequence number becomes the kernel's. Checksums stay right: the ICMP one
/// over everything, the quoted IPv4 header's. (The quoted TCP checksum, when it is inside the quote, is updated too.)
pub fn translate_quoted(packet: &mut [u8], shifts: &Shifts) -> Result<(), Malformed> { let _ = (packet, shifts); todo!() }
