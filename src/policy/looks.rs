//! What is remembered of a connection from one look at its first bytes to the next, so that bytes which come one by one do
//! not cost the square of what they cost together.
//!
//! What is decided depends on the bytes alone ([`Service::examine`]); nothing here changes it, but for the bound. Three things
//! save work: how many bytes there must be until the answer can be another (a body's length, a frame's end), where the
//! searches of expressions stand that are still open, and that bytes are none of the protocols that can be told apart. All other
//! inspectors begin anew at each look. So what is looked at is counted, and a client that sends its request in so many pieces
//! that the bound is passed is the default's.

use super::ambiguity::Ambiguity;
use super::inspect::{Content, Reading};
use super::subject::Origin;
use super::{Examination, Service};
use crate::limits::cluster_file::LOOKS_PER_BYTE_MAX;
use regex_automata::util::primitives::StateID;
use std::cell::{Cell, RefCell};

/// What is remembered of one connection. It is about one policy: another one begins with a new one.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// Octets looked at, each as often as it was.
    octets: usize,
    /// With fewer bytes than these, still more are needed.
    next: usize,
    awaits_server: bool,
    /// The bytes were read as those of no protocol, and will be.
    is_raw: bool,
    searches: Searches,
}

impl Looks {
    /// Octets looked at so far, each as often as it was.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Whether the client may be waiting for the server to speak: all it sent is whole, and not enough to decide by.
    pub fn awaits_server(&self) -> bool {
        self.awaits_server
    }
}

/// Where the searches of the raw bytes stand, by the numbers of their expressions.
#[derive(Clone, Debug, Default)]
pub(super) struct Searches {
    places: RefCell<Vec<Option<Place>>>,
    steps: Cell<usize>,
}

/// A search that has seen so many octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) seen: usize,
    pub(super) state: StateID,
}

impl Searches {
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        *self.places.borrow().get(number)?
    }

    /// Where the search of an expression stands now, after so many steps.
    pub(super) fn keep(&self, number: usize, place: Place, steps: usize) {
        self.steps.set(self.steps.get() + steps);
        let mut places = self.places.borrow_mut();
        if places.len() <= number {
            places.resize(number + 1, None);
        }
        if let Some(kept) = places.get_mut(number) {
            *kept = Some(place);
        }
    }
}

impl Service {
    /// Looks at the first bytes of a connection as [`Service::examine`] does, all that arrived in order so far, and remembers
    /// what saves work when there are more of them.
    pub fn look(&self, first_flight: &[u8], origin: impl Into<Origin>, looks: &mut Looks) -> Examination {
        looks.awaits_server = false;
        if first_flight.len() < looks.next {
            return Examination::NeedMore;
        }
        let mut text = Vec::new();
        // Behind a proxy, the rules' client is not the one that the connection is from.
        let connection = origin.into();
        let (reading, origin) = self.read(first_flight, connection, looks.is_raw, &mut text);
        let examination = self.judge(&reading, origin, Some(&looks.searches));
        let seen = first_flight.len().min(self.inspect_bytes_max);
        looks.octets += match &reading {
            // Where the bytes begin, before them a proxy's header, is looked at each time; the searches go on.
            Reading::Clear(Content::Raw(raw)) if looks.is_raw => seen.saturating_sub(raw.bytes.len()),
            _ => seen,
        };
        looks.octets += looks.searches.steps.take();
        if examination != Examination::NeedMore {
            return examination;
        }
        if looks.octets > self.inspect_bytes_max.saturating_mul(LOOKS_PER_BYTE_MAX) {
            return self.unclear(Ambiguity::TooManyPieces, origin);
        }
        looks.is_raw = matches!(reading, Reading::Clear(Content::Raw(_)));
        looks.next = first_flight.len().saturating_add(match &reading {
            Reading::Clear(Content::Http(request)) => request.body.missing(),
            _ => 1,
        });
        looks.awaits_server = match &reading {
            Reading::Incomplete => self.awaits_more_than(first_flight, connection),
            // Who has not said anything is silent.
            Reading::Clear(content) => !first_flight.is_empty() && content.awaits_server(),
            Reading::Unclear(_) => false,
        };
        examination
    }

    /// Whether a client that has sent this, which is not enough to decide by, may be waiting for the server to speak.
    pub fn awaits_server(&self, first_flight: &[u8], origin: impl Into<Origin>) -> bool {
        let mut looks = Looks::default();
        self.look(first_flight, origin, &mut looks);
        looks.awaits_server
    }
}
