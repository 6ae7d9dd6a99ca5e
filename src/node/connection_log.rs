//! `--connection-log`: one line of JSON for each connection that is over, or that the local server got.
//!
//! One write a wake. A file that takes nothing (a pipe that nobody reads, a full disk) holds nobody up: lines wait in a
//! bounded buffer, and what does not fit is counted and gone. SIGUSR1 opens the file again, as log rotation wants it.

use super::Node;
use super::clock::wall_clock;
use crate::handoff::chronicle::Record;
use crate::limits::CONNECTION_LOG_BYTES_MAX;
use anyhow::Context;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The file.
#[derive(Debug)]
pub(super) struct ConnectionLog {
    path: PathBuf,
    file: File,
    /// Whole lines, but for the first, of which a part may be written.
    pending: Vec<u8>,
    /// Said once, until a write succeeds.
    is_stuck: bool,
    pub(super) counters: Counters,
}

/// What became of the lines.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    /// For the file.
    pub(super) written: u64,
    /// There was no room.
    pub(super) lost: u64,
}

/// One line. Field names are a promise: `docs/operations.md` lists them.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    client: String,
    frontend: String,
    service: &'a str,
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<serde_json::Map<String, serde_json::Value>>,
    outcome: &'static str,
    server: Option<String>,
    end: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallbacks: Vec<Passed>,
    decide_ms: Option<f64>,
    handoff_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    duration_ms: Option<f64>,
    bytes_from_client: Option<u64>,
    bytes_to_client: Option<u64>,
}

/// A candidate that did not serve it.
#[derive(Serialize)]
struct Passed {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    reason: &'static str,
}

impl ConnectionLog {
    /// Opens the file to append to it, readable by its owner and group: it tells who asked for what.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = open(path).with_context(|| {
            format!("cannot open the connection log {}; choose another place with --connection-log FILE", path.display())
        })?;
        Ok(Self { path: path.to_owned(), file, pending: Vec::new(), is_stuck: false, counters: Counters::default() })
    }

    /// Opens the file anew, which may have been renamed. If that fails, the old one is kept.
    pub(super) fn reopen(&mut self) {
        self.flush();
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                log::info!("connection log: {} opened again", self.path.display());
            }
            Err(error) => {
                log::warn!("connection log: cannot open {} again: {error}; going on with the old one", self.path.display())
            }
        }
    }

    fn write(&mut self, line: &Line<'_>) {
        let start = self.pending.len();
        if serde_json::to_writer(&mut self.pending, line).is_err() || self.pending.len() >= CONNECTION_LOG_BYTES_MAX {
            self.pending.truncate(start);
            self.counters.lost += 1;
            return;
        }
        self.pending.push(b'\n');
        self.counters.written += 1;
    }

    /// Writes what is pending, as far as the file takes it.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let written = loop {
            match self.file.write(&self.pending) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match written {
            Ok(octets) => {
                self.pending.drain(..octets);
                if std::mem::take(&mut self.is_stuck) {
                    log::info!("connection log: {} takes lines again; lost={}", self.path.display(), self.counters.lost);
                }
            }
            Err(error) if !self.is_stuck => {
                self.is_stuck = true;
                log::warn!(
                    "connection log: cannot write to {}: {error}; lines are kept while there is room",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe is opened for reading too: that needs no reader at the other end, and does not end when one goes.
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type()));
    OpenOptions::new().append(true).read(is_pipe).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(path)
}

impl Node {
    /// Writes down the connections that are over.
    pub(super) fn log_connections(&mut self, now: Instant) {
        let Some(mut log) = self.connection_log.take() else { return };
        while let Some(record) = self.engine.poll_record() {
            log.write(&self.line(&record, now, wall_clock()));
        }
        self.connection_log = Some(log);
    }

    fn line<'a>(&'a self, record: &'a Record, now: Instant, time: SystemTime) -> Line<'a> {
        let octets = record.octets();
        let request =
            record.summary().map(|summary| summary.iter().map(|(name, value)| (name.to_owned(), value.into())).collect());
        let passed = record.fallbacks().iter();
        Line {
            time: humantime::format_rfc3339_millis(time).to_string(),
            node: &self.identity.name,
            client: record.flow.client.to_string(),
            frontend: record.flow.frontend.to_string(),
            service: &record.service,
            rule: record.rule.as_deref(),
            request,
            outcome: record.outcome.label(),
            server: record.server.map(|node| self.name_of(node)),
            end: record.end.label(),
            fallbacks: passed
                .map(|(node, reason)| Passed { node: node.map(|node| self.name_of(node)), reason: reason.label() })
                .collect(),
            decide_ms: record.until_decided().map(milliseconds),
            handoff_ms: record.until_committed().map(milliseconds),
            first_byte_ms: record.until_first_answer().map(milliseconds),
            duration_ms: record.duration(now).map(milliseconds),
            bytes_from_client: octets.map(|octets| octets.from_client),
            bytes_to_client: octets.map(|octets| octets.to_client),
        }
    }
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn line(node: &str) -> Line<'_> {
        Line {
            time: "2026-01-01T00:00:00.000Z".to_owned(),
            node,
            client: "203.0.113.7:4000".to_owned(),
            frontend: "10.77.0.1:80".to_owned(),
            service: "web",
            rule: Some("images"),
            request: None,
            outcome: "handed_off",
            server: Some("b".to_owned()),
            end: "closed",
            fallbacks: Vec::new(),
            decide_ms: Some(0.5),
            handoff_ms: None,
            first_byte_ms: None,
            duration_ms: None,
            bytes_from_client: Some(78),
            bytes_to_client: None,
        }
    }

    #[test]
    fn lines_are_appended_and_a_renamed_file_is_left_alone_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = ConnectionLog::open(&path).unwrap();
        log.write(&line("a"));
        log.flush();
        std::fs::rename(&path, &old).unwrap();
        log.write(&line("a"));
        log.reopen();
        log.write(&line("b"));
        log.flush();
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
        let parsed: serde_json::Value = serde_json::from_str(&lines(&path)[0]).unwrap();
        assert_eq!((&parsed["node"], &parsed["decide_ms"]), (&"b".into(), &0.5.into()));
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_loses_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut log = ConnectionLog::open(&path).unwrap();
        while log.counters.lost < 10 {
            log.write(&line("a"));
            log.flush();
        }
        let written = log.counters.written;
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) | Err(_) if log.pending.is_empty() => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(_) => {}
            }
            log.flush();
        }
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len() as u64, written);
        assert!(lines.iter().all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok()));
    }
}
