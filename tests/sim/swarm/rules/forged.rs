//! 7. A forged or corrupt packet changes no state: what an engine shows of its connections is the same before and after.

use super::{Facts, Rule, Seen};

pub struct Forged;

impl Rule for Forged {
    fn name(&self) -> &'static str {
        "7 forgeries change nothing"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        match seen {
            Seen::Forged { node, before, after } if before != after => {
                Err(format!("at node {node} a forgery changed\n  {before}\nto\n  {after}"))
            }
            _ => Ok(()),
        }
    }
}
