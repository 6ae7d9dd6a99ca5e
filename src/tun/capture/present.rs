//! Our rules when somebody else has removed them: `nft flush ruleset` stands in many a firewall's script.
//!
//! Routes and policy rules are nobody's to flush: what must not leave does not leave meanwhile, whatever nf_tables say.

use super::*;

/// Guards written back in one transaction.
const GUARDS_AT_ONCE: usize = 4096;

impl Capture {
    /// Whether our nf_tables rules are there.
    pub fn rules_are_there(&self) -> io::Result<bool> {
        nft::rules_in(&["prerouting", "from_tun", "output", "forward"])
    }

    /// Puts our rules back as they were, with these guards. What the kernel has learned since the start it learns anew.
    pub fn put_rules_back(&mut self, guards: &[FlowKey]) -> anyhow::Result<()> {
        let left_over = preflight::left_over()?;
        let (received, linked_peers) = (self.config.received(), self.config.linked_peers());
        let links = (!self.config.links.is_empty()).then_some(Links { received: &received, peers: &linked_peers });
        let ruleset = Ruleset { links, not_a_router: &self.not_a_router, ..self.ruleset() };
        let mut transaction = ruleset.install(&left_over) + &ruleset.replace_frontends(&[], &self.known);
        if self.is_released {
            transaction += &nft::release();
        }
        nft::apply(&transaction).context("putting the nf_tables rules back")?;
        for guards in guards.chunks(GUARDS_AT_ONCE) {
            self.guards.change(guards, &[]).context("putting guards back")?;
        }
        Ok(())
    }
}
