//! Puts the host back: the one order of steps for an orderly stop, for a failed start and for `baton cleanup`.
//!
//! What there is to undo is read from the kernel and from the file of first values, never from memory: so what an
//! earlier life left goes too.

use super::family::Family;
use super::first_values::FirstValues;
use super::guard::Guards;
use super::nft;
use super::routing::Routing;
use super::sock_diag::SockDiag;
use super::steering::Steering;
use anyhow::{Context, ensure};
use ipnet::IpNet;

/// What was undone, one line each, and what resisted.
#[derive(Debug, Default)]
pub(super) struct Undone {
    pub(super) lines: Vec<String>,
    pub(super) failures: Vec<anyhow::Error>,
}

impl Undone {
    fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.failures.push(error)).ok()
    }
}

/// Each step is tried whatever became of those before.
///
/// Capture ends first; then aliases are closed and emptied while the blackhole still stands; then everything else goes.
pub(super) fn undo(device: Option<u32>, aliases: &[IpNet], routing: &mut Routing, first_values: &mut FirstValues) -> Undone {
    let mut undone = Undone::default();
    let table = undone.note(nft::LeftOver::find()).flatten().filter(nft::LeftOver::is_ours);
    if let Some(table) = &table {
        // Half a table, of a start that failed, may have no such chains.
        if table.captures() {
            undone.note(nft::apply(&nft::release()).context("removing the capture rules"));
        }
    }
    let mut found = Vec::new();
    for family in Family::BOTH {
        let steering = Steering::found(family, device, aliases, routing);
        found.extend(undone.note(steering).flatten());
    }
    for steering in &found {
        undone.note(steering.close_aliases(routing));
    }
    let aliases: Vec<IpNet> = found.iter().flat_map(Steering::aliases).copied().collect();
    if let Some(destroyed) = undone.note(destroy_sockets(&aliases))
        && destroyed > 0
    {
        undone.lines.push(format!("destroyed {destroyed} sockets on alias addresses: handed-off connections of this host's"));
    }
    for steering in &found {
        if let Some(mut lines) = undone.note(steering.remove(routing)) {
            undone.lines.append(&mut lines);
        }
    }
    let restored = first_values.restore(&mut undone.lines);
    undone.note(restored);
    if table.is_some() {
        let guards = Guards::open().and_then(|mut guards| guards.list()).map_or(0, |guards| guards.len());
        if undone.note(nft::apply(&nft::remove()).context("removing the nf_tables rules")).is_some() {
            undone.lines.push(format!("deleted the nf_tables table inet {}", nft::TABLE));
            if guards > 0 {
                undone.lines.push(format!(
                    "with {guards} guards: this host now resets the connections it had handed to other servers, when \
                     their clients next send"
                ));
            }
        }
    }
    undone
}

/// A socket that lived on would send from its alias, untranslated, once the blackhole is gone.
fn destroy_sockets(aliases: &[IpNet]) -> anyhow::Result<usize> {
    if aliases.is_empty() {
        return Ok(0);
    }
    let mut sockets = SockDiag::open().context("opening sock_diag")?;
    let destroyed = sockets.destroy_in(aliases).context("destroying sockets on aliases")?;
    let remaining = sockets.count_in(aliases)?;
    ensure!(remaining == 0, "{remaining} sockets on alias addresses could not be destroyed");
    Ok(destroyed)
}
