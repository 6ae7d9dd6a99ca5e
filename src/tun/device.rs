//! The TUN device.

use super::family::Family;
use super::offload::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, read_header};
use super::routing::{Link, LinkKind, Routing};
use super::sysctl;
use crate::doctor::refusal;
use crate::rewrite::{Offload, Pieces};
use anyhow::{Context, bail, ensure};
use std::cell::{Cell, RefCell};
use std::fs::File;
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

/// Whether the kernel may leave checksums and segmentation to the TUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Offloading {
    /// Where it can.
    #[default]
    Auto,
    /// Never: every packet is plain.
    Off,
}

/// How packets are exchanged with the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// Packets only.
    Plain,
    /// Each packet behind a header.
    Headers {
        /// The kernel takes super-segments. Some take none, and say so only when they get the first (EINVAL).
        super_segments: bool,
    },
}

/// What was exchanged in super-segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SuperSegments {
    /// Read from the kernel.
    pub read: u64,
    /// Written to it.
    pub written: u64,
    /// Written in pieces, because it takes none.
    pub cut: u64,
}

/// An open TUN device, non-blocking; gone when the process is.
#[derive(Debug)]
pub struct Device {
    interface: Iface,
    mtu: u16,
    framing: Cell<Framing>,
    super_segments: Cell<SuperSegments>,
    /// Room for a header and a packet that has none before it.
    scratch: RefCell<Box<[u8]>>,
}

impl Device {
    /// Creates it and brings it up, with no side effect when the name is taken. Without packet information.
    pub fn create(name: &str, offloading: Offloading) -> anyhow::Result<Self> {
        check_name(name)?;
        let mut routing = Routing::open().context("opening rtnetlink")?;
        let links = routing.links().context("listing network interfaces")?;
        check_free(name, &links)?;
        let interface = open(name)?;
        ensure!(interface.name() == name, "the kernel named the TUN {} instead of {name}", interface.name());
        let framing = match offloading {
            Offloading::Auto => with_offload(&interface, name)?,
            Offloading::Off => Framing::Plain,
        };
        if framing == Framing::Plain {
            set_offload(&interface, 0).context("switching offload of the TUN off")?;
        }
        interface.set_non_blocking().context("making the TUN non-blocking")?;

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
        Ok(Self {
            interface,
            mtu: mtu as u16,
            framing: Cell::new(framing),
            super_segments: Cell::default(),
            scratch: RefCell::new(vec![0; FRAME_BYTES_MAX].into_boxed_slice()),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.interface.name()
    }

    /// Its MTU in octets: no packet read from it is longer, nor any piece of a super-segment.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether the kernel leaves checksums and segmentation to it now.
    pub fn offloads(&self) -> bool {
        self.framing.get() == Framing::Headers { super_segments: true }
    }

    /// What was exchanged in super-segments.
    pub fn super_segments(&self) -> SuperSegments {
        self.super_segments.get()
    }

    /// Reads one packet to behind [`HEADER_BYTES`] of `buffer`, which should have [`FRAME_BYTES_MAX`]: its length, and what
    /// is left to do for it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none; `InvalidData` when the kernel's header makes no sense.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Offload)> {
        if self.framing.get() == Framing::Plain {
            return Ok((self.interface.recv(&mut buffer[HEADER_BYTES..])?, Offload::NONE));
        }
        let length = self.interface.recv(buffer)?;
        let offload = read_header(&mut buffer[..length]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if offload.segment_bytes.is_some() {
            self.count(|super_segments| super_segments.read += 1);
        }
        Ok((length - HEADER_BYTES, offload))
    }

    /// Writes a packet that needs nothing more.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        if self.framing.get() == Framing::Plain {
            return self.interface.send(packet).map(drop);
        }
        let mut scratch = self.scratch.borrow_mut();
        let frame = scratch.get_mut(..HEADER_BYTES + packet.len()).ok_or(io::ErrorKind::InvalidInput)?;
        frame[HEADER_BYTES..].copy_from_slice(packet);
        self.interface.send(Frame::new(frame, Offload::NONE).with_header()).map(drop)
    }

    /// Writes a packet with what is left to do for it. What the kernel refuses to do is done here.
    pub fn send_frame(&self, frame: &mut Frame<'_>) -> io::Result<()> {
        let offload = frame.offload();
        match self.framing.get() {
            Framing::Plain if offload == Offload::NONE => return self.interface.send(frame.packet()).map(drop),
            Framing::Headers { .. } if offload.segment_bytes.is_none() => {
                return self.interface.send(frame.with_header()).map(drop);
            }
            Framing::Headers { super_segments: true } => match self.interface.send(frame.with_header()) {
                Ok(_) => {
                    self.count(|super_segments| super_segments.written += 1);
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.stop_offload(&error),
                Err(error) => return Err(error),
            },
            Framing::Headers { super_segments: false } | Framing::Plain => {}
        }
        self.send_pieces(frame.packet(), &offload)
    }

    /// All pieces are tried; the last error is told.
    fn send_pieces(&self, packet: &[u8], offload: &Offload) -> io::Result<()> {
        let mut pieces = Pieces::of(packet, offload, usize::from(self.mtu))
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidInput, malformed))?;
        self.count(|super_segments| super_segments.cut += 1);
        let mut result = Ok(());
        let mut piece = vec![0; HEADER_BYTES + usize::from(self.mtu).max(packet.len().min(FRAME_BYTES_MAX))];
        while let Some(length) = pieces.write_next(&mut piece[HEADER_BYTES..]) {
            if let Err(error) = self.send(&piece[HEADER_BYTES..HEADER_BYTES + length]) {
                result = Err(error);
            }
        }
        result
    }

    /// The kernel promised to take super-segments and does not: it shall make none either.
    fn stop_offload(&self, error: &io::Error) {
        let result = set_offload(&self.interface, 0);
        self.framing.set(Framing::Headers { super_segments: false });
        log::warn!(
            "offload: the kernel does not take a super-segment on {} ({error}); from now on without offload, which costs \
             throughput and nothing else",
            self.name()
        );
        if let Err(error) = result {
            log::warn!("offload: cannot switch it off: {error}; every super-segment is cut here");
        }
    }

    fn count(&self, add: impl FnOnce(&mut SuperSegments)) {
        let mut super_segments = self.super_segments.get();
        add(&mut super_segments);
        self.super_segments.set(super_segments);
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.interface.as_raw_fd()
    }
}

/// Whether nobody has this name.
pub(super) fn check_free(name: &str, links: &[Link]) -> anyhow::Result<()> {
    ensure!(
        links.iter().all(|link| link.name != name),
        refusal(
            format!("a network interface {name} exists already, and this name is baton's"),
            format!("`ip -d link show {name}` tells what it is; rename or remove it")
        )
    );
    Ok(())
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

/// Opens the TUN once more, now with a header before each packet, behind the same descriptor; then offload can be switched
/// on. Before the device is up, so that no packet is lost or read without its header.
///
/// (Offload without headers would be taken by the kernel, too: super-segments would come that nothing tells from packets.)
fn with_offload(interface: &Iface, name: &str) -> anyhow::Result<Framing> {
    // Between the two descriptors the device must live.
    set_persistent(interface, true).context("keeping the TUN while it is opened again")?;
    let again = File::options().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun again")?;
    replace_descriptor(interface, &again).context("opening the TUN again")?;
    drop(again);
    let refused = attach(interface, name, libc::IFF_VNET_HDR).err();
    if refused.is_some() {
        attach(interface, name, 0).context("opening the TUN again without headers")?;
    }
    set_persistent(interface, false).context("letting go of the TUN")?;
    if let Some(error) = refused {
        log::warn!("offload: the kernel gives no headers to TUN packets ({error}); going on without offload");
        return Ok(Framing::Plain);
    }
    if let Err(error) = set_offload(interface, libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN) {
        log::warn!("offload: the kernel refuses it ({error}); going on without");
        set_offload(interface, 0).context("switching offload of the TUN off")?;
        return Ok(Framing::Headers { super_segments: false });
    }
    Ok(Framing::Headers { super_segments: true })
}

fn set_persistent(interface: &Iface, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value, and the descriptor is open for as long as `interface` is.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(interface.as_raw_fd(), libc::TUNSETPERSIST as _, libc::c_ulong::from(persistent)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel may leave to us; 0 is nothing.
fn set_offload(interface: &Iface, features: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, and the descriptor is open for as long as `interface` is.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(interface.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(features)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the descriptor of `interface` one of `file`.
fn replace_descriptor(interface: &Iface, file: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open. That of `interface` stays the same number and stays its own to close.
    #[allow(unsafe_code)]
    let result = unsafe { libc::dup3(file.as_raw_fd(), interface.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a fresh descriptor to the TUN of that name.
fn attach(interface: &Iface, name: &str, more_flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all of it are numbers and arrays of numbers, for which zero is a value.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name was checked: at most 15 octets, so the last one stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(NAME_BYTES_MAX).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | more_flags) as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call; the descriptor is open.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(interface.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
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
