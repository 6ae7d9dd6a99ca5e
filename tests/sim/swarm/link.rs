//! One direction of one path: what it does to packets.

use drill::random::Random;

/// What a path is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkPlan {
    /// Microseconds, one way.
    pub delay: u64,
    /// Up to so many microseconds more; packets keep their order.
    pub jitter: u64,
    pub loss_permille: u64,
    /// Gilbert and Elliott's two states: how often the bad one is entered, is left, and what is lost in it.
    pub burst: Option<Burst>,
    pub duplicate_permille: u64,
    /// Of a thousand packets, so many are overtaken by others.
    pub reorder_permille: u64,
    /// Of a thousand packets, so many have a bit flipped.
    pub corrupt_permille: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Burst {
    pub enter_permille: u64,
    pub leave_permille: u64,
    pub loss_permille: u64,
}

/// Microseconds.
const BAD_MAX: u64 = 300_000;

/// A path and what has gone over it.
#[derive(Clone, Debug)]
pub struct Link {
    pub plan: LinkPlan,
    /// The bad state lasts until then at most: it is one of the network, not of the few packets it sees.
    bad_until: Option<u64>,
    last_arrival: u64,
    /// Nothing passes until then.
    pub parted_until: u64,
    /// Longer packets are answered with an error.
    pub mtu: usize,
    /// Of a thousand packets, so many are cut in two (IPv4).
    pub fragment_permille: u64,
}

impl Link {
    pub const fn new(plan: LinkPlan) -> Self {
        Self { plan, bad_until: None, last_arrival: 0, parted_until: 0, mtu: usize::MAX, fragment_permille: 0 }
    }

    /// When, and how, a packet arrives: not at all, once, or more often.
    pub fn carry(&mut self, packet: Vec<u8>, now: u64, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
        let plan = self.plan;
        self.bad_until = self.bad_until.filter(|until| now < *until);
        if let Some(burst) = plan.burst {
            match self.bad_until {
                None if random.permille(burst.enter_permille) => self.bad_until = Some(now + BAD_MAX),
                Some(_) if random.permille(burst.leave_permille) => self.bad_until = None,
                _ => {}
            }
        }
        let burst_loss = plan.burst.filter(|_| self.bad_until.is_some()).map_or(0, |burst| burst.loss_permille);
        if now < self.parted_until || random.permille(plan.loss_permille) || random.permille(burst_loss) {
            return Vec::new();
        }
        let copies = if random.permille(plan.duplicate_permille) { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let mut packet = packet.clone();
            if random.permille(plan.corrupt_permille) {
                let bit = random.below(packet.len() as u64 * 8) as usize;
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            let jitter = if plan.jitter > 0 { random.below(plan.jitter) } else { 0 };
            let mut at = (now + plan.delay + jitter).max(self.last_arrival);
            if random.permille(plan.reorder_permille) {
                at += random.between(1, 3 * plan.delay.max(1_000));
            } else {
                self.last_arrival = at;
            }
            arrivals.push((at, packet));
        }
        arrivals
    }
}
