//! Coordinate systems. A number from one cannot be used in another: the only crossing is a connection's shift.
//!
//! | space | whose numbers | sequence numbers of | timestamp clock of |
//! |---|---|---|---|
//! | [`Client`] | the client's | the client's bytes | the client |
//! | [`Wire`] | the front-end kernel's, the only server numbers a client ever sees | the server's bytes | the front-end |
//! | [`Local`] | the owner kernel's | the server's bytes | the owner |

use std::marker::PhantomData;

/// The client's own numbers; the same at every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {}
/// The server's numbers as the client sees them: those of the front-end's kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {}
/// The server's numbers as the owner's kernel has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Local {}

/// A TCP sequence number in space `S` (RFC 9293, section 3.4: modulo 2^32, so there is no total order).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seq<S>(u32, PhantomData<S>);

impl<S> Seq<S> {
    /// From the number in a header.
    pub const fn new(raw: u32) -> Self {
        Self(raw, PhantomData)
    }
    /// The number as it stands in a header.
    pub const fn raw(&self) -> u32 {
        self.0
    }
    /// The sequence number `octets` later.
    #[must_use]
    pub const fn plus(&self, octets: u32) -> Self {
        Self::new(self.0.wrapping_add(octets))
    }
    /// Signed distance from `origin` to `self`, in octets.
    pub const fn since(&self, origin: &Self) -> i32 {
        self.0.wrapping_sub(origin.0) as i32
    }
    /// Whether `self` comes strictly before `other`.
    pub const fn is_before(&self, other: &Self) -> bool {
        self.since(other) < 0
    }
}

/// A TCP timestamp (RFC 7323) of the clock of space `S`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamp<S>(u32, PhantomData<S>);

impl<S> Timestamp<S> {
    /// From the number in an option.
    pub const fn new(raw: u32) -> Self {
        Self(raw, PhantomData)
    }
    /// The number as it stands in an option.
    pub const fn raw(&self) -> u32 {
        self.0
    }
    /// The timestamp `ticks` later.
    #[must_use]
    pub const fn plus(&self, ticks: u32) -> Self {
        Self::new(self.0.wrapping_add(ticks))
    }
    /// Signed distance from `origin` to `self`, in ticks.
    pub const fn since(&self, origin: &Self) -> i32 {
        self.0.wrapping_sub(origin.0) as i32
    }
}

/// A window scale shift count, 0 to 14 (RFC 7323, section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WindowScale(u8);

impl WindowScale {
    /// No scaling.
    pub const NONE: Self = Self(0);
    /// A shift count; anything above 14 is taken as 14, as RFC 7323 asks.
    pub const fn new(shift: u8) -> Self {
        Self(if shift > 14 { 14 } else { shift })
    }
    /// The shift count.
    pub const fn shift(self) -> u8 {
        self.0
    }
}

/// The crossing between [`Wire`] and [`Local`] sequence numbers; constant for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeqShift(u32);

impl SeqShift {
    /// Both sides have the same numbers.
    pub const NONE: Self = Self(0);
    /// The shift that maps the owner's ISN onto the front-end's.
    pub const fn between(wire: Seq<Wire>, local: Seq<Local>) -> Self {
        Self(wire.0.wrapping_sub(local.0))
    }
    /// What is added towards the client.
    pub const fn amount(self) -> i32 {
        self.0 as i32
    }
    /// What the client must see.
    pub const fn to_wire(self, local: Seq<Local>) -> Seq<Wire> {
        Seq::new(local.0.wrapping_add(self.0))
    }
    /// What the owner's kernel must see.
    pub const fn to_local(self, wire: Seq<Wire>) -> Seq<Local> {
        Seq::new(wire.0.wrapping_sub(self.0))
    }
}

/// The crossing between [`Wire`] and [`Local`] timestamps; constant for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampShift(u32);

impl TimestampShift {
    /// The shift that maps `local` onto `wire`.
    pub const fn between(wire: Timestamp<Wire>, local: Timestamp<Local>) -> Self {
        Self(wire.0.wrapping_sub(local.0))
    }
    /// What is added towards the client.
    pub const fn amount(self) -> i32 {
        self.0 as i32
    }
    /// What the client must see.
    pub const fn to_wire(self, local: Timestamp<Local>) -> Timestamp<Wire> {
        Timestamp::new(local.0.wrapping_add(self.0))
    }
    /// What the owner's kernel must see.
    pub const fn to_local(self, wire: Timestamp<Wire>) -> Timestamp<Local> {
        Timestamp::new(wire.0.wrapping_sub(self.0))
    }
}

/// How the window field of the owner's kernel becomes one in the scale the client was promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowRescale {
    /// The scale of the owner's kernel.
    pub kernel: WindowScale,
    /// The scale of the front-end's SYN-ACK.
    pub promised: WindowScale,
    /// One maximum segment, in octets: a kernel window of at least this much never becomes 0.
    pub mss: u16,
}

impl WindowRescale {
    /// The window field for the client. Rounds down, so the client never sends more than the kernel takes, but never
    /// turns a window of at least one segment into 0: the client would stop and probe (RFC 9293, section 3.8.6.1).
    pub const fn rescale(self, field: u16) -> u16 {
        let octets = (field as u32) << self.kernel.0;
        let units = octets >> self.promised.0;
        if units == 0 && octets >= self.mss as u32 && octets > 0 {
            1
        } else if units > u16::MAX as u32 {
            u16::MAX
        } else {
            units as u16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap() {
        let last = Seq::<Client>::new(u32::MAX);
        assert_eq!(last.plus(1), Seq::new(0));
        assert_eq!(last.plus(1).since(&last), 1);
        assert!(last.is_before(&last.plus(1)));
        assert!(!last.plus(1).is_before(&last));
    }

    #[test]
    fn a_shift_says_what_is_added_towards_the_client() {
        let forward = SeqShift::between(Seq::new(5), Seq::new(0xffff_fff0));
        let back = TimestampShift::between(Timestamp::new(0xffff_fff0), Timestamp::new(5));
        assert_eq!((forward.amount(), back.amount()), (21, -21));
    }

    #[test]
    fn a_sequence_number_is_not_before_itself() {
        let seq = Seq::<Wire>::new(7);
        assert!(!seq.is_before(&seq));
    }

    #[test]
    fn a_shift_maps_one_isn_onto_the_other_and_back() {
        let (wire, local) = (Seq::<Wire>::new(5), Seq::<Local>::new(0xffff_fff0));
        let shift = SeqShift::between(wire, local);
        assert_eq!(shift.to_wire(local), wire);
        assert_eq!(shift.to_local(wire), local);
        assert_eq!(shift.to_wire(local.plus(100)), wire.plus(100));
    }

    #[test]
    fn timestamps_that_advance_locally_advance_for_the_client_also_when_they_wrap() {
        let (wire, local) = (Timestamp::<Wire>::new(u32::MAX - 1), Timestamp::<Local>::new(1_000));
        let shift = TimestampShift::between(wire, local);
        let later = shift.to_wire(local.plus(10));
        assert_eq!(later.raw(), 8);
        assert_eq!(later.since(&wire), 10);
        assert_eq!(shift.to_local(later), local.plus(10));
    }

    #[test]
    fn a_scale_above_14_is_taken_as_14() {
        assert_eq!(WindowScale::new(200).shift(), 14);
    }

    fn rescale(kernel: u8, promised: u8) -> WindowRescale {
        WindowRescale { kernel: WindowScale::new(kernel), promised: WindowScale::new(promised), mss: 1460 }
    }

    #[test]
    fn equal_scales_leave_the_window_alone() {
        for field in [0, 1, 502, 65_535] {
            assert_eq!(rescale(7, 7).rescale(field), field);
        }
    }

    #[test]
    fn a_coarser_promise_rounds_down() {
        // 1000 units of 128 octets are 62.5 units of 2048.
        assert_eq!(rescale(7, 11).rescale(1_000), 62);
    }

    #[test]
    fn a_window_beyond_the_field_is_the_largest_there_is() {
        assert_eq!(rescale(14, 0).rescale(u16::MAX), u16::MAX);
    }

    #[test]
    fn a_window_of_a_whole_segment_never_becomes_zero() {
        // One unit of 2^14 octets is more than the kernel's 1460, but 0 would stop the client.
        assert_eq!(rescale(0, 14).rescale(1_460), 1);
    }

    #[test]
    fn a_window_too_small_for_a_segment_may_become_zero() {
        assert_eq!(rescale(0, 14).rescale(1_459), 0);
        assert_eq!(rescale(0, 14).rescale(0), 0);
        assert_eq!(WindowRescale { mss: 0, ..rescale(0, 14) }.rescale(0), 0);
    }

    #[test]
    fn the_client_is_never_offered_more_than_the_kernel_has_but_for_that_one_unit() {
        for kernel in 0..=14 {
            for promised in 0..=14 {
                for field in [0, 1, 2, 3, 100, 1_459, 1_460, 32_768, 65_535] {
                    let offered = u32::from(rescale(kernel, promised).rescale(field)) << promised;
                    let open = u32::from(field) << kernel;
                    assert!(offered <= open || (offered == 1 << promised && open >= 1_460));
                }
            }
        }
    }
}
