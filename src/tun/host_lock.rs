//! Which network namespace this is, and that no second baton runs in it.

use crate::doctor::refusal;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The identity of a network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    /// Unique among the namespaces that exist, but given out again.
    pub(super) inode: u64,
    /// Unique in one run of the kernel; 0 where the kernel has none (before Linux 5.14).
    cookie: u64,
    pub(super) boot: String,
}

impl Namespace {
    pub(super) fn current() -> anyhow::Result<Self> {
        let inode = fs::metadata("/proc/self/ns/net").context("looking up the network namespace in /proc")?.ino();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self { inode, cookie: cookie().unwrap_or(0), boot: boot.trim().to_owned() })
    }
}

fn cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: SO_NETNS_COOKIE writes at most `length` octets to `cookie`, which has as many, and both outlive the call.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Held while this process may change the namespace: rules, tables and marks exist only once in it.
#[derive(Debug)]
pub(super) struct HostLock {
    path: PathBuf,
    /// The lock goes when this is closed, hence also with a killed process.
    _file: File,
}

impl HostLock {
    pub(super) fn take(directory: &Path, device: &str, namespace: &Namespace) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating the state directory {}", directory.display()))?;
        let path = directory.join(file_name(namespace.inode));
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            if !try_lock(&file, libc::LOCK_EX).with_context(|| format!("locking {}", path.display()))? {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(refusal(
                    format!("another baton runs in this network namespace ({})", holder.trim()),
                    format!("stop it first (it holds {})", path.display()),
                ));
            }
            // Its last holder may have unlinked the file between our opening and locking it.
            let ours = file.metadata().map(|metadata| metadata.ino())?;
            if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == ours) {
                file.set_len(0)?;
                writeln!(file, "process {}, device {device}", std::process::id())?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The name of the lock file of a network namespace.
pub(super) fn file_name(inode: u64) -> String {
    format!("netns-{inode}.lock")
}

/// What the baton says of itself that runs in this network namespace; None when there is none. Takes nothing, and
/// writes nothing.
pub(super) fn holder(directory: &Path, namespace: &Namespace) -> anyhow::Result<Option<String>> {
    let path = directory.join(file_name(namespace.inode));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    if try_lock(&file, libc::LOCK_SH).with_context(|| format!("locking {}", path.display()))? {
        return Ok(None);
    }
    let mut holder = String::new();
    file.read_to_string(&mut holder).with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(holder.trim().to_owned()))
}

/// Whether nobody holds this lock file, or it is not there.
pub(super) fn is_free(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => try_lock(&file, libc::LOCK_SH).unwrap_or(false),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// False when somebody else holds it.
fn try_lock(file: &File, operation: libc::c_int) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as `file` is, and flock touches no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) }
}
