//! The shell: one thread, one mio loop, all file descriptors. Decides nothing about connections.
//!
//! The law of the loop ([`wake`]): read the clock once, give the engine one input, do everything it says until it says
//! nothing more, then the next input; so many inputs of each source per wake; deadlines after what came before them
//! ([`overdue`]). Everything that reaches the engine or
//! leaves it passes through [`outputs`].

mod clock;
mod cluster;
mod connection_log;
mod doctor;
mod files;
mod guards;
mod health;
mod held;
mod host;
mod lesson;
mod links;
mod listeners;
mod listening;
mod outputs;
mod overdue;
mod pcapng;
mod probes;
mod process;
mod promises;
mod pulse;
mod recording;
mod reload;
mod report;
mod rules;
mod samples;
mod start;
mod stop;
mod wake;
mod watch;

pub use cluster::{Checked, check, load};
pub use doctor::{Intent, default_key, default_socket, examine};
pub use start::{Options, StartError, start};
pub use stop::Summary;

use crate::admin::server::Server;
use crate::control::channel::Channel;
use crate::control::message::Epoch;
use crate::control::overlay::{Inbox, Overlay};
use crate::handoff::Engine;
use crate::policy::Policy;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

/// Puts the host back without a running process; what was done, and what resisted.
pub fn clean_up(socket: Option<&std::path::Path>) -> anyhow::Result<crate::tun::cleanup::Cleaned> {
    crate::tun::cleanup::clean(std::path::Path::new(start::STATE_DIRECTORY), start::DEVICE, socket)
}

/// Tokens of the loop's own sources; the admin server's and the channel's follow.
mod token {
    pub const TUN: mio::Token = mio::Token(0);
    pub const OVERLAY: mio::Token = mio::Token(1);
    pub const SIGNALS: mio::Token = mio::Token(2);
    pub const CLUSTER_FILE: mio::Token = mio::Token(3);
    pub const ADMIN_FIRST: usize = 4;
    pub const METRICS_FIRST: usize = ADMIN_FIRST + crate::admin::server::TOKENS;
    /// One for each service.
    pub const HEALTH_FIRST: usize = METRICS_FIRST + crate::metrics::server::TOKENS;
    pub const PROBE_FIRST: usize = HEALTH_FIRST + crate::limits::cluster_file::SERVICES_MAX;
    pub const CHANNEL_FIRST: usize = PROBE_FIRST + crate::limits::PROBES_AT_ONCE;
}

/// A started node: the host captures for it, and it must run.
///
/// Fields are dropped in order, also when the engine panics: [`host::Host`] puts the host back as it was.
pub struct Node {
    host: host::Host,
    engine: Engine,
    channel: Channel,
    overlay: Overlay,
    /// Longest packet that the overlay takes without its datagram being fragmented.
    overlay_packet_bytes_max: usize,
    links: links::Links,
    rules: rules::Rules,
    policy: Rc<Policy>,
    admin: Server,
    metrics: Option<crate::metrics::server::Server>,
    connection_log: Option<connection_log::ConnectionLog>,
    signals: signal_hook_mio::v1_0::Signals,
    poll: mio::Poll,
    identity: Identity,
    configuration: reload::Configuration,
    watch: watch::Watch,

    phase: stop::Phase,
    pulse: pulse::Pulse,
    listeners: listeners::Listeners,
    applications: health::Applications,
    files: files::Files,
    probes: probes::Probes,
    guards: guards::Guards,
    promises: promises::Promises,
    /// What the engine will be told as soon as it has nothing more to say.
    answers: VecDeque<outputs::Answer>,
    counters: Counters,
    recording: Option<recording::Recording>,
    /// Readiness is told once (edge-triggered): remembered until the source says that it has no more.
    tun_ready: bool,
    overlay_ready: bool,
    overdue: overdue::Overdue,
    /// One packet at a time.
    buffer: Box<[u8]>,
    inbox: Inbox,
}

/// What this process is; told in `status` and in the log.
#[derive(Debug)]
struct Identity {
    name: String,
    epoch: Epoch,
    started: Instant,
}

/// What the shell itself counts.
#[derive(Debug, Default)]
struct Counters {
    wakes: u64,
    reloads_changed: u64,
    reloads_unchanged: u64,
    reloads_refused: u64,
    stalls: u64,
    messages_lost: u64,
    /// Packets too long for the overlay, cut for it.
    cut_for_overlay: u64,
    sockets_destroyed: u64,
    socket_questions_failed: u64,
}
