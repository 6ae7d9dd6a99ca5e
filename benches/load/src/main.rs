//! Clients for measurements that check every octet and count every error, because a fast wrong answer is a failure; the
//! application that takes their uploads; and the files they download. One thread, one loop, as what is measured.
#![allow(clippy::disallowed_methods)] // Its purpose is to read the clock.

mod client;
mod exchange;
mod head;
mod pattern;
mod sink;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use client::{Course, Outcome};
use exchange::Question;
use pattern::Pattern;

#[derive(Parser)]
#[command(about = "Clients, an upload application and files for measurements; checks every octet")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Writes the beginning of the pattern to a file
    File {
        /// Where to
        path: PathBuf,
        /// How many octets
        size: u64,
    },
    /// Serves uploads until it is ended
    Sink {
        /// What it calls itself in X-Server
        name: String,
        /// Where it listens
        addresses: Vec<SocketAddr>,
    },
    /// Downloads the beginning of the pattern, again and again
    Get {
        #[command(flatten)]
        course: Way,
        /// The answer's length
        #[arg(long)]
        size: u64,
        /// Keep connections for the next request, instead of a new one for each
        #[arg(long)]
        keep: bool,
    },
    /// Uploads the beginning of the pattern to a sink, over kept-alive connections
    Put {
        #[command(flatten)]
        course: Way,
        /// The upload's length
        #[arg(long)]
        size: u64,
        /// Send this octet wrong, to see that it is noticed
        #[arg(long)]
        spoil: Option<u64>,
    },
}

#[derive(Args)]
struct Way {
    /// Address and port
    address: SocketAddr,
    /// The path asked for
    #[arg(long)]
    path: String,
    /// The X-Server that must answer
    #[arg(long)]
    server: String,
    /// Connections at a time
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// For so many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// So many questions
    #[arg(long, required_unless_present = "seconds")]
    count: Option<u64>,
    /// A new connection every so many microseconds, not as soon as possible
    #[arg(long)]
    pace: Option<u64>,
}

impl Way {
    fn course(&self) -> Course {
        Course {
            address: self.address,
            concurrency: self.concurrency.max(1),
            time: self.seconds.map(Duration::from_secs_f64),
            count: self.count,
            pace: self.pace.map(Duration::from_micros),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing went wrong.
fn run(task: &Task) -> std::io::Result<bool> {
    match task {
        Task::File { path, size } => write_file(path, *size).map(|()| true),
        Task::Sink { name, addresses } => sink::serve(name, addresses).map(|()| true),
        Task::Get { course: way, size, keep } => {
            let persistence = if *keep { "" } else { "Connection: close\r\n" };
            let request = format!("GET {} HTTP/1.1\r\nHost: stage\r\n{persistence}\r\n", way.path).into_bytes();
            let question =
                Question { request, upload: 0, spoiled: None, answer: Some(*size), server: way.server.clone(), close: !keep };
            Ok(report(client::run(&way.course(), &question)?, *size))
        }
        Task::Put { course: way, size, spoil } => {
            let request = format!("POST {} HTTP/1.1\r\nHost: stage\r\nContent-Length: {size}\r\n\r\n", way.path).into_bytes();
            let question =
                Question { request, upload: *size, spoiled: *spoil, answer: None, server: way.server.clone(), close: false };
            Ok(report(client::run(&way.course(), &question)?, *size))
        }
    }
}

fn write_file(path: &PathBuf, size: u64) -> std::io::Result<()> {
    let pattern = Pattern::new();
    let mut file = BufWriter::new(File::create(path)?);
    let mut position = 0;
    while position < size {
        let piece = pattern.piece(position, size);
        file.write_all(piece)?;
        position += piece.len() as u64;
    }
    file.flush()
}

fn report(mut outcome: Outcome, size: u64) -> bool {
    outcome.first_octets.sort_unstable();
    let at = |share: f64| {
        let last = outcome.first_octets.len().saturating_sub(1) as f64;
        outcome.first_octets.get((last * share).round() as usize).map(Duration::as_secs_f64)
    };
    let errors: u64 = outcome.errors.values().sum();
    let answer = json!({
        "connections": outcome.connections,
        "answered": outcome.answered,
        "counted": outcome.counted,
        "seconds": outcome.elapsed.as_secs_f64(),
        "octets_checked": outcome.answered * size,
        "first_octet_p50": at(0.5),
        "first_octet_p99": at(0.99),
        "first_octet_most": at(1.0),
        "errors": errors,
        "kinds": outcome.errors,
    });
    println!("{answer}");
    errors == 0 && outcome.answered > 0
}
