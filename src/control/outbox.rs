//! Octets that wait to be written.

/// A queue of octets that is read from the front in pieces. Each octet is moved at most twice.
#[derive(Debug, Default)]
pub struct Outbox {
    octets: Vec<u8>,
    taken: usize,
}

/// Above this an emptied queue gives its memory back: it was a burst.
const KEPT_BYTES: usize = 1 << 20;

impl Outbox {
    /// Octets that wait.
    pub fn len(&self) -> usize {
        self.octets.len() - self.taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// What waits, oldest first.
    pub fn waiting(&self) -> &[u8] {
        &self.octets[self.taken..]
    }

    /// The first `octets` of it have been written.
    pub fn advance(&mut self, octets: usize) {
        self.taken = (self.taken + octets).min(self.octets.len());
        if self.is_empty() {
            self.taken = 0;
            self.octets.clear();
            if self.octets.capacity() > KEPT_BYTES {
                self.octets = Vec::new();
            }
        } else if self.taken > self.octets.len() / 2 {
            self.octets.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Nothing waits any more.
    pub fn clear(&mut self) {
        self.advance(self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_leave_in_order_and_memory_is_given_back() {
        let (mut outbox, mut left) = (Outbox::default(), Vec::new());
        let all: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        outbox.end().extend_from_slice(&all);
        while !outbox.is_empty() {
            let piece = outbox.len().min(7_777);
            left.extend_from_slice(&outbox.waiting()[..piece]);
            outbox.advance(piece);
        }
        assert!(left == all && outbox.octets.capacity() == 0);
    }

    #[test]
    fn what_is_cleared_waits_no_more() {
        let mut outbox = Outbox::default();
        outbox.end().extend_from_slice(b"abc");
        outbox.advance(1);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.waiting().is_empty());
    }
}
