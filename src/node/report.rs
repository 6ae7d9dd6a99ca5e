//! Answers to the command line.

use super::{Node, probes, stop::Phase};
use crate::admin::protocol::{self, Reply, Request, State};
use crate::admin::server::ClientId;
use crate::flow::NodeId;
use crate::handoff::counters::Fallback;
use crate::handoff::engine::FlowView;
use crate::health::Health;
use crate::metrics;
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
            Request::Stats => Reply::Stats(self.samples(now).into_iter().collect()),
            Request::Reload { dry_run: true, file } => Reply::Rehearsed(self.rehearse(file)),
            Request::Reload { dry_run: false, .. } => self.reload("baton reload", now),
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

    /// Answers all who asked for metrics.
    pub(super) fn answer_scrapers(&mut self, now: Instant) {
        let Some(mut metrics) = self.metrics.take() else { return };
        while let Some(client) = metrics.poll_asked() {
            let text = metrics::text(&self.samples(now));
            metrics.answer(client, &text, self.poll.registry(), now);
        }
        metrics.handle_timeout(self.poll.registry(), now);
        self.metrics = Some(metrics);
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
            links: self.links.all().map(|(usable, total)| protocol::Links { usable, total }),
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

    pub(super) fn peers_up(&self) -> protocol::PeersUp {
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
                warnings: self.warnings_of(view.peer),
                cluster_file_hash: self.files.of(view.peer).map(|hash| hash.to_string()),
                cluster_file_differs: self.files.of(view.peer).is_some_and(|hash| hash != self.policy.hash),
                services: self.services_of(view.peer, now),
                links: self.links_of(view.peer),
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

    fn links_of(&self, peer: NodeId) -> Vec<protocol::PeerLink> {
        let links = self.links.view(peer).into_iter();
        links
            .map(|view| protocol::PeerLink { family: view.family.to_owned(), usable: view.usable, reason: view.reason })
            .collect()
    }

    fn warnings_of(&self, peer: NodeId) -> Vec<String> {
        let mut warnings = self.promises.obstacles(peer, &self.policy);
        let links = self.links.view(peer).into_iter().filter(|view| view.is_wanted);
        warnings
            .extend(links.filter_map(|view| Some(format!("forward: link is not possible ({}): {}", view.family, view.reason?))));
        warnings
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
