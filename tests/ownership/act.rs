//! Everything that can happen next, each thing as one choice.

use crate::client::Sends;
use crate::kernel::Tcp;
use crate::world::World;
use baton::handoff::Engine;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A packet of the client reaches node a.
    Client(Sends),
    /// The same, past the process (a fragment, or while capture was off).
    Slip(Sends),
    /// A process reads the next packet of its TUN.
    Read(usize),
    /// A process reads the next message of its session.
    Hear(usize),
    /// The same, and it will come once more.
    HearTwice(usize),
    /// A client packet comes through the overlay, in any order.
    Overlay(usize),
    /// An application answers and closes.
    Answer(usize, usize),
    /// A kernel's retransmission timer fires.
    Resend(usize, usize),
    /// A deadline passes and is heard of.
    Tick(usize),
    /// Time passes until a deadline changes something that can be seen from outside.
    Leap(usize),
    /// A deadline passes, and the process is busy with something else first.
    Late(usize),
    /// The session breaks; what was not read is lost.
    Break,
    /// A node notices.
    Notice(usize),
    /// There is a new session.
    Connect,
    /// A node hears of it.
    Up(usize),
    Crash(usize),
    /// The process dies in the middle of what it says next, after so many things.
    CrashDuring(usize, u8),
    Restart(usize),
    Hang(usize),
    Resume(usize),
    Drain(usize),
    Reload(usize, u8),
    /// A kernel's requests vanish.
    Prune(usize),
    /// The accept queue is full, or no longer.
    Full(usize, bool),
    /// The application goes away, and its listener with it.
    AppDown(usize),
    /// The next packet for the client is lost.
    Lose,
}

/// What can go wrong, or come from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    Break,
    Crash,
    CrashDuring,
    Lose,
    HearTwice,
    Slip,
    Hang,
    Prune,
    Full,
    AppDown,
    Drain,
    Reload,
    StaleSyn,
    ClientReset,
}

impl Fault {
    pub const ALL: [Self; 14] = [
        Self::Break,
        Self::Crash,
        Self::CrashDuring,
        Self::Lose,
        Self::HearTwice,
        Self::Slip,
        Self::Hang,
        Self::Prune,
        Self::Full,
        Self::AppDown,
        Self::Drain,
        Self::Reload,
        Self::StaleSyn,
        Self::ClientReset,
    ];
}

/// How often anything may happen that could go on for ever. Beside these everything happens as often as it can.
#[derive(Clone, Copy, Default, Hash, Debug)]
pub struct Budget {
    /// Faults of any of the kinds allowed.
    pub faults: u8,
    /// A bit for each kind.
    kinds: u16,
    /// Deadlines that pass.
    pub time: u8,
    /// Packets repeated: by the client, or by a kernel's retransmission timer.
    pub repeats: u8,
}

impl Budget {
    pub fn new(faults: u8, kinds: &[Fault], time: u8, repeats: u8) -> Self {
        Self { faults, kinds: kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8), time, repeats }
    }
    const fn allows(&self, kind: Fault) -> bool {
        self.faults > 0 && self.kinds >> kind as u8 & 1 == 1
    }
}

/// Deadlines that may pass within one leap.
const LEAP_MAX: usize = 100;
/// Things said after which a process may die: the longest sequence there is (a commit) has fewer.
const SAID_MAX: u8 = 4;

/// Everything that can happen now, within the budget.
pub fn acts(world: &World, budget: &Budget) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut offer = |is_possible: bool, act: Act| {
        if is_possible {
            acts.push(act);
        }
    };
    // A client's packet comes behind what the TUN already has.
    let is_next = world.nodes[0].tun.is_empty() || world.nodes[0].is_hung;
    for sends in world.client.may_send() {
        offer(is_next && (world.client.sent[sends.index()] == 0 || budget.repeats > 0), Act::Client(sends));
        let is_data = matches!(sends, Sends::Part(_) | Sends::Ack);
        offer(budget.allows(Fault::Slip) && is_data && !world.nodes[0].is_guarded, Act::Slip(sends));
    }
    let is_connected = world.client.server_isn.is_some() && !world.client.is_over();
    offer(is_next && is_connected && budget.allows(Fault::StaleSyn), Act::Client(Sends::Syn));
    offer(is_next && is_connected && budget.allows(Fault::ClientReset), Act::Client(Sends::Reset));
    for index in 0..world.overlay.len() {
        offer(!world.nodes[1].is_hung, Act::Overlay(index));
    }
    for node in 0..2 {
        acts_of_node(world, budget, node, &mut offer);
    }
    let session = &world.session;
    offer(session.is_intact && budget.allows(Fault::Break), Act::Break);
    let may_connect = !session.is_intact && session.is_up == [false; 2] && world.runs(0) && world.runs(1);
    offer(may_connect, Act::Connect);
    offer(budget.allows(Fault::Lose) && !world.loses_next, Act::Lose);
    acts
}

fn acts_of_node(world: &World, budget: &Budget, node: usize, offer: &mut impl FnMut(bool, Act)) {
    let (is_alive, runs) = (world.is_alive(node), world.runs(node));
    let (kernel, session) = (&world.nodes[node].kernel, &world.session);
    offer(runs && !world.nodes[node].tun.is_empty(), Act::Read(node));
    let has_message = runs && session.is_up[node] && !session.to[node].is_empty();
    offer(has_message, Act::Hear(node));
    offer(has_message && budget.allows(Fault::HearTwice), Act::HearTwice(node));
    kernel.waiting().for_each(|socket| offer(true, Act::Answer(node, socket)));
    kernel.owing().for_each(|socket| offer(budget.repeats > 0, Act::Resend(node, socket)));
    if let Some(at) = world.nodes[node].engine.as_ref().filter(|_| runs).and_then(Engine::poll_timeout) {
        let is_due = at <= world.nodes[node].now;
        offer(is_due || budget.time > 0, Act::Tick(node));
        offer(!is_due && budget.time > 0, Act::Leap(node));
        offer(!is_due && budget.time > 0, Act::Late(node));
    }
    offer(!session.is_intact && session.is_up[node] && runs, Act::Notice(node));
    offer(session.is_intact && !session.is_up[node] && runs, Act::Up(node));
    offer(is_alive && budget.allows(Fault::Crash), Act::Crash(node));
    for said in 0..SAID_MAX {
        offer(runs && budget.allows(Fault::CrashDuring) && world.armed.is_none(), Act::CrashDuring(node, said));
    }
    offer(!is_alive, Act::Restart(node));
    offer(runs && budget.allows(Fault::Hang), Act::Hang(node));
    offer(is_alive && world.nodes[node].is_hung, Act::Resume(node));
    offer(runs && budget.allows(Fault::Drain), Act::Drain(node));
    for number in 1..3 {
        offer(runs && budget.allows(Fault::Reload) && world.nodes[node].policy == 0, Act::Reload(node, number));
    }
    let has_request = kernel.sockets.iter().any(|socket| socket.tcp == Tcp::SynReceived);
    offer(has_request && budget.allows(Fault::Prune), Act::Prune(node));
    offer(!kernel.is_full && budget.allows(Fault::Full), Act::Full(node, true));
    offer(kernel.is_full, Act::Full(node, false));
    offer(kernel.listens && budget.allows(Fault::AppDown), Act::AppDown(node));
}

/// Does one of them.
pub fn act(world: &mut World, budget: &mut Budget, act: Act) {
    if let Some(paid) = price(world, budget, act) {
        *paid = paid.saturating_sub(1);
    }
    match act {
        Act::Client(sends) => {
            let packet = world.client.packet(sends);
            world.arrive(packet);
        }
        Act::Slip(sends) => {
            let packet = world.client.packet(sends);
            world.give_to_kernel(0, &packet);
        }
        Act::Read(node) => {
            if let Some(packet) = world.nodes[node].tun.pop_front() {
                world.read_packet(node, packet);
            }
        }
        Act::Hear(node) => world.hear(node, false),
        Act::HearTwice(node) => world.hear(node, true),
        Act::Overlay(index) => world.take_from_overlay(index),
        Act::Answer(node, socket) => {
            let packet = world.nodes[node].kernel.answer(socket);
            world.route_from_kernel(node, packet);
        }
        Act::Resend(node, socket) => {
            let packet = world.nodes[node].kernel.resend(socket);
            world.route_from_kernel(node, packet);
        }
        Act::Tick(node) => world.pass_time(node, true),
        Act::Late(node) => world.pass_time(node, false),
        Act::Leap(node) => {
            let before = (world.labels(node), world.seen.noticed);
            for _ in 0..LEAP_MAX {
                world.pass_time(node, true);
                if (world.labels(node), world.seen.noticed) != before {
                    break;
                }
            }
        }
        Act::Break => world.session.is_intact = false,
        Act::Notice(node) => world.notice_break(node),
        Act::Connect => {
            world.session.is_intact = true;
            world.session.to = Default::default();
        }
        Act::Up(node) => world.up(node),
        Act::Crash(node) => world.crash(node),
        Act::CrashDuring(node, said) => world.armed = Some((node, said)),
        Act::Restart(node) => world.restart(node),
        Act::Hang(node) => world.nodes[node].is_hung = true,
        Act::Resume(node) => world.resume(node),
        Act::Drain(node) => world.with_engine(node, Engine::drain),
        Act::Reload(node, number) => world.reload(node, number),
        Act::Prune(node) => world.nodes[node].kernel.prune(),
        Act::Full(node, is_full) => world.nodes[node].kernel.is_full = is_full,
        Act::AppDown(node) => {
            let kernel = &mut world.nodes[node].kernel;
            kernel.listens = false;
            kernel.prune();
        }
        Act::Lose => world.loses_next = true,
    }
    world.check();
}

/// What an act is paid from; most are free.
fn price<'a>(world: &World, budget: &'a mut Budget, act: Act) -> Option<&'a mut u8> {
    match act {
        Act::Client(Sends::Syn) if world.client.server_isn.is_some() => Some(&mut budget.faults),
        Act::Client(Sends::Reset) if !world.client.is_reset => Some(&mut budget.faults),
        Act::Client(sends) if world.client.sent[sends.index()] > 0 => Some(&mut budget.repeats),
        Act::Resend(..) => Some(&mut budget.repeats),
        Act::Tick(node) => {
            let at = world.nodes[node].engine.as_ref().and_then(Engine::poll_timeout);
            at.is_some_and(|at| at > world.nodes[node].now).then_some(&mut budget.time)
        }
        Act::Leap(_) | Act::Late(_) => Some(&mut budget.time),
        Act::Slip(_)
        | Act::HearTwice(_)
        | Act::Break
        | Act::Crash(_)
        | Act::CrashDuring(..)
        | Act::Hang(_)
        | Act::Drain(_)
        | Act::Reload(..)
        | Act::Prune(_)
        | Act::Full(_, true)
        | Act::AppDown(_)
        | Act::Lose => Some(&mut budget.faults),
        _ => None,
    }
}
