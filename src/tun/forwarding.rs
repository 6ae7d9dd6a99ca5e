//! Forwarding: clients' packets go from the network into the TUN, and baton's from the TUN to the network.
//!
//! IPv4 has a switch for each device. IPv6 has one since Linux 6.17 (`force_forwarding`); before, only the switch for
//! all devices counts, and turning that on makes every device a router's: the kernel deletes the default routes that
//! routers advertised to it and listens to no more advertisements. So each device is made a host's again at once.

use super::family::Family;
use super::first_values::FirstValues;
use super::nft::Forwarding;
use super::sysctl;
use crate::doctor::refusal;
use anyhow::{Context, ensure};
use std::io;

/// IPv6 forwarding of all devices.
pub(super) const EVERYWHERE: &str = "ipv6/conf/all/forwarding";
const DEVICES: &str = "ipv6/conf";
/// `accept_ra` of a device that keeps what routers advertise to it also while it forwards.
const ALSO_A_ROUTER: &str = "2";

/// What makes packets of one family be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Means {
    /// It is on for all devices: this host is a router.
    Given,
    /// A setting of each device.
    PerDevice,
    /// The setting for all devices, each of which must then be made a host's again.
    Everywhere,
}

impl Means {
    /// What this host has; `device` is any device.
    pub(super) fn of(family: Family, device: &str, first_values: &FirstValues) -> anyhow::Result<Self> {
        if family == Family::V4 {
            return Ok(Self::PerDevice);
        }
        let everywhere = first_value(EVERYWHERE, first_values)?;
        ensure!(
            everywhere.is_some(),
            refusal(
                "there is an IPv6 front-end or alias prefix, but IPv6 is switched off on this host",
                "switch it on (no `ipv6.disable=1` on the kernel's command line), or use IPv4 front-ends and aliases only"
            )
        );
        Ok(match everywhere.as_deref() {
            Some("1") => Self::Given,
            _ if sysctl::read(&setting(family, device))?.is_some() => Self::PerDevice,
            _ => Self::Everywhere,
        })
    }

    /// The families of which this host forwards everything although it is no router.
    pub(super) fn not_a_router(families: &[(Family, Self)]) -> Vec<Family> {
        families.iter().filter(|(_, means)| *means == Self::Everywhere).map(|(family, _)| *family).collect()
    }

    /// Whether packets from this device were forwarded before baton did anything.
    pub(super) fn before(self, family: Family, device: &str, first_values: &FirstValues) -> anyhow::Result<Forwarding> {
        let forwards = match self {
            Self::Given => true,
            Self::PerDevice => first_value(&setting(family, device), first_values)?.as_deref() == Some("1"),
            Self::Everywhere => false,
        };
        Ok(if forwards { Forwarding::Before } else { Forwarding::OnlyForUs })
    }
}

/// The setting that makes packets from one device be forwarded.
pub(super) fn setting(family: Family, device: &str) -> sysctl::Name {
    match family {
        Family::V4 => sysctl::of_device(family, device, "forwarding"),
        Family::V6 => sysctl::of_device(family, device, "force_forwarding"),
    }
}

fn first_value(name: &str, first_values: &FirstValues) -> io::Result<Option<String>> {
    match first_values.first(name) {
        Some(first) => Ok(Some(first.to_owned())),
        None => sysctl::read(name),
    }
}

/// Turns IPv6 forwarding on for all devices. What [`write_everywhere`] changes in between is saved before, for a start
/// after a crash at the worst moment.
pub(super) fn turn_on_everywhere(first_values: &mut FirstValues) -> anyhow::Result<()> {
    let mut changing = Vec::new();
    for device in Device::all()? {
        changing.push((device.setting("forwarding"), "1"));
        changing.push((device.setting("accept_ra"), ALSO_A_ROUTER));
    }
    let names = first_values.remember(&changing)?;
    first_values.change(EVERYWHERE, "1").context("turning IPv6 forwarding on")?;
    first_values.put_back(&names)
}

/// Writes [`EVERYWHERE`] and leaves the devices as they are: what they forward is decided by that setting alone, what they
/// are (routers' or hosts') by their own.
///
/// Not only this setting makes the kernel delete routes that routers advertised, each device's own does too
/// (`rt6_purge_dflt_routers`), and for all devices. It spares those of devices that accept advertisements as routers.
pub(super) fn write_everywhere(value: &str) -> io::Result<()> {
    let devices = Device::all()?;
    for device in &devices {
        device.write("accept_ra", ALSO_A_ROUTER, &device.accept_ra)?;
    }
    sysctl::write_alone(EVERYWHERE, value)?;
    for device in &devices {
        device.write("forwarding", &device.forwarding, value)?;
    }
    for device in &devices {
        device.write("accept_ra", &device.accept_ra, ALSO_A_ROUTER)?;
    }
    Ok(())
}

/// A device as IPv6 sees it: `default`, which devices to come start from, is one too.
struct Device {
    name: String,
    forwarding: String,
    accept_ra: String,
}

impl Device {
    fn all() -> io::Result<Vec<Self>> {
        let mut devices = Vec::new();
        for name in sysctl::list(DEVICES)?.into_iter().filter(|name| name != "all") {
            let read = |setting| sysctl::read(&sysctl::of_device(Family::V6, &name, setting));
            // Devices come and go.
            if let (Some(forwarding), Some(accept_ra)) = (read("forwarding")?, read("accept_ra")?) {
                devices.push(Self { name, forwarding, accept_ra });
            }
        }
        Ok(devices)
    }

    fn setting(&self, setting: &str) -> sysctl::Name {
        sysctl::of_device(Family::V6, &self.name, setting)
    }

    /// Writes where the value is another one; a device that is gone needs none.
    fn write(&self, setting: &str, value: &str, now: &str) -> io::Result<()> {
        if value == now {
            return Ok(());
        }
        match sysctl::write_alone(&self.setting(setting), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}
