//! What is told about a connection that is over, or that the local server got.

use super::*;

impl Btcp {
    /// Counts what became of a connection.
    pub(super) fn count_outcome(&self, slot: usize, server: Option<NodeId>, outcome: Outcome, ctx: &mut Context) {
        let Some(connection) = self.connections.get(slot) else { return };
        let service = ctx.service_name(connection.flow.frontend);
        ctx.chronicle.count(&service, connection.rule.as_ref(), server, outcome);
    }

    /// Tells the story of a connection. It is told once.
    pub(super) fn tell(&mut self, slot: usize, server: Option<NodeId>, outcome: Outcome, end: End, ctx: &mut Context) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let story = connection.story.take();
        if story.is_some() {
            let service = ctx.service_name(connection.flow.frontend);
            ctx.chronicle.tell(story, connection.flow, service, connection.rule.clone(), server, outcome, end);
        }
    }

    /// The owner of a connection that is over, or lost: what it was to this node.
    pub(super) fn outcome_at(owner: NodeId, ctx: &Context) -> Outcome {
        if owner == ctx.node { Outcome::Replayed } else { Outcome::HandedOff }
    }

    /// A candidate does not serve a connection.
    pub(super) fn note_fallback(&mut self, slot: usize, candidate: Option<NodeId>, reason: Fallback) {
        if let Some(story) = self.connections.get_mut(slot).and_then(|connection| connection.story.as_mut()) {
            story.fall_back(candidate, reason);
        }
    }
}
