//! The loop.

use super::clock::clock;
use super::outputs::Source;
use super::stop::Summary;
use super::{Node, token};
use crate::control::channel::ChannelEvent;
use crate::control::overlay::{self, Received};
use crate::control::report::REPORT_SINCE;
use crate::handoff::PeerEvent;
use crate::limits;
use crate::policy::PolicyHash;
use crate::tun::offload::{self, Frame};
use mio::Events;
use mio::event::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io;
use std::time::{Duration, Instant};

impl Node {
    /// Runs until it is told to stop.
    pub fn run(mut self) -> io::Result<Summary> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_WAKE);
        log::info!("ready: node={}", self.identity.name);
        loop {
            let patience = self.patience(clock());
            match self.poll.poll(&mut events, patience) {
                // A wait that a signal ends tells nothing, and a process that was stopped has missed much: asked again at once.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = clock();
            self.wake(&events, now);
            if self.may_end(now) {
                return Ok(self.end(now));
            }
        }
    }

    /// How long the loop may sleep.
    fn patience(&mut self, now: Instant) -> Option<Duration> {
        if self.tun_ready || self.overlay_ready {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            Some(self.pulse.poll_timeout()),
            Some(self.listeners.poll_timeout()),
            Some(self.promises.poll_timeout()),
            Some(self.watch.poll_timeout()),
            self.links.poll_timeout(),
            Some(self.rules.poll_timeout()),
            self.applications.poll_timeout(),
            self.files.poll_timeout(),
            self.probes.poll_timeout(),
            self.engine.poll_timeout(),
            self.channel.poll_timeout(),
            self.admin.poll_timeout(),
            self.metrics.as_ref().and_then(|metrics| metrics.poll_timeout()),
            self.phase.poll_timeout(),
        ];
        deadlines.into_iter().flatten().min().map(|deadline| deadline.saturating_duration_since(now))
    }

    /// One turn. The engine hears of a stall before anything else, and of deadlines after the packets that came in time.
    fn wake(&mut self, events: &Events, now: Instant) {
        self.counters.wakes += 1;
        if self.pulse.stalled(now) {
            self.counters.stalls += 1;
            log::warn!(
                "the loop stood still for too long (a stopped process or an overloaded host); held connections stay local"
            );
            self.engine.handle_stall(now);
            self.settle(now);
        }
        if self.pulse.is_due(now) {
            let all_written = self.host.beat();
            self.pulse.beat(all_written, now);
        }
        for event in events {
            self.handle_event(event, now);
        }
        let deadline_has_passed = self.engine.poll_timeout().is_some_and(|deadline| deadline <= now);
        if deadline_has_passed {
            // Between the end of the wait and the reading of the clock packets may have come, too.
            self.tun_ready = true;
            self.overlay_ready = true;
        }
        if self.tun_ready {
            self.tun_ready = !self.read_tun(limits::PACKETS_PER_WAKE, now);
        }
        if self.overlay_ready {
            self.overlay_ready = !self.read_overlay(limits::PACKETS_PER_WAKE, now);
        }
        if self.overdue.fires(deadline_has_passed, !self.tun_ready && !self.overlay_ready, now) {
            self.engine.handle_timeout(now);
            self.settle(now);
        }
        if self.channel.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.channel.handle_timeout(self.poll.registry(), now);
            self.handle_channel(now);
        }
        self.look_at_cluster_file(now);
        self.ask_listeners(now);
        self.check_applications(now);
        self.compare_files(now);
        self.probe_peers(now);
        self.look_after_rules(now);
        self.probe_links(now);
        self.review_settings(now);
        self.admin.handle_timeout(self.poll.registry(), now);
        self.answer_requests(now);
        self.answer_scrapers(now);
        self.finish_wake(now);
    }

    fn handle_event(&mut self, event: &Event, now: Instant) {
        match event.token() {
            token::TUN => self.tun_ready = true,
            token::OVERLAY => self.overlay_ready = true,
            token::SIGNALS => self.handle_signals(now),
            token::CLUSTER_FILE => self.watch.handle_event(now),
            token if self.applications.owns(token) => self.handle_check(event, now),
            token if self.probes.owns(token) => self.handle_probe(token, now),
            token if self.admin.owns(token) => self.admin.handle_event(event, self.poll.registry(), now),
            token if self.metrics.as_ref().is_some_and(|metrics| metrics.owns(token)) => {
                if let Some(metrics) = &mut self.metrics {
                    metrics.handle_event(event, self.poll.registry(), now);
                }
            }
            token if self.channel.owns(token) => {
                self.channel.handle_event(event, self.poll.registry(), now);
                self.handle_channel(now);
            }
            // A source that was closed by an earlier event of this wake.
            token => log::trace!("an event for nobody: {token:?}"),
        }
    }

    fn handle_signals(&mut self, now: Instant) {
        let signals: Vec<_> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGTERM | SIGINT => {
                    let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
                    // The second one means now.
                    let again = matches!(self.phase, super::stop::Phase::Stopping(_));
                    self.begin_stop(again.then_some(Duration::ZERO), name, now);
                }
                SIGHUP => {
                    // The outcome is in the log and in `status`.
                    let _ = self.reload("SIGHUP", now);
                }
                SIGUSR1 => match &mut self.connection_log {
                    Some(log) => log.reopen(),
                    None => log::info!("SIGUSR1: there is no connection log to open again (--connection-log FILE)"),
                },
                _ => {}
            }
        }
    }

    /// Reads from the TUN; whether it has no more.
    pub(super) fn read_tun(&mut self, packets_max: usize, now: Instant) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut empty = false;
        for _ in 0..packets_max {
            let Some(mut frame) = self.host.receive(&mut buffer) else {
                empty = true;
                break;
            };
            self.take_packet(Source::Tun, &mut frame, now);
        }
        self.buffer = buffer;
        self.host.send_lesson(empty);
        self.host.flush();
        // Before others get their turn.
        self.overlay.flush();
        empty
    }

    /// Reads from the overlay; whether it has no more.
    fn read_overlay(&mut self, packets_max: usize, now: Instant) -> bool {
        // The room that a header of the overlay leaves is enough for one of the TUN.
        const { assert!(overlay::HEADER_BYTES >= offload::HEADER_BYTES) };
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.set_joins(self.host.offloads());
        let mut turn = overlay::Turn::new(packets_max);
        let empty = loop {
            let (from, packet, offload) = match self.overlay.receive(&mut inbox, &mut turn) {
                Received::Packet(from, packet, offload) => (from, packet, offload),
                Received::Empty => break true,
                Received::TurnIsOver => break false,
            };
            let mut frame = Frame::new(inbox.packet(packet, offload::HEADER_BYTES), offload);
            self.take_packet(Source::Overlay(from), &mut frame, now);
        };
        self.inbox = inbox;
        self.host.send_lesson(false);
        empty
    }

    /// Passes on what happened on the control channel; whether anything did.
    fn handle_channel(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.channel.poll_event() {
            any = true;
            match event {
                ChannelEvent::Up { peer, epoch, settings, version, address, keys } => {
                    // Not compared with what this host had up to a second ago.
                    self.read_settings(now);
                    self.promises.hear(peer, settings, &self.policy);
                    self.overlay.set_keys(peer, address, keys);
                    self.engine.handle_peer(peer, PeerEvent::Up(epoch), now);
                    if version >= REPORT_SINCE {
                        self.engine.expect_reports(peer);
                        self.probes.come_up(peer, now);
                    }
                }
                ChannelEvent::Down { peer, reason: _ } => {
                    self.promises.forget(peer);
                    self.files.forget(peer);
                    self.distrust_links(peer);
                    self.engine.handle_peer(peer, PeerEvent::Down, now);
                }
                ChannelEvent::Settings { peer, settings } => self.promises.hear(peer, settings, &self.policy),
                ChannelEvent::Draining { peer, draining } => {
                    self.engine.handle_peer(peer, PeerEvent::Draining(draining), now);
                }
                ChannelEvent::Report { peer, report } => {
                    self.files.hear(peer, PolicyHash(report.policy), self.policy.hash, now);
                    self.engine.handle_report(peer, &report, now);
                }
                ChannelEvent::Message { peer, message } => self.engine.handle_message(peer, message, now),
            }
            self.settle(now);
        }
        any
    }

    /// Once per wake: guards that are not urgent, what is gathered for the overlay, and one write for each peer.
    pub(super) fn finish_wake(&mut self, now: Instant) {
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
        if let Some(log) = &mut self.connection_log {
            log.flush();
        }
        if !self.guards.is_empty() {
            self.write_guards();
        }
        self.unlearn();
        loop {
            self.overlay.flush();
            self.channel.flush(self.poll.registry(), now);
            // A peer that cannot be written to is down, and the engine may have something to say to others about it.
            if !self.handle_channel(now) {
                return;
            }
        }
    }
}
