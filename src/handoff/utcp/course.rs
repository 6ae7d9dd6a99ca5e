//! How far a connection has come, as the client numbers it: enough to reset it, and to suspect that it is over.

use super::*;

/// What both ends have sent and acknowledged. Only a suspicion: whether the connection is over the kernel says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// After the last octet the server sent.
    server_next: Seq<Wire>,
    /// What the client acknowledged of it: where a RST must be to be exact (RFC 5961, section 3.2).
    pub(super) client_acknowledged: Seq<Wire>,
    server_fin: Option<Seq<Wire>>,
    server_fin_acknowledged: bool,
    client_fin: Option<Seq<Client>>,
    client_fin_acknowledged: bool,
    reset: bool,
}

impl Course {
    /// After the handshake.
    pub(super) const fn new(server_next: Seq<Wire>) -> Self {
        Self {
            server_next,
            client_acknowledged: server_next,
            server_fin: None,
            server_fin_acknowledged: false,
            client_fin: None,
            client_fin_acknowledged: false,
            reset: false,
        }
    }

    /// A segment of the client. It may be forged: what acknowledges octets never sent is not believed.
    pub(super) fn hear_client<B: AsRef<[u8]>>(&mut self, segment: &Segment<B, ToServerWire>) {
        let flags = segment.flags();
        let is_plausible = flags.contains(Flags::ACK) && !self.server_next.is_before(&segment.ack());
        if is_plausible && self.client_acknowledged.is_before(&segment.ack()) {
            self.client_acknowledged = segment.ack();
        }
        if is_plausible && self.server_fin.is_some_and(|after| !segment.ack().is_before(&after)) {
            self.server_fin_acknowledged = true;
        }
        if flags.contains(Flags::FIN) {
            self.client_fin = Some(segment.seq_end());
        }
    }

    /// A segment of the owner's kernel, translated.
    pub(super) fn hear_server<B: AsRef<[u8]>>(&mut self, segment: &Segment<B, ToClientWire>) {
        let flags = segment.flags();
        if self.server_next.is_before(&segment.seq_end()) {
            self.server_next = segment.seq_end();
        }
        if flags.contains(Flags::FIN) {
            self.server_fin = Some(segment.seq_end());
        }
        if flags.contains(Flags::ACK) && self.client_fin.is_some_and(|after| !segment.ack().is_before(&after)) {
            self.client_fin_acknowledged = true;
        }
        self.reset |= flags.contains(Flags::RST);
    }

    /// Whether the kernel should be asked if the connection is over.
    pub(super) const fn looks_over(&self) -> bool {
        self.reset || (self.server_fin_acknowledged && self.client_fin_acknowledged)
    }

    /// Whether the server has sent its FIN: from then on its kernel may forget the connection without a word.
    pub(super) const fn server_has_finished(&self) -> bool {
        self.server_fin.is_some()
    }

    /// The kernel says that it is not.
    pub(super) const fn go_on(&mut self) {
        self.reset = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_NEXT: u32 = 100;
    const SERVER_NEXT: u32 = u32::MAX - 2;

    fn spec<L: crate::rewrite::Leg>(seq: u32, ack: u32, flags: Flags, payload: &[u8]) -> Segment<Vec<u8>, L> {
        SegmentSpec {
            source: Endpoint::new([192, 0, 2, 1].into(), 1),
            destination: Endpoint::new([192, 0, 2, 2].into(), 2),
            seq: Seq::new(seq),
            ack: Seq::new(ack),
            flags: flags.with(Flags::ACK),
            window: 1_000,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload,
        }
        .build()
    }

    fn client(ack: u32, flags: Flags) -> Segment<Vec<u8>, ToServerWire> {
        spec(CLIENT_NEXT, SERVER_NEXT.wrapping_add(ack), flags, &[])
    }

    fn server(ack: u32, flags: Flags, payload: &[u8]) -> Segment<Vec<u8>, ToClientWire> {
        spec(SERVER_NEXT, CLIENT_NEXT + ack, flags, payload)
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_not_believed() {
        let mut course = Course::new(Seq::new(SERVER_NEXT));
        course.hear_server(&server(0, Flags(0), b"0123456789"));
        course.hear_client(&client(4, Flags(0)));
        course.hear_client(&client(1_000_000, Flags(0)));
        course.hear_client(&client(2, Flags(0)));
        assert_eq!(course.client_acknowledged, Seq::new(SERVER_NEXT).plus(4));
    }

    #[test]
    fn it_looks_over_when_both_fins_are_acknowledged_and_not_before() {
        let mut course = Course::new(Seq::new(SERVER_NEXT));
        course.hear_server(&server(0, Flags::FIN, b"bye"));
        assert!(!course.looks_over());
        course.hear_client(&client(4, Flags::FIN));
        assert!(!course.looks_over(), "the client's FIN is not acknowledged yet");
        course.hear_server(&server(1, Flags(0), &[]));
        assert!(course.looks_over());
    }

    #[test]
    fn it_does_not_look_over_while_the_server_has_not_finished() {
        let mut course = Course::new(Seq::new(SERVER_NEXT));
        course.hear_server(&server(0, Flags(0), b"0123456789"));
        course.hear_client(&client(10, Flags::FIN));
        course.hear_server(&server(1, Flags(0), &[]));
        assert!(!course.looks_over(), "the client has closed its half");
        let mut course = Course::new(Seq::new(SERVER_NEXT));
        course.hear_server(&server(0, Flags::FIN, b"bye"));
        course.hear_client(&client(1_000_000, Flags::FIN));
        course.hear_server(&server(1, Flags(0), &[]));
        assert!(!course.looks_over(), "that acknowledgement is not plausible");
    }

    #[test]
    fn a_reset_looks_over_until_the_kernel_says_otherwise() {
        let mut course = Course::new(Seq::new(SERVER_NEXT));
        course.hear_server(&server(0, Flags::RST, &[]));
        assert!(course.looks_over());
        course.go_on();
        assert!(!course.looks_over());
    }
}
