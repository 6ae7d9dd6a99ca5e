//! What scripts say: packetdrill's notation of packets and times, and our own lines for the application.
//! `docs/packet-scripts.md` has the whole of it.
//!
//! Knows text. Must not know connections: every number here is relative, as it is written.

mod packet;
mod read;

use std::collections::BTreeSet;
use std::time::Duration;

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Of the file, without its ending.
    pub name: String,
    /// The file, as it was named.
    pub file: String,
    /// The comment at the beginning: which rule it holds.
    pub about: Vec<String>,
    /// What its `--` lines say.
    pub settings: Settings,
    /// In their order.
    pub lines: Vec<Line>,
}

/// What `--name=value` lines say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much later than it says a packet may come.
    pub late: Duration,
    /// How much earlier.
    pub early: Duration,
    /// Connections of this script that are handed off when its request is one for a peer.
    pub handoffs: u32,
    /// The families in which it runs.
    pub families: BTreeSet<u8>,
    /// The client's initial sequence number; None: one that depends on the script's name.
    pub isn: Option<u32>,
    /// A control: the line that must fail, and a word of its complaint.
    pub must_fail: Option<(usize, String)>,
    /// A difference that is known: in this way that line fails so.
    pub differs: Option<(String, usize, String)>,
    /// Servers whose kernels look for the size of the path themselves; who plays scripts has to see to that.
    pub is_probing: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // On a machine that does other things too, everything comes late now and then; nothing comes early.
            late: Duration::from_millis(400),
            early: Duration::from_millis(5),
            handoffs: 1,
            families: BTreeSet::from([4, 6]),
            isn: None,
            must_fail: None,
            differs: None,
            is_probing: false,
        }
    }
}

/// One line: when, and what.
#[derive(Clone, Debug)]
pub struct Line {
    /// In its file, from 1.
    pub number: usize,
    /// As it is written.
    pub text: String,
    /// When.
    pub time: Time,
    /// What.
    pub event: Event,
}

/// Relative to the line before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    /// `+.5`: then.
    After(Duration),
    /// `+.5~+.7`: at any moment between the two.
    Between(Duration, Duration),
    /// `*`: whenever.
    Any,
}

/// What a line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// `<`: the client sends this.
    Send(Packet),
    /// `< [1:1001(1000)] icmp ... mtu N`: a router says that what the client should have got was too big.
    SendTooBig {
        /// Sequence number of the segment that was too big.
        seq: u32,
        /// What fits.
        mtu: u16,
    },
    /// `>`: this comes out.
    Expect(Packet),
    /// `>?`: this may come out here.
    Allow(Packet),
    /// `none`: until then nothing comes out.
    Silence,
    /// `app:`
    App(App),
}

/// A packet as a script says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// `[ect0]`, `[ect1]`, `[ce]`, `[noecn]`: the two bits of the IP header. Not said: none is sent, any is expected.
    pub ecn: Option<u8>,
    /// The flags; None (`...`): any.
    pub flags: Option<u8>,
    /// Relative to the sender's ISN.
    pub seq: u32,
    /// Octets of payload.
    pub length: u32,
    /// Relative to the receiver's ISN; None: no ACK is sent, and none expected.
    pub ack: Option<u32>,
    /// Unscaled. Not said: the largest is sent, any expected.
    pub window: Option<u16>,
    /// The urgent pointer.
    pub urgent: Option<u16>,
    /// Not said: timestamps if they were agreed on, and nothing else.
    pub options: Options,
    /// Other octets than those of the stream.
    pub payload: Option<Vec<u8>>,
}

/// The options of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Options {
    /// Not said.
    Usual,
    /// `<...>`
    Any,
    /// These, in this order; padding does not count in comparisons.
    These(Vec<OptionSpec>),
}

/// An option; None: `...`, any value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionSpec {
    /// `nop`
    Nop,
    /// `eol`
    End,
    /// `mss 1000`
    Mss(Option<u16>),
    /// `wscale 7`
    WindowScale(Option<u8>),
    /// `sackOK`
    SackPermitted,
    /// `sack 1:1001 2001:3001`; relative to the ISN of whose octets they name.
    Sack(Vec<(u32, u32)>),
    /// `TS val 100 ecr 0`. Sent: `...` is the peer's clock, and the last TSval that came.
    Timestamps(Option<u32>, Option<u32>),
    /// `kind 254 0x0102`: any other.
    Other(u8, Vec<u8>),
}

/// What the application at the server does. Each of them ends before the next line begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum App {
    /// `read 26`: so many octets, which are those that the client sent.
    Read(u32),
    /// `read eof`: the client has ended its stream.
    ReadEnd,
    /// `read ECONNRESET`: reading gives this error.
    ReadError(String),
    /// `read nothing`: there is nothing to read, and no end.
    ReadNothing,
    /// `oob`: the urgent octet, as `recv(MSG_OOB)` has it.
    ReadUrgent,
    /// `write 1000`: in one call as far as it takes them, the rest when it can.
    Write(u32),
    /// `write EPIPE`: writing an octet gives this error.
    WriteError(String),
    /// `shutdown wr`
    Shutdown(String),
    /// `close`
    Close,
    /// `reset`: closes with a lingering time of 0.
    Reset,
    /// `set nodelay 1`: an option of the socket.
    Set(String, u32),
    /// `state CLOSE_WAIT`: that of its kernel's connection.
    State(String),
    /// `info unacked 3`: a number of TCP_INFO, here or within its time.
    Info(String, u32),
}

/// What is wrong with a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for Wrong {}

impl Script {
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Wrong> {
        read::script(file, text)
    }
}
