//! What this process has changed on the host, in one value that undoes it when it is dropped.

use super::held::Held;
use super::lesson::Lesson;
use crate::rewrite::set_hop_limit;
use crate::tun::capture::{Capture, HOP_LIMIT_TEACHES};
use crate::tun::device::{Device, SuperSegments};
use crate::tun::learned::Learned;
use crate::tun::offload::{Frame, HEADER_BYTES};
use crate::tun::sock_diag::SockDiag;
use std::io;

/// The TUN, the capture, and questions to the kernel.
#[derive(Debug)]
pub struct Host {
    // Before the device: while sockets on aliases are destroyed, their last packets still end in the TUN.
    capture: Option<Capture>,
    device: Device,
    pub sockets: SockDiag,
    pub counters: TunCounters,
    lesson: Lesson,
    held: Held,
}

/// Packets between the kernel and this process.
#[derive(Clone, Debug, Default)]
pub struct TunCounters {
    pub read_packets: u64,
    pub read_bytes: u64,
    pub read_errors: u64,
    /// The kernel's header for a packet did not fit it.
    pub read_bad_headers: u64,
    pub written_packets: u64,
    pub written_bytes: u64,
    /// The kernel's queue was full; TCP sends again.
    pub write_queue_full: u64,
    pub write_errors: u64,
}

impl TunCounters {
    /// What the kernel does not take is counted, and TCP sends it again; an error is told that is more than a full queue.
    fn count_written(&mut self, bytes: usize, result: io::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) => {
                self.written_packets += 1;
                self.written_bytes += bytes as u64;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.write_queue_full += 1;
                Ok(())
            }
            Err(error) => {
                self.write_errors += 1;
                Err(error)
            }
        }
    }
}

/// Whether the kernel has no room now, and may have some later.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

impl Host {
    pub fn new(device: Device, sockets: SockDiag, capture: Capture) -> Self {
        Self {
            capture: Some(capture),
            device,
            sockets,
            counters: TunCounters::default(),
            lesson: Lesson::none(),
            held: Held::new(),
        }
    }

    pub fn device_name(&self) -> &str {
        self.device.name()
    }

    pub fn capture(&mut self) -> &mut Capture {
        self.capture.as_mut().expect("capture ends with the loop")
    }

    /// What the kernel has learned; zeros where somebody has removed our rules, None where it does not learn.
    pub fn learned(&self) -> Option<Learned> {
        self.capture.as_ref()?.learned().unwrap_or_else(|error| {
            log::debug!("the counters of inet baton cannot be read: {error}");
            Some(Learned::default())
        })
    }

    /// Whether the TUN has offload now.
    pub fn offloads(&self) -> bool {
        self.device.offloads()
    }

    /// What went through the TUN in super-segments.
    pub fn super_segments(&self) -> SuperSegments {
        self.device.super_segments()
    }

    /// The next packet from the TUN, in a buffer for the longest frame; None when there is none.
    pub fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Option<Frame<'b>> {
        loop {
            match self.device.receive(buffer) {
                Ok((length, offload)) => {
                    self.counters.read_packets += 1;
                    self.counters.read_bytes += length as u64;
                    return Some(Frame::new(&mut buffer[..HEADER_BYTES + length], offload));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.counters.read_bad_headers += 1,
                Err(error) => {
                    if self.counters.read_errors == 0 {
                        log::warn!("cannot read from {}: {error}; is it up?", self.device.name());
                    }
                    self.counters.read_errors += 1;
                    return None;
                }
            }
        }
    }

    /// Writes a packet that needs nothing more.
    pub fn send(&mut self, packet: &[u8]) {
        self.flush();
        let result = self.device.send(packet);
        self.count_written(packet.len(), result);
    }

    /// Writes a packet by which the kernel may learn its connection, whose client sends nothing before it hears the server: so
    /// nothing that could be overtaken is in the TUN.
    pub fn teach(&mut self, mut packet: Vec<u8>) {
        set_hop_limit(&mut packet, HOP_LIMIT_TEACHES);
        self.send(&packet);
    }

    /// Writes a packet to the TUN with what is left to do for it.
    pub fn send_frame(&mut self, frame: &mut Frame<'_>) {
        self.flush();
        self.write(frame);
    }

    /// The same, of a packet from the TUN that the next one may continue: it may wait, until that is known, for
    /// [`Host::flush`].
    pub fn send_continued(&mut self, frame: &mut Frame<'_>) {
        if self.held.add(frame) {
            return;
        }
        self.flush();
        if !self.held.keep(frame) {
            self.write(frame);
        }
    }

    /// Writes what waits to be continued. To be called before anything is done that must find it written.
    pub fn flush(&mut self) {
        if let Some(mut frame) = self.held.take() {
            let (length, result) = (frame.packet().len(), self.device.send_frame(&mut frame));
            self.count_written(length, result);
        }
    }

    /// Packets that left in one write with the one before.
    pub fn joined_packets(&self) -> u64 {
        self.held.joined_packets
    }

    fn write(&mut self, frame: &mut Frame<'_>) {
        let result = self.device.send_frame(frame);
        self.count_written(frame.packet().len(), result);
    }

    /// The same, of a connection that the local server serves and the kernel may learn: if this is a packet that may teach,
    /// it waits until it is known whether it was the last one.
    pub fn send_local(&mut self, frame: &mut Frame<'_>) {
        if !self.lesson.keep(frame) {
            self.send_frame(frame);
        }
    }

    /// Before anything else is written: what waits goes first, and `teaches` if nothing is behind it in the TUN.
    pub fn send_lesson(&mut self, teaches: bool) {
        if self.lesson.is_none() {
            return;
        }
        self.flush();
        if let Some(mut frame) = self.lesson.take() {
            if teaches {
                set_hop_limit(frame.packet_mut(), HOP_LIMIT_TEACHES);
            }
            let (length, result) = (frame.packet().len(), self.device.send_frame(&mut frame));
            self.count_written(length, result);
        }
    }

    fn count_written(&mut self, bytes: usize, result: io::Result<()>) {
        if let Err(error) = self.counters.count_written(bytes, result)
            && self.counters.write_errors == 1
        {
            log::warn!("cannot write to {}: {error}; is it up?", self.device.name());
        }
    }

    /// Shows the kernel that this process lives; whether all signs went out.
    pub fn beat(&mut self) -> bool {
        let heartbeats = self.capture.as_ref().map_or(&[][..], Capture::heartbeats);
        let written = heartbeats.iter().filter(|packet| self.device.send(packet).is_ok()).count();
        self.counters.written_packets += written as u64;
        self.counters.write_errors += (heartbeats.len() - written) as u64;
        written == heartbeats.len()
    }

    /// Puts the host back as it was; false when something resisted (the log says what).
    pub fn restore(&mut self) -> bool {
        let Some(capture) = self.capture.take() else { return true };
        match capture.restore() {
            Ok(()) => {
                log::info!("stop: the host is as it was");
                true
            }
            Err(error) => {
                log::warn!("stop: the host could not be put back entirely: {error:#}");
                false
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.capture.is_some() {
            log::warn!("stop: unexpected; putting the host back as it was");
            self.restore();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_finds_no_room_is_counted_as_such_and_is_no_error() {
        let mut counters = TunCounters::default();
        for code in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
            assert!(counters.count_written(100, Err(io::Error::from_raw_os_error(code))).is_ok());
        }
        assert!(counters.count_written(100, Err(io::Error::from_raw_os_error(libc::EIO))).is_err());
        assert!(counters.count_written(100, Ok(())).is_ok());
        let TunCounters { written_packets, written_bytes, write_queue_full, write_errors, .. } = counters;
        assert_eq!((written_packets, written_bytes, write_queue_full, write_errors), (1, 100, 3, 1));
    }
}
