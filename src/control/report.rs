//! What a node says about itself with every heartbeat: the file it runs with, its applications, how busy they are.

use crate::control::wire::{DecodeError, EncodeError, Reader, put_name};
use crate::limits::cluster_file::SERVICES_MAX;

/// Type octet of [`Report`].
pub const REPORT: u8 = 0x05;
/// The first version that has it.
pub const REPORT_SINCE: u16 = 2;

const REPORT_FULL: u8 = 0x01;

/// A node about itself. Says all of it each time, so none depends on one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Of the meaning of the cluster file that is in force there.
    pub policy: [u8; 32],
    /// Its table of connections is full.
    pub full: bool,
    /// The services its application serves; sorted by name, each once.
    pub services: Vec<ServiceReport>,
}

/// One application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceReport {
    /// Of the service.
    pub name: String,
    /// What came of its checks.
    pub health: Told,
    /// Connections it serves.
    pub connections: u32,
}

/// What a node says about its application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Told {
    /// It is not checked.
    Unchecked = 0,
    /// It can serve.
    Up = 1,
    /// It cannot.
    Down = 2,
    /// No check has ended yet.
    Unknown = 3,
}

impl Report {
    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = u16::try_from(self.services.len()).ok().filter(|count| usize::from(*count) <= SERVICES_MAX);
        let count = count.ok_or(EncodeError::TooManyServices(self.services.len()))?;
        out.extend_from_slice(&self.policy);
        out.push(if self.full { REPORT_FULL } else { 0 });
        out.extend_from_slice(&count.to_be_bytes());
        for service in &self.services {
            put_name(&service.name, out)?;
            out.push(service.health as u8);
            out.extend_from_slice(&service.connections.to_be_bytes());
        }
        Ok(())
    }

    /// Reads the fields.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        let mut policy = [0; 32];
        policy.copy_from_slice(fields.take(32)?);
        let full = fields.flags(REPORT_FULL)? != 0;
        let count = fields.u16()?;
        if usize::from(count) > SERVICES_MAX {
            return Err(DecodeError::TooManyServices(count));
        }
        let mut services: Vec<ServiceReport> = Vec::new();
        for _ in 0..count {
            let service = ServiceReport { name: fields.name()?, health: told(fields.u8()?)?, connections: fields.u32()? };
            if services.last().is_some_and(|before| before.name >= service.name) {
                return Err(DecodeError::ServiceOrder);
            }
            services.push(service);
        }
        fields.finish()?;
        Ok(Self { policy, full, services })
    }
}

fn told(octet: u8) -> Result<Told, DecodeError> {
    Ok(match octet {
        0 => Told::Unchecked,
        1 => Told::Up,
        2 => Told::Down,
        3 => Told::Unknown,
        unknown => return Err(DecodeError::Health(unknown)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(report: &Report) -> Vec<u8> {
        let mut octets = Vec::new();
        report.encode(&mut octets).unwrap();
        octets
    }

    fn service(name: &str, health: Told, connections: u32) -> ServiceReport {
        ServiceReport { name: name.into(), health, connections }
    }

    /// The layout is a promise to other versions. This is how `docs/control-channel.md` draws it.
    #[test]
    fn a_report_stands_on_the_wire_as_documented() {
        let services = vec![service("api", Told::Down, 0), service("web", Told::Up, 0x0102)];
        let octets = written(&Report { policy: [7; 32], full: true, services });
        assert_eq!(octets, [&[7; 32][..], b"\x01\0\x02\x03api\x02\0\0\0\0\x03web\x01\0\0\x01\x02"].concat());
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let report = |services: &[ServiceReport]| Report { policy: [0; 32], full: false, services: services.to_vec() };
        let (a, b) = (service("a", Told::Up, 1), service("b", Told::Up, 1));
        assert_eq!(Report::decode(&written(&report(&[b.clone(), a.clone()]))), Err(DecodeError::ServiceOrder));
        assert_eq!(Report::decode(&written(&report(&[a.clone(), a.clone()]))), Err(DecodeError::ServiceOrder));
        let mut octets = written(&report(&[a]));
        *octets.iter_mut().rev().nth(4).unwrap() = 4;
        assert_eq!(Report::decode(&octets), Err(DecodeError::Health(4)));
        octets[32] = 2;
        assert_eq!(Report::decode(&octets), Err(DecodeError::Flags(2)));
        octets[32..35].copy_from_slice(&[0, 1, 1]);
        assert_eq!(Report::decode(&octets), Err(DecodeError::TooManyServices(257)));
    }

    #[test]
    fn the_largest_report_fits_a_frame() {
        let services = |count: usize| (0..count).map(|number| service(&format!("{number:0255}"), Told::Up, 0)).collect();
        let report = |count| Report { policy: [0; 32], full: false, services: services(count) };
        let largest = written(&report(SERVICES_MAX));
        assert!(largest.len() < crate::limits::MESSAGE_BYTES_MAX);
        assert_eq!(Report::decode(&largest), Ok(report(SERVICES_MAX)));
        assert_eq!(report(SERVICES_MAX + 1).encode(&mut Vec::new()), Err(EncodeError::TooManyServices(SERVICES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn reports_are_read_as_written_and_nothing_shorter_or_longer_is_one(
            policy: [u8; 32], full: bool,
            services in proptest::collection::btree_map("\\PC{0,20}", (0u8..4, any::<u32>()), 0..8),
        ) {
            let services = services.into_iter().map(|(name, (health, connections))| {
                ServiceReport { name, health: told(health).unwrap(), connections }
            });
            let report = Report { policy, full, services: services.collect() };
            let mut octets = written(&report);
            prop_assert_eq!(Report::decode(&octets), Ok(report));
            for cut in 0..octets.len() {
                prop_assert!(Report::decode(&octets[..cut]).is_err());
            }
            octets.push(0);
            prop_assert_eq!(Report::decode(&octets), Err(DecodeError::Trailing(1)));
        }

        #[test]
        fn no_octets_panic_and_what_is_understood_is_canonical(
            mut body in proptest::collection::vec(any::<u8>(), 0..120), few: bool,
        ) {
            if few && body.len() > 34 {
                body[32..35].copy_from_slice(&[0, 0, 2]);
            }
            if let Ok(report) = Report::decode(&body) {
                prop_assert_eq!(written(&report), body);
            }
        }
    }
}
