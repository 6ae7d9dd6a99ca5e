//! Translation of a handed-off connection's segments between the client's view and the owner kernel's.
//!
//! | field | server to client | client to server |
//! |---|---|---|
//! | addresses, ports | alias becomes front-end | front-end becomes alias |
//! | seq | shifted | unchanged: the handshake was replayed with the client's own ISN |
//! | ack, SACK blocks | unchanged: they name the client's octets | shifted: they name the server's octets |
//! | TSval | shifted | unchanged |
//! | TSecr | unchanged | shifted |
//! | window | rescaled | unchanged: the handshake was replayed with the client's own scale |
//!
//! Flags, ECN bits, urgent pointer (relative to seq), DSCP, all other options and the payload are carried as they are.

use crate::flow::Endpoint;
use crate::rewrite::coordinates::{Seq, SeqShift, TimestampShift, WindowRescale};
use crate::rewrite::segment::{
    Flags, Segment, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire,
};

/// Everything needed to translate a connection's segments; constant for the connection's life at one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shifts {
    /// The front-end address the client knows.
    pub frontend: Endpoint,
    /// The address the owner's kernel knows instead: an alias, and the port its application listens on.
    pub alias: Endpoint,
    /// Sequence numbers.
    pub seq: SeqShift,
    /// Timestamps, when both sides use them.
    pub timestamps: Option<TimestampShift>,
    /// Windows of the owner's kernel.
    pub window: WindowRescale,
}

impl Shifts {
    /// What the owner's kernel sent becomes what the client must see.
    pub fn to_client<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        segment: Segment<B, ToClientLocal>,
    ) -> Segment<B, ToClientWire> {
        let seq = self.seq.to_wire(segment.seq());
        let timestamps = self.timestamps.zip(segment.timestamps());
        let window = segment.window();

        let mut segment = segment.reinterpret::<ToClientWire>();
        segment.set_source(self.frontend);
        segment.set_seq(seq);
        if let Some((shift, (tsval, tsecr))) = timestamps {
            segment.set_timestamps(shift.to_wire(tsval), tsecr);
        }
        // "The window field in a segment where the SYN bit is set [...] MUST NOT be scaled" (RFC 7323, section 2.2),
        // and that of an RST is not read.
        if !segment.flags().intersects(Flags::SYN.with(Flags::RST)) {
            segment.set_window(self.window.rescale(window));
        }
        segment
    }

    /// What the client sent becomes what the owner's kernel must see.
    ///
    /// Without ACK, as in an RST that answers no segment, the acknowledgement number, SACK blocks and TSecr mean
    /// nothing and stay as they are (RFC 9293, section 3.1; RFC 7323, section 3.2).
    pub fn to_server<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        segment: Segment<B, ToServerWire>,
    ) -> Segment<B, ToServerLocal> {
        let ack = self.seq.to_local(segment.ack());
        let timestamps = self.timestamps.zip(segment.timestamps());

        let mut segment = segment.reinterpret::<ToServerLocal>();
        segment.set_destination(self.alias);
        if segment.flags().contains(Flags::ACK) {
            segment.set_ack(ack);
            segment.map_sack(|edge| self.seq.to_local(Seq::new(edge.raw())));
            // Senders that have nothing to echo write 0, and kernels take 0 as no echo; so it stays.
            if let Some((shift, (tsval, tsecr))) = timestamps
                && tsecr.raw() != 0
            {
                segment.set_timestamps(tsval, shift.to_local(tsecr));
            }
        }
        segment
    }
}
