//! From the path of a cluster file to a policy, or to words for the person who wrote it.

use super::listeners;
use super::start::StartError;
use crate::policy::{ClusterFile, Policy, Report, Severity};
use crate::tun::sock_diag::SockDiag;
use anyhow::Context;
use std::fmt::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

/// The policy of a node, and what in the file is probably not meant.
pub fn load(path: &Path, node: &str) -> Result<(Policy, Report), StartError> {
    let (policy, warnings, _) = load_text(path, node)?;
    Ok((policy, warnings))
}

/// The same, and the text that it was read from.
pub(super) fn load_text(path: &Path, node: &str) -> Result<(Policy, Report, String), StartError> {
    let text = ClusterFile::read_text(path).map_err(|report| StartError::Cluster(report.to_string()))?;
    let file = parse(path, &text).map_err(StartError::Cluster)?;
    let policy = compile(&file, path, node)?;
    Ok((policy, warnings(&file), text))
}

/// Reads a file without looking at what it says. For a running node: it waits for nobody who would write to a pipe.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{}: the file is no regular one (a pipe, a device or a directory)", path.display()));
    }
    ClusterFile::read_text(path).map_err(|report| report.to_string())
}

/// What a text says; when it cannot be used, only why. `baton check` tells the warnings too.
pub(super) fn parse(path: &Path, text: &str) -> Result<ClusterFile, String> {
    ClusterFile::parse(&path.display().to_string(), text).map_err(|report| report.only(Severity::Error).to_string())
}

/// What in a file is probably not meant, for a node that looks at its host itself.
pub(super) fn warnings(file: &ClusterFile) -> Report {
    file.warnings.clone().only(Severity::Warning)
}

/// What is probably not meant, one line each.
pub(super) fn log_warnings(warnings: &Report) {
    for problem in &warnings.problems {
        let place = problem.position.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        log::warn!("{}{place}: {}; {}", problem.file, problem.message, problem.remedy);
    }
}

/// What a file means for a node.
pub(super) fn compile(file: &ClusterFile, path: &Path, node: &str) -> Result<Policy, StartError> {
    file.compile(node).map_err(|error| {
        let place = path.display();
        StartError::Cluster(format!("{place}: {error}; choose one of them with --node NAME"))
    })
}

/// What `baton check` says about a file that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// One line.
    pub summary: String,
    /// What is probably not meant; empty for a good file.
    pub warnings: String,
}

/// Checks a file; with the name of a node also this host, as far as it can be seen without changing it: whether it is that
/// node's, and whether applications listen where that node's connections arrive.
pub fn check(path: &Path, node: Option<&str>) -> Result<Checked, StartError> {
    let file = ClusterFile::read(path).map_err(|report| StartError::Cluster(report.to_string()))?;
    let hash = file.hash().to_string();
    let hash = hash.get(..12).unwrap_or(&hash);
    let summary = format!("{}: ok: {} (hash {hash})", path.display(), file.summary());
    let mut text = file.warnings.to_string();
    if let Some(node) = node {
        text = warnings(&file).to_string();
        let policy = compile(&file, path, node)?;
        for (problem, remedy) in of_this_host(&policy)? {
            let _ = writeln!(text, "{}: warning: node {node}: {problem}\n  = {remedy}", path.display());
        }
    }
    Ok(Checked { summary, warnings: text })
}

/// What is wrong on this host, each with its remedy.
fn of_this_host(policy: &Policy) -> anyhow::Result<Vec<(String, String)>> {
    let node = &policy.nodes[usize::from(policy.node.0)];
    if !is_local(node.address) {
        let problem = format!("its address {} is not one of this host, so its listeners were not looked at", node.address);
        return Ok(vec![(problem, format!("run this on {}, or name the node that this host is", node.name))]);
    }
    let mut problems = Vec::new();
    let mut elsewhere: Vec<IpAddr> = policy.own_frontends().iter().map(|frontend| frontend.address).collect();
    elsewhere.dedup();
    elsewhere.retain(|address| !is_local(*address));
    for address in elsewhere {
        let remedy = "`ip address` shows which there are; `baton run` refuses to start like this".to_owned();
        problems.push((format!("its front-end address {address} is not one of this host"), remedy));
    }
    let mut sockets = SockDiag::open().context("cannot ask the kernel about its sockets (sock_diag)")?;
    let complaints = listeners::complaints(policy, &mut sockets).context("cannot ask the kernel who listens (sock_diag)")?;
    let words = |complaint: listeners::Complaint| {
        (format!("{}: {}, so {}", complaint.about, complaint.what, complaint.consequence), complaint.remedy)
    };
    problems.extend(complaints.into_iter().map(words));
    Ok(problems)
}

/// Whether the kernel lets a socket have this address.
fn is_local(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A thread, so that the test ends if the process would not.
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_running_node_waits_for_no_pipe() {
        let (says, hears) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (reader, _writer) = std::io::pipe().unwrap();
            let _ = says.send(read_text(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd()))));
        });
        let read = hears.recv_timeout(std::time::Duration::from_secs(10)).expect("an answer at once");
        assert!(read.unwrap_err().ends_with("the file is no regular one (a pipe, a device or a directory)"));
    }
}
