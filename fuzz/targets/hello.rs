//! The ClientHello: the same decision in any segments and any records, and the server name that rustls finds.

use super::http::{cuts, in_pieces, with_service};
use super::input::Input;
use baton::flow::Endpoint;
use baton::policy::{Ambiguity, Examination};
use rustls::server::Acceptor;

/// Octets of choices before the hello.
const CHOICES: usize = 24;
const RECORD_HEADER: usize = 5;
const FRAGMENT_MAX: usize = 1 << 14;

pub fn run(octets: &[u8]) {
    let (choices, rest) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    let client = Endpoint::new([203, 0, 113, 9].into(), 40_000);
    let in_own_records = input.bool();
    let sizes: Vec<usize> = (0..4).map(|_| usize::from(input.u16() >> (input.u8() % 16))).collect();
    let octets = if in_own_records { records(rest, &sizes) } else { rest.to_vec() };
    let cuts = cuts(&mut input, octets.len());
    with_service("secure", |service| {
        let whole = service.examine(&octets, client);
        let decided = in_pieces(service, &octets, &cuts, client);
        match &whole {
            Examination::NeedMore => {
                assert_eq!(decided, None);
                assert!(!has_whole_message(&octets), "the message is complete, yet more is wanted");
            }
            Examination::Decided(decision) => assert_eq!(decided.map(|(_, first)| first).as_ref(), Some(decision)),
        }
        let explained = service.explain(&octets, None);
        let said = |name: &str| explained.request.iter().find(|(said, _)| *said == name).and_then(|(_, value)| value.clone());
        let read = (!explained.request.is_empty()).then(|| said("sni"));
        match (accepted(&octets), &read) {
            // A name is what rustls read, but an address is none.
            (Some(name), Some(sni)) => {
                let name = name.map(|name| name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase());
                assert!(*sni == name || (sni.is_none() && name.is_some_and(|name| name.parse::<std::net::IpAddr>().is_ok())));
            }
            // What rustls takes is read too, or there is a reason.
            (Some(_), None) => {
                const REASONS: [Ambiguity; 4] =
                    [Ambiguity::HelloMalformed, Ambiguity::TooLong, Ambiguity::SniUnreadable, Ambiguity::NotTls];
                let reason = explained.ambiguity();
                assert!(reason.is_some_and(|reason| REASONS.contains(&reason)), "{reason:?}");
            }
            (None, Some(sni)) => panic!("read {sni:?} from what rustls refuses"),
            (None, None) => {}
        }
        // The message in one record, if it fits, is the same hello.
        if in_own_records && read.is_some() && rest.len() <= FRAGMENT_MAX {
            assert_eq!(service.examine(&records(rest, &[FRAGMENT_MAX]), client), whole);
        }
    });
}

/// A handshake message in records of these sizes, one after the other and again.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::new(), message);
    for size in sizes.iter().cycle().take(20_000) {
        if rest.is_empty() {
            break;
        }
        let (fragment, behind) = rest.split_at((*size).clamp(1, FRAGMENT_MAX).min(rest.len()));
        octets.extend_from_slice(&[22, 3, 1]);
        octets.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        octets.extend_from_slice(fragment);
        rest = behind;
    }
    octets
}

/// Whether the first handshake message is complete, by the lengths in records and message alone.
fn has_whole_message(octets: &[u8]) -> bool {
    let (mut message, mut rest) = (Vec::new(), octets);
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER).filter(|(header, _)| header[0] == 22) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        message.extend_from_slice(&behind[..length.min(behind.len())]);
        rest = behind.get(length..).unwrap_or_default();
    }
    matches!(message[..], [_, a, b, c, ref body @ ..] if body.len() >= usize::from_be_bytes([0, 0, 0, 0, 0, a, b, c]))
}

/// What rustls makes of the records as they are: none if it refuses them or wants more.
fn accepted(octets: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = octets;
    while rest.len() >= RECORD_HEADER {
        let length = RECORD_HEADER + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        let (record, behind) = rest.split_at_checked(length)?;
        let mut unread = record;
        while !unread.is_empty() {
            if acceptor.read_tls(&mut unread).ok()? == 0 {
                return None;
            }
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_owned));
        }
        rest = behind;
    }
    None
}
