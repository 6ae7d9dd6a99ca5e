//! Kernel settings below `/proc/sys/net`.

use super::family::Family;
use super::forwarding;
use std::io;
use std::path::PathBuf;

/// The name of a setting, with slashes: a device's name may contain dots.
pub(super) type Name = String;

/// A device's own setting, such as `ipv4/conf/eth0/forwarding`.
pub(super) fn of_device(family: Family, device: &str, setting: &str) -> Name {
    let version = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("{version}/conf/{device}/{setting}")
}

/// The value without the line's end; None when this kernel has no such setting.
pub(super) fn read(name: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("reading {}: {error}", path(name).display()))),
    }
}

/// Changes this setting and no other one.
pub(super) fn write(name: &str, value: &str) -> io::Result<()> {
    match name {
        forwarding::EVERYWHERE => forwarding::write_everywhere(value),
        _ => write_alone(name, value),
    }
}

/// The same, leaving to the kernel what it changes along with it.
pub(super) fn write_alone(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(name), value)
        .map_err(|error| io::Error::new(error.kind(), format!("writing {value} to {}: {error}", path(name).display())))
}

/// Whether the setting can be written; it is not.
pub(super) fn check_writable(name: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path(name)).map(drop)
}

/// The names below a part of a name; none when this kernel has no such part.
pub(super) fn list(name: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether the setting is there and has this value.
pub(super) fn is(name: &str, value: &str) -> io::Result<bool> {
    Ok(read(name)?.as_deref() == Some(value))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}
