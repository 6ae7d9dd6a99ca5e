//! The command line as people type it. What the commands do is elsewhere.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Told at the end of every help text: scripts rely on these.
const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  the cluster file is wrong or cannot be reloaded, or the node's name or key does not fit it; doctor: `baton run` cannot
     start
  2  the command line is wrong
  3  this host cannot do it: privilege, device, port, file or setting (the message says which)
  4  no daemon answers at the socket
  5  the daemon answered, and refused";

const EXAMPLES: &str = "\
Examples:
  baton keygen --out /etc/baton/a.key      make node a's key; prints the public one
  baton check shop.yaml                    is the cluster file right?
  baton doctor --node a shop.yaml          can this server be node a?
  baton run --node a shop.yaml             route connections on this server, as node a
  baton status                             how is it doing?
  baton stop                               let handed-off connections finish, then put the host back";

/// A content-aware connection router: established TCP connections are handed off between servers.
///
/// Every server of a cluster runs `baton run` with the same cluster file. A client connects to any of them; baton reads
/// the first request, asks the file's rules which server should answer, and hands the established connection to that
/// server, which answers the client directly. A connection that should stay where it is becomes a plain connection of
/// the local server.
#[derive(Debug, Parser)]
#[command(name = "baton", version, after_help = with_exit_codes(EXAMPLES), arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Check(Check),
    Explain(Box<Explain>),
    Keygen(Keygen),
    Doctor(Doctor),
    Cleanup(Cleanup),
    /// Show this node: services, peers up, connections
    #[command(after_help = with_exit_codes("\
Examples:
  baton status
  baton status --socket /tmp/a.sock
  baton status --json              for programs; docs/admin.md explains every field"))]
    Status(Query),
    /// Show the sessions with the other nodes, and why one is down
    #[command(after_help = with_exit_codes("\
Examples:
  baton peers
  baton peers --json | jq -r '.peers[] | select(.state != \"up\") | .name'"))]
    Peers(Query),
    Flows(Flows),
    /// Show all counters, one a line
    #[command(after_help = with_exit_codes("\
Examples:
  baton stats | grep fallbacks     why connections stayed local although a rule said otherwise
  baton stats --json               one object; docs/admin.md explains the names"))]
    Stats(Query),
    /// Have the daemon read its cluster file again, and say what became of it
    ///
    /// The daemon does so by itself when the file changes, and on SIGHUP. A file is in force as a whole or not at all: a
    /// wrong one is refused, with the reasons, and what was read before stays. Connections go on under the decision they
    /// have. Rules, services, front-end addresses, times and limits can change; the cluster's name, the overlay and the
    /// nodes need a restart.
    #[command(after_help = with_exit_codes("\
Examples:
  baton reload                     exits with 1 and the reasons when the file is refused
  baton reload --dry-run new.yaml  what would change; exits with 1 when the file would be refused
  baton reload --json"))]
    Reload(Reload),
    /// Take no new handoffs, and make none; what was handed off goes on
    ///
    /// The node's clients are answered by its own server from then on, and peers choose other nodes. `baton undrain`
    /// takes it back. `baton status` shows when no connection is left.
    #[command(after_help = with_exit_codes("\
Example:
  baton drain && until baton status | grep -q ' 0 live'; do sleep 1; done"))]
    Drain(Query),
    /// Take and make handoffs again after `baton drain`
    #[command(after_help = with_exit_codes("\
Example:
  baton undrain"))]
    Undrain(Query),
    Stop(Stop),
}

fn with_exit_codes(examples: &str) -> String {
    format!("{examples}\n\n{EXIT_CODES}")
}

/// Route connections on this server, in the foreground
///
/// Needs root (or CAP_NET_ADMIN, and CAP_NET_RAW for probes) and /dev/net/tun. SIGTERM or `baton stop` ends it: new
/// connections then go straight to the local server, handed-off ones may finish, and the host is put back as it was. A
/// second SIGTERM does not wait. A cluster file is read again when it changes and on SIGHUP; a wrong one is refused (see `baton reload`). The log
/// goes to standard error; RUST_LOG sets its level (`RUST_LOG=debug`).
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton run --node a shop.yaml
  baton run --node a --key ./a.key --socket /tmp/a.sock shop.yaml
  baton run --node a --metrics 127.0.0.1:9477 --connection-log /var/log/baton.jsonl shop.yaml
  RUST_LOG=baton::handoff=debug baton run --node a shop.yaml"))]
pub struct Run {
    /// Which node of the cluster file this server is
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// This node's private key, as `baton keygen` writes it [default: /etc/baton/NAME.key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Where `baton status` and the like reach the daemon [default: /run/baton/NAME.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Whether the kernel may hand over packets of 64 KiB, with checksums to be computed later
    #[arg(long, value_enum, default_value_t = Offload::Auto)]
    pub offload: Offload,
    /// Whether the kernel may learn which connections the local server serves, and keep their packets from baton
    #[arg(long, value_enum, default_value_t = Bypass::Auto)]
    pub bypass: Bypass,
    /// Record every packet that passes baton in this file (pcapng), each with what was done to it and why
    ///
    /// `tshark -r FILE -T fields -e frame.comment` or Wireshark shows the comments. The file holds what clients send; it is
    /// readable by its owner only and ends at 4 GiB.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Serve metrics for Prometheus at http://ADDRESS:PORT/metrics
    ///
    /// Anybody who can reach the address can read them: choose one of an inner network, or 127.0.0.1.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Append a line of JSON to this file for every connection that is over or that the local server got
    ///
    /// SIGUSR1 opens the file again, after it was renamed. It tells which client asked for what.
    #[arg(long, value_name = "FILE")]
    pub connection_log: Option<PathBuf>,
    /// The cluster file, the same on every node
    #[arg(value_name = "CLUSTER.yaml")]
    pub cluster: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Bypass {
    /// Where the kernel can: local connections cost nothing
    Auto,
    /// Every packet of a client goes through baton
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Offload {
    /// Where the kernel can: much faster
    Auto,
    /// Every packet as on the wire; for the case that something goes wrong
    Off,
}

/// Check a cluster file, without touching the host
///
/// Says what is wrong, where (file:line:column and the line itself), and what to do. With --node, on that node's own
/// server, also looks whether applications listen where connections will arrive, and warns when they do not.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton check shop.yaml && systemctl restart baton
  baton check --node a shop.yaml           and does the application on this server, node a, listen as it must?"))]
pub struct Check {
    /// Also check this host, which is this node of the cluster file
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// The cluster file
    #[arg(value_name = "CLUSTER.yaml")]
    pub cluster: PathBuf,
}

/// Say what a node would do with a request, and why
///
/// Which rule decides, which server answers, and for every earlier rule the first condition that does not hold, with what
/// the request has there. Runs the code that routes, on a cluster file; asks no daemon and touches no host. A request that
/// servers could read differently is not left to a rule: the default decides, and the answer says why.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton explain shop.yaml --node a --service web --http 'GET /images/1.png'
  baton explain shop.yaml --node a --service web --http 'GET /' --header 'Host: img.example.com' --client 192.0.2.7
  baton explain shop.yaml --node a --service api --http 'POST /v1/chat' --body '{\"model\": \"llama-3-8b\"}'
  baton explain shop.yaml --node a --service https --sni img.example.com --alpn h2
  baton explain shop.yaml --node a --service keys --redis 'GET user:7'
  baton explain shop.yaml --node a --service lines --raw 'CONNECT client.example\\r\\n'
  baton explain shop.yaml --node a --service layer-4 --client 192.0.2.7     where the SYN decides, nothing is sent
  baton explain shop.yaml --node a --service web --http 'GET /cart' --down b     who answers while b is down
  baton explain shop.yaml --node a --service web --request request.txt --json | jq -r .answered_by"))]
#[command(group(clap::ArgGroup::new("bytes")))]
pub struct Explain {
    /// The cluster file
    #[arg(value_name = "CLUSTER.yaml")]
    pub cluster: PathBuf,
    /// The node that the connection arrives at
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// The service that it is for
    #[arg(long, value_name = "NAME")]
    pub service: String,
    /// The front-end address that the client connects to [default: the node's first one of the service and of the client's
    /// family]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub frontend: Option<std::net::SocketAddr>,
    /// The client's address; without it rules that ask for one do not match
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<std::net::IpAddr>,
    /// What the client sends first, as it is; - is standard input
    #[arg(long, value_name = "FILE", group = "bytes")]
    pub request: Option<PathBuf>,
    /// The request in words; it is HTTP/1.1 unless a version follows, and names the front-end address as its host unless
    /// a header does
    #[arg(long, value_name = "METHOD TARGET", group = "bytes", value_parser = request_line)]
    pub http: Option<RequestLine>,
    /// A header field of it; may be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "http", conflicts_with = "request", value_parser = header)]
    pub header: Vec<String>,
    /// Its body, such as '{"model": "x"}'; @FILE is what is in a file, @- standard input
    #[arg(long, value_name = "TEXT", requires = "http", conflicts_with = "request")]
    pub body: Option<String>,
    /// A TLS client that asks for this server name; '' is one that names none
    #[arg(long, value_name = "NAME", group = "bytes", value_parser = server_name)]
    pub sni: Option<ServerName>,
    /// A protocol it offers (ALPN), such as h2; may be repeated
    #[arg(long, value_name = "PROTOCOL", requires = "sni", conflicts_with_all = ["request", "http"])]
    pub alpn: Vec<String>,
    /// A command of Redis with its arguments, in one text
    #[arg(long, value_name = "COMMAND", group = "bytes", value_parser = redis_command)]
    pub redis: Option<Sent>,
    /// The first bytes as text, in which \r, \n, \t, \0, \xHH and \\ stand for one each
    #[arg(long, value_name = "TEXT", group = "bytes", value_parser = escaped)]
    pub raw: Option<Sent>,
    /// A node that cannot be asked: down, draining, not to be reached; may be repeated. All others are taken to be well
    #[arg(long, value_name = "NODE")]
    pub down: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `GET /x`, or `GET /x HTTP/1.0`.
#[derive(Clone, Debug)]
pub struct RequestLine {
    pub method: String,
    pub target: String,
    pub version: String,
}

fn request_line(text: &str) -> Result<RequestLine, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (method, target, version) = match words[..] {
        [method, target] => (method, target, "HTTP/1.1"),
        [_, _, version] if version.starts_with("HTTP/2") || version.starts_with("HTTP/3") => {
            return Err("only HTTP/1 is written as a line: leave the version out, since rules see the same method, path and \
                        fields; or give the bytes of a connection with --request FILE"
                .to_owned());
        }
        [method, target, version] if version.starts_with("HTTP/") => (method, target, version),
        _ => return Err("write a method and a path, like 'GET /x'; a version may follow".to_owned()),
    };
    Ok(RequestLine { method: method.to_owned(), target: target.to_owned(), version: version.to_owned() })
}

/// The ways to say what the client sends.
pub const WAYS_TO_SAY_IT: &str = "--http 'GET /', --sni NAME, --redis COMMAND, --raw TEXT or --request FILE";

/// First bytes of a connection.
#[derive(Clone, Debug)]
pub struct Sent(pub Vec<u8>);

/// A command as client libraries send it: an array of bulk strings.
fn redis_command(text: &str) -> Result<Sent, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return Err("write a command, like 'GET user:7'".to_owned());
    }
    let strings: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    Ok(Sent(format!("*{}\r\n{strings}", words.len()).into_bytes()))
}

fn escaped(text: &str) -> Result<Sent, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                    return Err("behind \\x two hexadecimal digits are wanted".to_owned());
                };
                (high << 4 | low, after)
            }
            (b'\\', _) => return Err("a backslash begins \\r, \\n, \\t, \\0, \\xHH or \\\\ here".to_owned()),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(Sent(bytes))
}

/// A server name that a client may send, or none.
#[derive(Clone, Debug)]
pub struct ServerName(pub Option<String>);

fn server_name(text: &str) -> Result<ServerName, String> {
    let name = (!text.is_empty()).then(|| text.to_owned());
    match baton::policy::Hello::new(name.as_deref(), Vec::new()) {
        Ok(_) => Ok(ServerName(name)),
        Err(_) => Err("no client can ask for this name; write one like 'img.example.com', or '' for none".to_owned()),
    }
}

fn header(text: &str) -> Result<String, String> {
    if text.contains(':') { Ok(text.to_owned()) } else { Err("write a name, a colon and a value, like 'Host: x'".to_owned()) }
}

/// Look for everything that could keep `baton run` from working here; changes nothing
///
/// Without a cluster file it looks at the host: privilege, the TUN driver, nft, policy rules, left-overs. With --node and
/// the cluster file also at what this node needs: its key, addresses and ports, the firewall's rules, the applications,
/// the other nodes. A line for each, ok, warning or ERROR, with a remedy. Beside a running baton it says what that holds.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton doctor
  baton doctor --node a shop.yaml
  baton doctor --node a --json shop.yaml | jq '.checks[] | select(.outcome != \"ok\")'"))]
pub struct Doctor {
    /// Which node of the cluster file this server is
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub node: Option<String>,
    /// This node's private key [default: /etc/baton/NAME.key]
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub key: Option<PathBuf>,
    /// Where the daemon's socket is to be [default: /run/baton/NAME.sock]
    #[arg(long, value_name = "PATH", requires = "cluster")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The cluster file, the same on every node
    #[arg(value_name = "CLUSTER.yaml", requires = "node")]
    pub cluster: Option<PathBuf>,
}

/// Put the host back as it was, after a baton that was killed
///
/// Removes rules, routes, settings, the nf_tables table and files that a killed process left, and says what it did,
/// line by line. Settings get the values of before the first start. Refuses while a baton runs in this network
/// namespace; needs no cluster file; may be run again. Not needed when baton is to be started again: the next orderly
/// stop does the same.
///
/// Connections that clients have with other servers through this one are lost with it: nothing keeps this host's
/// kernel from answering for them any more.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Example:
  baton cleanup"))]
pub struct Cleanup {
    /// The admin socket of the one that was killed, if it was not in /run/baton
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Make a node's key pair
///
/// The private key stays on the node, readable by nobody else; the public key goes into the cluster file of every node.
/// With --out the private key is written to the file (mode 0600, never over an existing one) and the public key is
/// printed. Without it the private key is printed, and the public key goes to standard error.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton keygen --out /etc/baton/a.key      prints what becomes `public_key` of node a
  (umask 077; baton keygen > a.key)        the same; the public key is shown on the terminal"))]
pub struct Keygen {
    /// Write the private key to this new file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct Daemon {
    /// The daemon's socket [default: the only one in /run/baton]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// A question.
#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    pub daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A changed cluster file.
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    pub query: Query,
    /// Change nothing: say which fields differ from what is in force, and whether the file would be refused
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: look at this file, as if it were in the cluster file's place
    #[arg(value_name = "CLUSTER.yaml", requires = "dry_run")]
    pub file: Option<PathBuf>,
}

/// Show the connections the daemon knows, with their state and the rule that decided
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton flows
  baton flows --limit 20
  baton flows --json | jq '.flows[] | select(.peer == \"b\")'"))]
pub struct Flows {
    #[command(flatten)]
    pub daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// Stop the daemon and wait until it is gone
///
/// New connections go straight to the local server at once. Handed-off connections may finish; those that still live
/// when the time is over are reset. Then the host is put back as it was. Says how many connections were cut.
#[derive(Debug, Args)]
#[command(after_help = with_exit_codes("\
Examples:
  baton stop                     wait as long as the cluster file says (limits.drain_timeout)
  baton stop --timeout 5s        wait five seconds at most
  baton stop --timeout 0s        do not wait"))]
pub struct Stop {
    #[command(flatten)]
    pub daemon: Daemon,
    /// How long handed-off connections may take to finish [default: limits.drain_timeout of the cluster file]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a number and a unit, like 500ms, 30s or \"1m 30s\""))
}
