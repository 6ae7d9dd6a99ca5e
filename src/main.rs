//! The command: from words to the library and back to words and an exit code.

mod cli;

use baton::admin::client::{self, AskError};
use baton::admin::protocol::{Reloaded, Reply, Request};
use baton::admin::text;
use baton::control::key::{PrivateKey, public_key_to_text};
use baton::explain::{self, Bytes, Question, Unanswered};
use baton::node::{self, StartError};
use baton::tun::device::Offloading;
use clap::Parser;
use cli::{Cli, Command};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

/// Why a command failed, by exit code; the text is all a person gets.
enum Failure {
    Cluster(String),
    /// `baton doctor` found an error, and has printed it.
    Doctor,
    CommandLine(String),
    Host(String),
    NoDaemon(String),
    Refused(String),
}

impl Failure {
    /// Prints the reason and gives the exit code (`cli::EXIT_CODES`; 2 is mostly clap's).
    fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Cluster(text) => (1, text),
            Self::Doctor => return ExitCode::from(1),
            Self::CommandLine(text) => (2, format!("baton: {text}")),
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
        Command::Doctor(arguments) => doctor(arguments),
        Command::Cleanup(arguments) => cleanup(arguments.socket.as_deref()),
        Command::Run(arguments) => run(arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Explain(arguments) => explain(*arguments),
        Command::Keygen(arguments) => keygen(arguments.out.as_deref()),
        Command::Status(query) => ask(query.daemon, query.json, &Request::Status),
        Command::Peers(query) => ask(query.daemon, query.json, &Request::Peers),
        Command::Flows(query) => ask(query.daemon, query.json, &Request::Flows { limit: query.limit }),
        Command::Stats(query) => ask(query.daemon, query.json, &Request::Stats),
        Command::Reload(cli::Reload { query, dry_run, file }) => {
            let file = file.map(|file| std::path::absolute(&file).unwrap_or(file));
            ask(query.daemon, query.json, &Request::Reload { dry_run, file })
        }
        Command::Drain(query) => ask(query.daemon, query.json, &Request::Drain),
        Command::Undrain(query) => ask(query.daemon, query.json, &Request::Undrain),
        Command::Stop(stop) => {
            let timeout_seconds = stop.timeout.map(|timeout| timeout.as_secs_f64());
            ask(stop.daemon, stop.json, &Request::Stop { timeout_seconds })
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
        key: arguments.key.unwrap_or_else(|| node::default_key(name)),
        socket: arguments.socket.unwrap_or_else(|| node::default_socket(name)),
        offload: match arguments.offload {
            cli::Offload::Auto => Offloading::Auto,
            cli::Offload::Off => Offloading::Off,
        },
        bypass: arguments.bypass == cli::Bypass::Auto,
        pcap: arguments.pcap,
        metrics: arguments.metrics,
        connection_log: arguments.connection_log,
        cluster: arguments.cluster,
        node: arguments.node,
    })?;
    let summary = node.run().map_err(|error| Failure::Host(format!("the event loop failed: {error}")))?;
    if !summary.restored {
        return Err(Failure::Host("the host could not be put back entirely; the log above says what is left".to_owned()));
    }
    Ok(())
}

fn doctor(arguments: cli::Doctor) -> Result<(), Failure> {
    let cli::Doctor { node, cluster, key, socket, json } = arguments;
    let intent = node.zip(cluster).map(|(node, cluster)| node::Intent {
        key: key.unwrap_or_else(|| node::default_key(&node)),
        socket: socket.unwrap_or_else(|| node::default_socket(&node)),
        cluster,
        node,
    });
    let findings = node::examine(intent.as_ref());
    print(&show(json, &findings, ToString::to_string))?;
    if findings.can_run() { Ok(()) } else { Err(Failure::Doctor) }
}

fn cleanup(socket: Option<&Path>) -> Result<(), Failure> {
    let cleaned = node::clean_up(socket).map_err(|error| Failure::Host(format!("{error:#}")))?;
    let mut text: String = cleaned.lines.iter().map(|line| format!("{line}\n")).collect();
    if let [first, rest @ ..] = &cleaned.failures[..] {
        print(&text)?;
        let rest: String = rest.iter().map(|error| format!("\nbaton: {error:#}")).collect();
        return Err(Failure::Host(format!("{first:#}{rest}")));
    }
    text.push_str(if cleaned.lines.is_empty() { "nothing to clean up\n" } else { "the host is as it was\n" });
    print(&text)
}

fn check(arguments: &cli::Check) -> Result<(), Failure> {
    let checked = node::check(&arguments.cluster, arguments.node.as_deref())?;
    eprint!("{}", checked.warnings);
    print(&format!("{}\n", checked.summary))
}

fn explain(arguments: cli::Explain) -> Result<(), Failure> {
    let bytes = if let Some(line) = arguments.http {
        let cli::RequestLine { method, target, version } = line;
        let body = arguments.body.map(|body| match body.strip_prefix('@') {
            Some(path) => read_sent(Path::new(path)),
            None => Ok(body.into_bytes()),
        });
        Bytes::Http { method, target, version, headers: arguments.header, body: body.transpose()? }
    } else if let Some(name) = arguments.sni {
        Bytes::Tls { sni: name.0, alpn: arguments.alpn }
    } else if let Some(path) = arguments.request {
        Bytes::Raw(read_sent(&path)?)
    } else if let Some(bytes) = arguments.redis.or(arguments.raw) {
        Bytes::Raw(bytes.0)
    } else {
        Bytes::Nothing
    };
    let question = Question {
        node: arguments.node,
        service: arguments.service,
        frontend: arguments.frontend.map(Into::into),
        client: arguments.client,
        bytes,
        down: arguments.down,
    };
    let answer = explain::ask(&arguments.cluster, &question).map_err(|error| match error {
        Unanswered::File(error) => Failure::from(error),
        Unanswered::NothingRead(why) => Failure::CommandLine(format!(
            "{why}, before the client has sent anything: leave out {}; what counts is --client ADDRESS and --frontend ADDRESS:PORT",
            cli::WAYS_TO_SAY_IT
        )),
        Unanswered::NothingSent(why) => Failure::CommandLine(format!("{why}: add {}", cli::WAYS_TO_SAY_IT)),
    })?;
    print(&show(arguments.json, &answer, explain::text))
}

/// No more than is ever looked at.
fn read_sent(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let bytes_max = *baton::limits::cluster_file::INSPECT_BYTES_MAX.end();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(bytes_max).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Host(format!("cannot read the request from {}: {error}", path.display())))?;
    Ok(bytes)
}

fn keygen(out: Option<&Path>) -> Result<(), Failure> {
    let key = PrivateKey::generate();
    let public = public_key_to_text(&key.public_key());
    let Some(path) = out else {
        print(&format!("{}\n", key.to_text().trim_end()))?;
        eprintln!("public key: {public}");
        return Ok(());
    };
    // /etc/baton need not be there yet. If it cannot be made, writing the file fails and says why.
    if let Some(directory) = path.parent() {
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
    key.write_new(path).map_err(|error| Failure::Host(error.to_string()))?;
    print(&format!("{public}\n"))
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
        Reply::Reloaded(Reloaded { error: Some(error), .. }) if !json => return Err(Failure::Cluster(error)),
        Reply::Reloaded(reply) => {
            let failure = reply.error.clone().map(Failure::Cluster);
            print(&show(json, &reply, text::reloaded))?;
            return failure.map_or(Ok(()), Err);
        }
        Reply::Rehearsed(reply) => {
            let failure = reply.error.clone().map(Failure::Cluster);
            if json || failure.is_none() {
                print(&show(json, &reply, text::rehearsed))?;
            }
            return failure.map_or(Ok(()), Err);
        }
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
