//! Netlink messages and their exchange with the kernel: the transport under rtnetlink, nf_tables and sock_diag.
//!
//! Synchronous on purpose: the kernel answers a request before `send` returns, so nothing here ever waits for anybody.
//! Only the attributes that are asked for are parsed, so newer kernels may add what they like.

use netlink_sys::{Socket, SocketAddr};
use std::io;

pub(super) const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(super) const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
pub(super) const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;
pub(super) const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
const NLM_F_DUMP_INTR: u16 = libc::NLM_F_DUMP_INTR as u16;
/// The extended answer carries attributes: among them a sentence (linux/netlink.h).
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Set on attributes that hold attributes.
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const HEADER: usize = 16;
/// The kernel never sends more in one datagram.
const RECEIVE_BYTES: usize = 64 << 10;
/// How often a dump that others' changes interrupted is taken again.
const DUMP_ATTEMPTS: usize = 10;

/// Writes messages one after the other into a buffer that is kept.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    message: usize,
}

/// Where an attribute that holds attributes began.
#[must_use]
pub(super) struct Nest(usize);

impl Writer {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a message; [`Writer::end`] closes it.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// The protocol's fixed header.
    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    pub(super) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let length = 4 + payload.len() as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.align();
    }

    pub(super) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A name, with the zero octet the kernel wants behind it.
    pub(super) fn attribute_name(&mut self, kind: u16, name: &str) {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    pub(super) fn open(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nest(at)
    }

    pub(super) fn close(&mut self, nest: Nest) {
        let length = (self.bytes.len() - nest.0) as u16;
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn end(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: number and payload.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The first attribute of this number.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, payload)| (found == kind).then_some(payload))
}

/// A number in host order; None when it is not four octets.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A name without the zero octet behind it.
pub(super) fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&octet| octet == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A netlink socket and the requests made over it.
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
    /// The request being written, see [`Connection::request`].
    pub(super) writer: Writer,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens a socket of this netlink protocol (`netlink_sys::protocols`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Both only make errors shorter and readable; an old kernel without them is as good.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(RECEIVE_BYTES), writer: Writer::default() })
    }

    /// A number no request over this socket has used yet.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Begins the only message of a request in `self.writer`.
    pub(super) fn request(&mut self, kind: u16, flags: u16) -> &mut Writer {
        let sequence = self.next_sequence();
        self.writer.clear();
        self.writer.begin(kind, flags | NLM_F_REQUEST, sequence);
        &mut self.writer
    }

    /// Sends the request in `self.writer` and takes its acknowledgement.
    pub(super) fn execute(&mut self) -> io::Result<()> {
        self.writer.end();
        self.transmit()?;
        self.acknowledgement(self.sequence)
    }

    /// Sends the request in `self.writer` and gives its one answer to `read`; None when the kernel only acknowledges.
    pub(super) fn ask<T>(&mut self, read: impl FnOnce(Message<'_>) -> T) -> io::Result<Option<T>> {
        self.writer.end();
        self.transmit()?;
        loop {
            self.receive()?;
            for message in messages(&self.received) {
                if message.sequence != self.sequence {
                    continue;
                }
                return match message.kind as i32 {
                    libc::NLMSG_ERROR => verdict(message).map(|()| None),
                    _ => Ok(Some(read(message))),
                };
            }
        }
    }

    /// Sends the request in `self.writer` (a dump) and collects what `read` makes of the answers.
    pub(super) fn dump<T>(&mut self, mut read: impl FnMut(Message<'_>) -> Option<T>) -> io::Result<Vec<T>> {
        self.writer.end();
        for _ in 0..DUMP_ATTEMPTS {
            self.transmit()?;
            let mut found = Vec::new();
            if self.dumped(|message| found.extend(read(message)))? == Dump::Consistent {
                return Ok(found);
            }
        }
        Err(io::Error::other("what was to be listed kept changing"))
    }

    fn dumped(&mut self, mut read: impl FnMut(Message<'_>)) -> io::Result<Dump> {
        let mut dump = Dump::Consistent;
        loop {
            self.receive()?;
            for message in messages(&self.received) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Interrupted;
                }
                match message.kind as i32 {
                    libc::NLMSG_DONE => return verdict(message).map(|()| dump),
                    libc::NLMSG_ERROR => return verdict(message).map(|()| dump),
                    _ => read(message),
                }
            }
        }
    }

    /// Takes the acknowledgement of the message with this number.
    pub(super) fn acknowledgement(&mut self, sequence: u32) -> io::Result<()> {
        loop {
            self.receive()?;
            let answer = messages(&self.received)
                .find(|message| message.sequence == sequence && i32::from(message.kind) == libc::NLMSG_ERROR);
            if let Some(message) = answer {
                return verdict(message);
            }
        }
    }

    /// Declares the numbers up to this one used.
    pub(super) fn skip_to_sequence(&mut self, sequence: u32) {
        self.sequence = sequence;
    }

    /// Takes the answers to a batch until its `last` message is answered; errors go to `failed` with the number of
    /// their message. An error of the batch as a whole carries the number of its first message and ends the wait.
    pub(super) fn acknowledgements(&mut self, first: u32, last: u32, mut failed: impl FnMut(u32, io::Error)) -> io::Result<()> {
        loop {
            self.receive()?;
            let in_batch = |message: &Message<'_>| message.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
            for message in messages(&self.received).filter(in_batch) {
                if i32::from(message.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                let verdict = verdict(message);
                if message.sequence == first {
                    return verdict;
                }
                if let Err(error) = verdict {
                    failed(message.sequence, error);
                }
                if message.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends what is in `self.writer`.
    pub(super) fn transmit(&self) -> io::Result<()> {
        loop {
            match self.socket.send(self.writer.bytes(), 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the kernel take filters of listings seriously (`NETLINK_GET_STRICT_CHK`, Linux 4.20).
    pub(super) fn set_strict_checks(&self) -> io::Result<()> {
        self.socket.set_netlink_get_strict_chk(true)
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Dump {
    Consistent,
    Interrupted,
}

/// What an acknowledgement says: the error number, and the kernel's sentence when there is one.
fn verdict(message: Message<'_>) -> io::Result<()> {
    let code = message.payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code >= 0 {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(-code);
    let is_error = i32::from(message.kind) == libc::NLMSG_ERROR;
    // Behind the code stands the header of the request, and when the answer is not capped the rest of it.
    let request = if !is_error {
        0
    } else if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = message.payload.get(4..8).and_then(number).unwrap_or(0) as usize;
        length.next_multiple_of(4)
    };
    let sentence = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| message.payload.get(4 + request..))
        .flatten()
        .and_then(|bytes| attribute(bytes, NLMSGERR_ATTR_MSG));
    match sentence {
        Some(sentence) => Err(io::Error::new(error.kind(), KernelError { error, sentence: name(sentence) })),
        None => Err(error),
    }
}

/// An error number together with the sentence the kernel sent.
#[derive(Debug, thiserror::Error)]
#[error("{error}: {sentence}")]
struct KernelError {
    error: io::Error,
    sentence: String,
}

/// The error number behind an error of this module.
pub(super) fn error_number(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<KernelError>()?;
        inner.error.raw_os_error()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let mut writer = Writer::default();
        writer.begin(1, 0, 7);
        writer.attribute_name(3, "bt0");
        let nest = writer.open(4);
        writer.attribute(5, &[1]);
        writer.attribute_u32(6, 9);
        writer.close(nest);
        writer.end();
        let message = messages(writer.bytes()).next().unwrap();
        assert_eq!((message.kind, message.sequence), (1, 7));
        assert_eq!(name(attribute(message.payload, 3).unwrap()), "bt0");
        let inner = attribute(message.payload, 4).unwrap();
        assert_eq!(attribute(inner, 5), Some(&[1][..]));
        assert_eq!(attribute(inner, 6).and_then(number), Some(9));
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        assert_eq!(attributes(&[200, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).count(), 1);
        assert_eq!(messages(&[255; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
