//! 4. The client never sees a sequence number, acknowledgement or option outside what it was promised.

use super::super::plan::Kind;
use super::{ClientEvent, Facts, Rule, Seen};
use baton::flow::FlowKey;
use baton::rewrite::{Client, Flags, Segment, Seq, Timestamp, ToClientWire, ToServerWire, WindowScale, Wire};
use std::collections::BTreeMap;

/// What the client has said of a connection.
struct Said {
    isn: Seq<Client>,
    next: Seq<Client>,
    /// Units of its windows; known with its SYN.
    scale: WindowScale,
    /// Beyond that it has never allowed anything.
    right_edge: Option<Seq<Wire>>,
    tsvals: Option<(Timestamp<Client>, Timestamp<Client>)>,
    has_timestamps: bool,
    has_sack: bool,
    has_scale: bool,
}

/// What the client was promised with a SYN-ACK.
#[derive(Clone, PartialEq, Debug)]
struct Promised {
    isn: Seq<Wire>,
    /// Of the SYN it answers.
    client_isn: u32,
    mss: Option<u16>,
    scale: Option<WindowScale>,
    sack: bool,
    timestamps: bool,
}

/// Timestamps that a client was given: that of the SYN-ACK, and the latest.
#[derive(Clone, Copy)]
struct Clock {
    syn_ack: Option<Timestamp<Wire>>,
    newest: Option<Timestamp<Wire>>,
}

/// All connections that these ends have had: late packets may still be answered.
#[derive(Default)]
struct Connection {
    said: Vec<Said>,
    /// With the timestamps it was kept with.
    promised: Vec<(Promised, Clock)>,
}

#[derive(Default)]
pub struct Promise {
    connections: BTreeMap<FlowKey, Connection>,
}

impl Rule for Promise {
    fn name(&self) -> &'static str {
        "4 what was promised"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::ClientSent { segment, .. } => {
                let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
                self.connections.entry(flow).or_default().hear_client(segment);
                Ok(())
            }
            // What strangers said of a connection may be answered to its client.
            Seen::Client { event: ClientEvent::Complaint { errand, what } } if !facts.plan.kinds.contains(&Kind::Forgery) => {
                Err(format!("the client of errand {errand} complains: {what}"))
            }
            Seen::Left { packet, .. } => {
                let Ok(segment) = Segment::<_, ToClientWire>::parse(*packet) else { return Ok(()) };
                let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
                let Some(connection) = self.connections.get_mut(&flow) else {
                    return Err(format!("a packet of a connection that nobody made: {segment}"));
                };
                let is_for_stranger =
                    facts.plan.kinds.contains(&Kind::Forgery) && !connection.said.iter().any(|said| said.has_sent(segment.ack()));
                if is_for_stranger {
                    // A stranger's SYN was kept until the connection was over, and then began another, as anybody's would.
                    return Ok(());
                }
                connection
                    .check(&segment, facts.plan.kinds.contains(&Kind::Fragments))
                    .map_err(|what| format!("{what}: {segment}"))
            }
            _ => Ok(()),
        }
    }
}

impl Said {
    fn hear_clock(&mut self, tsval: Option<Timestamp<Client>>) {
        if let (Some((_, newest)), Some(tsval)) = (&mut self.tsvals, tsval)
            && tsval.since(newest) > 0
        {
            *newest = tsval;
        }
    }

    /// Whether the client has sent what ends there.
    fn has_sent(&self, edge: Seq<Client>) -> bool {
        (1..=self.next.since(&self.isn)).contains(&edge.since(&self.isn))
    }
}

impl Connection {
    fn hear_client(&mut self, segment: &Segment<&[u8], ToServerWire>) {
        let flags = segment.flags();
        let tsval = segment.timestamps().map(|(tsval, _)| tsval);
        if flags.contains(Flags::SYN) {
            if !self.said.iter().any(|said| said.isn == segment.seq()) {
                self.said.push(Said {
                    isn: segment.seq(),
                    next: segment.seq_end(),
                    scale: segment.window_scale().unwrap_or(WindowScale::NONE),
                    right_edge: None,
                    tsvals: tsval.map(|tsval| (tsval, tsval)),
                    has_timestamps: tsval.is_some(),
                    has_sack: segment.sack_permitted(),
                    has_scale: segment.window_scale().is_some(),
                });
            }
            for said in self.said.iter_mut().filter(|said| said.isn == segment.seq()) {
                said.hear_clock(tsval);
            }
            return;
        }
        // A reset answers what may be nobody's; its time is the client's all the same.
        if flags.contains(Flags::RST) {
            return self.said.iter_mut().for_each(|said| said.hear_clock(tsval));
        }
        let Some(said) = self.said.iter_mut().min_by_key(|said| segment.seq().raw().wrapping_sub(said.isn.raw())) else { return };
        if said.next.is_before(&segment.seq_end()) {
            said.next = segment.seq_end();
        }
        said.hear_clock(tsval);
        if flags.contains(Flags::ACK) {
            let edge = segment.ack().plus(u32::from(segment.window()) << said.scale.shift());
            if said.right_edge.is_none_or(|before| before.is_before(&edge)) {
                said.right_edge = Some(edge);
            }
        }
    }

    fn check(&mut self, segment: &Segment<&[u8], ToClientWire>, is_past_process: bool) -> Result<(), &'static str> {
        let flags = segment.flags();
        // A reset is what a stray asked for, and says nothing of its own.
        if flags.contains(Flags::RST) {
            return Ok(());
        }
        if flags.contains(Flags::SYN) {
            return self.check_syn_ack(segment);
        }
        // The nearest promise below is the one it must keep.
        let seq = segment.seq();
        let nearest = self.promised.iter_mut().min_by_key(|(promised, ..)| seq.raw().wrapping_sub(promised.isn.raw()));
        let Some((promised, clock)) = nearest else { return Err("nothing was promised") };
        let Some(said) = self.said.iter().find(|said| said.isn.raw() == promised.client_isn) else {
            return Err("before any SYN");
        };
        let newest_of_all = self.said.iter().filter_map(|said| said.tsvals).map(|(_, newest)| newest);
        let newest_of_all = newest_of_all.reduce(|one, other| if other.since(&one) > 0 { other } else { one });
        let is_sent = |edge: Seq<Client>| said.has_sent(edge);
        if !flags.contains(Flags::ACK) || !is_sent(segment.ack()) {
            return Err("it acknowledges what was never sent");
        }
        if segment.mss().is_some() || segment.window_scale().is_some() || segment.sack_permitted() {
            return Err("an option of SYNs");
        }
        // A SYN that comes again late may be answered with another ISN, of which the client has said nothing.
        let edge = said.right_edge.map(|edge| edge.since(&promised.isn)).filter(|edge| (0..1 << 22).contains(edge));
        // One octet as a probe; and smoltcp's fast retransmission of one segment asks no window.
        let end = edge.unwrap_or(65_535) + 1_460;
        if !(0..=end).contains(&segment.seq_end().since(&promised.isn)) || !(0..=end).contains(&seq.since(&promised.isn)) {
            return Err("outside the client's window");
        }
        match segment.timestamps() {
            Some(_) if !promised.timestamps => return Err("timestamps that were not agreed on"),
            None if promised.timestamps => return Err("timestamps were agreed on, and it has none"),
            Some((tsval, tsecr)) => {
                // A fragment never passes the process: the kernel may have gone on with what was put together. A challenge of
                // the process has the timestamp of the SYN-ACK all the same, and the client drops it (PAWS).
                if is_past_process && segment.payload().is_empty() && clock.syn_ack == Some(tsval) {
                    return Ok(());
                }
                if clock.newest.is_some_and(|newest| tsval.since(&newest) < 0) {
                    return Err("its timestamp goes back (RFC 7323, section 5)");
                }
                clock.newest = Some(tsval);
                let is_echo = |(first, newest): (Timestamp<Client>, Timestamp<Client>)| {
                    tsecr.since(&first) >= 0 && newest.since(&tsecr) >= 0
                };
                // smoltcp echoes also what it does not take, such as a late segment of an earlier connection.
                if !said.tsvals.is_some_and(is_echo)
                    && !self
                        .said
                        .iter()
                        .filter_map(|said| said.tsvals)
                        .any(|its| tsecr.since(&its.0) >= 0 && newest_of_all.is_some_and(|newest| newest.since(&tsecr) >= 0))
                {
                    return Err("it echoes what the client never sent");
                }
            }
            None => {}
        }
        for (left, right) in segment.sack_blocks() {
            if !promised.sack || !is_sent(left) || !is_sent(right) || !left.is_before(&right) {
                return Err("a SACK block of what was never sent, or without leave");
            }
        }
        Ok(())
    }

    fn check_syn_ack(&mut self, segment: &Segment<&[u8], ToClientWire>) -> Result<(), &'static str> {
        let Some(said) = self.said.iter().find(|said| said.isn.plus(1) == segment.ack()) else { return Err("it answers no SYN") };
        let promise = Promised {
            isn: segment.seq(),
            client_isn: said.isn.raw(),
            mss: segment.mss(),
            scale: segment.window_scale(),
            sack: segment.sack_permitted(),
            timestamps: segment.timestamps().is_some(),
        };
        if promise.sack && !said.has_sack
            || promise.timestamps && !said.has_timestamps
            || promise.scale.is_some() && !said.has_scale
        {
            return Err("it grants what was not asked for");
        }
        let former = self.promised.iter_mut().find(|(former, ..)| former.isn == promise.isn);
        let tsval = segment.timestamps().map(|(tsval, _)| tsval);
        match former {
            // The process may have died between two of one connection: then only the first was lowered.
            Some((former, ..)) if Promised { mss: None, ..former.clone() } != Promised { mss: None, ..promise.clone() } => {
                Err("another promise than before")
            }
            Some((_, clock)) => {
                clock.syn_ack = tsval;
                Ok(())
            }
            None => {
                self.promised.push((promise, Clock { syn_ack: tsval, newest: tsval }));
                Ok(())
            }
        }
    }
}
