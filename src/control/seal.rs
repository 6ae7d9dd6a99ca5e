//! Sealing and opening overlay packets. Pure: knows keys and counters, no socket.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  version+type |                                               |
//! +-+-+-+-+-+-+-+-+           counter (56 bits)                   +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            session                            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |              IP packet, sealed; then 16 octets tag            |
//! ```

use std::collections::HashMap;
use std::ops::Range;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use crate::control::replay::ReplayWindow;
use crate::flow::NodeId;
use crate::limits::OVERLAY_PACKETS_PER_KEY;

/// Octets before the sealed packet; authenticated, not encrypted.
pub const HEADER_BYTES: usize = 12;
/// Octets behind it.
pub const TAG_BYTES: usize = 16;
/// Version 1 (high four bits), a packet (low four bits).
const PACKET: u8 = 0x10;
/// Counters are 56 bits: at a hundred million packets a second they last 22 years.
const COUNTER_MAX: u64 = (1 << 56) - 1;

/// Both directions' keys of one control session, exported from it (RFC 9846, exporters).
#[derive(Clone)]
pub struct SessionKeys {
    /// Names the session in packet headers; both sides derive the same.
    pub session: u32,
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what we receive.
    pub receive: [u8; 32],
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionKeys({:08x})", self.session)
    }
}

/// Why a packet cannot be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// No session with that peer has been up yet.
    NoKey,
    /// The buffer is shorter than the sealed packet.
    BufferTooSmall,
    /// All counters of the session are used.
    Exhausted,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// Too short, of another version or type, or of a session we do not know.
    Unknown,
    /// Not sealed by the session's other side, or damaged.
    Forged,
    /// Seen before, or too old to tell.
    Replayed,
}

/// The key of one direction of one session. Every `OVERLAY_PACKETS_PER_KEY` packets have a key of their own, derived
/// from the session's by HKDF (RFC 5869); the counter says which, so nothing needs to be agreed.
struct DirectionKey {
    secret: hkdf::Prk,
    current: (u64, LessSafeKey),
    /// The last one used that is not current: stragglers of the one before, or the first of the next.
    other: Option<(u64, LessSafeKey)>,
}

impl DirectionKey {
    fn new(secret: &[u8; 32]) -> Self {
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret);
        let first = derive(&secret, 0);
        Self { secret, current: (0, first), other: None }
    }

    fn of(&mut self, counter: u64) -> &LessSafeKey {
        let generation = counter / OVERLAY_PACKETS_PER_KEY;
        if self.current.0 == generation {
            return &self.current.1;
        }
        if self.other.as_ref().is_none_or(|(other, _)| *other != generation) {
            self.other = None;
        }
        let secret = &self.secret;
        &self.other.get_or_insert_with(|| (generation, derive(secret, generation))).1
    }

    /// An authentic packet had this counter: a newer key becomes the current one. A forged one cannot push it out.
    fn advance(&mut self, counter: u64) {
        if let Some(other) = &mut self.other
            && other.0 == counter / OVERLAY_PACKETS_PER_KEY
            && other.0 > self.current.0
        {
            std::mem::swap(&mut self.current, other);
        }
    }
}

fn derive(secret: &hkdf::Prk, generation: u64) -> LessSafeKey {
    let info = [b"baton overlay key".as_slice(), &generation.to_be_bytes()];
    let key = secret.expand(&info, &AES_256_GCM).expect("32 octets are within what HKDF gives");
    LessSafeKey::new(UnboundKey::from(key))
}

struct Sealer {
    session: u32,
    secret: [u8; 32],
    key: DirectionKey,
    counter: u64,
    /// The opener made with it, and the one of the session before.
    openers: (u64, Option<u64>),
}

struct Opener {
    serial: u64,
    peer: NodeId,
    key: DirectionKey,
    replay: ReplayWindow,
}

impl Opener {
    fn open(&mut self, datagram: &mut [u8], counter: u64) -> Result<Range<usize>, OpenError> {
        if !self.replay.is_fresh(counter) {
            return Err(OpenError::Replayed);
        }
        let (header, sealed) = datagram.split_at_mut(HEADER_BYTES);
        let length =
            self.key.of(counter).open_in_place(nonce(counter), Aad::from(&*header), sealed).map_err(|_| OpenError::Forged)?.len();
        self.key.advance(counter);
        self.replay.mark(counter);
        Ok(HEADER_BYTES..HEADER_BYTES + length)
    }
}

/// The keys of all peers. A session that breaks leaves its keys in use until the next one of that peer: what is on the
/// way then still arrives, and connections handed off live on while the control channel is being re-established.
#[derive(Default)]
pub struct Keyring {
    sealers: HashMap<NodeId, Sealer>,
    /// By session. More than one opener under a number is an accident of 1 in 2^32, but it may last for days.
    openers: HashMap<u32, Vec<Opener>>,
    serial: u64,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("peers", &self.sealers.keys()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Seals with these keys from now on; opens with these and with those of the session before.
    pub fn set_keys(&mut self, peer: NodeId, keys: &SessionKeys) {
        let previous = self.sealers.remove(&peer);
        if let Some(current) = previous {
            // The same keys once more must not start the counter again: no two packets may share a nonce.
            if current.session == keys.session && current.secret == keys.send {
                self.sealers.insert(peer, current);
                return;
            }
            if let Some(before) = current.openers.1 {
                self.forget(before);
            }
            self.insert(peer, keys, Some(current.openers.0));
        } else {
            self.insert(peer, keys, None);
        }
    }

    fn insert(&mut self, peer: NodeId, keys: &SessionKeys, previous: Option<u64>) {
        let serial = self.serial;
        self.serial += 1;
        self.sealers.insert(
            peer,
            Sealer {
                session: keys.session,
                secret: keys.send,
                key: DirectionKey::new(&keys.send),
                counter: 0,
                openers: (serial, previous),
            },
        );
        self.openers.entry(keys.session).or_default().push(Opener {
            serial,
            peer,
            key: DirectionKey::new(&keys.receive),
            replay: ReplayWindow::default(),
        });
    }

    fn forget(&mut self, serial: u64) {
        self.openers.retain(|_, openers| {
            openers.retain(|opener| opener.serial != serial);
            !openers.is_empty()
        });
    }

    /// Writes the datagram that carries `packet` to the start of `out`; returns its length.
    pub fn seal(&mut self, peer: NodeId, packet: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let length = HEADER_BYTES + packet.len() + TAG_BYTES;
        if !self.sealers.contains_key(&peer) {
            return Err(SealError::NoKey);
        }
        let datagram = out.get_mut(..length).ok_or(SealError::BufferTooSmall)?;
        datagram[HEADER_BYTES..HEADER_BYTES + packet.len()].copy_from_slice(packet);
        self.seal_in_place(peer, datagram)?;
        Ok(length)
    }

    /// Seals the packet that lies in `datagram` between [`HEADER_BYTES`] and [`TAG_BYTES`] of room.
    pub fn seal_in_place(&mut self, peer: NodeId, datagram: &mut [u8]) -> Result<(), SealError> {
        let sealer = self.sealers.get_mut(&peer).ok_or(SealError::NoKey)?;
        let Some((header, sealed)) = datagram.split_at_mut_checked(HEADER_BYTES) else { return Err(SealError::BufferTooSmall) };
        let packet_bytes = sealed.len().checked_sub(TAG_BYTES).ok_or(SealError::BufferTooSmall)?;
        let counter = sealer.counter;
        if counter > COUNTER_MAX {
            return Err(SealError::Exhausted);
        }
        sealer.counter += 1;
        header[..8].copy_from_slice(&(u64::from(PACKET) << 56 | counter).to_be_bytes());
        header[8..].copy_from_slice(&sealer.session.to_be_bytes());
        let (body, tag) = sealed.split_at_mut(packet_bytes);
        let sealed_tag = sealer
            .key
            .of(counter)
            .seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), body)
            .map_err(|_| SealError::BufferTooSmall)?;
        sealer.key.advance(counter);
        tag.copy_from_slice(sealed_tag.as_ref());
        Ok(())
    }

    /// Opens a datagram in place: who sealed it, and where in `datagram` the packet is.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<(NodeId, Range<usize>), OpenError> {
        let Some((header, sealed)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
            return Err(OpenError::Unknown);
        };
        let [kind, counter @ .., s0, s1, s2, s3] = *header;
        if kind != PACKET || sealed.len() < TAG_BYTES {
            return Err(OpenError::Unknown);
        }
        let counter = counter.into_iter().fold(0, |sum, octet: u8| sum << 8 | u64::from(octet));
        let session = u32::from_be_bytes([s0, s1, s2, s3]);
        let openers = self.openers.get_mut(&session).ok_or(OpenError::Unknown)?;
        if let [opener] = openers.as_mut_slice() {
            return opener.open(datagram, counter).map(|packet| (opener.peer, packet));
        }
        // A failed attempt spoils the octets, so each one has its own copy.
        self.scratch.clear();
        self.scratch.extend_from_slice(datagram);
        let mut worst = OpenError::Forged;
        for opener in openers {
            datagram.copy_from_slice(&self.scratch);
            match opener.open(datagram, counter) {
                Ok(packet) => return Ok((opener.peer, packet)),
                Err(OpenError::Replayed) => worst = OpenError::Replayed,
                Err(_) => {}
            }
        }
        Err(worst)
    }
}

/// Four zero octets and the counter (as RFC 5288, section 3, with an implicit part of zero): keys are per direction and
/// session, so no nonce repeats under a key.
fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);

    fn keys(session: u32, send: u8, receive: u8) -> SessionKeys {
        SessionKeys { session, send: [send; 32], receive: [receive; 32] }
    }

    /// Keyrings of a and b after one session.
    fn pair() -> (Keyring, Keyring) {
        let (mut a, mut b) = (Keyring::default(), Keyring::default());
        a.set_keys(B, &keys(7, 1, 2));
        b.set_keys(A, &keys(7, 2, 1));
        (a, b)
    }

    fn seal(keyring: &mut Keyring, peer: NodeId, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2_000];
        let length = keyring.seal(peer, packet, &mut out).unwrap();
        out.truncate(length);
        out
    }

    fn opened(keyring: &mut Keyring, mut datagram: Vec<u8>) -> Result<(NodeId, Vec<u8>), OpenError> {
        keyring.open(&mut datagram).map(|(peer, packet)| (peer, datagram[packet].to_vec()))
    }

    #[test]
    fn a_sealed_packet_is_opened_once() {
        let (mut a, mut b) = pair();
        let datagram = seal(&mut a, B, b"a packet");
        assert_eq!(datagram.len(), HEADER_BYTES + 8 + TAG_BYTES);
        assert_eq!(opened(&mut b, datagram.clone()), Ok((A, b"a packet".to_vec())));
        assert_eq!(opened(&mut b, datagram), Err(OpenError::Replayed));
        let answer = seal(&mut b, A, b"");
        assert_eq!(opened(&mut a, answer), Ok((B, Vec::new())));
    }

    /// What is derived and how, said once more in the plainest way: two versions of baton must agree on it.
    fn opened_by_the_book(secret: [u8; 32], counter: u64, datagram: &[u8]) -> Vec<u8> {
        let generation = counter >> 23;
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
        let info = [&b"baton overlay key"[..], &generation.to_be_bytes()];
        let key = LessSafeKey::new(secret.expand(&info, &AES_256_GCM).unwrap().into());
        let nonce = [&[0; 4][..], &counter.to_be_bytes()].concat();
        let (header, mut sealed) = (datagram[..HEADER_BYTES].to_vec(), datagram[HEADER_BYTES..].to_vec());
        assert_eq!(header[..8], (0x10 << 56 | counter).to_be_bytes());
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        key.open_in_place(nonce, Aad::from(header), &mut sealed).unwrap().to_vec()
    }

    #[test]
    fn every_stretch_of_counters_has_the_key_that_both_sides_derive_for_it() {
        let (mut a, mut b) = pair();
        let stretch = OVERLAY_PACKETS_PER_KEY;
        for counter in [0, 1, stretch - 1, stretch, stretch + 1, 2 * stretch, 3 * stretch - 1, 7 * stretch, COUNTER_MAX] {
            a.sealers.get_mut(&B).unwrap().counter = counter;
            let datagram = seal(&mut a, B, b"a packet");
            assert_eq!(opened_by_the_book([1; 32], counter, &datagram), b"a packet", "{counter}");
            assert_eq!(opened(&mut b, datagram), Ok((A, b"a packet".to_vec())), "{counter}");
        }
        assert_eq!(a.seal(B, b"a packet", &mut [0; 2_000]), Err(SealError::Exhausted));
    }

    #[test]
    fn a_session_of_the_same_number_is_another_one_by_its_keys() {
        let (mut a, _) = pair();
        a.set_keys(B, &keys(7, 5, 6));
        let datagram = seal(&mut a, B, b"a packet");
        assert_eq!(opened_by_the_book([5; 32], 0, &datagram), b"a packet");
    }

    #[test]
    fn a_new_session_with_one_peer_takes_no_keys_of_another() {
        let (mut a, mut c) = (Keyring::default(), Keyring::default());
        a.set_keys(B, &keys(1, 1, 2));
        a.set_keys(C, &keys(9, 3, 4));
        c.set_keys(A, &keys(9, 4, 3));
        a.set_keys(B, &keys(2, 1, 2));
        a.set_keys(B, &keys(3, 1, 2));
        let datagram = seal(&mut c, A, b"a packet");
        assert_eq!(opened(&mut a, datagram), Ok((C, b"a packet".to_vec())));
    }

    #[test]
    fn what_is_printed_of_keys_is_not_the_keys() {
        let (a, _) = pair();
        assert_eq!(format!("{:?}", keys(7, 1, 2)), "SessionKeys(00000007)");
        assert_eq!(format!("{a:?}"), "Keyring { peers: [NodeId(1)], .. }");
    }

    #[test]
    fn a_packet_cannot_be_sent_back_to_its_sender() {
        let (mut a, _) = pair();
        let datagram = seal(&mut a, B, b"a packet");
        assert_eq!(opened(&mut a, datagram), Err(OpenError::Forged));
    }

    #[test]
    fn a_forged_packet_does_not_close_the_window_to_the_authentic_one() {
        let (mut a, mut b) = pair();
        let datagram = seal(&mut a, B, b"a packet");
        let mut forged = datagram.clone();
        forged[HEADER_BYTES] ^= 1;
        assert_eq!(opened(&mut b, forged), Err(OpenError::Forged));
        let mut far = datagram.clone();
        far[1] = 0xff;
        assert_eq!(opened(&mut b, far), Err(OpenError::Forged));
        assert!(opened(&mut b, datagram).is_ok());
    }

    #[test]
    fn keys_of_the_session_before_still_open_but_not_those_before_that() {
        let (mut a, mut b) = pair();
        let (first, second) = (seal(&mut a, B, b"1"), seal(&mut a, B, b"2"));
        b.set_keys(A, &keys(8, 4, 3));
        assert!(opened(&mut b, first).is_ok());
        a.set_keys(B, &keys(8, 3, 4));
        let third = seal(&mut a, B, b"3");
        assert!(opened(&mut b, third).is_ok());
        b.set_keys(A, &keys(9, 6, 5));
        assert_eq!(opened(&mut b, second), Err(OpenError::Unknown));
    }

    #[test]
    fn the_same_keys_again_do_not_start_the_counter_again() {
        let (mut a, mut b) = pair();
        let first = seal(&mut a, B, b"1");
        a.set_keys(B, &keys(7, 1, 2));
        let second = seal(&mut a, B, b"2");
        assert_ne!(first[..HEADER_BYTES], second[..HEADER_BYTES]);
        assert!(opened(&mut b, second).is_ok());
    }

    #[test]
    fn two_sessions_of_one_number_are_told_apart_by_their_keys() {
        let (mut a, mut b) = pair();
        let mut c = Keyring::default();
        c.set_keys(B, &keys(7, 9, 8));
        b.set_keys(C, &keys(7, 8, 9));
        let (from_a, from_c) = (seal(&mut a, B, b"of a"), seal(&mut c, B, b"of c"));
        assert_eq!(opened(&mut b, from_c.clone()), Ok((C, b"of c".to_vec())));
        assert_eq!(opened(&mut b, from_a), Ok((A, b"of a".to_vec())));
        assert_eq!(opened(&mut b, from_c), Err(OpenError::Replayed));
    }

    #[test]
    fn keys_change_with_the_counter_and_stragglers_still_open() {
        let (mut a, mut b) = pair();
        a.sealers.get_mut(&B).unwrap().counter = OVERLAY_PACKETS_PER_KEY - 2;
        let packets: Vec<_> = (0..4).map(|_| seal(&mut a, B, b"x")).collect();
        for index in [2, 0, 3, 1] {
            assert!(opened(&mut b, packets[index].clone()).is_ok(), "packet {index}");
        }
        // A whole generation lost on the way is no obstacle.
        a.sealers.get_mut(&B).unwrap().counter = OVERLAY_PACKETS_PER_KEY * 9;
        let later = seal(&mut a, B, b"x");
        assert!(opened(&mut b, later).is_ok());
    }

    #[test]
    fn nothing_is_sealed_without_a_key_without_room_or_after_the_last_counter() {
        let (mut a, _) = pair();
        assert_eq!(a.seal(C, b"x", &mut [0; 100]), Err(SealError::NoKey));
        assert_eq!(a.seal(B, b"x", &mut [0; HEADER_BYTES + TAG_BYTES]), Err(SealError::BufferTooSmall));
        a.sealers.get_mut(&B).unwrap().counter = COUNTER_MAX + 1;
        assert_eq!(a.seal(B, b"x", &mut [0; 100]), Err(SealError::Exhausted));
    }

    proptest! {
        #[test]
        fn no_datagram_panics_and_none_but_sealed_ones_open(datagram in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(opened(&mut pair().1, datagram).is_err());
        }

        #[test]
        fn a_damaged_or_truncated_datagram_never_opens(at in any::<proptest::sample::Index>(), bit in 0u8..8, cut in 1usize..36) {
            let (mut a, mut b) = pair();
            let datagram = seal(&mut a, B, b"a packet");
            let mut damaged = datagram.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            prop_assert!(opened(&mut b, damaged).is_err());
            prop_assert!(opened(&mut b, datagram[..datagram.len() - cut].to_vec()).is_err());
            prop_assert!(opened(&mut b, datagram).is_ok());
        }
    }
}
