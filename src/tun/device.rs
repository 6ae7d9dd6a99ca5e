//! The TUN device.

use super::family::Family;
use super::routing::{LinkKind, Routing};
use super::sysctl;
use anyhow::{Context, bail, ensure};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use tun_tap::{Iface, Mode};

/// Longest name of a network interface: IFNAMSIZ counts the zero octet.
const NAME_BYTES_MAX: usize = 15;
/// Packets the kernel keeps for a process that is busy. The default of 500 is one client's window.
const QUEUE_LENGTH: u32 = 10_000;
/// A TUN narrower than the links it stands beside would make the kernel remember a too small path MTU for the client,
/// for ten minutes and for all services.
const MTU_MIN: u32 = 1500;
const MTU_MAX: u32 = 65_535;

/// An open TUN device, non-blocking; gone when the process is.
#[derive(Debug)]
pub struct Device {
    interface: Iface,
    mtu: u16,
}

impl Device {
    /// Creates it and brings it up, with no side effect when the name is taken. Without packet information, without
    /// offload.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        check_name(name)?;
        let mut routing = Routing::open().context("opening rtnetlink")?;
        let links = routing.links().context("listing network interfaces")?;
        ensure!(
            links.iter().all(|link| link.name != name),
            "a network interface {name} exists already, and this name is baton's: `ip -d link show {name}` tells what it \
             is; rename or remove it"
        );
        let interface = open(name)?;
        ensure!(interface.name() == name, "the kernel named the TUN {} instead of {name}", interface.name());
        interface.set_non_blocking().context("making the TUN non-blocking")?;
        without_offload(&interface).context("switching offload of the TUN off")?;

        // No link-local address, hence no router solicitations and no multicast reports in our packets.
        let generation = sysctl::of_device(Family::V6, name, "addr_gen_mode");
        if sysctl::read(&generation)?.is_some() {
            sysctl::write(&generation, "1").context("no IPv6 link-local address on the TUN")?;
        }
        let others = links.iter().filter(|link| link.kind != LinkKind::Loopback);
        let mtu = others.map(|link| link.mtu).max().unwrap_or(0).clamp(MTU_MIN, MTU_MAX);
        let index = routing
            .links()?
            .into_iter()
            .find_map(|link| (link.name == name).then_some(link.index))
            .context("the TUN vanished while it was set up")?;
        routing.bring_up(index, mtu, QUEUE_LENGTH).with_context(|| format!("bringing up {name} with MTU {mtu}"))?;
        Ok(Self { interface, mtu: mtu as u16 })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.interface.name()
    }

    /// Its MTU in octets: no packet read from it is longer.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// One packet; WouldBlock when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interface.recv(buffer)
    }

    /// One packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.interface.send(packet).map(drop)
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.interface.as_raw_fd()
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    ensure!(!name.is_empty() && name != "." && name != "..", "the device needs a name, such as bt0");
    ensure!(
        name.len() <= NAME_BYTES_MAX,
        "the device name {name} is longer than {NAME_BYTES_MAX} octets, which is all an interface may have"
    );
    // The kernel refuses slashes, colons and spaces; a percent sign asks it to choose a number; quotes would end a
    // string in the rules.
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ensure!(name.chars().all(usable), "the device name {name} may have only letters, digits, '-', '_' and '.'");
    Ok(())
}

fn open(name: &str) -> anyhow::Result<Iface> {
    let error = match Iface::without_packet_info(name, Mode::Tun) {
        Ok(interface) => return Ok(interface),
        Err(error) => error,
    };
    if !Path::new("/dev/net/tun").exists() {
        bail!("/dev/net/tun is missing: load the module (`modprobe tun`), or give the container that device");
    }
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            bail!("not allowed to create a TUN device ({error}): run as root or with CAP_NET_ADMIN")
        }
        Some(libc::ENODEV | libc::ENXIO) => {
            bail!("the kernel has no TUN driver ({error}): `modprobe tun`")
        }
        _ => Err(error).with_context(|| format!("creating the TUN device {name}")),
    }
}

/// A TUN without virtio headers must promise nothing: with offload it would deliver super-segments without saying so.
fn without_offload(interface: &Iface) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, and the descriptor is open for as long as `interface` is.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(interface.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0 as libc::c_ulong) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn a_name_the_kernel_would_cut_is_refused() {
        assert!(check_name("bt0").is_ok());
        assert!(check_name("a-name-15-long0").is_ok());
        assert!(check_name("a-name-16-long00").is_err());
    }

    #[test]
    fn a_name_that_means_something_to_the_kernel_or_to_the_rules_is_refused() {
        for name in ["", "..", "bt%d", "a/b", "a\"b", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
