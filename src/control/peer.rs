//! What a node knows about one of its peers, session or not.

use std::net::SocketAddr;
use std::time::Instant;

use crate::control::backoff::Backoff;
use crate::control::channel::PeerView;
use crate::control::ending::Ending;
use crate::control::session::Session;
use crate::flow::NodeId;
use crate::limits::RECONNECT_DELAY_MAX;

/// How it stands with a peer.
#[derive(Debug)]
enum State {
    /// A session is up.
    Up,
    /// We dial.
    Connecting,
    /// For the next attempt, or for the peer to dial us.
    Waiting,
    /// One side does not want the other. Tried again all the same: a person may have changed that.
    Refused,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    name: String,
    /// Control address.
    pub address: SocketAddr,
    /// Slot of the session that is up.
    pub session: Option<usize>,
    /// When to dial; None for peers that dial us, and while there is an attempt or a session.
    pub dial_at: Option<Instant>,
    state: State,
    since: Instant,
    error: Option<String>,
    backoff: Backoff,
    sessions: u64,
    /// Of these, how many the engine has been told of.
    sessions_told: u64,
}

impl Peer {
    /// A peer that nothing has been heard of.
    pub const fn new(name: String, address: SocketAddr, seed: u64, dial_at: Option<Instant>, now: Instant) -> Self {
        Self {
            name,
            address,
            session: None,
            dial_at,
            state: State::Waiting,
            since: now,
            error: None,
            backoff: Backoff::new(seed),
            sessions: 0,
            sessions_told: 0,
        }
    }

    /// An attempt is made.
    pub fn begin_dialling(&mut self, now: Instant) {
        self.dial_at = None;
        if matches!(self.state, State::Waiting) {
            self.enter(State::Connecting, now);
        }
    }

    /// The session in `slot` is up.
    pub fn come_up(&mut self, slot: usize, now: Instant) {
        self.session = Some(slot);
        self.dial_at = None;
        self.error = None;
        self.sessions += 1;
        self.enter(State::Up, now);
    }

    /// The engine is being told of the next session.
    pub fn tell(&mut self) {
        self.sessions_told += 1;
    }

    /// The slot of the session that the engine means when it sends: the one that is up, unless it has not been told of
    /// it. What it says before that is for an earlier session, perhaps for an earlier life of the peer.
    pub fn known_session(&self) -> Option<usize> {
        self.session.filter(|_| self.sessions_told == self.sessions)
    }

    /// The session is gone, or an attempt has failed. `dial_again`: it was we who dialled.
    pub fn go_down(&mut self, ending: &Ending, dial_again: bool, now: Instant) {
        let lasted = matches!(self.state, State::Up) && now.saturating_duration_since(self.since) >= RECONNECT_DELAY_MAX;
        if lasted {
            self.backoff.reset();
        }
        self.session = None;
        self.error = Some(ending.to_string());
        if dial_again {
            let delay = self.backoff.next_delay();
            self.dial_at = Some(now + delay);
            log::debug!("peer={} next attempt in {} ms", self.name, delay.as_millis());
        }
        let refused = ending.is_refusal();
        if refused != matches!(self.state, State::Refused) || matches!(self.state, State::Up | State::Connecting) {
            self.enter(if refused { State::Refused } else { State::Waiting }, now);
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    /// For `baton peers`.
    pub fn view(&self, peer: NodeId, session: Option<&Session>) -> PeerView {
        PeerView {
            peer,
            state: match self.state {
                State::Up => "up",
                State::Connecting => "connecting",
                State::Waiting => "waiting",
                State::Refused => "refused",
            },
            since: self.since,
            error: self.error.clone(),
            round_trip: session.and_then(Session::round_trip),
            version: session.and_then(Session::version),
            draining: session.is_some_and(Session::peer_draining),
            sessions: self.sessions,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;
    use crate::limits::RECONNECT_DELAY_MIN;

    #[test]
    fn only_a_session_that_lasted_makes_the_next_attempt_an_early_one() {
        let mut now = Instant::now();
        let mut peer = Peer::new("b".into(), ([127, 0, 0, 1], 1).into(), 7, Some(now), now);
        let mut wait_after = |lasts: std::time::Duration, is_up: bool| {
            peer.begin_dialling(now);
            if is_up {
                peer.come_up(0, now);
            }
            now += lasts;
            peer.go_down(&Ending::Closed, true, now);
            peer.dial_at.expect("again") - now
        };
        let short = RECONNECT_DELAY_MAX - std::time::Duration::from_millis(1);
        let waits: Vec<_> = (0..10).map(|_| wait_after(short, true)).collect();
        assert!(waits[9] > RECONNECT_DELAY_MIN * 10, "a peer that comes and goes is dialled ever more seldom: {waits:?}");
        assert!(wait_after(RECONNECT_DELAY_MAX, false) > RECONNECT_DELAY_MIN * 10, "there was no session");
        assert_eq!(wait_after(RECONNECT_DELAY_MAX, true), RECONNECT_DELAY_MIN);
    }
}
