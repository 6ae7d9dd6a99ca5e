//! One server: its kernel and application, which stay, and its process, which comes and goes.

use super::application::Application;
use super::bytes::NAMES;
use super::cluster::{FRONTEND_PORT, node_address, read};
use super::ecn::Ecn;
use super::fragments::Reassembly;
use super::kernel::Kernel;
use super::plan::Plan;
use baton::control::message::Epoch;
use baton::control::overlay::OVERHEAD_V4;
use baton::control::seal::Keyring;
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Engine, EngineConfig};
use baton::policy::Policy;
use baton::rewrite::Offload;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

pub const MTU: usize = 1_500;

/// What a process takes in, one at a time.
#[derive(Clone, Debug)]
pub enum Input {
    Tun(Vec<u8>, Offload),
    Overlay(Vec<u8>),
    /// Octets of a control session.
    Control(u64, Vec<u8>),
    /// A control session is gone.
    Broken(u64),
}

/// A process, from its start to its end.
pub struct Life {
    pub engine: Engine,
    pub epoch: Epoch,
    pub keyring: Keyring,
    /// The session with each peer, as far as the engine has been told.
    pub sessions: BTreeMap<usize, u64>,
    pub is_draining: bool,
    /// It was told to stop: when it resets what is left then.
    pub stops_at: Option<u64>,
    /// Nothing new is captured for it.
    pub is_released: bool,
    /// Stands still since, and what waits.
    pub hung: Option<(u64, VecDeque<Input>)>,
}

pub struct Node {
    pub kernel: Kernel,
    pub application: Application,
    pub life: Option<Life>,
    pub guards: BTreeSet<FlowKey>,
    /// Fragments for its kernel.
    pub reassembly: Reassembly,
    pub guards_fail_until: u64,
    pub policy: Rc<Policy>,
    pub variant: usize,
    epochs: u64,
    /// Something is to be done for its kernel.
    pub is_dirty: bool,
    pub poll_at: Option<u64>,
}

impl Node {
    pub fn new(node: usize, plan: &Plan) -> Self {
        let its = &plan.nodes[node];
        // A shared address needs none here, as aliases do not: what reaches this kernel is its own.
        let addresses = [node_address(node, false), node_address(node, true)];
        let seed = plan.seed.wrapping_mul(31).wrapping_add(node as u64);
        let mut kernel = Kernel::new(&addresses, seed, its.receive_bytes, its.clock, its.cookies);
        kernel.ecn = Ecn::new(its.ecn);
        let ports: BTreeSet<u16> = [FRONTEND_PORT, its.server_port].into();
        let mut application = Application::new(node, ports.into_iter().collect());
        application.start(&mut kernel);
        let policy = Rc::new(read(plan, 0).compile(NAMES[node]).expect("the node is in the file"));
        Self {
            kernel,
            application,
            life: None,
            guards: BTreeSet::new(),
            reassembly: Reassembly::default(),
            guards_fail_until: 0,
            policy,
            variant: 0,
            epochs: (node as u64 + 1) << 40 | plan.seed << 8 & 0xff_ffff_ff00,
            is_dirty: true,
            poll_at: None,
        }
    }

    /// The process starts: what it knows is the cluster file and the guards in the kernel.
    pub fn start(&mut self, node: usize, plan: &Plan, now: Instant) {
        self.policy = Rc::new(read(plan, self.variant).compile(NAMES[node]).expect("the node is in the file"));
        let policy = Rc::clone(&self.policy);
        self.kernel.destroy_all(|local| policy.is_alias(local.address));
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let orphans = self.guards.iter().copied().collect();
        let config = EngineConfig { node: NodeId(node as u16), epoch, overlay_overhead: OVERHEAD_V4, mtu: MTU as u16, orphans };
        self.life = Some(Life {
            engine: Engine::new(config, Rc::clone(&self.policy), now),
            epoch,
            keyring: Keyring::default(),
            sessions: BTreeMap::new(),
            is_draining: false,
            stops_at: None,
            is_released: false,
            hung: None,
        });
    }

    /// The front-end of whom this is an alias.
    pub fn frontend_of(&self, alias: Endpoint) -> Option<Endpoint> {
        let frontends = self.policy.services.iter().flat_map(|service| &service.frontends);
        frontends.map(|(_, frontend)| *frontend).find(|frontend| self.policy.aliases_of(*frontend).contains(&alias.address))
    }

    /// The process is there and does not stand still.
    pub fn is_awake(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.hung.is_none())
    }
}
