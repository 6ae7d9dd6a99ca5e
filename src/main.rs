//! The command: from words to the library and back to words and an exit code.

mod cli;

use base64::Engine as _;
use baton::admin::client::{self, AskError};
use baton::admin::protocol::{Reply, Request};
use baton::admin::text;
use baton::control::key::PrivateKey;
use baton::node::{self, StartError};
use clap::Parser;
use cli::{Cli, Command};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a command failed, by exit code; the text is all a person gets.
enum Failure {
    Cluster(String),
    Host(String),
    NoDaemon(String),
    Refused(String),
}

impl Failure {
    /// Prints the reason and gives the exit code (`cli::EXIT_CODES`; 2 is clap's).
    fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Cluster(text) => (1, text),
            Self::Host(text) => (3, format!("baton: {text}")),
            Self::NoDaemon(text) => (4, format!("baton: {text}")),
            Self::Refused(text) => (5, format!("baton: {text}")),
        };
        eprintln!("{}", text.trim_end());
        ExitCode::from(code)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Cluster(text) => Self::Cluster(text),
            StartError::Host(error) => Self::Host(format!("{error:#}")),
        }
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Check(arguments) => check(&arguments.cluster),
        Command::Keygen(arguments) => keygen(arguments.out.as_deref()),
        Command::Status(query) => ask(query.daemon, query.json, &Request::Status),
        Command::Peers(query) => ask(query.daemon, query.json, &Request::Peers),
        Command::Flows(query) => ask(query.daemon, query.json, &Request::Flows { limit: query.limit }),
        Command::Stats(query) => ask(query.daemon, query.json, &Request::Stats),
        Command::Drain(daemon) => ask(daemon, false, &Request::Drain),
        Command::Undrain(daemon) => ask(daemon, false, &Request::Undrain),
        Command::Stop(stop) => {
            let timeout_seconds = stop.timeout.map(|timeout| timeout.as_secs_f64());
            ask(stop.daemon, false, &Request::Stop { timeout_seconds })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: cli::Run) -> Result<(), Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    // A panic is our bug, and said like everything else. The host is put back while the stack unwinds.
    std::panic::set_hook(Box::new(|panic| log::error!("a bug in baton, please report it: {panic}")));
    let name = &arguments.node;
    let node = node::start(node::Options {
        key: arguments.key.unwrap_or_else(|| PathBuf::from(format!("/etc/baton/{name}.key"))),
        socket: arguments.socket.unwrap_or_else(|| Path::new(client::SOCKET_DIRECTORY).join(format!("{name}.sock"))),
        cluster: arguments.cluster,
        node: arguments.node,
    })?;
    let summary = node.run().map_err(|error| Failure::Host(format!("the event loop failed: {error}")))?;
    if !summary.restored {
        return Err(Failure::Host("the host could not be put back entirely; the log above says what is left".to_owned()));
    }
    Ok(())
}

fn check(path: &Path) -> Result<(), Failure> {
    let checked = node::check(path)?;
    eprint!("{}", checked.warnings);
    print(&format!("{}\n", checked.summary))
}

fn keygen(out: Option<&Path>) -> Result<(), Failure> {
    let key = PrivateKey::generate();
    let (private, public) = (key.to_text(), base64::engine::general_purpose::STANDARD.encode(key.public_key()));
    let private = private.trim_end();
    let Some(path) = out else {
        print(&format!("{private}\n"))?;
        eprintln!("public key: {public}");
        return Ok(());
    };
    write_private(path, private).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => "a key there is not overwritten; choose another name or remove it first",
            io::ErrorKind::PermissionDenied => "choose a place you may write to, or try as root",
            _ => "choose another place",
        };
        Failure::Host(format!("cannot write the private key to {}: {error}; {advice}", path.display()))
    })?;
    print(&format!("{public}\n"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()
}

fn ask(daemon: cli::Daemon, json: bool, request: &Request) -> Result<(), Failure> {
    let failure = |error| match error {
        AskError::NoDaemon(text) => Failure::NoDaemon(text),
        AskError::Broken(text) => Failure::Refused(text),
    };
    let socket = match daemon.socket {
        Some(path) => path,
        None => client::only_socket(Path::new(client::SOCKET_DIRECTORY)).map_err(failure)?,
    };
    let reply = client::ask(&socket, request).map_err(failure)?;
    print(&match reply {
        Reply::Error(text) => return Err(Failure::Refused(text)),
        Reply::Status(reply) => show(json, &*reply, text::status),
        Reply::Peers(reply) => show(json, &reply, text::peers),
        Reply::Flows(reply) => show(json, &reply, text::flows),
        Reply::Stats(reply) => show(json, &reply, text::stats),
        Reply::State(reply) => show(json, &reply, text::state),
        Reply::Stopped(reply) => show(json, &reply, text::stopped),
    })
}

fn show<T: serde::Serialize>(json: bool, reply: &T, text: impl Fn(&T) -> String) -> String {
    if json {
        let pretty = serde_json::to_string_pretty(reply).expect("replies have string keys only");
        pretty + "\n"
    } else {
        text(reply)
    }
}

/// To standard output; whoever closed it (`| head`) has seen enough.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Host(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
