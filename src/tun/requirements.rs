//! What this process needs before the host can be looked at closely: privilege, the TUN driver, settings, and nft.
//!
//! Refuses early and in words what would fail later with an error number. Nothing here changes anything.

use super::{nft, sysctl};
use crate::doctor::refusal;
use crate::limits::OPEN_FILES_MIN;
use anyhow::{Context, ensure};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// capabilities(7): addresses, rules, routes, nftables, the TUN, settings, and destroying sockets.
const CAP_NET_ADMIN: u32 = 12;
/// Likewise: the packet sockets on which a node hears the answers to its probes.
const CAP_NET_RAW: u32 = 13;
/// Where TUN devices are made.
const TUN_DRIVER: &str = "/dev/net/tun";
/// Its device number, the same in every Linux (linux/miscdevice.h: MISC_MAJOR, TUN_MINOR).
const TUN_DEVICE_NUMBER: libc::dev_t = libc::makedev(10, 200);
/// A setting that is always changed.
const SETTING_CHANGED: &str = "ipv4/tcp_early_demux";
/// The first version the rules were tried with.
const NFT_VERSION: (u32, u32) = (1, 0);

/// All of them, for a start.
pub fn check(state_directory: &Path) -> anyhow::Result<()> {
    check_privilege()?;
    check_driver(Path::new(TUN_DRIVER))?;
    check_settings()?;
    check_open_files()?;
    check_state_directory(state_directory)?;
    check_nft().map(drop)
}

/// Whether the process may change the network at all.
pub(super) fn check_privilege() -> anyhow::Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status; is /proc mounted?")?;
    if has_capability(&status, CAP_NET_ADMIN) {
        return Ok(());
    }
    Err(refusal(
        "no privilege to change this host's network (CAP_NET_ADMIN)",
        "run as root, or let the service manager grant it, and CAP_NET_RAW for probes (systemd: \
         `AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW`, docker: `--cap-add NET_ADMIN --cap-add NET_RAW`)",
    ))
}

/// What a process with the privilege to start may do, and what not.
pub(super) fn privileges() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if has_capability(&status, CAP_NET_RAW) {
        "CAP_NET_ADMIN, CAP_NET_RAW".to_owned()
    } else {
        "CAP_NET_ADMIN; no CAP_NET_RAW, so probes will fail (`probe` of services with `health`)".to_owned()
    }
}

fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hexadecimal| u64::from_str_radix(hexadecimal.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << capability) != 0)
}

/// Whether a TUN device can be made. Opening the driver makes none yet.
pub(super) fn check_tun_driver() -> anyhow::Result<()> {
    check_driver(Path::new(TUN_DRIVER))
}

fn check_driver(path: &Path) -> anyhow::Result<()> {
    let place = path.display();
    let opened = fs::metadata(path).and_then(|metadata| {
        let is_driver = metadata.file_type().is_char_device() && metadata.rdev() == TUN_DEVICE_NUMBER;
        OpenOptions::new().read(true).write(true).open(path).map(|_| is_driver)
    });
    let error = match opened {
        Ok(true) => return Ok(()),
        Ok(false) => {
            return Err(refusal(
                format!("{place} is not the TUN driver"),
                format!("remove it, then `modprobe tun` or `mknod {place} c 10 200`"),
            ));
        }
        Err(error) => error,
    };
    Err(match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => refusal(
            format!("{place} is not there"),
            format!("load the driver with `modprobe tun`, or give the container that device (docker: --device {place})"),
        ),
        (_, Some(libc::ENODEV | libc::ENXIO)) => {
            refusal(format!("the kernel has no TUN driver behind {place}"), "load it with `modprobe tun`")
        }
        (ErrorKind::PermissionDenied, _) => refusal(
            format!("{place} cannot be opened for reading and writing ({error})"),
            format!(
                "run as root, let the user do so (`ls -l {place}`), or allow the container that device (docker: --device \
                 {place})"
            ),
        ),
        _ => refusal(format!("{place} cannot be opened: {error}"), "see whether `ip tuntap add bt9 mode tun` works"),
    })
}

/// Whether kernel settings can be changed. Opening one for writing writes nothing yet.
pub(super) fn check_settings() -> anyhow::Result<()> {
    let error = match sysctl::check_writable(SETTING_CHANGED) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let name = SETTING_CHANGED;
    Err(match error.kind() {
        ErrorKind::NotFound => refusal(
            format!("the kernel has no setting net/{name}"),
            "is /proc mounted, and is this the network namespace of a host?",
        ),
        ErrorKind::ReadOnlyFilesystem => refusal(
            format!("kernel settings cannot be changed: /proc/sys is read-only (net/{name})"),
            "`mount -o remount,rw /proc/sys`; for a container: --privileged, or a writable mount of /proc/sys/net",
        ),
        _ => refusal(
            format!("the kernel setting net/{name} cannot be changed ({error})"),
            "run as root of this network namespace, with CAP_NET_ADMIN",
        ),
    })
}

/// Whether files can be made in the state directory; a nameless one is tried, and leaves nothing.
pub(super) fn check_state_directory(directory: &Path) -> anyhow::Result<()> {
    let there = directory.ancestors().find(|place| place.exists()).unwrap_or(directory);
    let tried = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(there);
    match tried.map_err(|error| (error.raw_os_error(), error)) {
        // A file system without such files will tell when a real one is made.
        Ok(_) | Err((Some(libc::EOPNOTSUPP | libc::EISDIR), _)) => Ok(()),
        Err((_, error)) => Err(refusal(
            format!("files cannot be made in {}: {error}", directory.display()),
            "make it writable for this user: baton remembers there what the host was like, to put it back after a crash",
        )),
    }
}

/// Whether nft is there and can do what is asked of it; its version.
pub(super) fn check_nft() -> anyhow::Result<String> {
    let version = nft::version()?;
    let tables = nft::LeftOver::find();
    tables.map(|_| version.clone()).map_err(|error| {
        let reason = format!("{error:#}");
        let what = format!("{version} cannot do what is needed: {}", reason.trim_end_matches('.'));
        refusal(
            what,
            "install nftables 1.0 or newer, built with JSON (Debian: `apt install nftables`), on Linux 5.10 or newer \
             with nf_tables (`modprobe nf_tables`)",
        )
    })
}

/// Whether the version in a text such as `nftables v1.0.6 (Lester Gooch #5)` is one the rules were tried with.
pub(super) fn is_tried_version(text: &str) -> bool {
    let number = text.split_whitespace().find_map(|word| word.strip_prefix('v'));
    let mut parts = number.unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= NFT_VERSION
}

/// Whether this process may have enough files open; how many.
pub(super) fn check_open_files() -> anyhow::Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits; is /proc mounted?")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let maximum = soft.and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
    ensure!(
        maximum >= OPEN_FILES_MIN,
        refusal(
            format!("this process may have only {maximum} files open, and needs {OPEN_FILES_MIN}"),
            "raise LimitNOFILE of the service, or `ulimit -n`"
        )
    );
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_counts() {
        assert!(has_capability("CapPrm:\t0\nCapEff:\t0000000000001000\n", CAP_NET_ADMIN));
        assert!(!has_capability("CapPrm:\t1000\nCapEff:\t0000000000000fff\n", CAP_NET_ADMIN));
        assert!(!has_capability("", CAP_NET_ADMIN));
    }

    #[test]
    fn a_driver_that_is_none_is_told_from_one_that_is_missing() {
        let text = |path: &str| format!("{:#}", check_driver(Path::new(path)).unwrap_err());
        assert!(text("/dev/net/no-such-tun").contains("is not there: load the driver"));
        assert!(text("/dev/null").contains("is not the TUN driver"));
    }

    #[test]
    fn versions_of_nft_are_understood() {
        assert!(is_tried_version("nftables v1.0.6 (Lester Gooch #5)"));
        assert!(is_tried_version("nftables v1.1"));
        assert!(!is_tried_version("nftables v0.9.8 (E.D.S.)"));
        assert!(!is_tried_version("something else"));
    }
}
