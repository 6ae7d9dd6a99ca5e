//! TCP options (RFC 9293, section 3.2): a walker that knows lengths, not meanings.
//!
//! An unknown kind is skipped by its length, so an option behind it is still found. What is read follows the kernel
//! that will read it next: an option with a length its kind does not have is ignored, and of two options of one kind
//! the last counts.

use super::segment::Malformed;

/// Option kinds, as IANA lists them.
#[allow(missing_docs)]
pub mod kind {
    pub const END: u8 = 0;
    pub const NO_OPERATION: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
    pub const MD5: u8 = 19;
    pub const AUTHENTICATION: u8 = 29;
    pub const MPTCP: u8 = 30;
    pub const FAST_OPEN: u8 = 34;
    /// Shared by experiments (RFC 6994); TCP Fast Open began as one, and Linux still takes it.
    pub const EXPERIMENT: u8 = 254;
}

/// What the value of an experiment's option begins with if it is TCP Fast Open (RFC 7413, section 8; RFC 6994).
pub const FAST_OPEN_EXPERIMENT: [u8; 2] = [0xf9, 0x89];

/// Octets of each option of fixed length, kind and length octet included.
pub mod length {
    /// RFC 9293, section 3.7.1.
    pub const MSS: usize = 4;
    /// RFC 7323, section 2.2.
    pub const WINDOW_SCALE: usize = 3;
    /// RFC 2018, section 2.
    pub const SACK_PERMITTED: usize = 2;
    /// RFC 7323, section 3.2.
    pub const TIMESTAMPS: usize = 10;
    /// One block of a SACK option (RFC 2018, section 3).
    pub const SACK_BLOCK: usize = 8;
}

/// Where one option lies: octets from the start of the option list. Borrows nothing, so the list can be rewritten
/// between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Option kind; never END or NO_OPERATION.
    pub kind: u8,
    /// The kind octet.
    pub start: usize,
    /// The octet after the option.
    pub end: usize,
}

impl Place {
    /// Octets behind kind and length.
    pub const fn body(self) -> std::ops::Range<usize> {
        self.start + 2..self.end
    }

    /// Whether this is a `kind` of the length that kind has.
    pub const fn is(self, kind: u8, length: usize) -> bool {
        self.kind == kind && self.end - self.start == length
    }
}

/// The first option at or after `at`, NO_OPERATION octets skipped; `None` at the end of the list.
pub fn next(list: &[u8], at: usize) -> Option<Result<Place, Malformed>> {
    let start = at + list.get(at..)?.iter().position(|&octet| octet != kind::NO_OPERATION)?;
    let kind = list[start];
    if kind == kind::END {
        return None;
    }
    let length = usize::from(list.get(start + 1).copied().unwrap_or(0));
    let end = start + length;
    Some(if length < 2 || end > list.len() { Err(Malformed::Options) } else { Ok(Place { kind, start, end }) })
}

/// All options of a list in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    list: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// The options in `list`: everything between the fixed TCP header and the payload.
    pub const fn new(list: &'a [u8]) -> Self {
        Self { list, at: 0 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Place, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = next(self.list, self.at);
        self.at = match found {
            Some(Ok(place)) => place.end,
            Some(Err(_)) | None => self.list.len(),
        };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(list: &[u8]) -> Result<Vec<u8>, Malformed> {
        Options::new(list).map(|option| option.map(|place| place.kind)).collect()
    }

    #[test]
    fn an_empty_list_has_no_options() {
        assert_eq!(kinds(&[]), Ok(vec![]));
    }

    #[test]
    fn padding_is_no_option() {
        assert_eq!(kinds(&[1, 1, 1, 1]), Ok(vec![]));
        assert_eq!(kinds(&[1, 0, 0, 0]), Ok(vec![]));
    }

    #[test]
    fn an_option_behind_unknown_kinds_is_found() {
        let list = [253, 4, 0xaa, 0xbb, 34, 2, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(kinds(&list), Ok(vec![253, kind::FAST_OPEN, kind::TIMESTAMPS]));
        let timestamps = Options::new(&list).last().unwrap().unwrap();
        assert!(timestamps.is(kind::TIMESTAMPS, length::TIMESTAMPS));
        assert_eq!(timestamps.body(), 9..17);
    }

    #[test]
    fn nothing_is_read_behind_the_end_of_list() {
        assert_eq!(kinds(&[0, 2, 4, 5]), Ok(vec![]));
        assert_eq!(kinds(&[4, 2, 0, 99]), Ok(vec![kind::SACK_PERMITTED]));
    }

    #[test]
    fn lengths_that_cannot_be_are_malformed() {
        assert_eq!(kinds(&[2, 0, 5, 180]), Err(Malformed::Options));
        assert_eq!(kinds(&[2, 1, 5, 180]), Err(Malformed::Options));
        assert_eq!(kinds(&[2, 5, 5, 180]), Err(Malformed::Options));
        assert_eq!(kinds(&[1, 1, 1, 2]), Err(Malformed::Options));
        assert_eq!(kinds(&[99, 255]), Err(Malformed::Options));
    }

    #[test]
    fn the_walk_ends_after_an_error() {
        let mut options = Options::new(&[4, 2, 9, 1, 4, 2]);
        assert!(matches!(options.next(), Some(Ok(_))));
        assert_eq!(options.next(), Some(Err(Malformed::Options)));
        assert_eq!(options.next(), None);
    }
}
