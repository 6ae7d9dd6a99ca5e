//! Replies as people read them: aligned tables, nothing that is not needed.

use super::protocol::{Change, Configuration, Flows, Health, Peers, Probe, Rehearsed, Reloaded, State, Status, Stopped};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Text in columns, as wide as their widest cell; the last column is not padded.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).into()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn seconds(count: u64) -> String {
    humantime::format_duration(Duration::from_secs(count)).to_string()
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn name_of(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Draining => "draining",
        State::Stopping => "stopping",
    }
}

/// `baton status`
pub fn status(status: &Status) -> String {
    let mut top = Table { rows: Vec::new() };
    top.row(["node".into(), format!("{} of cluster {}, {}", status.node, status.cluster, name_of(status.state))]);
    let life = format!("up {}, epoch {}, process {}", seconds(status.uptime_seconds), status.epoch, status.pid);
    top.row(["version".into(), format!("{}, {life}", status.version)]);
    let hash = status.cluster_file.hash.get(..12).unwrap_or(&status.cluster_file.hash);
    let Configuration { loaded_at, last_error, .. } = &status.configuration;
    top.row(["file".into(), format!("{} (hash {hash}, read {loaded_at})", status.cluster_file.path)]);
    if last_error.is_some() {
        top.row(["".into(), "REFUSED as it is now; what was read before stays in force. See below".into()]);
    }
    top.row(["device".into(), status.device.clone()]);
    top.row(["peers".into(), format!("{} of {} up", status.peers.up, status.peers.total)]);
    if let Some(links) = status.links {
        let rest = if links.usable < links.total { "; `baton peers` says why others are not" } else { "" };
        top.row(["links".into(), format!("{} of {} used{rest}", links.usable, links.total)]);
    }
    let connections = &status.connections;
    top.row([
        "connections".into(),
        format!(
            "{} live; {} as front-end, {} as back-end, {} lingering",
            connections.live, connections.front_end, connections.back_end, connections.lingering
        ),
    ]);
    let mut services = Table::new(["SERVICE", "FRONT-END", "BACKLOG", "APPLICATION"]);
    for service in &status.services {
        let health = service.health.as_ref().map_or_else(String::new, health);
        let application = match (service.application_port, &service.application_problem) {
            (None, _) => "elsewhere".to_owned(),
            (Some(port), Some(problem)) => format!("port {port}: takes no handoffs: {problem}"),
            (Some(port), None) => format!("port {port}{health}"),
        };
        if service.frontends.is_empty() {
            services.row([service.name.clone(), "none here".into(), "-".into(), application.clone()]);
        }
        for (index, frontend) in service.frontends.iter().enumerate() {
            let first = |text: &str| {
                if index == 0 { text.to_owned() } else { String::new() }
            };
            let problem = || frontend.problem.clone().unwrap_or_else(|| "nothing listens".to_owned());
            let backlog = frontend.backlog.map_or_else(problem, |backlog| backlog.to_string());
            services.row([first(&service.name), frontend.address.clone(), backlog, first(&application)]);
        }
    }
    let refused = last_error.as_ref().map_or_else(String::new, |error| format!("\n{}\n", error.trim_end()));
    format!("{top}\n{services}{refused}")
}

fn health(health: &Health) -> String {
    let Health { state, since_seconds, failure } = health;
    let failure = failure.as_ref().map_or_else(String::new, |failure| format!(", last check: {failure}"));
    format!(", {state} for {}{failure}", seconds(*since_seconds))
}

/// `baton peers`
pub fn peers(peers: &Peers) -> String {
    if peers.peers.is_empty() {
        return "no peers: the cluster file names this node only\n".to_owned();
    }
    let mut table = Table::new(["PEER", "ADDRESS", "STATE", "SINCE", "ROUND TRIP", "PROTOCOL", "SESSIONS", "REMARK"]);
    for peer in &peers.peers {
        let mut remarks = Vec::new();
        if peer.draining {
            remarks.push("draining".to_owned());
        }
        if peer.cluster_file_differs {
            let hash = peer.cluster_file_hash.as_ref().and_then(|hash| hash.get(..12)).unwrap_or_default();
            remarks.push(format!("another cluster file (hash {hash})"));
        }
        remarks.extend(peer.error.clone());
        table.row([
            peer.name.clone(),
            peer.address.clone(),
            peer.state.clone(),
            seconds(peer.since_seconds),
            or_dash(peer.round_trip_ms.map(|ms| format!("{ms:.2} ms"))),
            or_dash(peer.protocol_version),
            peer.sessions.to_string(),
            remarks.join("; "),
        ]);
    }
    let mut services = Table::new(["PEER", "SERVICE", "APPLICATION", "CONNECTIONS", "WEIGHT", "PROBE"]);
    for (peer, service) in peers.peers.iter().flat_map(|peer| peer.services.iter().map(move |service| (peer, service))) {
        let passed_over = service.passed_over.as_ref().map_or_else(String::new, |reason| format!(", passed over: {reason}"));
        services.row([
            peer.name.clone(),
            service.service.clone(),
            format!("{}{passed_over}", service.health),
            service.connections.to_string(),
            format!("{:.0}%", service.ramp * 100.0),
            or_dash(service.probe.as_ref().map(probe)),
        ]);
    }
    let mut links = Table::new(["PEER", "LINK", "FORWARD"]);
    for (peer, link) in peers.peers.iter().flat_map(|peer| peer.links.iter().map(move |link| (peer, link))) {
        let used = match &link.reason {
            None => "link".to_owned(),
            Some(reason) => format!("overlay: {reason}"),
        };
        links.row([peer.name.clone(), link.family.clone(), used]);
    }
    let links = if links.rows.len() > 1 { format!("\n{links}") } else { String::new() };
    let services = if services.rows.len() > 1 { format!("\n{services}") } else { String::new() };
    let mut warnings = String::new();
    for warning in peers.peers.iter().flat_map(|peer| &peer.warnings) {
        let _ = writeln!(warnings, "warning: {warning}");
    }
    let overlay = &peers.overlay;
    let direction = |packets: u64, bytes: u64, drops: u64| format!("{packets} packets, {bytes} bytes, {drops} dropped");
    let sent = direction(overlay.sent_packets, overlay.sent_bytes, overlay.send_drops);
    let received = direction(overlay.received_packets, overlay.received_bytes, overlay.receive_drops);
    format!("{table}{warnings}{services}{links}\noverlay  sent      {sent}\n         received  {received}\n")
}

fn probe(probe: &Probe) -> String {
    let last_ok = probe.last_ok_seconds.map_or_else(|| "never ok".to_owned(), |ago| format!("last ok {} ago", age(ago)));
    match (&probe.failed_at, &probe.failure) {
        (Some(step), Some(failure)) => format!("failed at {step}: {failure}; {last_ok}"),
        _ => format!(
            "ok, {} ms, {} ago",
            or_dash(probe.round_trip_ms.map(|ms| format!("{ms:.2}"))),
            or_dash(probe.last_ok_seconds.map(age))
        ),
    }
}

/// `baton flows`
pub fn flows(flows: &Flows) -> String {
    if flows.total == 0 {
        return "no connections (those released to the local server are not baton's any more)\n".to_owned();
    }
    let mut table = Table::new(["CLIENT", "FRONT-END", "ROLE", "STATE", "TREATMENT", "PEER", "SOCKET", "RULE", "AGE"]);
    for flow in &flows.flows {
        table.row([
            flow.client.clone(),
            flow.frontend.clone(),
            flow.role.clone(),
            flow.state.clone(),
            flow.treatment.clone(),
            or_dash(flow.peer.as_ref()),
            or_dash(flow.socket.as_ref()),
            or_dash(flow.rule.as_ref()),
            age(flow.age_seconds),
        ]);
    }
    let mut text = table.to_string();
    if flows.flows.len() < flows.total {
        let _ = writeln!(text, "... {} of {} connections; --limit shows more", flows.flows.len(), flows.total);
    }
    text
}

fn age(age_seconds: f64) -> String {
    if age_seconds < 10.0 { format!("{age_seconds:.1}s") } else { seconds(age_seconds as u64) }
}

/// `baton stats`
pub fn stats(stats: &BTreeMap<String, serde_json::Number>) -> String {
    stats.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name} {value}");
        text
    })
}

/// `baton reload --dry-run`, if the file would not be refused
pub fn rehearsed(rehearsed: &Rehearsed) -> String {
    let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
    let (hash, next) = (short(&rehearsed.hash), short(rehearsed.next_hash.as_deref().unwrap_or_default()));
    let mut text: String = rehearsed.differences.iter().map(|difference| format!("{difference}\n")).collect();
    text += &match rehearsed.would_change {
        true => format!("would be put in force (hash {hash} -> {next}); nothing has been changed\n"),
        false => format!("nothing to do: the file means what is in force (hash {hash})\n"),
    };
    text
}

/// `baton reload`, if the file was not refused
pub fn reloaded(reloaded: &Reloaded) -> String {
    let hash = reloaded.hash.get(..12).unwrap_or(&reloaded.hash);
    match reloaded.changed {
        true => format!("reloaded (hash {hash})\n"),
        false => format!("nothing to do: the file means what is in force (hash {hash})\n"),
    }
}

/// `baton drain` and `baton undrain`
pub fn state(change: &Change) -> String {
    match change.state {
        State::Running => "running: hands connections off and takes them\n".to_owned(),
        State::Draining => format!("draining: {} handed-off connections go on; nothing new\n", change.live),
        State::Stopping => format!("stopping: {} handed-off connections to go\n", change.live),
    }
}

/// `baton stop`
pub fn stopped(stopped: &Stopped) -> String {
    let cut = match stopped.cut {
        0 => "no connection was cut".to_owned(),
        1 => "1 connection was cut".to_owned(),
        cut => format!("{cut} connections were cut"),
    };
    let host = if stopped.restored { "the host is as it was" } else { "the host could not be put back entirely: see the log" };
    format!("stopped after {:.1}s: {cut}, {host}\n", stopped.seconds)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
