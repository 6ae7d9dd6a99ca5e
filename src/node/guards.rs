//! Guards, gathered so that the kernel sees few transactions.

use crate::flow::FlowKey;
use std::io;

/// Guards to write and to remove.
///
/// Additions are urgent (the engine waits for the result); removals are not: a guard that stays a little longer only
/// sends its packets to this process. So removals wait for the next addition or the end of the wake.
#[derive(Debug, Default)]
pub struct Guards {
    add: Vec<FlowKey>,
    remove: Vec<FlowKey>,
    /// Changes the kernel did not take.
    failures: u64,
}

/// What became of one guard.
pub type Written = (FlowKey, bool);

impl Guards {
    /// A guard is wanted. One that is there and only waits for its removal stays.
    pub fn add(&mut self, flow: FlowKey) {
        self.remove.retain(|removed| *removed != flow);
        self.add.push(flow);
    }

    /// A guard is not wanted any more.
    pub fn remove(&mut self, flow: FlowKey) {
        self.remove.push(flow);
    }

    /// Whether the engine waits for a result.
    pub fn has_additions(&self) -> bool {
        !self.add.is_empty()
    }

    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Changes the kernel did not take, since start.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Changes all in one transaction; if that fails, each in its own, so that one bad change does not fail the others.
    /// Tells the result of each addition.
    pub fn write(&mut self, mut change: impl FnMut(&[FlowKey], &[FlowKey]) -> io::Result<()>) -> Vec<Written> {
        let (add, remove) = (std::mem::take(&mut self.add), std::mem::take(&mut self.remove));
        if add.is_empty() && remove.is_empty() {
            return Vec::new();
        }
        let Err(error) = change(&add, &remove) else {
            return add.into_iter().map(|flow| (flow, true)).collect();
        };
        if add.len() + remove.len() > 1 {
            log::debug!("guards: changing {} together failed: {error}; each alone", add.len() + remove.len());
            for flow in remove {
                self.count(change(&[], &[flow]));
            }
            return add.into_iter().map(|flow| (flow, self.count(change(&[flow], &[])))).collect();
        }
        self.count(Err(error));
        add.into_iter().map(|flow| (flow, false)).collect()
    }

    fn count(&mut self, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            // Only the first is news; all are counted.
            let level = if self.failures == 0 { log::Level::Warn } else { log::Level::Debug };
            log::log!(level, "guards: the kernel did not take a change: {error}; see `guard_write_errors_total`");
            self.failures += 1;
        }
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use std::net::{IpAddr, Ipv4Addr};

    fn flow(port: u16) -> FlowKey {
        let end = |port| Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        FlowKey { client: end(port), frontend: end(80) }
    }

    #[test]
    fn all_changes_go_in_one_transaction() {
        let mut guards = Guards::default();
        guards.remove(flow(9));
        guards.add(flow(1));
        guards.add(flow(2));
        let mut calls = Vec::new();
        let written = guards.write(|add, remove| {
            calls.push((add.to_vec(), remove.to_vec()));
            Ok(())
        });
        assert_eq!(calls, [(vec![flow(1), flow(2)], vec![flow(9)])]);
        assert_eq!(written, [(flow(1), true), (flow(2), true)]);
        assert!(guards.is_empty() && guards.failures() == 0);
    }

    #[test]
    fn one_bad_guard_does_not_fail_the_others() {
        let mut guards = Guards::default();
        (1..=3).for_each(|port| guards.add(flow(port)));
        let written = guards.write(|add, _| if add.contains(&flow(2)) { Err(io::Error::other("full")) } else { Ok(()) });
        assert_eq!(written, [(flow(1), true), (flow(2), false), (flow(3), true)]);
        assert_eq!(guards.failures(), 1);
    }

    #[test]
    fn a_lone_failure_is_not_tried_twice() {
        let mut guards = Guards::default();
        guards.add(flow(1));
        let mut calls = 0;
        let written = guards.write(|_, _| {
            calls += 1;
            Err(io::Error::other("full"))
        });
        assert_eq!((calls, written), (1, vec![(flow(1), false)]));
    }

    #[test]
    fn a_guard_wanted_again_is_not_removed() {
        let mut guards = Guards::default();
        guards.remove(flow(1));
        guards.add(flow(1));
        guards.write(|add, remove| {
            assert_eq!((add, remove), (&[flow(1)][..], &[][..]));
            Ok(())
        });
    }

    #[test]
    fn nothing_to_do_is_no_transaction() {
        assert!(Guards::default().write(|_, _| panic!("called")).is_empty());
    }
}
