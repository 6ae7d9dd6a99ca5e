//! Looks after our nf_tables rules: somebody else may remove them at any time, and the kernel tells nobody.

use super::Node;
use crate::limits;
use std::time::Instant;

/// When they are looked at, and what was done.
#[derive(Debug)]
pub struct Rules {
    due: Instant,
    /// Times they were put back.
    pub restored: u64,
    /// Times they could not be, or could not be looked at.
    pub failed: u64,
}

impl Rules {
    /// They have just been made.
    pub fn new(now: Instant) -> Self {
        Self { due: now + limits::RULES_LOOK_INTERVAL, restored: 0, failed: 0 }
    }

    /// When they are to be looked at.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }
}

impl Node {
    /// Puts the rules back if they are gone. While they were, the kernel has gone on without this process, as when that
    /// stands still.
    pub(super) fn look_after_rules(&mut self, now: Instant) {
        if self.rules.due > now {
            return;
        }
        self.rules.due = now + limits::RULES_LOOK_INTERVAL;
        match self.host.capture().rules_are_there() {
            Ok(true) => {}
            Ok(false) => {
                self.engine.handle_stall(now);
                self.settle(now);
                let guards: Vec<_> = self.engine.guarded().collect();
                let result = self.host.capture().put_rules_back(&guards);
                self.forget_neighbours(now);
                match result {
                    Ok(()) => {
                        self.rules.restored += 1;
                        log::warn!(
                            "somebody has removed the nf_tables rules of inet baton; they were put back with {} guards. Clients \
                             of handed-off connections that sent something meanwhile were reset. Let firewall scripts flush \
                             their own tables only",
                            guards.len()
                        );
                    }
                    Err(error) => self.rules_failed(&format_args!("cannot be put back: {error:#}")),
                }
            }
            Err(error) => self.rules_failed(&format_args!("cannot be looked at: {error}")),
        }
    }

    /// Only the first is news; all are counted.
    fn rules_failed(&mut self, what: &dyn std::fmt::Display) {
        let level = if self.rules.failed == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "the nf_tables rules of inet baton {what}; see `rules_errors_total`");
        self.rules.failed += 1;
    }
}
