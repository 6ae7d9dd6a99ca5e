//! Requests and replies. Field names are a promise: `docs/admin.md` lists them, programs read them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line from the command line: `{"command": "status"}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How is this node doing?
    Status,
    /// The sessions with the other nodes.
    Peers,
    /// The connections.
    Flows {
        /// List at most so many.
        #[serde(default = "flows_default")]
        limit: usize,
    },
    /// All counters.
    Stats,
    /// Read the cluster file again.
    Reload {
        /// Only say what would change.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
        /// Look at this file instead (absolute path); only together with `dry_run`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<std::path::PathBuf>,
    },
    /// No new handoffs.
    Drain,
    /// New handoffs again.
    Undrain,
    /// End; answered when the host is as it was.
    Stop {
        /// How long handed-off connections may take; the cluster file's `limits.drain_timeout` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<f64>,
    },
}

fn flows_default() -> usize {
    1_000
}

/// One line from the daemon: an object whose only key says which.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To `status`.
    Status(Box<Status>),
    /// To `peers`.
    Peers(Peers),
    /// To `flows`.
    Flows(Flows),
    /// To `stats`: name with labels, value.
    Stats(BTreeMap<String, serde_json::Number>),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To a `reload` that only asks.
    Rehearsed(Rehearsed),
    /// To `drain` and `undrain`.
    State(Change),
    /// To `stop`.
    Stopped(Stopped),
    /// To anything that cannot be done: what is wrong and what to do.
    Error(String),
}

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Hands connections off and takes them.
    Running,
    /// Keeps what it has; hands nothing off and takes nothing.
    Draining,
    /// Ends when handed-off connections are over.
    Stopping,
}

/// This node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its name in the cluster file.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
    /// Version of the program.
    pub version: String,
    /// What it is doing.
    pub state: State,
    /// Names this life of the process; hexadecimal.
    pub epoch: String,
    /// Since start.
    pub uptime_seconds: u64,
    /// Process id.
    pub pid: u32,
    /// Name of the TUN device.
    pub device: String,
    /// The cluster file.
    pub cluster_file: ClusterFile,
    /// What is in force of it.
    pub configuration: Configuration,
    /// Sessions.
    pub peers: PeersUp,
    /// Connections baton takes part in.
    pub connections: Connections,
    /// All services of the cluster file.
    pub services: Vec<Service>,
    /// Links to peers, if services may use any.
    #[serde(default)]
    pub links: Option<Links>,
}

/// Links to peers, one for each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Links {
    /// Clients' packets go over them.
    pub usable: usize,
    /// Those that services may use.
    pub total: usize,
}

/// The cluster file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Absolute path.
    pub path: String,
    /// Of the meaning that is in force, to compare with other nodes; hexadecimal.
    pub hash: String,
}

/// What is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// When it was read (RFC 3339, UTC).
    pub loaded_at: String,
    /// Of its meaning; the same as that of the cluster file.
    pub hash: String,
    /// Why the file, as it was read last, was refused; absent if it was not.
    pub last_error: Option<String>,
}

/// How many peers have a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeersUp {
    /// With a session.
    pub up: usize,
    /// In the cluster file, this node not counted.
    pub total: usize,
}

/// How many connections baton knows. Connections released to the local server are not among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connections {
    /// Would be cut if the process ended now.
    pub live: u64,
    /// This node is their front-end.
    pub front_end: u64,
    /// This node is their back-end.
    pub back_end: u64,
    /// Over, in either role, and remembered for a while so that late packets find no stranger.
    pub lingering: u64,
}

/// A service, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its front-end addresses on this node.
    pub frontends: Vec<Frontend>,
    /// Where this node's application takes handed-off connections; absent when it serves none.
    pub application_port: Option<u16>,
    /// Whether something listens there on the wildcard address, as handed-off connections need it; absent as the port.
    pub application_listens: Option<bool>,
    /// Why it takes none, in a few words; absent when it does.
    #[serde(default)]
    pub application_problem: Option<String>,
    /// What came of its checks; absent when it is not checked.
    #[serde(default)]
    pub health: Option<Health>,
}

/// What came of checks of this node's application.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// `up`, `down`, or `unknown` before the first check has ended.
    pub state: String,
    /// How long it has been in this state.
    pub since_seconds: u64,
    /// What was wrong at the last check; absent when nothing was.
    pub failure: Option<String>,
}

/// A front-end address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frontend {
    /// `address:port`.
    pub address: String,
    /// Backlog of the listener behind it; absent when nothing listens.
    pub backlog: Option<u32>,
    /// Why clients are refused there, in a few words; absent when they are not.
    #[serde(default)]
    pub problem: Option<String>,
}

/// All peers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peers {
    /// One for each other node.
    pub peers: Vec<Peer>,
    /// What went to and came from all of them.
    pub overlay: Overlay,
}

/// Packets between nodes, of all peers together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// Sealed and sent.
    pub sent_packets: u64,
    /// Their octets before sealing.
    pub sent_bytes: u64,
    /// Received and opened.
    pub received_packets: u64,
    /// Their octets after opening.
    pub received_bytes: u64,
    /// Not sent; `stats` tells why.
    pub send_drops: u64,
    /// Received and not accepted; `stats` tells why.
    pub receive_drops: u64,
}

/// A peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where its control channel listens.
    pub address: String,
    /// `up`, `connecting`, `waiting` or `refused`.
    pub state: String,
    /// How long it has been in this state.
    pub since_seconds: u64,
    /// Why the session is not up.
    pub error: Option<String>,
    /// On the control channel.
    pub round_trip_ms: Option<f64>,
    /// Protocol version of the session.
    pub protocol_version: Option<u16>,
    /// It takes no new handoffs.
    pub draining: bool,
    /// Sessions since start; more than one means that it was lost and came back.
    pub sessions: u64,
    /// Settings of the two kernels because of which some connections cannot be handed off, and what to do.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Hash of the cluster file it runs with; absent when it has not said so.
    #[serde(default)]
    pub cluster_file_hash: Option<String>,
    /// Whether that is another than this node's.
    #[serde(default)]
    pub cluster_file_differs: bool,
    /// The services that it serves, as far as this node knows.
    #[serde(default)]
    pub services: Vec<PeerService>,
    /// Links to it, for services that may use them.
    #[serde(default)]
    pub links: Vec<PeerLink>,
}

/// A link to a peer: the way without the overlay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerLink {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Clients' packets go over it.
    pub usable: bool,
    /// Why not; absent if they do.
    pub reason: Option<String>,
}

/// A service of a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerService {
    /// Its name.
    pub service: String,
    /// What the peer says about its application: `up` (also when it is not checked), `down`, or `unknown`: to be tried last.
    pub health: String,
    /// Connections that its application serves, as it said last.
    pub connections: u32,
    /// How much of its weight counts: less than 1 while it starts slowly.
    pub ramp: f32,
    /// Why no connection is offered to it, as `fallbacks_total` calls it; absent when it is.
    pub passed_over: Option<String>,
    /// What came of the last probe through it; absent when there was none.
    #[serde(default)]
    pub probe: Option<Probe>,
}

/// The full way through a peer, as the last probe found it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// `ok` or `failed`.
    pub state: String,
    /// How long ago a probe was answered; absent when none was.
    pub last_ok_seconds: Option<f64>,
    /// From the offer to the end of the answer, when one was answered last.
    pub round_trip_ms: Option<f64>,
    /// The step at which the last one failed; absent when it did not.
    pub failed_at: Option<String>,
    /// What went wrong there, in words.
    pub failure: Option<String>,
}

/// The connections.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// How many there are; more than are listed when the limit cut the list.
    pub total: usize,
    /// The list.
    pub flows: Vec<Flow>,
}

/// A connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// `address:port` of the client.
    pub client: String,
    /// `address:port` it connected to.
    pub frontend: String,
    /// This node's role: `front-end` or `back-end`.
    pub role: String,
    /// Name of the state.
    pub state: String,
    /// What its packets need from now on: `inspect`, `forward` or `translate`.
    pub treatment: String,
    /// Name of the other node.
    pub peer: Option<String>,
    /// Back-end: the connection's local end in its kernel, an alias and the application's port.
    #[serde(default)]
    pub socket: Option<String>,
    /// Name of the rule that decided.
    pub rule: Option<String>,
    /// How long it has been in this state.
    pub age_seconds: f64,
}

/// After `reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether the file means something else than what was in force.
    pub changed: bool,
    /// Of what is in force now.
    pub hash: String,
    /// Why the file was refused; absent if it was not.
    pub error: Option<String>,
}

/// What `reload` would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Whether the file means something else than what is in force.
    pub would_change: bool,
    /// Of what is in force.
    pub hash: String,
    /// Of what the file means; absent if it would be refused.
    pub next_hash: Option<String>,
    /// Fields that differ, with what they are and would be, in the words of the files.
    pub differences: Vec<String>,
    /// Why the file would be refused; absent if it would not.
    pub error: Option<String>,
}

/// After `drain` and `undrain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// What the node does now.
    pub state: State,
    /// Connections that would be cut if the process ended now.
    pub live: usize,
}

/// After `stop`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// Connections that were reset because they were not over in time.
    pub cut: usize,
    /// How long the end took.
    pub seconds: f64,
    /// Whether the host is as it was; the log says what is not.
    pub restored: bool,
}

/// Reads a request line. The error is for the person at the other end.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        format!(
            "cannot read the request ({error}); it is one line like {{\"command\": \"status\"}}, \
             and daemon and command line should be of the same version"
        )
    })?;
    if let Request::Stop { timeout_seconds: Some(seconds) } = request
        && std::time::Duration::try_from_secs_f64(seconds).is_err()
    {
        return Err(format!("timeout_seconds {seconds} is not a time; use a number of seconds, 0 or more"));
    }
    Ok(request)
}

/// Writes a request or reply as one line.
pub fn to_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("requests and replies have string keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        assert_eq!(parse_request(br#"{"command": "status"}"#), Ok(Request::Status));
        assert_eq!(parse_request(br#"{"command": "flows"}"#), Ok(Request::Flows { limit: 1_000 }));
        assert_eq!(parse_request(br#"{"command": "flows", "limit": 3}"#), Ok(Request::Flows { limit: 3 }));
        assert_eq!(parse_request(br#"{"command": "stop"}"#), Ok(Request::Stop { timeout_seconds: None }));
        assert_eq!(
            parse_request(br#"{"command": "stop", "timeout_seconds": 1.5}"#),
            Ok(Request::Stop { timeout_seconds: Some(1.5) })
        );
    }

    #[test]
    fn a_request_that_makes_no_sense_is_answered_with_advice() {
        for line in [&b""[..], b"status", br#"{"command": "dance"}"#, br#"{"command": "stop", "timeout_seconds": -1}"#] {
            let error = parse_request(line).unwrap_err();
            assert!(error.len() > 40, "{error}");
        }
    }

    #[test]
    fn every_request_survives_the_wire() {
        for request in [
            Request::Status,
            Request::Peers,
            Request::Flows { limit: 7 },
            Request::Stats,
            Request::Reload { dry_run: false, file: None },
            Request::Reload { dry_run: true, file: Some("/etc/baton/next.yaml".into()) },
            Request::Drain,
            Request::Undrain,
            Request::Stop { timeout_seconds: None },
            Request::Stop { timeout_seconds: Some(0.0) },
        ] {
            let line = to_line(&request);
            assert!(line.len() < crate::limits::ADMIN_REQUEST_BYTES_MAX && line.ends_with(b"\n"));
            assert_eq!(parse_request(&line), Ok(request));
        }
    }
}
