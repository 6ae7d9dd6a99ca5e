//! `baton cleanup`: the host as it was before the first start, without a running process.

use super::first_values::FirstValues;
use super::host_lock::{HostLock, Namespace};
use super::routing::Routing;
use super::{left_files, nft, requirements, sysctl, undo};
use anyhow::Context;
use std::path::Path;

/// What was done, one line each, and what resisted.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// In the order it was done; empty when there was nothing to do.
    pub lines: Vec<String>,
    /// What could not be put back, and why.
    pub failures: Vec<anyhow::Error>,
}

/// Puts the host back and removes files of network namespaces that are gone, and the admin socket if nobody listens there.
/// Refuses while a baton runs in this namespace. Idempotent.
pub fn clean(state_directory: &Path, device: &str, socket: Option<&Path>) -> anyhow::Result<Cleaned> {
    requirements::check_privilege()?;
    let namespace = Namespace::current()?;
    // Making the directory only to remove it again would be something left behind.
    let directory_was_there = state_directory.exists();
    let lock = HostLock::take(state_directory, device, &namespace)?;
    let mut first_values = FirstValues::load(state_directory, device, &namespace)?;
    let mut routing = Routing::open().context("opening rtnetlink")?;

    let knows_first_values = !first_values.is_empty();
    let undone = undo::undo(None, &[], &mut routing, &mut first_values);
    let mut cleaned = Cleaned { lines: undone.lines, failures: undone.failures };
    if !cleaned.lines.is_empty() && !knows_first_values {
        cleaned.lines.push(format!(
            "left the kernel's settings: {} does not say what they were. See to net/ipv4/tcp_early_demux (now {}; the \
             kernel's own value is 1) and to the forwarding of devices",
            first_values.path().display(),
            sysctl::read("ipv4/tcp_early_demux")?.as_deref().unwrap_or("absent")
        ));
    }
    if nft::LeftOver::find().is_ok_and(|table| table.is_some_and(|table| !table.is_ours())) {
        cleaned.lines.push(format!("left the nf_tables table inet {}: baton did not make it", nft::TABLE));
    }
    let sockets = socket.map_or(Ok(None), left_files::remove_dead_socket).map(|line| line.into_iter().collect());
    for removed in [sockets, left_files::remove(state_directory, device, &namespace)] {
        match removed {
            Ok(lines) => cleaned.lines.extend::<Vec<String>>(lines),
            Err(error) => cleaned.failures.push(error),
        }
    }
    drop(lock);
    if !directory_was_there {
        // Fails when somebody else uses it by now, which is just as well.
        let _ = std::fs::remove_dir(state_directory);
    }
    Ok(cleaned)
}
