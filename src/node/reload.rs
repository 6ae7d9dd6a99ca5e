//! A changed cluster file while the node runs: all of it is in force or nothing of it.

use super::clock::{clock, wall_clock};
use super::stop::Phase;
use super::{Node, cluster, listeners};
use crate::admin::protocol::{Rehearsed, Reloaded, Reply};
use crate::policy::{ClusterFile, Policy, Report, differences};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// The cluster file as this process knows it.
#[derive(Debug)]
pub struct Configuration {
    /// Absolute path.
    pub path: PathBuf,
    /// What is in force, as it was written.
    text: String,
    /// When what is in force was read.
    pub loaded_at: SystemTime,
    /// Why the file was refused when it was read last; none if it was not.
    pub last_error: Option<String>,
    /// What in the file is probably not meant, and has been told.
    warnings: Report,
    /// Of what was read last, good or not: the same file is not tried, and not complained about, twice.
    tried: u64,
    /// Guards that fit into the kernel's set: it cannot grow.
    connections_max: usize,
}

impl Configuration {
    /// After the start.
    pub fn new(path: PathBuf, text: &str, policy: &Policy, warnings: Report) -> Self {
        let connections_max = policy.limits.connections;
        let text = text.to_owned();
        Self { path, loaded_at: wall_clock(), last_error: None, warnings, tried: fingerprint(&text), text, connections_max }
    }
}

impl Configuration {
    /// Notes why the file that has this fingerprint was refused; whether that has not been said of it before.
    fn refuse(&mut self, tried: u64, error: &str) -> bool {
        let is_new = (self.tried, self.last_error.as_deref()) != (tried, Some(error));
        self.tried = tried;
        self.last_error = Some(error.to_owned());
        is_new
    }

    /// Notes that the file that has this fingerprint is in force.
    fn accept(&mut self, tried: u64, text: String) {
        self.tried = tried;
        self.text = text;
        self.loaded_at = wall_clock();
        self.last_error = None;
    }
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Node {
    /// Somebody asked for it.
    pub(super) fn reload(&mut self, why: &str, now: Instant) -> Reply {
        if matches!(self.phase, Phase::Stopping(_)) {
            log::info!("reload: by={why}; not while the node is stopping");
            return Reply::Error("the node is stopping; the next start reads the cluster file".to_owned());
        }
        let read = cluster::read_text(&self.configuration.path);
        let outcome = self.take(read, why, now);
        Reply::Reloaded(self.reloaded(outcome))
    }

    /// The file may have changed. If it has, it is as if somebody had asked.
    pub(super) fn look_at_cluster_file(&mut self, now: Instant) {
        if !self.watch.may_have_changed(now) || matches!(self.phase, Phase::Stopping(_)) {
            return;
        }
        let read = cluster::read_text(&self.configuration.path);
        let tried = fingerprint(read.as_deref().unwrap_or_else(|error| error));
        if tried != self.configuration.tried {
            // The outcome is in the log and in `status`.
            let _ = self.take(read, "changed file", now);
        }
    }

    /// Tries what was read; whether anything changed by it.
    fn take(&mut self, read: Result<String, String>, why: &str, now: Instant) -> Result<bool, String> {
        let tried = fingerprint(read.as_deref().unwrap_or_else(|error| error));
        let text = read.as_ref().ok().cloned().unwrap_or_default();
        let outcome = read.and_then(|text| self.replace(&text, why, now));
        let counter = match &outcome {
            Ok(true) => &mut self.counters.reloads_changed,
            Ok(false) => &mut self.counters.reloads_unchanged,
            Err(_) => &mut self.counters.reloads_refused,
        };
        *counter += 1;
        match &outcome {
            Ok(_) => self.configuration.accept(tried, text),
            Err(error) if !self.configuration.refuse(tried, error) => {
                log::info!("reload: by={why} the file is as it was when it was refused; see `baton status`");
            }
            Err(error) => {
                // The lines of the file and the remedies are in `status`.
                let file = self.configuration.path.display().to_string();
                let problems: Vec<&str> = error.lines().filter(|line| line.starts_with(&file)).collect();
                let problems = problems.join(" | ");
                log::warn!("reload: refused by={why}; what was read before stays in force: {problems}; see `baton status`");
            }
        }
        outcome
    }

    fn replace(&mut self, text: &str, why: &str, now: Instant) -> Result<bool, String> {
        let path = self.configuration.path.clone();
        let (file, policy) = self.understand(&path, text)?;
        if policy.hash == self.policy.hash {
            log::info!("reload: by={why} hash={} means what is in force", policy.hash);
            return Ok(false);
        }
        // Routes of last resort harm nobody, whatever follows.
        let answered = listeners::answered_addresses(&policy);
        self.host.capture().answer_for(&answered).map_err(|error| format!("{}: {error:#}", path.display()))?;
        // Everything up to here has changed nothing. So has this when it fails; after it nothing can fail.
        let frontends = policy.own_frontends();
        let shared = policy.own_shared_frontends();
        if (&frontends, &shared) != (&self.policy.own_frontends(), &self.policy.own_shared_frontends()) {
            self.host
                .capture()
                .replace_frontends(&frontends, &shared)
                .map_err(|error| format!("{}: {error:#}", path.display()))?;
        }
        let policy = Rc::new(policy);
        self.engine.replace_policy(Rc::clone(&policy), now);
        self.policy = policy;
        self.settle(now);
        self.listeners.replace(&self.policy, now);
        self.promises.compare_all(&self.policy);
        self.review_links();
        self.applications.replace(&self.policy, now);
        self.files.compare_all(self.policy.hash, now);
        self.probes.replace(&self.policy, self.poll.registry(), now);
        self.tell_probe_verdicts();
        self.tell_health(now);
        self.ask_listeners(now);
        self.settle(now);
        // Front-end addresses with a new port are captured from their first sign of life on. After a pause that was too
        // long the engine must hear of it before: then the next wake does both.
        let late = clock();
        if !self.pulse.stalled(late) {
            let all_written = self.host.beat();
            self.pulse.beat(all_written, late);
        }
        let warnings = cluster::warnings(&file);
        cluster::log_warnings(&warnings.new_since(&self.configuration.warnings));
        self.configuration.warnings = warnings;
        log::info!("reload: by={why} hash={} in force: {}", self.policy.hash, file.summary());
        self.log_services();
        Ok(true)
    }

    /// What a text means for this node, if it could be in force without a restart.
    fn understand(&self, path: &Path, text: &str) -> Result<(ClusterFile, Policy), String> {
        let file = cluster::parse(path, text)?;
        let policy = cluster::compile(&file, path, &self.identity.name).map_err(|error| error.to_string())?;
        let hard = needs_restart(&self.policy, &policy, self.configuration.connections_max);
        if hard.is_empty() {
            return Ok((file, policy));
        }
        let hard = hard.join("; ");
        Err(format!("{}: needs a restart: {hard}; `baton stop` and `baton run` apply it", path.display()))
    }

    /// What a reload would do now, or with another file in the place of the cluster file. Changes nothing.
    pub(super) fn rehearse(&self, file: Option<PathBuf>) -> Rehearsed {
        let path = file.as_ref().unwrap_or(&self.configuration.path);
        let read = cluster::read_text(path);
        let text = read.as_deref().unwrap_or_default();
        let differences = differences(&self.configuration.text, text).iter().map(ToString::to_string).collect();
        let next =
            read.as_ref().map_err(Clone::clone).and_then(|text| self.understand(path, text)).map(|(_, policy)| policy.hash);
        Rehearsed {
            would_change: next.as_ref().is_ok_and(|next| *next != self.policy.hash),
            hash: self.policy.hash.to_string(),
            next_hash: next.as_ref().ok().map(ToString::to_string),
            differences: if read.is_ok() { differences } else { Vec::new() },
            error: next.err(),
        }
    }

    fn reloaded(&self, outcome: Result<bool, String>) -> Reloaded {
        Reloaded {
            changed: outcome.as_ref().is_ok_and(|changed| *changed),
            hash: self.policy.hash.to_string(),
            error: outcome.err(),
        }
    }
}

/// What a running process cannot change, in words.
fn needs_restart(now: &Policy, next: &Policy, connections_max: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if now.cluster != next.cluster {
        reasons.push(format!("the cluster's name is {} and not {}", now.cluster, next.cluster));
    }
    if now.overlay_port != next.overlay_port {
        reasons.push(format!("the overlay's port is {} and not {}", now.overlay_port, next.overlay_port));
    }
    if now.aliases != next.aliases {
        let list = |policy: &Policy| policy.aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        reasons.push(format!("the alias prefixes are {} and not {}", list(now), list(next)));
    }
    for node in &next.nodes {
        match now.nodes.iter().find(|known| known.name == node.name) {
            None => reasons.push(format!("node {} is new", node.name)),
            Some(known) if known.address != node.address => {
                reasons.push(format!("the address of node {} is {} and not {}", node.name, known.address, node.address));
            }
            Some(known) if known.public_key != node.public_key => {
                reasons.push(format!("node {} has another public key", node.name));
            }
            Some(_) => {}
        }
    }
    for node in now.nodes.iter().filter(|node| next.nodes.iter().all(|other| other.name != node.name)) {
        reasons.push(format!("node {} is missing", node.name));
    }
    if next.limits.connections > connections_max {
        reasons.push(format!("limits.connections can be at most {connections_max}, its value at start"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClusterFile;

    const TEXT: &str = "
cluster: test
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 10.77.0.1, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 10.77.0.2, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  web: { frontends: { a: '10.77.0.1:80', b: '10.77.0.2:80' } }
limits: { connections: 1000 }
";

    fn policy(text: &str) -> Policy {
        ClusterFile::parse("test", text).unwrap_or_else(|report| panic!("{report}")).compile("a").unwrap()
    }

    fn reasons(from: &str, to: &str) -> Vec<String> {
        assert!(TEXT.contains(from), "{from}");
        needs_restart(&policy(TEXT), &policy(&TEXT.replacen(from, to, 1)), 1000)
    }

    #[test]
    fn what_a_running_process_cannot_change_is_named() {
        let third = "nodes:\n  c: { address: 10.77.0.3, public_key: 5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE= }\n";
        for (from, to, expected) in [
            ("cluster: test", "cluster: rest", "the cluster's name is test and not rest"),
            ("7400", "7401", "the overlay's port is 7400 and not 7401"),
            ("198.18.0.0/16", "198.19.0.0/16", "the alias prefixes are 198.18.0.0/16 and not 198.19.0.0/16"),
            ("address: 10.77.0.2", "address: 10.77.0.4", "the address of node b is 10.77.0.2 and not 10.77.0.4"),
            (
                "bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U=",
                "5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE=",
                "node a has another public key",
            ),
            ("nodes:\n", third, "node c is new"),
            ("connections: 1000", "connections: 1001", "limits.connections can be at most 1000, its value at start"),
        ] {
            assert_eq!(reasons(from, to), [expected]);
        }
        let other = TEXT.replace("  b: {", "  z: {").replace(", b: '10.77.0.2:80'", "");
        assert_eq!(needs_restart(&policy(TEXT), &policy(&other), 1000), ["node z is new", "node b is missing"]);
    }

    #[test]
    fn the_same_file_is_complained_about_once() {
        let mut configuration = Configuration::new("test".into(), TEXT, &policy(TEXT), Report::default());
        let (bad, worse) = (fingerprint("bad"), fingerprint("worse"));
        let told: Vec<bool> = [(bad, "x"), (bad, "x"), (bad, "y"), (worse, "y"), (worse, "y"), (bad, "x")]
            .map(|(tried, error)| configuration.refuse(tried, error))
            .into();
        assert_eq!(told, [true, false, true, true, false, true]);
        assert_eq!(configuration.last_error.as_deref(), Some("x"), "for `baton status`");
        configuration.accept(fingerprint(TEXT), TEXT.to_owned());
        assert_eq!(configuration.last_error, None);
        assert!(configuration.refuse(bad, "x"), "again, after a good one");
    }

    #[test]
    fn a_refusal_tells_errors_and_no_warnings() {
        // A loopback address is warned of; the field is the error.
        let text = TEXT.replace("10.77.0.2", "127.0.0.2") + "foo: 1\n";
        assert!(ClusterFile::parse("test", &text).unwrap_err().to_string().contains("warning: "));
        let error = cluster::parse(Path::new("test"), &text).unwrap_err();
        assert!(error.starts_with("test:10:1: the cluster file has no field `foo`\n"), "{error}");
        assert!(!error.contains("warning"), "{error}");
    }

    #[test]
    fn everything_else_can_be_changed() {
        let nodes = TEXT.lines().filter(|line| line.contains("public_key")).collect::<Vec<_>>().join("\n");
        let swapped = nodes.lines().rev().collect::<Vec<_>>().join("\n");
        for (from, to) in [
            (&*nodes, &*swapped),
            (", b: '10.77.0.2:80'", ""),
            ("  web:", "  shop:"),
            ("connections: 1000", "connections: 999, linger: 5s, drain_timeout: 1s"),
        ] {
            assert_eq!(reasons(from, to), Vec::<String>::new(), "{to}");
        }
    }
}
