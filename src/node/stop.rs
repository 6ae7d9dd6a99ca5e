//! Draining and the end: nothing is cut that can still finish, and the host is left as it was found.

use super::Node;
use super::clock::clock;
use crate::admin::protocol::{Change, Reply, Stopped};
use crate::admin::server::ClientId;
use std::time::{Duration, Instant};

/// What the node is doing.
#[derive(Debug)]
pub enum Phase {
    /// Hands off and takes.
    Running,
    /// Keeps what it has.
    Draining,
    /// Ends when nothing lives, or in time.
    Stopping(Stopping),
}

/// An end that has begun.
#[derive(Debug)]
pub struct Stopping {
    began: Instant,
    /// When the rest is cut.
    deadline: Instant,
    /// When to look again whether anything lives.
    look: Instant,
    /// Those who want to know when it is over.
    waiting: Vec<ClientId>,
}

/// What there is to say when the process has ended in order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    /// Connections that were reset because they were not over in time.
    pub cut: usize,
    /// Whether the host is as it was.
    pub restored: bool,
}

impl Phase {
    /// When the end has to go on, if it has begun.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Running | Self::Draining => None,
            Self::Stopping(stopping) => Some(stopping.deadline.min(stopping.look)),
        }
    }

    /// The client is told when the end is over.
    pub fn wait_for_end(&mut self, client: ClientId) {
        if let Self::Stopping(stopping) = self {
            stopping.waiting.push(client);
        }
    }
}

impl Node {
    /// Takes no more handoffs, or takes them again.
    pub(super) fn set_draining(&mut self, draining: bool, now: Instant) -> Reply {
        match (&self.phase, draining) {
            (Phase::Stopping(_), _) => {
                return Reply::Error("the node is stopping; that cannot be taken back".to_owned());
            }
            (Phase::Running, true) => {
                self.phase = Phase::Draining;
                self.drain(now);
                log::info!("drain: no new handoffs; live={} go on", self.engine.live());
            }
            (Phase::Draining, false) => {
                self.phase = Phase::Running;
                self.engine.undrain();
                self.settle(now);
                self.channel.set_draining(false);
                log::info!("undrain: handoffs as before");
            }
            (Phase::Running, false) | (Phase::Draining, true) => {}
        }
        Reply::State(Change { state: self.state(), live: self.engine.live() })
    }

    fn drain(&mut self, now: Instant) {
        self.engine.drain(now);
        self.settle(now);
        self.channel.set_draining(true);
    }

    /// Begins the end, or, when it has begun, brings it forward.
    pub(super) fn begin_stop(&mut self, timeout: Option<Duration>, why: &str, now: Instant) {
        let asked = timeout.map(|timeout| now.checked_add(timeout).unwrap_or(now + Duration::from_secs(u32::MAX.into())));
        if let Phase::Stopping(stopping) = &mut self.phase {
            if let Some(deadline) = asked.filter(|deadline| *deadline < stopping.deadline) {
                log::info!("stop: again by={why}; the rest is cut in seconds={:.1}", (deadline - now).as_secs_f64());
                stopping.deadline = deadline;
            }
            return;
        }
        let deadline = asked.unwrap_or(now + self.policy.limits.drain_timeout);
        self.phase = Phase::Stopping(Stopping { began: now, deadline, look: now, waiting: Vec::new() });
        self.drain(now);
        // New connections go past the TUN from here on; those that were undecided have just been released.
        match self.host.capture().release() {
            Ok(()) => log::info!("stop: by={why}; new connections go straight to the local server"),
            Err(error) => {
                log::warn!("stop: by={why}; new connections still pass through here: {error:#}")
            }
        }
        let live = self.engine.live();
        if live > 0 {
            let seconds = (deadline - now).as_secs_f64();
            log::info!("stop: waiting for live={live} handed-off connections, at most seconds={seconds:.1}");
        }
    }

    /// Whether the end is due.
    pub(super) fn may_end(&mut self, now: Instant) -> bool {
        let Phase::Stopping(stopping) = &mut self.phase else {
            return false;
        };
        if stopping.deadline > now && stopping.look > now {
            return false;
        }
        stopping.look = now + crate::limits::STOP_INTERVAL;
        stopping.deadline <= now || self.engine.live() == 0
    }

    /// The end itself: resets what still lives, says goodbye, puts the host back, tells who waits.
    pub(super) fn end(mut self, now: Instant) -> Summary {
        let cut = self.engine.live();
        if cut > 0 {
            log::warn!("stop: time is over, resetting cut={cut} connections");
        }
        self.engine.reset_all(now);
        self.settle(now);
        self.finish_wake(now);
        // What the resets made the local kernels say is still in the queue, and so may be a peer's packets.
        self.read_tun(crate::limits::LAST_PACKETS_MAX, now);
        self.finish_wake(now);
        self.channel.close(self.poll.registry());
        log::info!("stop: sessions closed");
        let restored = self.host.restore();

        let Self { host, channel, overlay, admin, poll, phase, identity, .. } = self;
        let tun = host.counters.clone();
        // Gone before anybody is told that the node has stopped: whoever waits may start the next one at once.
        drop((host, channel, overlay));
        let ended = clock();
        if let Phase::Stopping(stopping) = phase {
            let seconds = ended.saturating_duration_since(stopping.began).as_secs_f64();
            let up = ended.saturating_duration_since(identity.started).as_secs();
            log::info!(
                "stopped: up={} stop_seconds={seconds:.1} cut={cut} restored={restored} \
                 tun_read_packets={} tun_written_packets={}",
                humantime::format_duration(Duration::from_secs(up)),
                tun.read_packets,
                tun.written_packets
            );
            let reply = Reply::Stopped(Stopped { cut, seconds, restored });
            admin.farewell(&stopping.waiting, &reply, poll.registry(), ended);
        }
        Summary { cut, restored }
    }
}
