//! Answers to the command line.

use super::{Node, probes, process, stop::Phase};
use crate::admin::protocol::{self, Reply, Request, State};
use crate::admin::server::ClientId;
use crate::flow::NodeId;
use crate::handoff::counters::Fallback;
use crate::handoff::engine::FlowView;
use crate::health::Health;
use std::time::{Duration, Instant};

impl Node {
    /// Answers all requests that have come in.
    pub(super) fn answer_requests(&mut self, now: Instant) {
        while let Some((client, request)) = self.admin.poll_request() {
            if let Some(reply) = self.answer(client, request, now) {
                self.admin.reply(client, &reply, self.poll.registry(), now);
            }
        }
    }

    /// None: the answer comes later.
    fn answer(&mut self, client: ClientId, request: Request, now: Instant) -> Option<Reply> {
        Some(match request {
            Request::Status => Reply::Status(Box::new(self.status(now))),
            Request::Peers => Reply::Peers(self.peers(now)),
            Request::Flows { limit } => Reply::Flows(self.flows(limit, now)),
            Request::Stats => Reply::Stats(self.stats(now)),
            Request::Reload => self.reload("baton reload", now),
            Request::Drain => self.set_draining(true, now),
            Request::Undrain => self.set_draining(false, now),
            Request::Stop { timeout_seconds } => {
                let timeout = timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.begin_stop(timeout, "baton stop", now);
                self.phase.wait_for_end(client);
                return None;
            }
        })
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Running => State::Running,
            Phase::Draining => State::Draining,
            Phase::Stopping(_) => State::Stopping,
        }
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        self.policy.nodes.get(usize::from(node.0)).map_or_else(|| format!("#{}", node.0), |node| node.name.clone())
    }

    fn status(&self, now: Instant) -> protocol::Status {
        protocol::Status {
            node: self.identity.name.clone(),
            cluster: self.policy.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state(),
            epoch: format!("{:x}", self.identity.epoch.0),
            uptime_seconds: now.saturating_duration_since(self.identity.started).as_secs(),
            pid: std::process::id(),
            device: self.host.device_name().to_owned(),
            cluster_file: protocol::ClusterFile {
                path: self.configuration.path.display().to_string(),
                hash: self.policy.hash.to_string(),
            },
            configuration: protocol::Configuration {
                loaded_at: humantime::format_rfc3339_seconds(self.configuration.loaded_at).to_string(),
                hash: self.policy.hash.to_string(),
                last_error: self.configuration.last_error.clone(),
            },
            peers: self.peers_up(),
            connections: self.connections(),
            services: self.services(now),
        }
    }

    /// The engine's gauges: counted without a copy of every connection.
    fn connections(&self) -> protocol::Connections {
        let counters = self.engine.counters();
        let gauge = |name: &str| {
            let found = counters.iter().find(|(counter, _)| counter == name);
            found.map_or(0, |(_, value)| *value)
        };
        protocol::Connections {
            live: self.engine.live() as u64,
            front_end: gauge("connections_front_end"),
            back_end: gauge("connections_back_end"),
            lingering: gauge("connections_lingering"),
        }
    }

    fn peers_up(&self) -> protocol::PeersUp {
        let up = self.channel.peers().iter().filter(|view| view.state == "up").count();
        protocol::PeersUp { up, total: self.policy.nodes.len().saturating_sub(1) }
    }

    fn services(&self, now: Instant) -> Vec<protocol::Service> {
        let own = self.policy.node;
        let services = self.policy.services.iter().map(|service| protocol::Service {
            name: service.name.clone(),
            frontends: service
                .frontends
                .iter()
                .filter(|(owner, _)| *owner == own)
                .map(|(_, frontend)| protocol::Frontend {
                    address: frontend.to_string(),
                    backlog: self.listeners.backlog_of(*frontend),
                    problem: self.listeners.problem_at(*frontend),
                })
                .collect(),
            application_port: service.server_port(own),
            application_listens: service.server_port(own).map(|_| self.listeners.problem_of(&service.name).is_none()),
            application_problem: self.listeners.problem_of(&service.name),
            health: self.applications.view(&service.name).map(|view| protocol::Health {
                state: word(view.health).to_owned(),
                since_seconds: now.saturating_duration_since(view.since).as_secs(),
                failure: view.failure,
            }),
        });
        services.collect()
    }

    fn peers(&self, now: Instant) -> protocol::Peers {
        let views = self.channel.peers();
        let peers = views.into_iter().filter(|view| view.peer != self.policy.node).map(|view| {
            let node = self.policy.nodes.get(usize::from(view.peer.0));
            let address = node.map(|node| std::net::SocketAddr::new(node.address, self.policy.overlay_port).to_string());
            protocol::Peer {
                name: self.name_of(view.peer),
                address: address.unwrap_or_default(),
                state: view.state.to_owned(),
                since_seconds: now.saturating_duration_since(view.since).as_secs(),
                error: view.error,
                round_trip_ms: view.round_trip.map(|time| time.as_secs_f64() * 1e3),
                protocol_version: view.version,
                draining: view.draining,
                sessions: view.sessions,
                warnings: self.promises.obstacles(view.peer, &self.policy),
                cluster_file_hash: self.files.of(view.peer).map(|hash| hash.to_string()),
                cluster_file_differs: self.files.of(view.peer).is_some_and(|hash| hash != self.policy.hash),
                services: self.services_of(view.peer, now),
            }
        });
        let counters = self.overlay.counters();
        protocol::Peers {
            peers: peers.collect(),
            overlay: protocol::Overlay {
                sent_packets: counters.sent_packets,
                sent_bytes: counters.sent_bytes,
                received_packets: counters.received_packets,
                received_bytes: counters.received_bytes,
                send_drops: counters.no_key + counters.send_buffer_full + counters.send_failed,
                receive_drops: counters.unknown + counters.forged + counters.replayed,
            },
        }
    }

    fn services_of(&self, peer: NodeId, now: Instant) -> Vec<protocol::PeerService> {
        let served = self.policy.services.iter().filter(|service| service.server_port(peer).is_some());
        served
            .map(|service| {
                let state = self.engine.node_state(&service.name, peer, now);
                protocol::PeerService {
                    service: service.name.clone(),
                    health: word(state.health).to_owned(),
                    connections: state.connections,
                    ramp: state.ramp,
                    passed_over: state.unfit().map(|unfit| Fallback::from(unfit).label().to_owned()),
                    probe: self.probes.view(&service.name, peer).map(|view| probe(view, now)),
                }
            })
            .collect()
    }

    fn flows(&self, limit: usize, now: Instant) -> protocol::Flows {
        let views = self.engine.flows(now);
        let flows = views.iter().take(limit.min(crate::limits::ADMIN_FLOWS_MAX)).map(|view| self.flow(view)).collect();
        protocol::Flows { total: views.len(), flows }
    }

    fn flow(&self, view: &FlowView) -> protocol::Flow {
        protocol::Flow {
            client: view.flow.client.to_string(),
            frontend: view.flow.frontend.to_string(),
            role: view.role.to_owned(),
            state: view.state.to_owned(),
            treatment: view.treatment.to_owned(),
            peer: view.peer.map(|peer| self.name_of(peer)),
            socket: view.socket.map(|socket| socket.to_string()),
            rule: view.rule.clone(),
            age_seconds: view.age.as_secs_f64(),
        }
    }

    fn stats(&self, now: Instant) -> std::collections::BTreeMap<String, serde_json::Number> {
        let mut stats: std::collections::BTreeMap<String, serde_json::Number> =
            self.engine.counters().into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut count = |name: &str, value: u64| stats.insert(name.to_owned(), value.into());
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
        let overlay = self.overlay.counters();
        count("overlay_super_segments_cut_total", overlay.cut);
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
        let peers = self.peers_up();
        count("peers_up", peers.up as u64);
        count("peers", peers.total as u64);
        count("control_messages_lost_total", self.counters.messages_lost);
        count("guard_write_errors_total", self.guards.failures());
        count("sockets_destroyed_total", self.counters.sockets_destroyed);
        count("socket_questions_failed_total", self.counters.socket_questions_failed);
        count("reloads_total{outcome=\"changed\"}", self.counters.reloads_changed);
        count("reloads_total{outcome=\"unchanged\"}", self.counters.reloads_unchanged);
        count("reloads_total{outcome=\"refused\"}", self.counters.reloads_refused);
        count("loop_wakes_total", self.counters.wakes);
        count("loop_stalls_total", self.counters.stalls);
        count("uptime_seconds", now.saturating_duration_since(self.identity.started).as_secs());
        let usage = process::usage();
        usage.resident_memory_bytes.map(|bytes| count("process_resident_memory_bytes", bytes));
        usage.open_fds.map(|open| count("process_open_fds", open));
        let cpu = usage.cpu_seconds.and_then(serde_json::Number::from_f64);
        cpu.map(|seconds| stats.insert("process_cpu_seconds_total".to_owned(), seconds));
        stats
    }
}

fn probe(view: probes::View, now: Instant) -> protocol::Probe {
    let (round_trip, failure) = match view.last {
        Ok(took) => (Some(took.as_secs_f64() * 1e3), None),
        Err(failure) => (None, Some(failure)),
    };
    protocol::Probe {
        state: if failure.is_none() { "ok" } else { "failed" }.to_owned(),
        last_ok_seconds: view.last_ok.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        round_trip_ms: round_trip,
        failed_at: failure.as_ref().map(|failure| failure.step.label().to_owned()),
        failure: failure.map(|failure| failure.why),
    }
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Down => "down",
        Health::Unknown => "unknown",
    }
}
