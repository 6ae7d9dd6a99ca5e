//! What must always hold, each rule its own checker. A rule sees everything that happens and nothing that baton thinks of it,
//! but for its counters and what it shows of its connections.

pub mod application;
pub mod counted;
pub mod ecn;
pub mod ending;
pub mod forged;
pub mod local;
pub mod owner;
pub mod promise;
pub mod streams;
pub mod untranslated;

use super::application::Event as ApplicationEvent;
use super::client::{Ending, Event as ClientEvent};
use super::plan::{Fault, Plan};
use baton::flow::{Endpoint, FlowKey};
use baton::handoff::{Engine, Verdict};
use baton::rewrite::{Segment, ToServerWire};
use std::net::IpAddr;
use std::time::Instant;

/// Something that happened.
pub enum Seen<'a> {
    /// A client gave a packet to the network.
    ClientSent {
        segment: &'a Segment<&'a [u8], ToServerWire>,
    },
    /// Something at a client.
    Client {
        event: &'a ClientEvent,
    },
    /// A packet left a node; straight from its kernel, or through the process.
    Left {
        node: usize,
        packet: &'a [u8],
        is_direct: bool,
        is_guarded: bool,
    },
    /// A kernel is given a packet, by the process or past it.
    Written {
        node: usize,
        packet: &'a [u8],
        is_guarded: bool,
    },
    /// Something at an application.
    Application {
        node: usize,
        event: &'a ApplicationEvent,
    },
    /// An engine has seen a packet.
    Verdict {
        node: usize,
        verdict: Verdict,
    },
    /// An engine took an input and has said everything.
    Step {
        node: usize,
        engine: &'a Engine,
        now: Instant,
    },
    /// A process is gone, or was born anew.
    Life {
        node: usize,
    },
    /// Somebody's packet is about to reach an engine, or has: what the engine showed of its connections before and after.
    Forged {
        node: usize,
        before: &'a str,
        after: &'a str,
    },
    Fault {
        fault: &'a Fault,
    },
}

/// What does not change.
pub struct Facts {
    pub plan: Plan,
    pub frontends: Vec<Endpoint>,
}

impl Facts {
    pub fn client_of(&self, address: IpAddr) -> Option<usize> {
        let clients = self.plan.clients.iter().enumerate();
        clients
            .map(|(index, client)| (index, super::cluster::client_address(index, client.is_v6)))
            .find(|(_, its)| *its == address)
            .map(|(index, _)| index)
    }

    /// Client's and front-end's end of an errand.
    pub fn flow_of(&self, errand: &super::plan::Errand) -> FlowKey {
        let is_v6 = self.plan.clients[errand.client].is_v6;
        FlowKey {
            client: Endpoint::new(super::cluster::client_address(errand.client, is_v6), errand.port),
            frontend: Endpoint::new(super::cluster::node_address(errand.frontend, is_v6), super::cluster::FRONTEND_PORT),
        }
    }
}

/// A rule. An error is what was broken.
pub trait Rule {
    fn name(&self) -> &'static str;
    fn see(&mut self, now: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String>;
    /// Everything is over.
    fn end(&mut self, _now: u64, _facts: &Facts) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub fn all(facts: &Facts) -> Vec<Box<dyn Rule>> {
    vec![
        Box::new(owner::OneOwner::default()),
        Box::new(streams::Streams::new(facts)),
        Box::new(untranslated::Untranslated),
        Box::new(promise::Promise::default()),
        Box::new(ending::Ends::new(facts)),
        Box::new(counted::Counted::default()),
        Box::new(forged::Forged),
        Box::new(local::LocalSurvives::default()),
        Box::new(application::OneApplication::default()),
        Box::new(ecn::Ecn::default()),
    ]
}
