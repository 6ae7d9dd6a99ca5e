//! Start: everything that can fail without a trace first, the host last.

use super::clock::{clock, wall_clock_nanoseconds};
use super::cluster;
use super::connection_log::ConnectionLog;
use super::files::Files;
use super::health::Applications;
use super::host::Host;
use super::links::{self, Links};
use super::listeners::{self, Listeners};
use super::probes::Probes;
use super::recording::Recording;
use super::reload::Configuration;
use super::rules::Rules;
use super::watch::Watch;
use super::{Counters, Identity, Node, guards, promises, pulse, stop, token};
use crate::admin::server::Server;
use crate::control::channel::{Channel, ChannelConfig, Settings};
use crate::control::key::{PrivateKey, public_key_to_text};
use crate::control::message::Epoch;
use crate::control::overlay::{Inbox, OVERHEAD_V4, OVERHEAD_V6, Overlay};
use crate::flow::Endpoint;
use crate::handoff::{Engine, EngineConfig};
use crate::metrics::server::Server as MetricsServer;
use crate::policy::Policy;
use crate::tun::capture::{Capture, CaptureConfig};
use crate::tun::device::{Device, Offloading};
use crate::tun::offload::FRAME_BYTES_MAX;
use crate::tun::requirements;
use crate::tun::sock_diag::SockDiag;
use anyhow::Context;
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// Name of the TUN.
pub(super) const DEVICE: &str = "bt0";
/// Where the capture remembers what the host was like. The same for every node, wherever its socket is: two in one network
/// namespace must find each other.
pub(super) const STATE_DIRECTORY: &str = "/run/baton";

/// What `baton run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which node of the file this is.
    pub node: String,
    /// The cluster file.
    pub cluster: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
    /// Whether the kernel may leave checksums and segmentation to the TUN.
    pub offload: Offloading,
    /// Whether packets of connections that the local server serves may stay out of the TUN.
    pub bypass: bool,
    /// Where to record every packet.
    pub pcap: Option<PathBuf>,
    /// Where Prometheus may scrape.
    pub metrics: Option<SocketAddr>,
    /// Where a line is written for every connection.
    pub connection_log: Option<PathBuf>,
}

/// Why a node cannot start. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster file is wrong, or name or key do not fit it.
    #[error("{0}")]
    Cluster(String),
    /// The file is fine, this host is not.
    #[error("{0:#}")]
    Host(#[from] anyhow::Error),
}

/// Starts a node. On error the host is as it was.
pub fn start(options: Options) -> Result<Node, StartError> {
    let now = clock();
    let (policy, warnings, text) = cluster::load_text(&options.cluster, &options.node)?;
    cluster::log_warnings(&warnings);
    let key = read_key(&options.key, &policy)?;
    log::info!(
        "baton {} starts: node={} cluster={} file={} nodes={} services={}",
        env!("CARGO_PKG_VERSION"),
        options.node,
        policy.cluster,
        options.cluster.display(),
        policy.nodes.len(),
        policy.services.len()
    );
    let epoch = Epoch(wall_clock_nanoseconds());
    let identity = Identity { name: options.node.clone(), epoch, started: now };
    let path = std::path::absolute(&options.cluster).unwrap_or_else(|_| options.cluster.clone());
    let configuration = Configuration::new(path, &text, &policy, warnings);
    Ok(start_host(&options, Rc::new(policy), key, identity, configuration, now)?)
}

/// From here on it is about the host.
fn start_host(
    options: &Options,
    policy: Rc<Policy>,
    key: PrivateKey,
    identity: Identity,
    configuration: Configuration,
    now: Instant,
) -> anyhow::Result<Node> {
    requirements::check(Path::new(STATE_DIRECTORY))?;
    let poll = Poll::new().context("cannot make an epoll descriptor")?;
    let registry = poll.registry();
    // First of all, so that a signal during start does not leave half of it behind.
    let mut signals = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).context("cannot catch signals")?;
    registry.register(&mut signals, token::SIGNALS, Interest::READABLE)?;
    let mut admin = Server::bind(&options.socket)?;
    admin.register(registry, token::ADMIN_FIRST)?;
    let metrics = options.metrics.map(|address| serve_metrics(address, &policy, registry)).transpose()?;
    let connection_log = options.connection_log.as_deref().map(ConnectionLog::open).transpose()?;

    Capture::check_alone(Path::new(STATE_DIRECTORY), DEVICE)?;
    let recording = options.pcap.as_deref().map(|path| Recording::create(path, DEVICE, now)).transpose()?;
    let device = Device::create(DEVICE, options.offload)?;
    registry.register(&mut SourceFd(&device.as_raw_fd()), token::TUN, Interest::READABLE)?;
    let mut sockets = SockDiag::open().context("cannot open a sock_diag socket")?;
    let destroyed = sockets.destroy_in(&policy.aliases).context("cannot destroy sockets on alias addresses")?;
    if destroyed > 0 {
        log::info!("start: sockets_destroyed={destroyed} of an earlier life, on alias addresses");
    }

    let node_address = policy.nodes[usize::from(policy.node.0)].address;
    let config = channel_config(&policy, key, identity.epoch);
    let promises = promises::Promises::new(config.settings.clone(), now);
    let channel = Channel::start(config, registry, now)?;
    let mut overlay = Overlay::bind(SocketAddr::new(node_address, policy.overlay_port))?;
    registry.register(overlay.source(), token::OVERLAY, Interest::READABLE)?;

    let mut capture = Capture::install(CaptureConfig { bypass: options.bypass, ..capture_config(&policy, device.name()) })?;
    capture.probe(&device)?;
    let mut host = Host::new(device, sockets, capture);
    // Changing the host may have taken a second on a busy one.
    let now = clock();
    let engine_config = engine_config(&policy, &mut host, identity.epoch)?;
    let overlay_packet_bytes_max = usize::from(engine_config.mtu.saturating_sub(engine_config.overlay_overhead));
    overlay.set_packet_bytes_max(overlay_packet_bytes_max);
    let links = Links::new(&policy, links::link_peers(&policy), usize::from(engine_config.mtu), now);
    let engine = Engine::new(engine_config, Rc::clone(&policy), now);
    let watch = Watch::new(&configuration.path, now);
    if let Some(descriptor) = watch.descriptor() {
        poll.registry().register(&mut SourceFd(&descriptor), token::CLUSTER_FILE, Interest::READABLE)?;
    }
    let mut node = Node {
        host,
        engine,
        channel,
        overlay,
        overlay_packet_bytes_max,
        links,
        rules: Rules::new(now),
        listeners: Listeners::new(&policy, now),
        applications: Applications::new(&policy, now),
        files: Files::default(),
        probes: Probes::new(&policy, now),
        policy,
        admin,
        metrics,
        connection_log,
        signals,
        poll,
        identity,
        configuration,
        watch,
        phase: stop::Phase::Running,
        pulse: pulse::Pulse::new(now),
        guards: guards::Guards::default(),
        promises,
        answers: VecDeque::new(),
        counters: Counters::default(),
        recording,
        // Whatever came before the registration is not told.
        tun_ready: true,
        overlay_ready: true,
        overdue: super::overdue::Overdue::default(),
        buffer: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
        inbox: Inbox::new(),
    };
    if node.connection_log.is_some() {
        node.engine.want_records();
    }
    if node.recording.is_some() {
        node.engine.listen_to_remarks();
    }
    node.log_start();
    node.ask_listeners(now);
    node.tell_health(now);
    node.settle(now);
    // Capture begins with this.
    let all_written = node.host.beat();
    node.pulse.beat(all_written, now);
    Ok(node)
}

/// Begins to serve metrics. Not at a front-end address: clients' connections are captured there.
fn serve_metrics(address: SocketAddr, policy: &Policy, registry: &mio::Registry) -> anyhow::Result<MetricsServer> {
    let is_frontends = |frontend: &Endpoint| {
        frontend.port == address.port() && (frontend.address == address.ip() || address.ip().is_unspecified())
    };
    if let Some(frontend) = policy.own_frontends().iter().find(|frontend| is_frontends(frontend)) {
        anyhow::bail!("cannot serve metrics at {address}: {frontend} is a front-end address; choose another port with --metrics");
    }
    let mut server = MetricsServer::bind(address)?;
    server.register(registry, token::METRICS_FIRST)?;
    log::info!("metrics: at http://{}/metrics", server.address()?);
    Ok(server)
}

/// The key must be the one the cluster file knows this node by.
pub(super) fn read_key(path: &Path, policy: &Policy) -> Result<PrivateKey, StartError> {
    let place = path.display();
    let key = PrivateKey::read(path).map_err(anyhow::Error::from)?;
    let node = &policy.nodes[usize::from(policy.node.0)];
    if key.public_key() != node.public_key {
        let public = public_key_to_text(&key.public_key());
        let name = &node.name;
        if let Some(owner) = policy.nodes.iter().find(|other| other.public_key == key.public_key()) {
            return Err(StartError::Cluster(format!(
                "{place}: this is not the key of node {name} but that of node {owner} (public key {public}); choose the right \
                 file with --key, or the right node with --node",
                owner = owner.name
            )));
        }
        return Err(StartError::Cluster(format!(
            "{place}: this is not the key of node {name}: its public key is {public}, the cluster file has another for \
             {name}; choose the right file with --key, or write this public key into the cluster file on every node"
        )));
    }
    Ok(key)
}

fn channel_config(policy: &Policy, key: PrivateKey, epoch: Epoch) -> ChannelConfig {
    let address = |node: &crate::policy::Node| SocketAddr::new(node.address, policy.overlay_port);
    ChannelConfig {
        cluster: policy.cluster.clone(),
        node: policy.node,
        nodes: policy.nodes.iter().map(|node| (node.name.clone(), address(node), node.public_key)).collect(),
        key,
        epoch,
        settings: Settings::of_this_host(),
        first_token: token::CHANNEL_FIRST,
    }
}

pub(super) fn capture_config(policy: &Policy, device: &str) -> CaptureConfig {
    CaptureConfig {
        device: device.to_owned(),
        frontends: policy.own_frontends(),
        shared: policy.own_shared_frontends(),
        answered: listeners::answered_frontends(policy),
        answered_addresses: listeners::answered_addresses(policy),
        aliases: policy.aliases.clone(),
        control: Some(Endpoint::new(policy.nodes[usize::from(policy.node.0)].address, policy.overlay_port)),
        server_ports: listeners::server_ports(policy),
        state_directory: STATE_DIRECTORY.into(),
        guards_max: policy.limits.connections,
        links: links::link_peers(policy),
        bypass: true,
    }
}

fn engine_config(policy: &Policy, host: &mut Host, epoch: Epoch) -> anyhow::Result<EngineConfig> {
    let peers: Vec<_> = policy.nodes.iter().map(|node| node.address).collect();
    let own = usize::from(policy.node.0);
    let peers: Vec<_> = peers.iter().enumerate().filter(|(index, _)| *index != own).map(|(_, address)| *address).collect();
    let capture = host.capture();
    let orphans = capture.guards_found().to_vec();
    if !orphans.is_empty() {
        log::info!("start: orphaned_guards={} of an earlier life; asking the peers whose connections they guard", orphans.len());
    }
    let overlay_overhead = if peers.iter().any(|peer| peer.is_ipv6()) { OVERHEAD_V6 } else { OVERHEAD_V4 };
    Ok(EngineConfig { node: policy.node, epoch, overlay_overhead, mtu: capture.mtu_towards(&peers)?, orphans })
}

impl Node {
    /// What this node does for each service.
    pub(super) fn log_services(&self) {
        let own = self.policy.node;
        for service in &self.policy.services {
            let frontends: Vec<String> =
                service.frontends.iter().filter(|(owner, _)| *owner == own).map(|(_, end)| end.to_string()).collect();
            let frontends = if frontends.is_empty() { "none here".to_owned() } else { frontends.join(",") };
            let port = service.server_port(own).map_or_else(|| "none here".to_owned(), |port| port.to_string());
            log::info!("service {}: frontends={frontends} application_port={port}", service.name);
        }
    }

    fn log_start(&self) {
        self.log_services();
        if self.policy.own_frontends().is_empty() {
            log::info!("start: no front-end address here: this node captures nothing, and takes what others hand to it");
        }
        let node = &self.policy.nodes[usize::from(self.policy.node.0)];
        log::info!(
            "start: device={} offload={} control_and_overlay={} epoch={:x}",
            self.host.device_name(),
            if self.host.offloads() { "on" } else { "off" },
            SocketAddr::new(node.address, self.policy.overlay_port),
            self.identity.epoch.0
        );
    }
}
