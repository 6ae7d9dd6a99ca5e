//! Reads the header of the PROXY protocol, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`), which a proxy or load
//! balancer writes before the client's own bytes. It names the client; what follows it is read as if it came alone. The
//! server gets both, unchanged.
//!
//! Everybody can write such a header, so it is only looked for where the cluster file says that one comes, and there it must be.

use super::ambiguity::Ambiguity;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its octets.
    pub(super) len: usize,
    pub(super) source: Source,
}

/// Who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The one who connected: the proxy speaks for itself (a health check), or does not know.
    Connection,
    /// This one.
    Address(IpAddr),
    /// One without an IP address (a UNIX socket).
    Elsewhere,
}

/// The longest header of version 1 with its CR LF (section 2.1).
const V1_LEN_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
/// Section 2.2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER_LEN: usize = 16;
/// Section 2.2.4: CRC32c of the whole header, its own octets counted as zeros.
const TLV_CRC32C: u8 = 3;
const TLV_HEADER_LEN: usize = 3;

/// Reads the header at the beginning of `bytes`, of which at most `bytes_max` are looked at; `Ok(None)` if it is not complete.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Result<Option<Header>, Ambiguity> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    let begins = |with: &[u8]| seen.starts_with(with) || with.starts_with(seen);
    let header = if begins(V2_SIGNATURE) {
        version_2(seen)?
    } else if begins(V1_BEGIN) {
        version_1(seen)?
    } else {
        return Err(Ambiguity::ProxyHeader);
    };
    match header {
        None if seen.len() == bytes_max => Err(Ambiguity::TooLong),
        // Something must be left to be read behind it.
        Some(header) if header.len >= bytes_max => Err(Ambiguity::TooLong),
        header => Ok(header),
    }
}

/// `PROXY TCP4 192.0.2.7 10.0.0.1 40000 80` and CR LF.
fn version_1(bytes: &[u8]) -> Result<Option<Header>, Ambiguity> {
    let seen = &bytes[..bytes.len().min(V1_LEN_MAX)];
    let Some(end) = seen.iter().position(|octet| *octet == b'\n') else {
        return if seen.len() == V1_LEN_MAX { Err(Ambiguity::ProxyHeader) } else { Ok(None) };
    };
    let line = seen.get(V1_BEGIN.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(Ambiguity::ProxyHeader)?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["TCP4", source, destination, from, to] => addresses::<Ipv4Addr>(source, destination, from, to)?,
        ["TCP6", source, destination, from, to] => addresses::<Ipv6Addr>(source, destination, from, to)?,
        // Whatever follows is to be ignored (section 2.1).
        ["UNKNOWN", ..] => Source::Connection,
        _ => return Err(Ambiguity::ProxyHeader),
    };
    Ok(Some(Header { len: end + 1, source }))
}

fn addresses<T: FromStr + Into<IpAddr>>(source: &str, destination: &str, from: &str, to: &str) -> Result<Source, Ambiguity> {
    let is_port = |text: &str| {
        let is_canonical = text == "0" || !text.starts_with('0');
        is_canonical && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
    };
    match (source.parse::<T>(), destination.parse::<T>()) {
        (Ok(source), Ok(_)) if is_port(from) && is_port(to) => Ok(Source::Address(source.into())),
        _ => Err(Ambiguity::ProxyHeader),
    }
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, Ambiguity> {
    let field = |at: usize| bytes.get(at).copied();
    let (command, family) = (field(12), field(13));
    // LOCAL and PROXY of version 2 are all there are; over TCP come streams only. What is wrong is so at once.
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(Ambiguity::ProxyHeader);
    }
    if command == Some(0x21) && family.is_some_and(|family| !matches!(family, 0 | 0x11 | 0x21 | 0x31)) {
        return Err(Ambiguity::ProxyHeader);
    }
    let (Some(command), Some(family), Some(high), Some(low)) = (command, family, field(14), field(15)) else { return Ok(None) };
    let len = V2_HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
    let addresses_len = match family {
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => 0,
    };
    let is_proxied = command == 0x21;
    if is_proxied && len < V2_HEADER_LEN + addresses_len {
        return Err(Ambiguity::ProxyHeader);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    // Behind LOCAL, all of it is to be ignored (section 2.2).
    if !is_proxied {
        return Ok(Some(Header { len, source: Source::Connection }));
    }
    check_tlvs(header, V2_HEADER_LEN + addresses_len)?;
    let octets = |count: usize| &header[V2_HEADER_LEN..V2_HEADER_LEN + count];
    let source = match family {
        0x11 => <[u8; 4]>::try_from(octets(4)).map_or(Source::Connection, |octets| Source::Address(octets.into())),
        0x21 => <[u8; 16]>::try_from(octets(16)).map_or(Source::Connection, |octets| Source::Address(octets.into())),
        0x31 => Source::Elsewhere,
        _ => Source::Connection,
    };
    Ok(Some(Header { len, source }))
}

/// What follows the addresses is types, lengths and values that fit, and a checksum among them is right.
fn check_tlvs(header: &[u8], from: usize) -> Result<(), Ambiguity> {
    let mut at = from;
    let mut checksum = None;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + TLV_HEADER_LEN) else { return Err(Ambiguity::ProxyHeader) };
        let value = at + TLV_HEADER_LEN..at + TLV_HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
        let octets = header.get(value.clone()).ok_or(Ambiguity::ProxyHeader)?;
        if kind == TLV_CRC32C {
            let expected = <[u8; 4]>::try_from(octets).map_err(|_| Ambiguity::ProxyHeader)?;
            if checksum.replace((value.clone(), u32::from_be_bytes(expected))).is_some() {
                return Err(Ambiguity::ProxyHeader);
            }
        }
        at = value.end;
    }
    let Some((place, expected)) = checksum else { return Ok(()) };
    let octets = header.iter().enumerate().map(|(at, octet)| if place.contains(&at) { 0 } else { *octet });
    if crc32c(octets) == expected { Ok(()) } else { Err(Ambiguity::ProxyHeader) }
}

/// The CRC of RFC 9260, appendix A.
fn crc32c(octets: impl Iterator<Item = u8>) -> u32 {
    !octets.fold(u32::MAX, |crc, octet| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ CRC_OF_OCTET[usize::from(low ^ octet)]
    })
}

static CRC_OF_OCTET: [u32; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < table.len() {
        let mut crc = octet as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[octet] = crc;
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 16_384;

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [V2_SIGNATURE, &[command, family], &u16::try_from(rest.len()).unwrap().to_be_bytes(), rest].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 0, 80];

    fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
        let crc = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&crc);
        header
    }

    /// Incomplete until the last octet, then the same whatever follows.
    #[track_caller]
    fn assert_header(bytes: &[u8], source: Source) {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length], BYTES_MAX), Ok(None), "{length}");
        }
        for more in [&b""[..], b"\r\n", b"PROXY "] {
            assert_eq!(read(&[bytes, more].concat(), BYTES_MAX), Ok(Some(Header { len: bytes.len(), source })));
        }
    }

    #[track_caller]
    fn assert_wrong(bytes: &[u8]) {
        assert_eq!(read(bytes, BYTES_MAX), Err(Ambiguity::ProxyHeader), "{}", bytes.escape_ascii());
    }

    fn address(text: &str) -> Source {
        Source::Address(text.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        assert_header(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\r\n", address("192.0.2.7"));
        assert_header(b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", address("2001:db8::7"));
        assert_header(b"PROXY UNKNOWN\r\n", Source::Connection);
        assert_header(b"PROXY UNKNOWN what ever\r\n", Source::Connection);
        // The longest there can be (section 2.1).
        let longest = format!("PROXY UNKNOWN {f} {f} 65535 65535\r\n", f = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(longest.len(), V1_LEN_MAX);
        assert_header(longest.as_bytes(), Source::Connection);
        assert_wrong(longest.replace("UNKNOWN", "UNKNOWNS").as_bytes());
    }

    #[test]
    fn a_line_that_says_something_else_is_wrong() {
        for line in [
            "TCP4 192.0.2.7 10.0.0.1 40000",
            "TCP4 192.0.2.7 10.0.0.1 40000 80 1",
            "TCP4 192.0.2.7  10.0.0.1 40000 80",
            "TCP4 192.0.2.07 10.0.0.1 40000 80",
            "TCP4 2001:db8::7 ::1 1 2",
            "TCP6 192.0.2.7 10.0.0.1 1 2",
            "TCP4 192.0.2.7 x 1 2",
            "TCP4 192.0.2.7 10.0.0.1 65536 80",
            "TCP4 192.0.2.7 10.0.0.1 080 80",
            "TCP4 192.0.2.7 10.0.0.1 +80 80",
            "TCP4 192.0.2.7 10.0.0.1  80",
            "tcp4 192.0.2.7 10.0.0.1 1 2",
            "UDP4 192.0.2.7 10.0.0.1 1 2",
            "",
        ] {
            assert_wrong(format!("PROXY {line}\r\n").as_bytes());
        }
        assert_wrong(b"PROXY UNKNOWN\n");
        assert_wrong(b"PROXY\tUNKNOWN");
        assert_wrong(b"GET / HTTP/1.1\r\n");
        assert_wrong(b"\r\n\r\n\0\r\nQUIX");
    }

    #[test]
    fn version_2_is_binary() {
        assert_header(&v2(0x21, 0x11, &V4), address("192.0.2.7"));
        let v6 = ["2001:db8::7", "::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
        assert_header(&v2(0x21, 0x21, &[&v6[..], &[1, 2, 3, 4]].concat()), address("2001:db8::7"));
        assert_header(&v2(0x21, 0x31, &[7; 216]), Source::Elsewhere);
        assert_header(&v2(0x21, 0, b""), Source::Connection);
        assert_header(&v2(0x20, 0, b""), Source::Connection);
        // Of LOCAL nothing is looked at but the length.
        assert_header(&v2(0x20, 0x11, b"any"), Source::Connection);
    }

    #[test]
    fn values_behind_the_addresses_are_passed_over() {
        let more = [tlv(1, b"h2"), tlv(2, b"example.com"), tlv(0xea, b""), tlv(4, &[0; 100])].concat();
        assert_header(&v2(0x21, 0x11, &[&V4[..], &more].concat()), address("192.0.2.7"));
        assert_wrong(&v2(0x21, 0x11, &[&V4[..], &[1, 0]].concat()));
        assert_wrong(&v2(0x21, 0x11, &[&V4[..], &[1, 0, 2, 7]].concat()));
    }

    #[test]
    fn a_checksum_must_be_right() {
        // RFC 3720, appendix B.4: 32 octets of zeros.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let right = with_checksum(v2(0x21, 0x11, &[&V4[..], &tlv(1, b"h2"), &tlv(TLV_CRC32C, &[0; 4])].concat()));
        assert_header(&right, address("192.0.2.7"));
        // But for its own type: what is no checksum is not compared.
        for at in (16..right.len()).filter(|at| *at != 33) {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            assert_ne!(read(&wrong, BYTES_MAX), read(&right, BYTES_MAX), "{at}");
        }
        assert_wrong(&v2(0x21, 0x11, &[&V4[..], &tlv(TLV_CRC32C, &[0; 3])].concat()));
        let twice = tlv(TLV_CRC32C, &[0; 4]).repeat(2);
        assert_wrong(&with_checksum(v2(0x21, 0x11, &[&V4[..], &twice].concat())));
    }

    #[test]
    fn what_cannot_be_is_wrong_at_once() {
        assert_wrong(&[V2_SIGNATURE, &[0x11]].concat());
        assert_wrong(&[V2_SIGNATURE, &[0x22]].concat());
        // Datagrams do not come over TCP.
        assert_wrong(&[V2_SIGNATURE, &[0x21, 0x12]].concat());
        assert_wrong(&v2(0x21, 0x11, &V4[..11])[..16]);
        assert_wrong(&v2(0x21, 0x21, &V4)[..16]);
    }

    #[test]
    fn something_is_left_behind_it() {
        let header = v2(0x20, 0, &[0; 284]);
        assert_eq!(header.len(), 300);
        assert!(matches!(read(&header, 301), Ok(Some(_))));
        assert_eq!(read(&header, 300), Err(Ambiguity::TooLong));
        assert_eq!(read(&header, 299), Err(Ambiguity::TooLong));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_or_change_its_mind(
            command in 0x1f_u8..=0x22, family in prop::sample::select(vec![0_u8, 0x11, 0x12, 0x21, 0x31]),
            rest in prop::collection::vec(any::<u8>(), 0..60), cut in any::<prop::sample::Index>(), spoilt: Option<(prop::sample::Index, u8)>,
        ) {
            let mut bytes = v2(command, family, &rest);
            if let Some((at, octet)) = spoilt {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
            let whole = read(&bytes, 400);
            let before = read(&bytes[..cut.index(bytes.len())], 400);
            prop_assert!(before == Ok(None) || before == whole);
        }

        #[test]
        fn no_line_makes_it_panic_or_change_its_mind(line in "PROXY (TCP4|TCP6|UNKNOWN)[ 0-9.:a-f\r\n]{0,120}", cut in any::<prop::sample::Index>()) {
            let whole = read(line.as_bytes(), 400);
            let before = read(&line.as_bytes()[..cut.index(line.len())], 400);
            prop_assert!(before == Ok(None) || before == whole);
        }
    }
}
