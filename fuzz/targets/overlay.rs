//! Sealed datagrams between nodes, against a model that remembers every counter it has seen.

use super::input::Input;
use baton::control::replay::ReplayWindow;
use baton::control::seal::{HEADER_BYTES, Keyring, OpenError, SealError, SessionKeys, TAG_BYTES};
use baton::flow::NodeId;
use baton::limits::REPLAY_WINDOW_PACKETS;
use std::collections::BTreeSet;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
/// Steps of one input.
const STEPS_MAX: usize = 64;

pub fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    if input.bool() { datagrams(&mut input) } else { windows(&mut input) }
}

/// Counters seen, and the newest.
#[derive(Default)]
struct Seen {
    counters: BTreeSet<u64>,
    newest: Option<u64>,
}

impl Seen {
    fn is_fresh(&self, counter: u64) -> bool {
        !self.counters.contains(&counter)
            && self.newest.is_none_or(|newest| newest < counter || newest - counter < REPLAY_WINDOW_PACKETS)
    }

    fn mark(&mut self, counter: u64) {
        self.counters.insert(counter);
        self.newest = self.newest.max(Some(counter));
    }
}

/// The window alone, with counters near each other, near its edges and at the ends of the range.
fn windows(input: &mut Input<'_>) {
    let (mut window, mut seen) = (ReplayWindow::default(), Seen::default());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let newest = seen.newest.unwrap_or(0);
        let counter = match input.u8() % 8 {
            0 => input.u64(),
            1 => newest.saturating_add(u64::from(input.u8())),
            2 => newest.saturating_add(u64::from(input.u16())),
            3 => newest.saturating_sub(u64::from(input.u8())),
            4 => newest.saturating_sub(u64::from(input.u16())),
            5 => newest.saturating_sub(REPLAY_WINDOW_PACKETS + 4).saturating_add(u64::from(input.u8() % 8)),
            6 => u64::MAX - u64::from(input.u8()),
            _ => (newest | 63).saturating_add(u64::from(input.u8() % 3)),
        };
        assert_eq!(window.is_fresh(counter), seen.is_fresh(counter), "counter {counter} after {newest}");
        if seen.is_fresh(counter) {
            window.mark(counter);
            seen.mark(counter);
        }
    }
}

/// A session: what A seals with it, and what B has opened of it.
struct Session {
    keys: SessionKeys,
    seen: Seen,
    sealed: u64,
}

impl Session {
    fn new(number: u8, secret: u8) -> Self {
        // Few numbers, so that two sessions sometimes have the same.
        let keys = SessionKeys { session: u32::from(number % 3), send: [secret; 32], receive: [!secret; 32] };
        Self { keys, seen: Seen::default(), sealed: 0 }
    }
}

/// A seals, somebody drops, repeats, changes and makes up, B opens.
fn datagrams(input: &mut Input<'_>) {
    let (mut a, mut b) = (Keyring::default(), Keyring::default());
    let mut sessions = vec![];
    let mut wire: Vec<(usize, u64, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut secret = 0;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.u8() % 8 {
            0 => {
                secret += 1;
                let session = Session::new(input.u8(), secret);
                a.set_keys(B, &session.keys);
                let (send, receive) = (session.keys.receive, session.keys.send);
                b.set_keys(A, &SessionKeys { session: session.keys.session, send, receive });
                // The same once more changes nothing: no counter starts anew.
                a.set_keys(B, &session.keys);
                sessions.push(session);
            }
            1 | 2 => {
                let packet = input.short().to_vec();
                let mut out = vec![0; HEADER_BYTES + packet.len() + TAG_BYTES];
                let Some(session) = sessions.last_mut() else {
                    assert_eq!(a.seal(B, &packet, &mut out), Err(SealError::NoKey));
                    continue;
                };
                let short = out.len() - 1;
                assert_eq!(a.seal(B, &packet, &mut out[..short]), Err(SealError::BufferTooSmall));
                assert_eq!(a.seal(B, &packet, &mut out), Ok(out.len()));
                let counter = session.sealed;
                assert_eq!(out[..8], (0x10 << 56 | counter).to_be_bytes(), "a counter was skipped or used twice");
                session.sealed += 1;
                wire.push((sessions.len() - 1, counter, out, packet));
            }
            3 | 4 if !wire.is_empty() => {
                let (index, counter, datagram, packet) = &wire[input.below(wire.len())];
                let mut datagram = datagram.clone();
                // The current session's keys open, and those of the one before.
                let is_known = index + 2 >= sessions.len();
                let number = sessions[*index].keys.session;
                let twin = sessions.iter().rev().take(2).filter(|other| other.keys.session == number).count() > 1;
                let stranger = sessions.iter().rev().take(2).all(|other| other.keys.session != number);
                let session = &mut sessions[*index];
                match b.open(&mut datagram) {
                    Ok((from, range)) => {
                        assert!(is_known && session.seen.is_fresh(*counter), "a replay was opened");
                        assert_eq!((from, &datagram[range]), (A, packet.as_slice()));
                        session.seen.mark(*counter);
                    }
                    Err(OpenError::Replayed) => assert!(!is_known || twin || !session.seen.is_fresh(*counter)),
                    Err(OpenError::Forged) => assert!(!is_known, "an authentic datagram was refused"),
                    Err(OpenError::Unknown) => assert!(!is_known && stranger),
                }
                // With two sessions of one number the replay window of the other may speak first, never refuse.
                assert!(!is_known || !session.seen.is_fresh(*counter), "an authentic, fresh datagram was refused");
            }
            5 if !wire.is_empty() => {
                let mut datagram = wire[input.below(wire.len())].2.clone();
                let (at, change) = (usize::from(input.u16()) % datagram.len(), input.u8().max(1));
                datagram[at] ^= change;
                assert!(b.open(&mut datagram).is_err(), "a changed datagram was opened");
            }
            6 if !wire.is_empty() => {
                let mut datagram = wire[input.below(wire.len())].2.clone();
                datagram.truncate(usize::from(input.u16()) % datagram.len());
                assert!(b.open(&mut datagram).is_err(), "a shortened datagram was opened");
                let mut longer = [&datagram, input.short(), b"x"].concat();
                assert!(b.open(&mut longer).is_err());
            }
            _ => {
                let mut made_up = input.short().to_vec();
                assert!(b.open(&mut made_up).is_err(), "a made-up datagram was opened");
                assert!(a.open(&mut made_up).is_err());
            }
        }
    }
}
