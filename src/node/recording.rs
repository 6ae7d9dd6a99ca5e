//! `--pcap`: every packet that passes this process, in a file that Wireshark opens, with a comment that says what was done
//! with it and why.
//!
//! Two interfaces: the TUN, and the overlay (the client's packet inside, not the sealed datagram). What is read is recorded
//! as it came, what is written as it leaves, so that a translated packet is there twice.

use super::Node;
use super::clock::wall_clock_nanoseconds;
use super::outputs::Source;
use super::pcapng::{self, Direction, Record};
use crate::handoff::{Output, Verdict};
use crate::limits;
use crate::rewrite::{Segment, ToServerWire};
use crate::tun::offload::Frame;
use anyhow::{Context, bail};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The first octets of any pcapng file.
const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Where a packet passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Between the kernel and this process.
    Tun,
    /// Between this process and a peer's.
    Overlay,
}

/// An open capture file.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
    /// Not written yet: one write for each wake, and what a pipe has no room for now.
    pending: Vec<u8>,
    bytes: u64,
    /// What the wall clock showed at an instant of the loop's clock. It is not asked again: packets keep their order even if
    /// somebody sets it.
    epoch: (Instant, u64),
    is_over: bool,
}

impl Recording {
    /// Creates the file, readable by its owner only: it will hold what clients send. An earlier capture is written over, any
    /// other file is not. It may be a pipe: the node does not wait for whoever reads it.
    pub fn create(path: &Path, device: &str, now: Instant) -> anyhow::Result<Self> {
        let place = path.display();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path);
        let mut file = file.with_context(|| format!("cannot create the capture file {place}"))?;
        if file.metadata().with_context(|| format!("cannot look at {place}"))?.file_type().is_file() {
            if !may_be_replaced(&mut file).with_context(|| format!("cannot read {place}"))? {
                bail!("{place} exists and is no capture: choose another file for --pcap, or remove it");
            }
            file.set_len(0).with_context(|| format!("cannot empty {place}"))?;
        }
        // A file that a limit (`ulimit -f`) keeps from growing would end the process instead of the recording.
        signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).context("cannot catch SIGXFSZ")?;
        let mut recording = Self {
            path: path.to_owned(),
            file,
            pending: Vec::new(),
            bytes: 0,
            epoch: (now, wall_clock_nanoseconds()),
            is_over: false,
        };
        pcapng::section_header(&mut recording.pending, concat!("baton ", env!("CARGO_PKG_VERSION")));
        pcapng::interface(&mut recording.pending, device, "between the kernel and baton");
        pcapng::interface(&mut recording.pending, "overlay", "client packets between baton and its peers, unsealed");
        recording.write().with_context(|| format!("cannot write to {place}"))?;
        Ok(recording)
    }

    /// One packet.
    pub fn packet(&mut self, place: Place, direction: Direction, packet: &[u8], comment: &str, now: Instant) {
        if self.is_over {
            return;
        }
        let (then, wall_clock) = self.epoch;
        let elapsed = u64::try_from(now.saturating_duration_since(then).as_nanos()).unwrap_or(u64::MAX);
        let record = Record {
            interface: match place {
                Place::Tun => 0,
                Place::Overlay => 1,
            },
            time: wall_clock.saturating_add(elapsed),
            direction,
            packet,
            comment,
        };
        pcapng::packet(&mut self.pending, &record);
        if self.pending.len() >= limits::RECORDING_BUFFER_BYTES {
            self.flush();
        }
    }

    /// Writes what is pending. A file that cannot grow ends the recording, not the node.
    pub fn flush(&mut self) {
        if self.is_over || self.pending.is_empty() {
            return;
        }
        let why = match self.write() {
            Err(error) => format!("{error}"),
            Ok(()) if self.bytes >= limits::RECORDING_BYTES_MAX => format!("it has {} octets, the most there may be", self.bytes),
            Ok(()) => return,
        };
        log::warn!("--pcap: {} ends here: {why}", self.path.display());
        self.is_over = true;
        self.pending = Vec::new();
    }

    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.pending.len() {
            match self.file.write(&self.pending[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(octets) => written += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes += written as u64;
        self.pending.drain(..written);
        if self.pending.len() > limits::RECORDING_UNREAD_BYTES_MAX {
            return Err(io::Error::other("it is a pipe, and nobody reads it fast enough"));
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A packet that is about to be handled: as it came, and whose it is.
pub(super) struct Arrival {
    packet: Vec<u8>,
    whose: String,
}

impl Node {
    pub(super) fn arrival(&self, from: Source, frame: &Frame<'_>) -> Arrival {
        let packet = frame.packet();
        let whose = match from {
            Source::Tun => self.engine.describe_tun(packet),
            Source::Overlay(_) => self.engine.describe_overlay(packet),
        };
        Arrival { packet: plain(frame), whose }
    }

    /// The packet was handled: `rewritten` is what it has become.
    pub(super) fn record_arrival(&mut self, from: Source, arrival: &Arrival, verdict: Verdict, rewritten: &[u8], now: Instant) {
        let mut comment = format!("{}: {}", arrival.whose, self.engine.describe_verdict(verdict, rewritten));
        for remark in self.engine.take_remarks() {
            comment += "; ";
            comment += &remark;
        }
        let place = match from {
            Source::Tun => Place::Tun,
            Source::Overlay(_) => Place::Overlay,
        };
        if let Some(recording) = &mut self.recording {
            recording.packet(place, Direction::Inbound, &arrival.packet, &comment, now);
        }
    }

    /// What a verdict sends on.
    pub(super) fn record_verdict(&mut self, verdict: Verdict, frame: &Frame<'_>, now: Instant) {
        let place = match verdict {
            Verdict::Write | Verdict::Local => Place::Tun,
            Verdict::Forward(_) | Verdict::ForwardOnLink(_) => Place::Overlay,
            Verdict::Cut | Verdict::Consumed | Verdict::Drop(_) => return,
        };
        let comment = self.engine.describe_verdict(verdict, frame.packet());
        if let Some(recording) = &mut self.recording {
            recording.packet(place, Direction::Outbound, &plain(frame), &comment, now);
        }
    }

    /// What the engine originates, with what it has to say about that.
    pub(super) fn record_output(&mut self, output: &Output, now: Instant) {
        let (place, packet, why) = match output {
            Output::Packet(packet, why) | Output::Local(packet, why) => (Place::Tun, packet, why),
            Output::Forward(_, packet, why) => (Place::Overlay, packet, why),
            _ => return,
        };
        let mut comment = why.text().to_owned();
        for remark in self.engine.take_remarks() {
            comment += "; ";
            comment += &remark;
        }
        if let Some(recording) = &mut self.recording {
            recording.packet(place, Direction::Outbound, packet, &comment, now);
        }
    }
}

/// With a complete checksum: a reader knows nothing of what the kernel still has to do. A super-segment stays whole.
fn plain(frame: &Frame<'_>) -> Vec<u8> {
    let offload = frame.offload();
    if offload.partial_checksum.is_none() {
        return frame.packet().to_vec();
    }
    let segment = Segment::<_, ToServerWire>::parse_offloaded(frame.packet(), offload);
    segment.map_or_else(|_| frame.packet().to_vec(), |segment| segment.completed())
}

/// Empty, or a capture.
fn may_be_replaced(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    Read::by_ref(file).take(MAGIC.len() as u64).read_to_end(&mut start)?;
    io::Seek::rewind(file)?;
    Ok(start.is_empty() || start == MAGIC)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::time::Duration;

    /// A recording into a pipe, and the end to read from.
    fn into_a_pipe() -> (Recording, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        (Recording::create(Path::new(&path), "bt0", Instant::now()).unwrap(), reader)
    }

    fn record(recording: &mut Recording, packets: usize) {
        for _ in 0..packets {
            recording.packet(Place::Tun, Direction::Inbound, &[0x45; 1_500], "why", Instant::now());
            recording.flush();
        }
    }

    #[test]
    fn nobody_waits_for_a_pipe_that_nobody_reads() {
        let (says, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut recording, _reader) = into_a_pipe();
            record(&mut recording, 10_000);
            let _ = says.send((recording.is_over, recording.pending.len()));
        });
        assert_eq!(hears.recv_timeout(Duration::from_secs(20)), Ok((true, 0)), "the recording ends, and not the node");
    }

    #[test]
    fn what_a_pipe_has_no_room_for_follows_when_it_has() {
        let (mut recording, mut reader) = into_a_pipe();
        record(&mut recording, 300);
        assert!(!recording.is_over && !recording.pending.is_empty(), "a pipe has room for 64 KiB");
        let expected = recording.bytes as usize + recording.pending.len();
        let mut octets = Vec::new();
        while octets.len() < expected {
            let mut buffer = [0; 4_096];
            let count = reader.read(&mut buffer).unwrap();
            octets.extend_from_slice(&buffer[..count]);
            recording.flush();
        }
        assert!(octets.starts_with(&MAGIC) && recording.pending.is_empty());
        assert_eq!(octets.len(), expected);
    }
}
