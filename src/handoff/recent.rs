//! What is remembered on a client's word alone: bounded in number and in time, and the oldest goes first.

use crate::flow::FlowKey;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Something about each of the flows that were heard of lately.
#[derive(Clone, Debug)]
pub struct Recent<T> {
    by_flow: HashMap<FlowKey, (T, Instant), foldhash::quality::FixedState>,
    by_age: VecDeque<(FlowKey, Instant)>,
    count_max: usize,
    lifetime: Duration,
}

impl<T> Recent<T> {
    /// Nothing yet; the seed makes the hash unpredictable from outside.
    pub fn new(seed: u64, count_max: usize, lifetime: Duration) -> Self {
        let by_flow = HashMap::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        Self { by_flow, by_age: VecDeque::new(), count_max, lifetime }
    }

    /// Remembers this instead of what was known of the flow; how many others had to go for it before their time.
    pub fn insert(&mut self, flow: FlowKey, value: T, now: Instant) -> u64 {
        let mut evicted = 0;
        let is_old = |at: Instant, lifetime: Duration| now.saturating_duration_since(at) > lifetime;
        while self.by_age.len() >= self.count_max || self.by_age.front().is_some_and(|(_, at)| is_old(*at, self.lifetime)) {
            let Some((oldest, at)) = self.by_age.pop_front() else { break };
            if self.by_flow.get(&oldest).is_some_and(|(_, kept_at)| *kept_at == at) {
                self.by_flow.remove(&oldest);
                if !is_old(at, self.lifetime) {
                    evicted += 1;
                }
            }
        }
        self.by_age.push_back((flow, now));
        self.by_flow.insert(flow, (value, now));
        evicted
    }

    /// What is remembered of the flow. It may be older than its lifetime, if nothing came since that would have pushed it out.
    pub fn get(&self, flow: &FlowKey) -> Option<&T> {
        self.by_flow.get(flow).map(|(value, _)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, flow: &FlowKey) -> Option<&mut T> {
        self.by_flow.get_mut(flow).map(|(value, _)| value)
    }

    /// Forgets it.
    pub fn remove(&mut self, flow: &FlowKey) -> Option<T> {
        self.by_flow.remove(flow).map(|(value, _)| value)
    }

    /// Forgets those of which this is not said.
    pub fn retain(&mut self, keep: impl Fn(&FlowKey) -> bool) {
        self.by_flow.retain(|flow, _| keep(flow));
    }

    /// Forgets what is older than its lifetime.
    pub fn expire(&mut self, now: Instant) {
        while let Some((flow, at)) = self.by_age.front().copied()
            && now.saturating_duration_since(at) > self.lifetime
        {
            self.by_age.pop_front();
            if self.by_flow.get(&flow).is_some_and(|(_, kept_at)| *kept_at == at) {
                self.by_flow.remove(&flow);
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.by_flow.clear();
        self.by_age.clear();
    }

    /// Flows remembered.
    pub fn count(&self) -> usize {
        self.by_flow.len()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;
    use crate::flow::Endpoint;

    fn flow(port: u16) -> FlowKey {
        FlowKey { client: Endpoint::new([192, 0, 2, 1].into(), port), frontend: Endpoint::new([10, 0, 0, 1].into(), 80) }
    }

    #[test]
    fn what_is_older_than_its_lifetime_expires_and_what_was_said_again_does_not() {
        let (origin, second) = (Instant::now(), Duration::from_secs(1));
        let mut recent = Recent::new(1, 10, second);
        recent.insert(flow(1), 'a', origin);
        recent.insert(flow(2), 'b', origin);
        recent.insert(flow(1), 'c', origin + second);
        recent.expire(origin + second);
        assert_eq!(recent.count(), 2, "to the moment");
        recent.expire(origin + second + Duration::from_millis(1));
        assert_eq!((recent.get(&flow(1)), recent.get(&flow(2))), (Some(&'c'), None));
        recent.expire(origin + second * 3);
        assert_eq!((recent.count(), recent.by_age.len()), (0, 0));
    }
}
