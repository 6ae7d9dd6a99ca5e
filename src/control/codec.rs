//! The octets of each [`Message`]. `docs/handoff-protocol.md`, section "Messages", has the bit diagrams.

use std::time::Duration;

use crate::control::message::{Accept, Epoch, HandoffId, Message, Offer, OfferedTimestamps, Refusal, WindowScales};
use crate::control::wire::{DecodeError, EncodeError, Reader, put_flight, put_flow, put_name};
use crate::rewrite::{Seq, Timestamp, WindowScale};

const OFFER: u8 = 0x10;
const ACCEPT: u8 = 0x11;
const REFUSE: u8 = 0x12;
const COMMIT: u8 = 0x13;
const ABORT: u8 = 0x14;
const DELIVERED: u8 = 0x15;
const RETURNED: u8 = 0x16;
const CLOSED: u8 = 0x17;
const OWNED: u8 = 0x18;
const OWNED_END: u8 = 0x19;
const SETTLED: u8 = 0x1a;
const DISOWNED: u8 = 0x1b;
const SYN_REFUSED: u8 = 0x1c;
const WHO_OWNS: u8 = 0x1d;
const OWNER: u8 = 0x1e;

const OFFER_SACK: u8 = 0x01;
const OFFER_ECN: u8 = 0x02;
const OFFER_ACKNOWLEDGED_EARLY: u8 = 0x04;
const OFFER_WINDOW_SCALES: u8 = 0x08;
const OFFER_TIMESTAMPS: u8 = 0x10;
const OFFER_PROBE: u8 = 0x20;

const ACCEPT_WINDOW_SCALE: u8 = 0x01;
const ACCEPT_TSVAL: u8 = 0x02;

const WHO_OWNS_ACK: u8 = 0x01;
const OWNER_OWNS: u8 = 0x01;

impl Message {
    /// The type octet of its frame.
    pub const fn type_octet(&self) -> u8 {
        match self {
            Self::Offer(_) => OFFER,
            Self::Accept(_) => ACCEPT,
            Self::Refuse { .. } => REFUSE,
            Self::Commit { .. } => COMMIT,
            Self::Abort { .. } => ABORT,
            Self::Delivered { .. } => DELIVERED,
            Self::Returned { .. } => RETURNED,
            Self::Closed { .. } => CLOSED,
            Self::Owned { .. } => OWNED,
            Self::OwnedEnd => OWNED_END,
            Self::Settled { .. } => SETTLED,
            Self::Disowned { .. } => DISOWNED,
            Self::SynRefused { .. } => SYN_REFUSED,
            Self::WhoOwns { .. } => WHO_OWNS,
            Self::Owner { .. } => OWNER,
        }
    }

    /// Appends the fields, without frame length and type.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Offer(offer) => put_offer(offer, out)?,
            Self::Accept(accept) => put_accept(accept, out),
            Self::Refuse { id, reason } => {
                put_id(*id, out);
                out.push(*reason as u8);
            }
            Self::Commit { id, more } => {
                put_id(*id, out);
                put_flight(more, out)?;
            }
            Self::Abort { id } | Self::Delivered { id } | Self::Returned { id } | Self::Closed { id } | Self::Disowned { id } => {
                put_id(*id, out);
            }
            Self::Owned { id, flow } => {
                put_id(*id, out);
                put_flow(*flow, out);
            }
            Self::OwnedEnd => {}
            Self::Settled { below } => out.extend_from_slice(&below.to_be_bytes()),
            Self::SynRefused { flow, isn, reason } => {
                put_flow(*flow, out);
                out.extend_from_slice(&isn.raw().to_be_bytes());
                out.push(*reason as u8);
            }
            Self::WhoOwns { flow, ack } => {
                put_flow(*flow, out);
                out.push(if ack.is_some() { WHO_OWNS_ACK } else { 0 });
                if let Some(ack) = ack {
                    out.extend_from_slice(&ack.raw().to_be_bytes());
                }
            }
            Self::Owner { flow, owns } => {
                put_flow(*flow, out);
                out.push(u8::from(*owns));
            }
        }
        Ok(())
    }

    /// Reads the fields of a frame of type `type_octet`.
    pub fn decode(type_octet: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        let message = match type_octet {
            OFFER => Self::Offer(Box::new(offer(&mut fields)?)),
            ACCEPT => Self::Accept(accept(&mut fields)?),
            REFUSE => Self::Refuse { id: id(&mut fields)?, reason: refusal(fields.u8()?)? },
            COMMIT => Self::Commit { id: id(&mut fields)?, more: fields.flight()? },
            ABORT => Self::Abort { id: id(&mut fields)? },
            DELIVERED => Self::Delivered { id: id(&mut fields)? },
            RETURNED => Self::Returned { id: id(&mut fields)? },
            CLOSED => Self::Closed { id: id(&mut fields)? },
            OWNED => Self::Owned { id: id(&mut fields)?, flow: fields.flow()? },
            OWNED_END => Self::OwnedEnd,
            DISOWNED => Self::Disowned { id: id(&mut fields)? },
            SETTLED => Self::Settled { below: fields.u64()? },
            SYN_REFUSED => {
                Self::SynRefused { flow: fields.flow()?, isn: Seq::new(fields.u32()?), reason: refusal(fields.u8()?)? }
            }
            WHO_OWNS => {
                let flow = fields.flow()?;
                let has_ack = fields.flags(WHO_OWNS_ACK)? != 0;
                Self::WhoOwns { flow, ack: if has_ack { Some(Seq::new(fields.u32()?)) } else { None } }
            }
            OWNER => Self::Owner { flow: fields.flow()?, owns: fields.flags(OWNER_OWNS)? != 0 },
            unknown => return Err(DecodeError::UnknownType(unknown)),
        };
        fields.finish()?;
        Ok(message)
    }
}

fn put_id(id: HandoffId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.epoch.0.to_be_bytes());
    out.extend_from_slice(&id.serial.to_be_bytes());
}

fn id(fields: &mut Reader<'_>) -> Result<HandoffId, DecodeError> {
    Ok(HandoffId { epoch: Epoch(fields.u64()?), serial: fields.u64()? })
}

fn refusal(octet: u8) -> Result<Refusal, DecodeError> {
    Ok(match octet {
        1 => Refusal::ApplicationDown,
        2 => Refusal::BacklogFull,
        3 => Refusal::Promise,
        4 => Refusal::Full,
        5 => Refusal::Draining,
        6 => Refusal::UnknownService,
        7 => Refusal::InUse,
        8 => Refusal::NotAServer,
        9 => Refusal::UnknownFrontend,
        unknown => return Err(DecodeError::Refusal(unknown)),
    })
}

fn window_scale(fields: &mut Reader<'_>) -> Result<WindowScale, DecodeError> {
    match fields.u8()? {
        shift @ 0..=14 => Ok(WindowScale::new(shift)),
        shift => Err(DecodeError::WindowScale(shift)),
    }
}

/// Fields of fixed length first, optional ones as their flags say, then the name and the client's bytes.
fn put_offer(offer: &Offer, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_id(offer.id, out);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(
        flag(offer.sack, OFFER_SACK)
            | flag(offer.ecn, OFFER_ECN)
            | flag(offer.acknowledged_early, OFFER_ACKNOWLEDGED_EARLY)
            | flag(offer.window_scales.is_some(), OFFER_WINDOW_SCALES)
            | flag(offer.timestamps.is_some(), OFFER_TIMESTAMPS)
            | flag(offer.probe, OFFER_PROBE),
    );
    out.extend_from_slice(&offer.client_isn.raw().to_be_bytes());
    out.extend_from_slice(&offer.frontend_isn.raw().to_be_bytes());
    out.extend_from_slice(&offer.client_mss.to_be_bytes());
    out.extend_from_slice(&offer.syn_window.to_be_bytes());
    out.extend_from_slice(&offer.window.to_be_bytes());
    let round_trip_micros = u32::try_from(offer.round_trip.as_micros()).unwrap_or(u32::MAX);
    out.extend_from_slice(&round_trip_micros.to_be_bytes());
    if let Some(scales) = offer.window_scales {
        out.extend_from_slice(&[scales.client.shift(), scales.frontend.shift()]);
    }
    if let Some(timestamps) = offer.timestamps {
        out.extend_from_slice(&timestamps.client.raw().to_be_bytes());
        out.extend_from_slice(&timestamps.frontend.raw().to_be_bytes());
    }
    put_flow(offer.flow, out);
    put_name(&offer.service, out)?;
    put_flight(&offer.first_flight, out)
}

fn offer(fields: &mut Reader<'_>) -> Result<Offer, DecodeError> {
    let id = id(fields)?;
    let defined = OFFER_SACK | OFFER_ECN | OFFER_ACKNOWLEDGED_EARLY | OFFER_WINDOW_SCALES | OFFER_TIMESTAMPS | OFFER_PROBE;
    let flags = fields.flags(defined)?;
    let client_isn = Seq::new(fields.u32()?);
    let frontend_isn = Seq::new(fields.u32()?);
    let client_mss = fields.u16()?;
    let syn_window = fields.u16()?;
    let window = fields.u16()?;
    let round_trip = Duration::from_micros(u64::from(fields.u32()?));
    let window_scales = if flags & OFFER_WINDOW_SCALES != 0 {
        Some(WindowScales { client: window_scale(fields)?, frontend: window_scale(fields)? })
    } else {
        None
    };
    let timestamps = if flags & OFFER_TIMESTAMPS != 0 {
        Some(OfferedTimestamps { client: Timestamp::new(fields.u32()?), frontend: Timestamp::new(fields.u32()?) })
    } else {
        None
    };
    let (flow, service, first_flight) = (fields.flow()?, fields.name()?, fields.flight()?);
    Ok(Offer {
        id,
        flow,
        service,
        client_isn,
        frontend_isn,
        client_mss,
        window_scales,
        sack: flags & OFFER_SACK != 0,
        timestamps,
        ecn: flags & OFFER_ECN != 0,
        syn_window,
        window,
        round_trip,
        acknowledged_early: flags & OFFER_ACKNOWLEDGED_EARLY != 0,
        probe: flags & OFFER_PROBE != 0,
        first_flight,
    })
}

fn put_accept(accept: &Accept, out: &mut Vec<u8>) {
    put_id(accept.id, out);
    out.push(
        if accept.window_scale.is_some() { ACCEPT_WINDOW_SCALE } else { 0 }
            | if accept.tsval.is_some() { ACCEPT_TSVAL } else { 0 },
    );
    out.extend_from_slice(&accept.backend_isn.to_be_bytes());
    if let Some(scale) = accept.window_scale {
        out.push(scale.shift());
    }
    if let Some(tsval) = accept.tsval {
        out.extend_from_slice(&tsval.to_be_bytes());
    }
}

fn accept(fields: &mut Reader<'_>) -> Result<Accept, DecodeError> {
    let id = id(fields)?;
    let flags = fields.flags(ACCEPT_WINDOW_SCALE | ACCEPT_TSVAL)?;
    let backend_isn = fields.u32()?;
    let window_scale = if flags & ACCEPT_WINDOW_SCALE != 0 { Some(window_scale(fields)?) } else { None };
    let tsval = if flags & ACCEPT_TSVAL != 0 { Some(fields.u32()?) } else { None };
    Ok(Accept { id, backend_isn, window_scale, tsval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, FlowKey};
    use crate::limits::FLIGHT_BYTES_MAX;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv6Addr};

    fn any_id() -> impl Strategy<Value = HandoffId> {
        any::<(u64, u64)>().prop_map(|(epoch, serial)| HandoffId { epoch: Epoch(epoch), serial })
    }

    fn any_flow() -> impl Strategy<Value = FlowKey> {
        let flow = |client: IpAddr, frontend: IpAddr, ports: (u16, u16)| FlowKey {
            client: Endpoint::new(client, ports.0),
            frontend: Endpoint::new(frontend, ports.1),
        };
        let v6 = |octets: [u8; 16]| {
            let address = Ipv6Addr::from(octets);
            IpAddr::V6(if address.to_ipv4_mapped().is_some() { Ipv6Addr::LOCALHOST } else { address })
        };
        prop_oneof![
            any::<([u8; 4], [u8; 4], (u16, u16))>().prop_map(move |(a, b, ports)| flow(a.into(), b.into(), ports)),
            any::<([u8; 16], [u8; 16], (u16, u16))>().prop_map(move |(a, b, ports)| flow(v6(a), v6(b), ports)),
        ]
    }

    fn any_offer() -> impl Strategy<Value = Offer> {
        let scale = || (0u8..=14).prop_map(WindowScale::new);
        (
            (any_id(), any_flow(), "\\PC{0,40}", any::<(u32, u32, u16, u16, u16, u32)>()),
            (
                proptest::option::of((scale(), scale())),
                any::<Option<(u32, u32)>>(),
                any::<(bool, bool, bool, bool)>(),
                proptest::collection::vec(any::<u8>(), 0..3_000),
            ),
        )
            .prop_map(
                |((id, flow, service, numbers), (scales, stamps, (sack, ecn, acknowledged_early, probe), flight))| Offer {
                    id,
                    flow,
                    service,
                    client_isn: Seq::new(numbers.0),
                    frontend_isn: Seq::new(numbers.1),
                    client_mss: numbers.2,
                    syn_window: numbers.3,
                    window: numbers.4,
                    round_trip: Duration::from_micros(u64::from(numbers.5)),
                    window_scales: scales.map(|(client, frontend)| WindowScales { client, frontend }),
                    timestamps: stamps.map(|(client, frontend)| OfferedTimestamps {
                        client: Timestamp::new(client),
                        frontend: Timestamp::new(frontend),
                    }),
                    sack,
                    ecn,
                    acknowledged_early,
                    probe,
                    first_flight: flight,
                },
            )
    }

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            4 => any_offer().prop_map(|offer| Message::Offer(Box::new(offer))),
            2 => (any_id(), any::<(u32, Option<u32>)>(), proptest::option::of(0u8..=14)).prop_map(
                |(id, (backend_isn, tsval), scale)| Message::Accept(Accept {
                    id, backend_isn, tsval, window_scale: scale.map(WindowScale::new),
                })
            ),
            1 => (any_id(), 1u8..=9).prop_map(|(id, reason)| Message::Refuse { id, reason: refusal(reason).unwrap() }),
            1 => (any_id(), proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(id, more)| Message::Commit { id, more }),
            1 => any_id().prop_map(|id| Message::Abort { id }),
            1 => any_id().prop_map(|id| Message::Delivered { id }),
            1 => any_id().prop_map(|id| Message::Returned { id }),
            1 => any_id().prop_map(|id| Message::Closed { id }),
            1 => any_id().prop_map(|id| Message::Disowned { id }),
            1 => (any_id(), any_flow()).prop_map(|(id, flow)| Message::Owned { id, flow }),
            1 => Just(Message::OwnedEnd),
            1 => any::<u64>().prop_map(|below| Message::Settled { below }),
            1 => (any_flow(), any::<u32>(), 1u8..=9).prop_map(|(flow, isn, reason)| Message::SynRefused {
                flow, isn: Seq::new(isn), reason: refusal(reason).unwrap(),
            }),
            1 => (any_flow(), any::<Option<u32>>()).prop_map(|(flow, ack)| Message::WhoOwns { flow, ack: ack.map(Seq::new) }),
            1 => (any_flow(), any::<bool>()).prop_map(|(flow, owns)| Message::Owner { flow, owns }),
        ]
    }

    fn written(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(message in any_message()) {
            prop_assert_eq!(Message::decode(message.type_octet(), &written(&message)), Ok(message));
        }

        #[test]
        fn a_truncated_message_is_an_error(message in any_message(), cut in any::<proptest::sample::Index>()) {
            let octets = written(&message);
            if !octets.is_empty() {
                prop_assert!(Message::decode(message.type_octet(), &octets[..cut.index(octets.len())]).is_err());
            }
        }

        #[test]
        fn octets_after_the_last_field_are_an_error(message in any_message(), more in 1usize..9) {
            let mut octets = written(&message);
            octets.resize(octets.len() + more, 0);
            prop_assert_eq!(Message::decode(message.type_octet(), &octets), Err(DecodeError::Trailing(more)));
        }

        #[test]
        fn no_octets_panic_and_what_is_understood_is_canonical(
            type_octet in prop_oneof![OFFER..=OWNER, any::<u8>()],
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(message) = Message::decode(type_octet, &body) {
                prop_assert_eq!(written(&message), body);
            }
        }

        #[test]
        fn a_damaged_message_never_panics(
            message in any_message(), at in any::<proptest::sample::Index>(), octet in any::<u8>(),
        ) {
            let mut octets = written(&message);
            if !octets.is_empty() {
                let at = at.index(octets.len());
                octets[at] = octet;
                let _ = Message::decode(message.type_octet(), &octets);
            }
        }
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// The layout is a promise to other versions. This is how `docs/handoff-protocol.md` draws it.
    #[test]
    fn an_offer_and_an_accept_stand_on_the_wire_as_documented() {
        let id = HandoffId { epoch: Epoch(0x1111_1111_2222_2222), serial: 3 };
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let offer = Offer {
            id,
            flow: FlowKey { client: end("192.0.2.1:4096"), frontend: end("10.77.0.1:80") },
            service: "web".into(),
            client_isn: Seq::new(0x4444_4444),
            frontend_isn: Seq::new(0x5555_5555),
            client_mss: 1_460,
            window_scales: Some(WindowScales { client: WindowScale::new(7), frontend: WindowScale::new(10) }),
            sack: true,
            timestamps: Some(OfferedTimestamps { client: Timestamp::new(0x6666_6666), frontend: Timestamp::new(0x7777_7777) }),
            ecn: false,
            syn_window: 0xfaf0,
            window: 0x01f6,
            round_trip: Duration::from_millis(1),
            acknowledged_early: true,
            probe: false,
            first_flight: b"GET".to_vec(),
        };
        let drawn = [
            "1111111122222222",
            "0000000000000003",
            "1d",
            "44444444",
            "55555555",
            "05b4",
            "faf0",
            "01f6",
            "000003e8",
            "070a",
            "66666666",
            "77777777",
            "04c00002011000",
            "040a4d00010050",
            "03776562",
            "00000003474554",
        ];
        assert_eq!(hex(&written(&Message::Offer(Box::new(offer)))), drawn.concat());
        let accept = Accept { id, backend_isn: 0x8888_8888, window_scale: Some(WindowScale::new(9)), tsval: Some(0x9999_9999) };
        let drawn = ["1111111122222222", "0000000000000003", "03", "88888888", "09", "99999999"];
        assert_eq!(hex(&written(&Message::Accept(accept))), drawn.concat());
    }

    #[test]
    fn every_refusal_has_its_own_number() {
        for octet in 0..=u8::MAX {
            match refusal(octet) {
                Ok(reason) => assert_eq!(reason as u8, octet),
                Err(error) => assert_eq!(error, DecodeError::Refusal(octet)),
            }
        }
    }

    #[test]
    fn types_outside_the_version_are_refused() {
        for type_octet in [0x00, 0x04, 0x0f, 0x1f, 0x7f, 0x80, 0xff] {
            assert_eq!(Message::decode(type_octet, &[]), Err(DecodeError::UnknownType(type_octet)));
        }
    }

    #[test]
    fn the_largest_commit_fits_a_frame() {
        let id = HandoffId { epoch: Epoch(1), serial: 1 };
        assert!(Message::Commit { id, more: vec![7; FLIGHT_BYTES_MAX] }.encode(&mut Vec::new()).is_ok());
        assert!(Message::Commit { id, more: vec![7; FLIGHT_BYTES_MAX + 1] }.encode(&mut Vec::new()).is_err());
    }
}
