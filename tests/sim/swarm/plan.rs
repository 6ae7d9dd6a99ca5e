//! What one seed does: topology, workload, and which faults there are at all.

use super::bytes::{Request, Target};
use super::link::{Burst, LinkPlan};
use super::on_syn::OnSyn;
use drill::random::Random;
use std::collections::BTreeSet;

pub const MILLISECOND: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;
/// Kinds there were from the beginning. Later ones have numbers of their own, so that a seed keeps what it had.
const FIRST_KINDS: usize = 21;
/// Those that are chosen like these. [`Kind::OnSyn`] is chosen by itself.
const CHOSEN_KINDS: usize = 27;

macro_rules! kinds {
    ($($kind:ident => $name:literal,)+) => {
        /// A kind of fault, which a seed has or has not.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Kind { $($kind,)+ }
        impl Kind {
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

kinds! {
    Loss => "loss",
    Bursts => "bursts",
    Jitter => "jitter",
    Reordering => "reordering",
    Duplication => "duplication",
    Corruption => "corruption",
    ClientPartition => "client-partition",
    OverlayPartition => "overlay-partition",
    ControlStall => "control-stall",
    ControlBreak => "control-break",
    MessageTwice => "message-twice",
    Crash => "crash",
    Hang => "hang",
    ApplicationStops => "application-stops",
    Drain => "drain",
    Reload => "reload",
    GuardsFail => "guards-fail",
    QueueFull => "queue-full",
    Cookies => "cookies",
    Forgery => "forgery",
    SmallTables => "small-tables",
    OddClients => "odd-clients",
    Stop => "stop",
    NarrowPath => "narrow-path",
    Fragments => "fragments",
    Ecn => "ecn",
    ForgedErrors => "forged-errors",
    OnSyn => "on-syn",
}

impl Kind {
    /// Those that there were not from the beginning.
    pub fn later() -> impl Iterator<Item = Self> {
        Self::ALL[FIRST_KINDS..].iter().copied()
    }
}

/// Something that happens to somebody.
#[derive(Clone, Debug)]
pub enum Fault {
    PartClient {
        client: usize,
        up: bool,
        down: bool,
        lasts: u64,
    },
    PartOverlay {
        from: usize,
        to: usize,
        lasts: u64,
    },
    StallControl {
        a: usize,
        b: usize,
        lasts: u64,
    },
    /// Each side notices after its own time.
    BreakControl {
        a: usize,
        b: usize,
        noticed: [u64; 2],
    },
    Crash {
        node: usize,
        lasts: u64,
        is_silent: bool,
    },
    Hang {
        node: usize,
        lasts: u64,
    },
    StopApplication {
        node: usize,
        lasts: u64,
    },
    Drain {
        node: usize,
        lasts: u64,
    },
    Reload {
        node: usize,
        variant: usize,
    },
    FailGuards {
        node: usize,
        lasts: u64,
    },
    FillQueue {
        node: usize,
        lasts: u64,
    },
    Forge {
        forgery: Forgery,
        pick: u64,
    },
    /// Told to stop, with so much patience; started again after `lasts`.
    Stop {
        node: usize,
        patience: u64,
        lasts: u64,
    },
    /// A link takes no longer packets, and says so.
    Narrow {
        client: usize,
        up: bool,
        mtu: usize,
        lasts: u64,
    },
    /// Packets of a client are cut in two.
    Fragment {
        client: usize,
        permille: u64,
        lasts: u64,
    },
}

/// What somebody sends who is not on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    Reset,
    Syn,
    Data,
    Acknowledgement,
    /// A segment of the client's with one octet changed.
    CorruptCopy,
    OverlayNoise,
    /// A sealed datagram that was there before.
    OverlayAgain,
    OverlayCorrupt,
    /// An ICMP error about a packet that nobody sent.
    Error,
}

impl Forgery {
    /// Those of segments and datagrams.
    const ALL: [Self; 8] = [
        Self::Reset,
        Self::Syn,
        Self::Data,
        Self::Acknowledgement,
        Self::CorruptCopy,
        Self::OverlayNoise,
        Self::OverlayAgain,
        Self::OverlayCorrupt,
    ];
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub struct Errand {
    pub number: usize,
    pub client: usize,
    pub frontend: usize,
    pub port: u16,
    /// Microseconds after the start, or after the end of the errand before it on the same port.
    pub starts: u64,
    pub after: Option<usize>,
    pub requests: Vec<Request>,
    /// Microseconds of silence before the first octet.
    pub silence: u64,
    /// Octets written at once; None: everything.
    pub pieces: Option<(usize, u64)>,
    /// All requests are written without waiting for answers.
    pub is_pipelined: bool,
    /// Shuts down writing behind the last request.
    pub half_closes: bool,
    /// Resets after so many octets of answer, or so many microseconds if none came.
    pub aborts: Option<(usize, u64)>,
    /// Stops reading at so many octets, for so long.
    pub pauses: Option<(usize, u64)>,
}

#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub is_v6: bool,
    pub up: LinkPlan,
    pub down: LinkPlan,
    pub mtu: usize,
    pub receive_bytes: usize,
    pub clock: u32,
    /// Driven by hand.
    pub is_odd: bool,
}

#[derive(Clone, Debug)]
pub struct NodePlan {
    pub has_frontend: bool,
    pub server_port: u16,
    pub receive_bytes: usize,
    pub clock: u32,
    pub cookies: bool,
    /// Its kernel speaks ECN.
    pub ecn: bool,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub kinds: BTreeSet<Kind>,
    pub nodes: Vec<NodePlan>,
    pub clients: Vec<ClientPlan>,
    pub errands: Vec<Errand>,
    pub overlay: LinkPlan,
    pub control_delay: u64,
    pub has_offload: bool,
    pub linger_seconds: u64,
    pub connections_max: u64,
    pub faults: Vec<(u64, Fault)>,
    /// Of a thousand messages, so many are heard twice.
    pub twice_permille: u64,
    /// Of a thousand packets that are ECN-capable, so many are marked.
    pub ce_permille: u64,
    /// Its service decides on the SYN. That is no fault.
    pub on_syn: Option<OnSyn>,
}

/// What to leave out of a seed: how a failure is made smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Not left out but put in: a service that decides on the SYN, whatever the seed says.
    pub with_on_syn: bool,
    pub kinds: BTreeSet<Kind>,
    pub errands: BTreeSet<usize>,
    pub faults: BTreeSet<usize>,
}

impl Plan {
    pub fn of(seed: u64, without: &Without) -> Self {
        let mut kinds = kinds_of(seed);
        if without.with_on_syn || Random::of(seed, "on syn").permille(100) {
            kinds.insert(Kind::OnSyn);
        }
        kinds.retain(|kind| !without.kinds.contains(kind));
        let mut random = Random::of(seed, "topology");
        let node_count = *random.pick(&[2, 2, 2, 3, 3, 4, 5]);
        let equal_buffers = random.permille(500);
        let has_offload = random.permille(400);
        let linger_seconds = *random.pick(&[2, 5, 20]);
        let mut nodes: Vec<NodePlan> = (0..node_count)
            .map(|node| NodePlan {
                has_frontend: node == 0 || random.permille(700),
                server_port: *random.pick(&[80, 80, 8_080]),
                receive_bytes: if equal_buffers { 65_535 } else { *random.pick(&[16_384, 65_535, 200_000, 1_000_000]) },
                clock: random.next() as u32,
                cookies: kinds.contains(&Kind::Cookies) && Random::of(seed, &format!("cookies {node}")).permille(600),
                ecn: kinds.contains(&Kind::Ecn) && (is_calm(&kinds) || Random::of(seed, &format!("ecn {node}")).permille(850)),
            })
            .collect();
        let noise = Noise::of(seed, &kinds);
        let mut workload = Random::of(seed, "workload");
        let client_count = *workload.pick(&[1, 1, 2, 2, 3, 4]);
        let mut clients: Vec<ClientPlan> = (0..client_count)
            .map(|_| {
                let delay = *workload.pick(&[100, 500, 2_000, 5_000, 15_000, 40_000, 150_000]);
                let delay = delay + workload.below(delay / 4);
                ClientPlan {
                    is_v6: workload.permille(400),
                    up: noise.on(delay),
                    down: noise.on(delay),
                    mtu: *workload.pick(&[1_500, 1_500, 1_500, 1_400, 1_280]),
                    receive_bytes: *workload.pick(&[8_000, 65_535, 65_535, 300_000]),
                    clock: workload.next() as u32,
                    is_odd: false,
                }
            })
            .collect();
        let mut errands = Vec::new();
        for client in 0..client_count {
            plan_errands(client, &nodes, &mut errands, &mut workload);
        }
        let mut odd = Random::of(seed, "odd");
        for (index, client) in clients.iter_mut().enumerate() {
            client.is_odd = kinds.contains(&Kind::OddClients) && odd.permille(600);
            if client.is_odd {
                errands.iter_mut().filter(|errand| errand.client == index).for_each(make_odd);
            }
        }
        let has_on_syn = kinds.contains(&Kind::OnSyn);
        let on_syn = has_on_syn.then(|| OnSyn::of(seed, clients.len(), &mut nodes, &mut errands));
        let faults = plan_faults(seed, &kinds, node_count, client_count);
        let small_tables = kinds.contains(&Kind::SmallTables);
        let mut plan = Self {
            seed,
            nodes,
            clients,
            errands,
            overlay: noise.on(*random.pick(&[50, 100, 300, 1_000, 8_000])),
            control_delay: *random.pick(&[60, 120, 400, 1_200, 8_000]),
            has_offload,
            linger_seconds,
            connections_max: if small_tables { 2 } else { 10_000 },
            faults,
            twice_permille: if kinds.contains(&Kind::MessageTwice) { 150 } else { 0 },
            ce_permille: if kinds.contains(&Kind::Ecn) { *Random::of(seed, "marks").pick(&[10, 100, 400]) } else { 0 },
            on_syn,
            kinds,
        };
        plan.errands.retain(|errand| !without.errands.contains(&errand.number));
        let kept: BTreeSet<usize> = plan.errands.iter().map(|errand| errand.number).collect();
        for errand in &mut plan.errands {
            errand.after = errand.after.filter(|before| kept.contains(before));
        }
        let mut index = 0;
        plan.faults.retain(|_| {
            index += 1;
            !without.faults.contains(&(index - 1))
        });
        plan
    }

    /// Nothing at all goes wrong.
    pub fn is_calm(&self) -> bool {
        is_calm(&self.kinds)
    }

    /// Nothing that happens may keep a connection from its end in order.
    pub fn is_harmless(&self) -> bool {
        let harmless =
            [Kind::Jitter, Kind::Duplication, Kind::OddClients, Kind::Ecn, Kind::NarrowPath, Kind::ForgedErrors, Kind::OnSyn];
        self.kinds.iter().all(|kind| harmless.contains(kind))
    }

    /// No packet is lost, whatever else happens.
    pub fn is_gentle(&self) -> bool {
        let gentle =
            [Kind::Jitter, Kind::Duplication, Kind::MessageTwice, Kind::Reload, Kind::OddClients, Kind::Ecn, Kind::OnSyn];
        self.kinds.iter().all(|kind| gentle.contains(kind))
    }

    /// No kernel counts windows in other units than another.
    pub fn has_equal_buffers(&self) -> bool {
        self.nodes.iter().all(|node| node.receive_bytes == self.nodes[0].receive_bytes)
    }

    /// When the last fault is over.
    pub fn faults_end(&self) -> u64 {
        let end = |(at, fault): &(u64, Fault)| {
            at + match fault {
                Fault::PartClient { lasts, .. }
                | Fault::PartOverlay { lasts, .. }
                | Fault::StallControl { lasts, .. }
                | Fault::Crash { lasts, .. }
                | Fault::Hang { lasts, .. }
                | Fault::StopApplication { lasts, .. }
                | Fault::Drain { lasts, .. }
                | Fault::FailGuards { lasts, .. }
                | Fault::Narrow { lasts, .. }
                | Fault::Fragment { lasts, .. }
                | Fault::FillQueue { lasts, .. } => *lasts,
                Fault::Stop { patience, lasts, .. } => patience + lasts + SECOND,
                Fault::BreakControl { noticed, .. } => noticed[0].max(noticed[1]),
                Fault::Reload { .. } | Fault::Forge { .. } => 0,
            }
        };
        self.faults.iter().map(end).max().unwrap_or(0)
    }
}

fn is_calm(kinds: &BTreeSet<Kind>) -> bool {
    kinds.iter().all(|kind| [Kind::OddClients, Kind::Ecn, Kind::OnSyn].contains(kind))
}

/// Many seeds have no fault or one kind: what then fails is easy to read.
fn kinds_of(seed: u64) -> BTreeSet<Kind> {
    let (first, later) = Kind::ALL[..CHOSEN_KINDS].split_at(FIRST_KINDS);
    let (mut random, mut more) = (Random::of(seed, "kinds"), Random::of(seed, "more kinds"));
    match random.below(8) {
        0 => [Kind::OddClients, Kind::Ecn].into_iter().filter(|_| more.permille(250)).collect(),
        1 | 2 => {
            let kind = *random.pick(first);
            [if more.permille(200) { *more.pick(later) } else { kind }].into()
        }
        _ => {
            let permille = *random.pick(&[80, 150, 300]);
            let mut kinds: BTreeSet<Kind> = first.iter().copied().filter(|_| random.permille(permille)).collect();
            kinds.extend(later.iter().copied().filter(|_| more.permille(permille)));
            kinds
        }
    }
}

/// What all paths of a seed have in common.
struct Noise(LinkPlan);

impl Noise {
    fn of(seed: u64, kinds: &BTreeSet<Kind>) -> Self {
        let strength = |kind: Kind, choices: &[u64]| {
            if kinds.contains(&kind) { *Random::of(seed, kind.name()).pick(choices) } else { 0 }
        };
        let burst = kinds.contains(&Kind::Bursts).then(|| {
            let mut random = Random::of(seed, "bursts");
            let (enter, loss) = (*random.pick(&[5, 20]), *random.pick(&[500, 900]));
            Burst { enter_permille: enter, leave_permille: 300, loss_permille: loss }
        });
        Self(LinkPlan {
            delay: 0,
            jitter: strength(Kind::Jitter, &[300, 2_000, 10_000]),
            loss_permille: strength(Kind::Loss, &[3, 10, 30, 80, 150]),
            burst,
            duplicate_permille: strength(Kind::Duplication, &[10, 100, 300]),
            reorder_permille: strength(Kind::Reordering, &[10, 50, 200]),
            corrupt_permille: strength(Kind::Corruption, &[5, 30, 80]),
        })
    }

    fn on(&self, delay: u64) -> LinkPlan {
        LinkPlan { delay, ..self.0 }
    }
}

fn plan_errands(client: usize, nodes: &[NodePlan], errands: &mut Vec<Errand>, random: &mut Random) {
    let count = *random.pick(&[1, 1, 2, 2, 3]);
    let frontends: Vec<usize> = (0..nodes.len()).filter(|node| nodes[*node].has_frontend).collect();
    for _ in 0..count {
        let mut port;
        let number = errands.len();
        let before = errands.last().filter(|before| before.client == client).cloned();
        let mut frontend = *random.pick(&frontends);
        // Sessions are up by then, if nothing goes wrong.
        let mut starts = 20 * MILLISECOND + random.below(300 * MILLISECOND);
        let mut after = None;
        match (random.below(6), &before) {
            // The same port again, as soon as it is free, to the same front-end.
            (0, Some(before)) => {
                (port, frontend, after) = (before.port, before.frontend, Some(before.number));
                starts = *random.pick(&[0, 0, 1_000, 50_000, 3_000_000]);
            }
            // The same port at the same time, to another front-end.
            (1, Some(before)) if frontends.len() > 1 && before.after.is_none() => {
                let others: Vec<usize> = frontends.iter().copied().filter(|other| *other != before.frontend).collect();
                (port, frontend) = (before.port, *random.pick(&others));
            }
            _ => port = 40_000 + 100 * client as u16 + number as u16,
        }
        let taken = errands
            .iter()
            .any(|other| (other.client, other.port, other.frontend) == (client, port, frontend) && after != Some(other.number));
        if taken {
            port = 40_000 + 100 * client as u16 + 50 + number as u16;
            after = None;
            starts = starts.max(20 * MILLISECOND);
        }
        errands.push(plan_errand(number, client, frontend, port, starts, after, nodes.len(), random));
    }
}

#[allow(clippy::too_many_arguments)] // One call, and each is a field.
fn plan_errand(
    number: usize,
    client: usize,
    frontend: usize,
    port: u16,
    starts: u64,
    after: Option<usize>,
    nodes: usize,
    random: &mut Random,
) -> Errand {
    let request_count = if random.permille(250) { random.between(2, 4) as usize } else { 1 };
    let lets_server_close = random.permille(600);
    let requests = (0..request_count)
        .map(|index| Request {
            id: (number, index),
            target: match random.below(10) {
                0 | 1 => Target::Local,
                2 => Target::Any,
                _ => Target::Node(random.below(nodes as u64) as usize),
            },
            answer_bytes: match random.below(12) {
                0 => 0,
                1..=5 => random.below(2_000) as usize,
                6..=9 => random.below(20_000) as usize,
                10 => random.below(60_000) as usize,
                _ => random.below(250_000) as usize,
            },
            upload_bytes: match random.below(12) {
                0 | 1 => random.between(1, 3_000) as usize,
                2 => random.between(3_000, 40_000) as usize,
                3 => random.between(40_000, 150_000) as usize,
                _ => 0,
            },
            padding: match random.below(10) {
                0 => random.between(1_000, 6_000) as usize,
                1 => random.between(6_000, 15_000) as usize,
                _ => 0,
            },
            is_answered_early: random.permille(80),
            is_last: lets_server_close && index + 1 == request_count,
        })
        .collect::<Vec<_>>();
    let total: usize = requests.iter().map(|request| request.octets().len()).sum();
    let pieces = match random.below(8) {
        0 if total < 600 => Some((1, *random.pick(&[0, 200, 3_000, 20_000]))),
        1 => Some((random.between(10, 100) as usize, *random.pick(&[0, 500, 10_000]))),
        2 => Some((random.between(200, 1_400) as usize, *random.pick(&[0, 2_000, 60_000]))),
        _ => None,
    }
    .filter(|(bytes, _)| total / bytes < 800);
    Errand {
        number,
        client,
        frontend,
        port,
        starts,
        after,
        requests,
        silence: match random.below(12) {
            0 => random.between(1, 100) * MILLISECOND,
            1 => random.between(100, 2_400) * MILLISECOND,
            2 => random.between(2_400, 8_000) * MILLISECOND,
            _ => 0,
        },
        pieces,
        is_pipelined: random.permille(300),
        half_closes: random.permille(120),
        aborts: random.permille(80).then(|| (random.below(30_000) as usize, random.between(1, 3_000) * MILLISECOND)),
        pauses: random.permille(60).then(|| (random.below(20_000) as usize, random.between(100, 6_000) * MILLISECOND)),
    }
}

/// Clients driven by hand ask for everything at once, on a port of their own, and let the server close.
fn make_odd(errand: &mut Errand) {
    errand.port = 45_000 + errand.number as u16;
    errand.starts = errand.starts.max(20 * MILLISECOND);
    (errand.after, errand.aborts, errand.pauses, errand.pieces) = (None, None, None, None);
    (errand.half_closes, errand.is_pipelined) = (false, true);
    let count = errand.requests.len();
    for (index, request) in errand.requests.iter_mut().enumerate() {
        request.is_last = index + 1 == count;
        // It knows no window of the server's.
        request.upload_bytes %= 3_000;
        request.padding %= 1_500;
        // It loses segments, and smoltcp waits a minute for each in the end.
        request.answer_bytes %= 30_000;
    }
}

fn plan_faults(seed: u64, kinds: &BTreeSet<Kind>, nodes: usize, clients: usize) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    for kind in kinds {
        let random = &mut Random::of(seed, &format!("{} happens", kind.name()));
        let count = match kind {
            Kind::Forgery | Kind::ForgedErrors => random.between(3, 20),
            _ => random.between(1, 3),
        };
        for _ in 0..count {
            // Most of it soon: that is when connections are made and handed off.
            let at = match random.below(4) {
                0 => random.below(4 * SECOND),
                1 => random.below(1_000 * MILLISECOND),
                _ => random.below(400 * MILLISECOND),
            };
            let node = random.below(nodes as u64) as usize;
            let other = (node + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
            let short = random.between(1, 900) * MILLISECOND;
            let long = *random.pick(&[300, 1_500, 4_000, 12_000]) * MILLISECOND + random.below(SECOND);
            let fault = match kind {
                Kind::ClientPartition => {
                    let ways = random.below(3);
                    let client = random.below(clients as u64) as usize;
                    Fault::PartClient { client, up: ways != 0, down: ways != 1, lasts: random.between(50, 6_000) * MILLISECOND }
                }
                Kind::OverlayPartition => {
                    Fault::PartOverlay { from: node, to: other, lasts: random.between(20, 5_000) * MILLISECOND }
                }
                Kind::ControlStall => Fault::StallControl { a: node, b: other, lasts: random.between(5, 1_900) * MILLISECOND },
                Kind::ControlBreak => {
                    let mut notices = || *random.pick(&[0, 300, 40 * MILLISECOND, 1_900 * MILLISECOND]);
                    Fault::BreakControl { a: node, b: other, noticed: [notices(), notices()] }
                }
                Kind::Crash => Fault::Crash { node, lasts: *random.pick(&[short, long]), is_silent: random.permille(300) },
                Kind::Hang => Fault::Hang { node, lasts: *random.pick(&[short, long]) },
                Kind::ApplicationStops => Fault::StopApplication { node, lasts: *random.pick(&[short, long]) },
                Kind::Drain => Fault::Drain { node, lasts: *random.pick(&[short, long]) },
                Kind::Reload => Fault::Reload { node, variant: random.below(super::cluster::VARIANTS as u64) as usize },
                Kind::GuardsFail => Fault::FailGuards { node, lasts: *random.pick(&[short, long]) },
                Kind::QueueFull => Fault::FillQueue { node, lasts: *random.pick(&[short, long]) },
                Kind::ForgedErrors => Fault::Forge { forgery: Forgery::Error, pick: random.next() },
                Kind::Stop => Fault::Stop {
                    node,
                    patience: *random.pick(&[0, 500 * MILLISECOND, 5 * SECOND, 60 * SECOND]),
                    lasts: *random.pick(&[short, long]),
                },
                Kind::NarrowPath => Fault::Narrow {
                    client: random.below(clients as u64) as usize,
                    up: random.permille(400),
                    mtu: *random.pick(&[1_400, 1_280, 1_000, 600]),
                    lasts: *random.pick(&[long, 100 * SECOND, 600 * SECOND]),
                },
                Kind::Fragments => Fault::Fragment {
                    client: random.below(clients as u64) as usize,
                    permille: *random.pick(&[50, 200, 500]),
                    lasts: *random.pick(&[short, 3 * SECOND]),
                },
                Kind::Forgery => Fault::Forge { forgery: *random.pick(&Forgery::ALL), pick: random.next() },
                Kind::Loss
                | Kind::Bursts
                | Kind::Jitter
                | Kind::Reordering
                | Kind::Duplication
                | Kind::Corruption
                | Kind::MessageTwice
                | Kind::Cookies
                | Kind::OddClients
                | Kind::Ecn
                | Kind::OnSyn
                | Kind::SmallTables => continue,
            };
            faults.push((at, fault));
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

impl Plan {
    /// One of these kinds is among what goes wrong.
    pub fn has_any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.kinds.contains(kind))
    }

    /// Strangers are the only trouble.
    pub fn is_only_forged(&self) -> bool {
        self.kinds.iter().eq([&Kind::Forgery])
    }

    /// Several nodes have one address.
    pub fn is_shared(&self) -> bool {
        self.on_syn.as_ref().is_some_and(|on_syn| on_syn.entry.is_some())
    }
}
