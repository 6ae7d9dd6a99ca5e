//! Between the engine and the descriptors: verdicts and outputs become writes, and answers come back.

use super::Node;
use super::clock::clock;
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::{Output, SocketState, Verdict};
use crate::rewrite::{Offload, Pieces, Segment, ToServerWire};
use crate::tun::offload::{Frame, HEADER_BYTES};
use std::num::NonZeroU16;
use std::time::Instant;

/// What the engine asked for and will be told.
#[derive(Debug)]
pub(super) enum Answer {
    Guard { flow: FlowKey, written: bool },
    Socket { local: Endpoint, remote: Endpoint, state: SocketState },
}

/// Where a packet came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Tun,
    Overlay(NodeId),
}

impl Node {
    /// The one way in for packets: the engine sees it, its verdict is obeyed, and so is everything else it says.
    pub(super) fn take_packet(&mut self, from: Source, frame: &mut Frame<'_>, now: Instant) {
        let offload = frame.offload();
        self.host.send_lesson(false);
        let arrival = self.recording.as_ref().map(|_| self.arrival(from, frame));
        let verdict = match from {
            Source::Tun => self.engine.handle_tun(frame.packet_mut(), offload, now),
            Source::Overlay(peer) => self.engine.handle_overlay_offloaded(peer, frame.packet_mut(), offload, now),
        };
        if let Some(arrival) = arrival {
            self.record_arrival(from, &arrival, verdict, frame.packet(), now);
        }
        if verdict == Verdict::Cut {
            return self.take_pieces(from, frame, now);
        }
        self.obey(verdict, from, frame, now);
        self.settle(now);
    }

    /// The same for every piece of a super-segment.
    fn take_pieces(&mut self, from: Source, frame: &Frame<'_>, now: Instant) {
        let Ok(mut pieces) = Pieces::of(frame.packet(), &frame.offload(), usize::MAX) else { return };
        let mut piece = vec![0; HEADER_BYTES + frame.packet().len()];
        while let Some(length) = pieces.write_next(&mut piece[HEADER_BYTES..]) {
            self.take_packet(from, &mut Frame::new(&mut piece[..HEADER_BYTES + length], Offload::NONE), now);
        }
    }

    /// What the engine said about the packet in hand, which it rewrote in place.
    fn obey(&mut self, verdict: Verdict, from: Source, frame: &mut Frame<'_>, now: Instant) {
        if self.recording.is_some() {
            self.record_verdict(verdict, frame, now);
        }
        match verdict {
            Verdict::Write => {
                if !self.guards.is_empty() {
                    self.write_guards();
                }
                match from {
                    Source::Tun => self.host.send_continued(frame),
                    // Joined already.
                    Source::Overlay(_) => self.host.send_frame(frame),
                }
            }
            Verdict::Local => self.host.send_local(frame),
            Verdict::Forward(peer) => self.send_on_overlay(peer, frame.packet(), &frame.offload()),
            Verdict::ForwardOnLink(peer) => self.send_on_link(peer, frame.packet(), &frame.offload(), now),
            // A piece is not cut again: it is plain.
            Verdict::Cut | Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    /// Sends a client's packet to its owner. One that is too long, of a client that was promised a link, is cut: its checksum
    /// must be right then, since the pieces get their own.
    pub(super) fn send_on_overlay(&mut self, peer: NodeId, packet: &[u8], offload: &Offload) {
        let fits = packet.len() <= self.overlay_packet_bytes_max;
        if fits
            || *offload != Offload::NONE
            || !Segment::<_, ToServerWire>::parse(packet).is_ok_and(|it| it.checksums_are_right())
        {
            return self.overlay.send_offloaded(peer, packet, offload);
        }
        self.counters.cut_for_overlay += 1;
        self.overlay.send_offloaded(peer, packet, &Offload { segment_bytes: Some(NonZeroU16::MAX), ..Offload::NONE });
    }

    /// Does everything the engine says, until it says nothing more and has all its answers.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                // Consecutive guards are gathered; anything else must find them written. A packet must find them removed,
                // too: a guard that a dying process leaves behind would cut what the packet begins.
                let must_be_written = match output {
                    Output::Guard(_) => false,
                    Output::Packet(..) | Output::Local(..) => !self.guards.is_empty(),
                    _ => self.guards.has_additions(),
                };
                if must_be_written {
                    self.write_guards();
                }
                if self.recording.is_some() {
                    self.record_output(&output, now);
                }
                self.perform(output);
            }
            if self.guards.has_additions() {
                self.write_guards();
            }
            match self.answers.pop_front() {
                Some(Answer::Guard { flow, written }) => self.engine.handle_guard(flow, written, now),
                Some(Answer::Socket { local, remote, state }) => self.engine.handle_socket(local, remote, state, now),
                None => break,
            }
        }
        self.log_connections(now);
        // What is said from now on is about something else.
        self.engine.take_remarks();
    }

    fn perform(&mut self, output: Output) {
        self.host.flush();
        match output {
            Output::Packet(packet, _) => self.host.send(&packet),
            Output::Local(packet, _) => self.host.teach(packet),
            Output::Forward(peer, packet, _) => self.send_on_overlay(peer, &packet, &Offload::NONE),
            Output::Message(peer, message) => {
                if !self.channel.send(peer, &message) {
                    self.counters.messages_lost += 1;
                }
            }
            Output::Guard(flow) => self.guards.add(flow),
            Output::Unguard(flow) => self.guards.remove(flow),
            Output::Unlink(peer, flow) => self.unlearn_later(peer, flow),
            Output::LinkAnswered { peer, is_ipv4, number } => self.hear_link_answer(peer, is_ipv4, number),
            Output::AskSocket { local, remote } => self.ask_socket(local, remote),
            Output::DestroySocket { local, remote } => match self.host.sockets.destroy(local, remote) {
                Ok(destroyed) => self.counters.sockets_destroyed += u64::from(destroyed),
                Err(error) => self.question_failed("destroy a socket", &error),
            },
        }
    }

    fn ask_socket(&mut self, local: Endpoint, remote: Endpoint) {
        let state = self.host.sockets.state(local, remote).unwrap_or_else(|error| {
            self.question_failed("ask about a socket", &error);
            // The cautious answer: what may be alive is neither forgotten nor replaced.
            SocketState::Open
        });
        self.answers.push_back(Answer::Socket { local, remote, state });
    }

    fn question_failed(&mut self, what: &str, error: &std::io::Error) {
        let level = if self.counters.socket_questions_failed == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "sock_diag: cannot {what}: {error}; see `socket_questions_failed_total`");
        self.counters.socket_questions_failed += 1;
    }

    /// Changes guards in the kernel. From then on the guarded connections cannot reach the local kernel any more.
    ///
    /// Until then they could, if this process had not shown in time that it lives: so the clock is read once more, and
    /// if the last heartbeat is too old the guards count as not written. The next wake finds the stall and says so.
    pub(super) fn write_guards(&mut self) {
        self.host.flush();
        let capture = self.host.capture();
        let written = self.guards.write(|add, remove| capture.change_guards(add, remove));
        if written.is_empty() {
            return;
        }
        let stalled = self.pulse.stalled(clock());
        for (flow, written) in written {
            if stalled && written {
                self.guards.remove(flow);
            }
            self.answers.push_back(Answer::Guard { flow, written: written && !stalled });
        }
    }
}
