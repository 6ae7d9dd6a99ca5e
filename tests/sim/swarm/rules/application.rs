//! 10. A request reaches at most one application, and once.

use super::{ApplicationEvent, Facts, Rule, Seen};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneApplication {
    reached: BTreeMap<(usize, usize), usize>,
}

impl Rule for OneApplication {
    fn name(&self) -> &'static str {
        "10 one application"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        let Seen::Application { node, event: ApplicationEvent::Request { id } } = seen else { return Ok(()) };
        match self.reached.insert(*id, *node) {
            Some(before) => Err(format!("request {id:?} reached the application of node {before}, and now that of node {node}")),
            None => Ok(()),
        }
    }
}
