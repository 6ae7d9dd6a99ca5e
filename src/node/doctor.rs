//! `baton doctor`: the host's checks, and with a cluster file those of this node.

use super::clock;
use super::listeners::{self, Complaint};
use super::start::{self, StartError};
use crate::admin::client;
use crate::admin::server;
use crate::control::socket::{self, Port};
use crate::doctor::{Findings, refusal};
use crate::limits::PEER_PROBE_TIMEOUT;
use crate::policy::Policy;
use crate::tun::examine;
use crate::tun::sock_diag::SockDiag;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The start that is meant.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Which node of the file this is.
    pub node: String,
    /// The cluster file.
    pub cluster: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
}

/// Looks at everything a start needs, and changes nothing. With `intent` also at what that node needs.
pub fn examine(intent: Option<&Intent>) -> Findings {
    let mut findings = Findings::default();
    let policy = intent.and_then(|intent| read_configuration(intent, &mut findings));
    let config = policy.as_ref().map(|policy| start::capture_config(policy, start::DEVICE));
    let state_directory = Path::new(start::STATE_DIRECTORY);
    let running = examine::examine(start::DEVICE, state_directory, config.as_ref(), &mut findings);
    if let (Some(intent), Some(policy)) = (intent, policy) {
        check_admin_socket(&intent.socket, running.as_deref(), &mut findings);
        check_ports(&policy, running.as_deref(), &mut findings);
        check_applications(&policy, &mut findings);
        check_peers(&policy, &mut findings);
    }
    findings
}

/// The cluster file and the key: what is no use, a start says too.
fn read_configuration(intent: &Intent, findings: &mut Findings) -> Option<Policy> {
    let loaded = super::cluster::load(&intent.cluster, &intent.node).map_err(told);
    let place = intent.cluster.display();
    let (policy, warnings) = findings.check("cluster file", loaded, |(policy, _)| {
        format!("{place}: nodes={} services={}", policy.nodes.len(), policy.services.len())
    })?;
    for problem in &warnings.problems {
        let line = problem.position.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        findings.warning("cluster file", format!("{}{line}: {}", problem.file, problem.message), problem.remedy.clone());
    }
    let key = start::read_key(&intent.key, &policy).map_err(told);
    findings.check("key", key, |_| format!("{} is node {}'s", intent.key.display(), intent.node));
    Some(policy)
}

fn told(error: StartError) -> anyhow::Error {
    match error {
        StartError::Cluster(text) => anyhow::anyhow!("{}", text.trim_end()),
        StartError::Host(error) => error,
    }
}

fn check_admin_socket(path: &Path, running: Option<&str>, findings: &mut Findings) {
    match (server::check(path), running) {
        (Ok(()), _) => findings.ok("admin socket", format!("{} is free", path.display())),
        (Err(server::BindError::AlreadyRunning(place)), Some(_)) => {
            findings.ok("admin socket", format!("a daemon answers at {place}"))
        }
        (Err(error), _) => findings.refused("admin socket", &error.into()),
    }
}

/// Both ports, as a start would take them; they are given back at once.
fn check_ports(policy: &Policy, running: Option<&str>, findings: &mut Findings) {
    let node = policy.nodes[usize::from(policy.node.0)].address;
    let address = SocketAddr::new(node, policy.overlay_port);
    for (subject, port) in ["control channel", "overlay"].into_iter().zip(socket::try_ports(address)) {
        match (port, running) {
            (Port::Free, _) => findings.ok(subject, format!("{address} is an address of this host, and the port is free")),
            (Port::Taken(_), Some(holder)) => {
                findings.ok(subject, format!("{address} is taken, as it should be while baton runs ({holder})"));
            }
            (Port::Taken(error) | Port::Unusable(error), _) => findings.refused(subject, &error),
        }
    }
}

fn check_applications(policy: &Policy, findings: &mut Findings) {
    let mut sockets = match SockDiag::open() {
        Ok(sockets) => sockets,
        Err(error) => return findings.doubted("applications", &error.into()),
    };
    match listeners::complaints(policy, &mut sockets) {
        Ok(complaints) if complaints.is_empty() => {
            findings.ok("applications", "listen at every front-end, and on the wildcard address for handed-off connections");
        }
        Ok(complaints) => {
            for Complaint { about, what, consequence, remedy } in complaints {
                findings.warning("applications", format!("{about}: {what}, so {consequence}"), remedy);
            }
        }
        Err(error) => findings.doubted("applications", &error.into()),
    }
}

/// Whether the control ports of the other nodes answer; all at once, for a second.
fn check_peers(policy: &Policy, findings: &mut Findings) {
    let own = policy.node;
    let others = policy.nodes.iter().enumerate().filter(|(index, _)| *index != usize::from(own.0));
    let peers: Vec<(String, SocketAddr)> =
        others.map(|(_, node)| (node.name.clone(), SocketAddr::new(node.address, policy.overlay_port))).collect();
    match connect_to_all(&peers) {
        Err(error) => findings.doubted("peers", &error),
        Ok(outcomes) => {
            for ((name, address), outcome) in peers.iter().zip(outcomes) {
                match outcome {
                    None => findings.ok("peers", format!("{name} answers at {address}")),
                    Some(reason) => findings.doubted(
                        "peers",
                        &refusal(
                            format!("{name} does not answer at {address} ({reason}): nothing can be handed to it"),
                            format!("start baton there, and let the firewalls pass TCP and UDP port {}", address.port()),
                        ),
                    ),
                }
            }
        }
    }
}

/// For each peer None when it answers, otherwise why not.
fn connect_to_all(peers: &[(String, SocketAddr)]) -> anyhow::Result<Vec<Option<String>>> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    let mut outcomes: Vec<Option<String>> = Vec::new();
    for (index, (_, address)) in peers.iter().enumerate() {
        let stream = TcpStream::connect(*address).and_then(|mut stream| {
            poll.registry().register(&mut stream, Token(index), Interest::WRITABLE)?;
            Ok(stream)
        });
        outcomes.push(Some(match &stream {
            Ok(_) => format!("no answer within {} s", PEER_PROBE_TIMEOUT.as_secs()),
            Err(error) => error.to_string(),
        }));
        streams.push(stream.ok());
    }
    let deadline = clock::clock() + PEER_PROBE_TIMEOUT;
    let mut events = Events::with_capacity(64);
    while streams.iter().any(Option::is_some) {
        let patience = deadline.saturating_duration_since(clock::clock());
        if patience.is_zero() {
            break;
        }
        match poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let index = event.token().0;
            let Some(stream) = &streams[index] else { continue };
            match (stream.take_error(), stream.peer_addr()) {
                (Ok(None), Ok(_)) => outcomes[index] = None,
                (Ok(Some(error)) | Err(error), _) => outcomes[index] = Some(error.to_string()),
                // Not yet: an early event says nothing.
                (Ok(None), Err(_)) => continue,
            }
            streams[index] = None;
        }
    }
    Ok(outcomes)
}

/// A node's key unless told otherwise.
pub fn default_key(node: &str) -> PathBuf {
    PathBuf::from(format!("/etc/baton/{node}.key"))
}

/// The daemon's socket unless told otherwise.
pub fn default_socket(node: &str) -> PathBuf {
    Path::new(client::SOCKET_DIRECTORY).join(format!("{node}.sock"))
}
