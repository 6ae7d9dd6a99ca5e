//! What nodes write to each other on the control channel, frame by frame.

use super::input::Input;
use baton::control::frame::{Frame, FrameBuffer};
use baton::control::greeting::{Goodbye, Heartbeat, Hello, Parting, Versions};
use baton::control::message::{Accept, Epoch, HandoffId, Message, Offer, OfferedTimestamps, Refusal, WindowScales};
use baton::control::report::{Report, ServiceReport, Told};
use baton::control::settings::Settings;
use baton::flow::{Endpoint, FlowKey};
use baton::limits::{FLIGHT_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use baton::rewrite::{Seq, Timestamp, WindowScale};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

const LENGTH_OCTETS: usize = 4;
const HELLO: u8 = 0x01;

pub fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    match input.u8() % 4 {
        0 => one_body(input.u8(), input.remainder()),
        1 => stream(&mut input),
        2 => any_message(&mut input),
        _ => any_greeting(&mut input),
    }
}

/// A body of any type: what it is read as is written as the same octets, and takes no more room than they do.
fn one_body(type_octet: u8, body: &[u8]) {
    let mut octets = Vec::new();
    if body.len() < MESSAGE_BYTES_MAX {
        octets.extend_from_slice(&(body.len() as u32 + 1).to_be_bytes());
        octets.push(type_octet);
        octets.extend_from_slice(body);
        let mut buffer = FrameBuffer::default();
        buffer.push(&octets);
        if let Ok(frame) = buffer.next_frame() {
            let frame = frame.expect("the whole frame is there");
            canonical(&frame, &octets);
            assert_eq!(buffer.next_frame(), Ok(None), "one frame was made two");
        }
    }
    if let Ok(message) = Message::decode(type_octet, body) {
        assert!(room_of(&message) <= body.len(), "{} octets for {}", room_of(&message), body.len());
    }
}

/// Octets a message holds on the heap.
fn room_of(message: &Message) -> usize {
    match message {
        Message::Offer(offer) => offer.first_flight.capacity() + offer.service.capacity(),
        Message::Commit { more, .. } => more.capacity(),
        _ => 0,
    }
}

/// A frame that was read is written as it stood there; a Hello, which a later version may make longer, in its own form.
fn canonical(frame: &Frame, stood: &[u8]) {
    let mut written = Vec::new();
    frame.encode(&mut written).expect("what was read can be written");
    if let Frame::Hello(_) = frame {
        assert!(written.len() <= stood.len());
        let mut buffer = FrameBuffer::default();
        buffer.push(&written);
        assert_eq!(buffer.next_frame(), Ok(Some(frame.clone())));
    } else {
        assert_eq!(written, stood, "{frame:?}");
    }
}

/// A stream gives the same frames, and then the same error, however it is cut.
fn stream(input: &mut Input<'_>) {
    let cuts: Vec<usize> = (0..8).map(|_| usize::from(input.u8())).collect();
    let octets = input.remainder();
    let (whole, end) = frames_of(&[octets]);
    let (mut pieces, mut rest) = (Vec::new(), octets);
    for cut in cuts.into_iter().cycle().take(64) {
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(frames_of(&pieces), (whole.clone(), end.clone()));
    let mut read = 0;
    for frame in &whole {
        let length = u32::from_be_bytes(octets[read..read + LENGTH_OCTETS].try_into().expect("four octets")) as usize;
        assert!((1..=MESSAGE_BYTES_MAX).contains(&length));
        canonical(frame, &octets[read..read + LENGTH_OCTETS + length]);
        read += LENGTH_OCTETS + length;
    }
    // Nothing is waited for longer than a frame may be.
    if end.is_none() && octets.len() - read >= LENGTH_OCTETS {
        let length = u32::from_be_bytes(octets[read..read + LENGTH_OCTETS].try_into().expect("four octets")) as usize;
        assert!((1..=MESSAGE_BYTES_MAX).contains(&length) && octets.len() - read < LENGTH_OCTETS + length);
    }
}

fn frames_of(pieces: &[&[u8]]) -> (Vec<Frame>, Option<String>) {
    let (mut buffer, mut frames) = (FrameBuffer::default(), Vec::new());
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

/// Reads what was written; on what cannot be written nothing is.
fn there_and_back(frame: &Frame, can_be_written: bool) {
    let mut octets = b"before".to_vec();
    let written = frame.encode(&mut octets);
    assert_eq!(written.is_ok(), can_be_written, "{written:?}");
    if written.is_err() {
        assert_eq!(octets, b"before");
        return;
    }
    let mut buffer = FrameBuffer::default();
    buffer.push(&octets[6..]);
    assert_eq!(buffer.next_frame(), Ok(Some(frame.clone())));
    // Every cut of it is incomplete, and every shorter body wrong.
    let body = &octets[6 + LENGTH_OCTETS + 1..];
    let type_octet = octets[6 + LENGTH_OCTETS];
    for cut in (0..body.len()).take(80) {
        assert!(Message::decode(type_octet, &body[..cut]).is_err());
    }
    if type_octet != HELLO {
        assert!(Message::decode(type_octet, &[body, b"x"].concat()).is_err());
    }
}

fn any_message(input: &mut Input<'_>) {
    let message = message(input);
    let can_be_written = match &message {
        Message::Offer(offer) => offer.service.len() <= NAME_BYTES_MAX && offer.first_flight.len() <= FLIGHT_BYTES_MAX,
        Message::Commit { more, .. } => more.len() <= FLIGHT_BYTES_MAX,
        _ => true,
    };
    there_and_back(&Frame::Message(message), can_be_written);
}

fn id(input: &mut Input<'_>) -> HandoffId {
    HandoffId { epoch: Epoch(input.u64()), serial: input.u64() }
}

fn flow(input: &mut Input<'_>) -> FlowKey {
    let v4 = input.bool();
    let mut end = || {
        let address: IpAddr = match v4 {
            true => input.u32().to_be_bytes().into(),
            // Never an IPv4-mapped one: those have no place in a flow.
            false => Ipv6Addr::from(u128::from(input.u64()) | 1 << 127).into(),
        };
        Endpoint::new(address, input.u16())
    };
    FlowKey { client: end(), frontend: end() }
}

/// Client bytes: some from the input, sometimes as many as there may be, or one more.
fn flight(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() {
        255 => vec![7; FLIGHT_BYTES_MAX],
        254 => vec![7; FLIGHT_BYTES_MAX + 1],
        count => input.octets(usize::from(count)).to_vec(),
    }
}

fn name(input: &mut Input<'_>) -> String {
    match input.u8() {
        255 => "n".repeat(NAME_BYTES_MAX),
        254 => "n".repeat(NAME_BYTES_MAX + 1),
        count => String::from_utf8_lossy(input.octets(usize::from(count) % 60)).into_owned(),
    }
}

fn scale(input: &mut Input<'_>) -> WindowScale {
    WindowScale::new(input.u8() % 15)
}

pub fn message(input: &mut Input<'_>) -> Message {
    let kind = input.below(12);
    let id = id(input);
    match kind {
        0 => Message::Offer(Box::new(Offer {
            id,
            flow: flow(input),
            service: name(input),
            client_isn: Seq::new(input.u32()),
            frontend_isn: Seq::new(input.u32()),
            client_mss: input.u16(),
            window_scales: input.bool().then(|| WindowScales { client: scale(input), frontend: scale(input) }),
            sack: input.bool(),
            timestamps: input
                .bool()
                .then(|| OfferedTimestamps { client: Timestamp::new(input.u32()), frontend: Timestamp::new(input.u32()) }),
            ecn: input.bool(),
            syn_window: input.u16(),
            window: input.u16(),
            round_trip: Duration::from_micros(u64::from(input.u32())),
            acknowledged_early: input.bool(),
            probe: input.bool(),
            first_flight: flight(input),
        })),
        1 => Message::Accept(Accept {
            id,
            backend_isn: input.u32(),
            window_scale: input.bool().then(|| scale(input)),
            tsval: input.bool().then(|| input.u32()),
        }),
        2 => {
            const ALL: [Refusal; 9] = [
                Refusal::ApplicationDown,
                Refusal::BacklogFull,
                Refusal::Promise,
                Refusal::Full,
                Refusal::Draining,
                Refusal::UnknownService,
                Refusal::InUse,
                Refusal::NotAServer,
                Refusal::UnknownFrontend,
            ];
            Message::Refuse { id, reason: input.pick(&ALL) }
        }
        3 => Message::Commit { id, more: flight(input) },
        4 => Message::Abort { id },
        5 => Message::Delivered { id },
        6 => Message::Returned { id },
        7 => Message::Closed { id },
        8 => Message::Disowned { id },
        9 => Message::Owned { id, flow: flow(input) },
        10 => Message::OwnedEnd,
        _ => Message::Settled { below: input.u64() },
    }
}

fn settings(input: &mut Input<'_>) -> Settings {
    Settings {
        sack: input.bool(),
        timestamps: input.bool(),
        window_scaling: input.bool(),
        ecn: input.u8(),
        window_scale: input.u8(),
        first_window: input.u16(),
    }
}

fn service_report(input: &mut Input<'_>) -> ServiceReport {
    let health = input.pick(&[Told::Unchecked, Told::Up, Told::Down, Told::Unknown]);
    ServiceReport { name: name(input), health, connections: u32::from(input.u16()) }
}

fn any_greeting(input: &mut Input<'_>) {
    match input.below(5) {
        0 => {
            let (one, other) = (input.u16(), input.u16());
            let hello = Hello {
                versions: Versions { min: one.min(other), max: one.max(other) },
                cluster: name(input),
                node: name(input),
                epoch: Epoch(input.u64()),
                settings: settings(input),
            };
            let fits = hello.cluster.len() <= NAME_BYTES_MAX && hello.node.len() <= NAME_BYTES_MAX;
            there_and_back(&Frame::Hello(hello), fits);
        }
        1 => {
            let heartbeat =
                Heartbeat { sent: input.u64(), echo: input.u64(), held: input.u32(), draining: input.bool(), load: input.u16() };
            there_and_back(&Frame::Heartbeat(heartbeat), true);
        }
        2 => {
            // What two kernels have and one lacks is said in words.
            let (one, other) = (settings(input), settings(input));
            let _ = Settings::obstacles(("a", &one), ("b", &other));
            there_and_back(&Frame::Settings(one), true);
        }
        3 => {
            let mut services: Vec<ServiceReport> = (0..input.below(4)).map(|_| service_report(input)).collect();
            services.sort_by(|a, b| a.name.cmp(&b.name));
            services.dedup_by(|a, b| a.name == b.name);
            let fits = services.iter().all(|service| service.name.len() <= NAME_BYTES_MAX);
            there_and_back(&Frame::Report(Report { policy: [input.u8(); 32], full: input.bool(), services }), fits);
        }
        _ => {
            let reason = Parting::Other(input.u8().max(8));
            let text = String::from_utf8_lossy(input.remainder()).into_owned();
            let goodbye = Goodbye { reason, text };
            if goodbye.text.len() <= GOODBYE_TEXT_BYTES_MAX {
                there_and_back(&Frame::Goodbye(goodbye), true);
            } else {
                let mut body = Vec::new();
                goodbye.encode(&mut body);
                let cut = Goodbye::decode(&body).expect("a long text is cut").text;
                assert!(goodbye.text.starts_with(&cut) && cut.len() > GOODBYE_TEXT_BYTES_MAX - 4);
            }
        }
    }
}
