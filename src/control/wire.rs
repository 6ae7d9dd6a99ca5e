//! Reading and writing fields in network order. Knows no message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::{Endpoint, FlowKey};
use crate::limits::cluster_file::SERVICES_MAX;
use crate::limits::{FLIGHT_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};

/// The peer wrote something that no version we speak allows. Closes the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// Octets are left after the last field.
    #[error("{0} octets after the last field")]
    Trailing(usize),
    /// A frame without a type.
    #[error("frame of length 0")]
    EmptyFrame,
    /// A frame longer than any message may be.
    #[error("frame of {0} octets, limit {max}", max = MESSAGE_BYTES_MAX)]
    FrameTooLong(u32),
    /// No message has this type in the version spoken.
    #[error("unknown message type {0:#04x}")]
    UnknownType(u8),
    /// Not a Hello of this protocol.
    #[error("Hello without the protocol's magic number")]
    Magic,
    /// The lowest version is above the highest.
    #[error("Hello with versions {min} to {max}")]
    VersionRange {
        /// The lowest version.
        min: u16,
        /// The highest version.
        max: u16,
    },
    /// An address family other than 4 and 6.
    #[error("unknown address family {0}")]
    Family(u8),
    /// An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2): the same end would have two names.
    #[error("IPv4-mapped IPv6 address")]
    MappedAddress,
    /// A connection whose ends are of different families.
    #[error("a flow with one IPv4 and one IPv6 end")]
    MixedFamilies,
    /// A flag that this version does not define.
    #[error("undefined flags {0:#04x}")]
    Flags(u8),
    /// A window scale above 14 (RFC 7323, section 2.3).
    #[error("window scale {0}, limit 14")]
    WindowScale(u8),
    /// A refusal that this version does not define.
    #[error("unknown refusal {0}")]
    Refusal(u8),
    /// More services than a cluster file can have.
    #[error("{0} services, limit {max}", max = SERVICES_MAX)]
    TooManyServices(u16),
    /// Services out of order, or one of them twice.
    #[error("services out of order")]
    ServiceOrder,
    /// A word about an application that this version does not define.
    #[error("unknown health {0}")]
    Health(u8),
    /// A name that is not UTF-8.
    #[error("name is not UTF-8")]
    NameNotUtf8,
    /// A Goodbye whose text is not UTF-8.
    #[error("text is not UTF-8")]
    TextNotUtf8,
    /// A Goodbye with a text above its limit.
    #[error("text of {0} octets, limit {max}", max = GOODBYE_TEXT_BYTES_MAX)]
    TextTooLong(u16),
    /// Client bytes above their limit.
    #[error("{0} client octets, limit {max}", max = FLIGHT_BYTES_MAX)]
    FlightTooLong(u32),
}

/// A message that cannot be written down: our own bug, since every part has its bound elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// A name too long for its length field.
    #[error("name of {0} octets, limit {max}", max = NAME_BYTES_MAX)]
    NameTooLong(usize),
    /// More client bytes than a message takes.
    #[error("{0} client octets, limit {max}", max = FLIGHT_BYTES_MAX)]
    FlightTooLong(usize),
    /// More services than a cluster file can have.
    #[error("{0} services, limit {max}", max = SERVICES_MAX)]
    TooManyServices(usize),
    /// The whole is longer than a message may be.
    #[error("message of {0} octets, limit {max}", max = MESSAGE_BYTES_MAX)]
    MessageTooLong(usize),
}

/// A cursor over the fields of one message.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the first field.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The next `length` octets.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One octet.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Two octets.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four octets.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight octets.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// An octet of flags of which only those in `defined` may be set.
    pub fn flags(&mut self, defined: u8) -> Result<u8, DecodeError> {
        match self.u8()? {
            flags if flags & !defined == 0 => Ok(flags),
            flags => Err(DecodeError::Flags(flags)),
        }
    }

    /// A name behind its length in one octet, which is also its cap.
    pub fn name(&mut self) -> Result<String, DecodeError> {
        let length = usize::from(self.u8()?);
        let name = std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::NameNotUtf8)?;
        Ok(name.to_owned())
    }

    /// A text for a person behind its length in two octets.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let length = self.u16()?;
        if usize::from(length) > GOODBYE_TEXT_BYTES_MAX {
            return Err(DecodeError::TextTooLong(length));
        }
        let text = std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| DecodeError::TextNotUtf8)?;
        Ok(text.to_owned())
    }

    /// Client bytes behind their length in four octets.
    pub fn flight(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.u32()?;
        match usize::try_from(length) {
            Ok(octets) if octets <= FLIGHT_BYTES_MAX => Ok(self.take(octets)?.to_vec()),
            _ => Err(DecodeError::FlightTooLong(length)),
        }
    }

    fn endpoint(&mut self) -> Result<Endpoint, DecodeError> {
        let address = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => {
                let address = Ipv6Addr::from(self.array::<16>()?);
                if address.to_ipv4_mapped().is_some() {
                    return Err(DecodeError::MappedAddress);
                }
                IpAddr::V6(address)
            }
            family => return Err(DecodeError::Family(family)),
        };
        Ok(Endpoint::new(address, self.u16()?))
    }

    /// Both ends of a connection.
    pub fn flow(&mut self) -> Result<FlowKey, DecodeError> {
        let (client, frontend) = (self.endpoint()?, self.endpoint()?);
        if client.address.is_ipv4() != frontend.address.is_ipv4() {
            return Err(DecodeError::MixedFamilies);
        }
        Ok(FlowKey { client, frontend })
    }

    /// Nothing may be left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            octets => Err(DecodeError::Trailing(octets)),
        }
    }
}

/// Writes a name as [`Reader::name`] reads it.
pub fn put_name(name: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = u8::try_from(name.len()).map_err(|_| EncodeError::NameTooLong(name.len()))?;
    out.push(length);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

/// Writes a text as [`Reader::text`] reads it, cut to its limit: what is lost is prose.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(GOODBYE_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&(end as u16).to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// Writes client bytes as [`Reader::flight`] reads them.
pub fn put_flight(flight: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if flight.len() > FLIGHT_BYTES_MAX {
        return Err(EncodeError::FlightTooLong(flight.len()));
    }
    out.extend_from_slice(&(flight.len() as u32).to_be_bytes());
    out.extend_from_slice(flight);
    Ok(())
}

fn put_endpoint(endpoint: Endpoint, out: &mut Vec<u8>) {
    match endpoint.address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
    out.extend_from_slice(&endpoint.port.to_be_bytes());
}

/// Writes both ends of a connection as [`Reader::flow`] reads them.
pub fn put_flow(flow: FlowKey, out: &mut Vec<u8>) {
    put_endpoint(flow.client, out);
    put_endpoint(flow.frontend, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_of(client: &str, frontend: &str) -> Result<FlowKey, DecodeError> {
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let mut out = Vec::new();
        put_flow(FlowKey { client: end(client), frontend: end(frontend) }, &mut out);
        Reader::new(&out).flow()
    }

    #[test]
    fn an_end_has_one_name_only() {
        assert!(flow_of("192.0.2.1:9", "192.0.2.2:80").is_ok());
        assert!(flow_of("[2001:db8::1]:9", "[2001:db8::2]:80").is_ok());
        assert_eq!(flow_of("[::ffff:192.0.2.1]:9", "[2001:db8::2]:80"), Err(DecodeError::MappedAddress));
        assert_eq!(flow_of("192.0.2.1:9", "[2001:db8::2]:80"), Err(DecodeError::MixedFamilies));
        assert_eq!(Reader::new(&[5, 0, 0]).flow(), Err(DecodeError::Family(5)));
    }

    #[test]
    fn a_length_above_its_cap_is_refused_before_anything_is_read() {
        assert_eq!(Reader::new(&u32::MAX.to_be_bytes()).flight(), Err(DecodeError::FlightTooLong(u32::MAX)));
        assert_eq!(Reader::new(&u16::MAX.to_be_bytes()).text(), Err(DecodeError::TextTooLong(u16::MAX)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut out = Vec::new();
        put_text(&"ü".repeat(GOODBYE_TEXT_BYTES_MAX), &mut out);
        let text = Reader::new(&out).text().unwrap();
        assert_eq!(text.len(), GOODBYE_TEXT_BYTES_MAX);
        let mut out = Vec::new();
        put_text(&format!("x{}", "ü".repeat(GOODBYE_TEXT_BYTES_MAX)), &mut out);
        assert_eq!(Reader::new(&out).text().unwrap().len(), GOODBYE_TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn a_flag_that_nobody_has_defined_is_refused() {
        assert_eq!(Reader::new(&[0b101]).flags(0b111), Ok(0b101));
        assert_eq!(Reader::new(&[0b1001]).flags(0b111), Err(DecodeError::Flags(0b1001)));
    }

    #[test]
    fn a_name_too_long_is_our_error_not_a_wrong_length() {
        assert_eq!(put_name(&"n".repeat(256), &mut Vec::new()), Err(EncodeError::NameTooLong(256)));
        assert!(put_flight(&vec![0; FLIGHT_BYTES_MAX + 1], &mut Vec::new()).is_err());
    }
}
