//! From the path of a cluster file to a policy, or to words for the person who wrote it.

use super::start::StartError;
use crate::policy::{ClusterFile, Policy, Report};
use std::path::Path;

/// The policy of a node, and what in the file is probably not meant.
pub fn load(path: &Path, node: &str) -> Result<(Policy, Report), StartError> {
    let file = read(path)?;
    let policy = file.compile(node).map_err(|error| {
        let place = path.display();
        StartError::Cluster(format!("{place}: {error}; choose one of them with --node NAME"))
    })?;
    Ok((policy, file.warnings))
}

/// What `baton check` says about a file that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// One line.
    pub summary: String,
    /// What is probably not meant; empty for a good file.
    pub warnings: String,
}

/// Checks a file.
pub fn check(path: &Path) -> Result<Checked, StartError> {
    let file = read(path)?;
    let summary = format!("{}: ok: {}", path.display(), file.summary());
    let warnings = file.warnings.to_string();
    Ok(Checked { summary, warnings })
}

fn read(path: &Path) -> Result<ClusterFile, StartError> {
    ClusterFile::read(path).map_err(|report| StartError::Cluster(report.to_string()))
}
