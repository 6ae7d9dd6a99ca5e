//! What `baton stats` shows and Prometheus scrapes: one number a name. All names are in [`crate::metrics::FAMILIES`].

use super::{Node, process};
use crate::admin::protocol::State;
use crate::metrics::{Histogram, Sample};
use std::time::{Duration, Instant};

impl Node {
    /// Everything, in an order in which a histogram's buckets rise.
    pub(super) fn samples(&self, now: Instant) -> Vec<Sample> {
        let mut samples: Vec<Sample> = self.engine.counters().into_iter().map(|(name, value)| (name, value.into())).collect();
        for (name, histogram) in self.engine.histograms() {
            add_histogram(&mut samples, name, histogram);
        }
        self.add_host(&mut samples);
        self.add_peers(&mut samples);
        self.add_node(&mut samples);
        add_process(&mut samples, now.saturating_duration_since(self.identity.started));
        samples
    }

    /// The TUN and the overlay.
    fn add_host(&self, samples: &mut Vec<Sample>) {
        let mut count = |name: &str, value: u64| samples.push((name.to_owned(), value.into()));
        let tun = &self.host.counters;
        count("tun_read_packets_total", tun.read_packets);
        count("tun_read_bytes_total", tun.read_bytes);
        count("tun_read_errors_total", tun.read_errors);
        count("tun_read_bad_headers_total", tun.read_bad_headers);
        count("tun_written_packets_total", tun.written_packets);
        count("tun_written_bytes_total", tun.written_bytes);
        count("tun_write_errors_total{reason=\"queue_full\"}", tun.write_queue_full);
        count("tun_write_errors_total{reason=\"other\"}", tun.write_errors);
        let super_segments = self.host.super_segments();
        count("tun_offload", u64::from(self.host.offloads()));
        count("tun_super_segments_read_total", super_segments.read);
        count("tun_super_segments_written_total", super_segments.written);
        count("tun_super_segments_cut_total", super_segments.cut);
        count("tun_joined_packets_total", self.host.joined_packets());
        if let Some(learned) = self.host.learned() {
            count("local_taught_total", learned.taught);
            count("local_not_taught_total", learned.full);
            count("local_bypassed_packets_total", learned.passed);
            if let Some(held) = learned.held {
                count("local_flows", held);
            }
        }
        let overlay = self.overlay.counters();
        count("overlay_super_segments_cut_total", overlay.cut);
        count("overlay_udp_gso", u64::from(self.overlay.offload().sends));
        count("overlay_udp_gro", u64::from(self.overlay.offload().receives));
        count("overlay_send_calls_total", overlay.send_calls);
        count("overlay_receive_calls_total", overlay.receive_calls);
        count("overlay_joined_packets_total", overlay.joined);
        count("overlay_sent_packets_total", overlay.sent_packets);
        count("overlay_sent_bytes_total", overlay.sent_bytes);
        count("overlay_received_packets_total", overlay.received_packets);
        count("overlay_received_bytes_total", overlay.received_bytes);
        count("overlay_send_drops_total{reason=\"no_key\"}", overlay.no_key);
        count("overlay_send_drops_total{reason=\"buffer_full\"}", overlay.send_buffer_full);
        count("overlay_send_drops_total{reason=\"other\"}", overlay.send_failed);
        count("overlay_receive_drops_total{reason=\"unknown\"}", overlay.unknown);
        count("overlay_receive_drops_total{reason=\"forged\"}", overlay.forged);
        count("overlay_receive_drops_total{reason=\"replayed\"}", overlay.replayed);
    }

    /// The sessions with other nodes.
    fn add_peers(&self, samples: &mut Vec<Sample>) {
        let peers = self.peers_up();
        samples.push(("peers".to_owned(), peers.total.into()));
        samples.push(("peers_up".to_owned(), peers.up.into()));
        for view in self.channel.peers().into_iter().filter(|view| view.peer != self.policy.node) {
            let peer = self.name_of(view.peer);
            let mut say = |name: &str, value: serde_json::Number| samples.push((format!("{name}{{peer=\"{peer}\"}}"), value));
            say("peer_up", u64::from(view.state == "up").into());
            say("peer_draining", u64::from(view.draining).into());
            say("peer_sessions_total", view.sessions.into());
            if let Some(seconds) = view.round_trip.and_then(seconds) {
                say("peer_round_trip_seconds", seconds);
            }
        }
    }

    /// The process around the connections.
    fn add_node(&self, samples: &mut Vec<Sample>) {
        let mut count = |name: &str, value: u64| samples.push((name.to_owned(), value.into()));
        count("control_messages_lost_total", self.counters.messages_lost);
        count("rules_restored_total", self.rules.restored);
        count("rules_errors_total", self.rules.failed);
        let links = &self.links.counters;
        count("links_usable", self.links.usable() as u64);
        count("link_sent_packets_total", links.sent_packets);
        count("link_client_on_peer_packets_total", links.client_on_peer);
        count("link_send_failed_packets_total", links.send_failed);
        count("link_probes_sent_total", links.probes_sent);
        count("link_probes_answered_total", links.probes_answered);
        count("link_lost_total", links.lost);
        count("link_unlearned_total", links.unlearned);
        count("link_errors_total", links.failures);
        count("link_forwarded_packets_total", links.forwarded);
        count("link_held_up_total", links.held_up);
        count("overlay_cut_plain_total", self.counters.cut_for_overlay);
        count("guard_write_errors_total", self.guards.failures());
        count("sockets_destroyed_total", self.counters.sockets_destroyed);
        count("socket_questions_failed_total", self.counters.socket_questions_failed);
        if let Some(log) = &self.connection_log {
            count("connection_log_lines_total{outcome=\"written\"}", log.counters.written);
            count("connection_log_lines_total{outcome=\"lost\"}", log.counters.lost);
        }
        count("reloads_total{outcome=\"changed\"}", self.counters.reloads_changed);
        count("reloads_total{outcome=\"unchanged\"}", self.counters.reloads_unchanged);
        count("reloads_total{outcome=\"refused\"}", self.counters.reloads_refused);
        count("cluster_file_ok", u64::from(self.configuration.last_error.is_none()));
        count("limit_connections", self.policy.limits.connections as u64);
        count("limit_first_flight_bytes", self.policy.limits.first_flight_bytes as u64);
        count("loop_wakes_total", self.counters.wakes);
        count("loop_stalls_total", self.counters.stalls);
        count(concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
        for (state, label) in [(State::Running, "running"), (State::Draining, "draining"), (State::Stopping, "stopping")] {
            count(&format!("node_state{{state=\"{label}\"}}"), u64::from(self.state() == state));
        }
    }
}

fn add_histogram(samples: &mut Vec<Sample>, name: &str, histogram: &Histogram) {
    for (bound, count) in histogram.buckets() {
        samples.push((format!("{name}_bucket{{le=\"{bound}\"}}"), count.into()));
    }
    if let Some(sum) = seconds(histogram.sum()) {
        samples.push((format!("{name}_sum"), sum));
    }
    samples.push((format!("{name}_count"), histogram.count().into()));
}

fn add_process(samples: &mut Vec<Sample>, uptime: Duration) {
    let usage = process::usage();
    let mut say = |name: &str, value: Option<serde_json::Number>| {
        if let Some(value) = value {
            samples.push((name.to_owned(), value));
        }
    };
    say("uptime_seconds", Some(uptime.as_secs().into()));
    say("process_resident_memory_bytes", usage.resident_memory_bytes.map(Into::into));
    say("process_open_fds", usage.open_fds.map(Into::into));
    say("process_cpu_seconds_total", usage.cpu_seconds.and_then(serde_json::Number::from_f64));
}

fn seconds(duration: Duration) -> Option<serde_json::Number> {
    serde_json::Number::from_f64(duration.as_secs_f64())
}
