//! The shell around peers: the TUN device, the clock, the scripted applications, one thread for each peer.
#![allow(clippy::disallowed_methods)] // The shell reads the clock and starts threads.

use drill::notation::App;
use drill::segment::destination_of;
use drill::{Peer, Script, Setup, Step, peer, stream};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tun_tap::{Iface, Mode};

/// No script takes longer.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(20);
/// Peers begin one after the other, so that their handshakes do not come all at once.
const BETWEEN_PEERS: Duration = Duration::from_millis(8);
/// What failed is played again with more time.
const BETWEEN_LATER_PEERS: Duration = Duration::from_millis(100);
/// A script that fails so often has failed.
const ATTEMPTS: usize = 3;
/// If more than this part of all failed when they were played first, or more than a few where there are few, it is not for want of time.
const AGAIN_PERCENT_MAX: usize = 5;
const AGAIN_FEW: usize = 2;
/// Until the application of a back-end has a connection whose request is one for it: twice `handoff_timeout`.
const HANDOFF_TIME_MAX: Duration = Duration::from_secs(2);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
/// The octets that an application can write.
const ANSWER_OCTETS: usize = 1 << 20;
/// From here on: what the same addresses were used for by another run is not met again.
fn first_port() -> u16 {
    20_000 + (std::process::id() % 150) as u16 * 256
}
const ROUTERS: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(10, 79, 255, 254)), IpAddr::V6(Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0xffff, 1)));

/// One way to be served.
#[derive(Clone, Debug)]
pub struct Way {
    name: String,
    server: SocketAddr,
    path: String,
    application: PathBuf,
    mss: u16,
}

impl Way {
    /// # Errors
    ///
    /// When this is no way.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').collect();
        let [name, server, path, application, mss] = parts[..] else {
            return Err(format!("--way {text}: expected NAME,SERVER,PATH,SOCKET,MSS"));
        };
        Ok(Self {
            name: name.to_owned(),
            server: server.parse().map_err(|_| format!("--way {text}: '{server}' is no address with a port"))?,
            path: path.to_owned(),
            application: application.into(),
            mss: mss.parse().map_err(|_| format!("--way {text}: '{mss}' is no MSS"))?,
        })
    }

    fn is_handed_off(&self) -> bool {
        self.name.starts_with("handed-off")
    }

    fn family(&self) -> u8 {
        if self.server.is_ipv4() { 4 } else { 6 }
    }
}

/// What the command line says.
#[derive(Default, Debug)]
pub struct Options {
    /// The device, which may be there already, with its routes.
    pub tun: String,
    /// All of them.
    pub ways: Vec<Way>,
    /// A directory for what every peer sent and received.
    pub traces: Option<PathBuf>,
}

struct Outcome {
    way: usize,
    script: usize,
    result: Result<(), String>,
    outline: Vec<String>,
    /// By the application of this way.
    was_accepted: bool,
}

type Packets = HashMap<IpAddr, Sender<(Instant, Vec<u8>)>>;

/// Plays everything, says what failed; whether nothing did. On a machine that does other things too a script may fail
/// because it, or a server, was not awake in time: what failed is played again, and fails if it always does. Many that
/// are played again are a failure of all: what goes wrong one time in two would else pass seven times in eight.
pub fn all(scripts: Vec<Script>, options: Options) -> Result<bool, String> {
    let device =
        Iface::without_packet_info(&options.tun, Mode::Tun).map_err(|reason| format!("no device {}: {reason}", options.tun))?;
    let device = Arc::new(device);
    let packets = Arc::new(Mutex::new(Packets::new()));
    {
        let (device, packets) = (device.clone(), packets.clone());
        thread::spawn(move || dispatch(&device, &packets));
    }
    let answer: Arc<[u8]> = stream::of_server(ANSWER_OCTETS).into();
    let scripts: Vec<Arc<Script>> = scripts.into_iter().map(Arc::new).collect();
    let mut left: Vec<(usize, usize)> = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let ways = options.ways.iter().enumerate().filter(|(_, way)| script.settings.families.contains(&way.family()));
        left.extend(ways.map(|(way, _)| (index, way)));
    }
    let mut outcomes = Vec::new();
    let (all, mut again) = (left.len(), 0);
    let again_max = (all * AGAIN_PERCENT_MAX / 100).max(AGAIN_FEW);
    for attempt in 0..ATTEMPTS {
        let (sender, results) = channel();
        for (index, number) in std::mem::take(&mut left) {
            thread::sleep(if attempt == 0 { BETWEEN_PEERS } else { BETWEEN_LATER_PEERS });
            let (script, way) = (scripts[index].clone(), options.ways[number].clone());
            let client = client_address(&way, number + attempt * options.ways.len(), index);
            let (to_peer, receiver) = channel();
            packets.lock().map_err(|_| "the device's thread panicked")?.insert(client.ip(), to_peer);
            let setup = Setup {
                client,
                server: way.server,
                router: if way.server.is_ipv4() { ROUTERS.0 } else { ROUTERS.1 },
                stream: peer::request(&way.path),
                answer: answer.clone(),
                server_mss: way.mss,
                isn: Setup::isn_of(&script.name),
            };
            let traces = options.traces.as_ref().map(|to| to.join(format!("{}-{}", script.name, way.name)));
            let (device, sender) = (device.clone(), sender.clone());
            thread::spawn(move || {
                let mut player = Player {
                    device,
                    receiver,
                    application: way.application.clone(),
                    server: None,
                    client,
                    began: Instant::now(),
                };
                let mut peer = Peer::new(script.clone(), setup);
                let played = player.play(&mut peer);
                let result = as_wanted(&script, &way, played);
                if let Some(traces) = traces {
                    let _ = std::fs::write(traces, peer.trace().join("\n") + "\n");
                }
                // A reset that comes first would end the handoff.
                let must_be_handed_off =
                    way.is_handed_off() && script.settings.must_fail.is_none() && script.settings.handoffs > 0;
                let was_accepted = player.was_accepted(must_be_handed_off);
                player.reset(&mut peer);
                let outline = peer.outline().to_vec();
                // Whoever waits for this is gone only after a panic.
                let _ = sender.send(Outcome { script: index, way: number, result, outline, was_accepted });
            });
        }
        drop(sender);
        for outcome in results {
            if outcome.result.is_err() && attempt + 1 < ATTEMPTS {
                left.push((outcome.script, outcome.way));
                again += 1;
                println!("again {} {}: {}", scripts[outcome.script].name, options.ways[outcome.way].name, first_line(&outcome));
            }
            outcomes.push((attempt, outcome));
        }
        left.sort();
        if left.len() > again_max {
            break;
        }
    }
    let has_passed = say(&options, &scripts, outcomes);
    println!("of {all} plays {again} were played again, at most {again_max} may be");
    Ok(has_passed && again <= again_max)
}

fn first_line(outcome: &Outcome) -> &str {
    outcome.result.as_ref().err().and_then(|failure| failure.lines().next()).unwrap_or_default()
}

/// A control passes when it fails as it must, and so does a way in which a difference is known.
fn as_wanted(script: &Script, way: &Way, result: Result<(), String>) -> Result<(), String> {
    let differs = script.settings.differs.as_ref().filter(|(name, ..)| way.name.starts_with(name.as_str()));
    let wanted = script.settings.must_fail.as_ref().map(|(line, what)| (line, what));
    let Some((line, what)) = differs.map(|(_, line, what)| (line, what)).or(wanted) else { return result };
    let Err(failure) = result else { return Err(format!("{}: this must fail in line {line}, and did not\n", script.file)) };
    let first = failure.lines().next().unwrap_or_default();
    let is_wanted = first.starts_with(&format!("{}:{line}: ", script.file)) && first.contains(what.as_str());
    if is_wanted { Ok(()) } else { Err(format!("this must fail in line {line} with '{what}':\n{failure}")) }
}

/// 10.79.WAY.SCRIPT or fd79::WAY:SCRIPT: what a kernel remembers about a client's address (RFC 9040) is of one script only.
fn client_address(way: &Way, number: usize, index: usize) -> SocketAddr {
    let (number, index) = (number as u16 + 1, index as u16 + 1);
    let address: IpAddr = match way.server {
        SocketAddr::V4(_) => Ipv4Addr::new(10, 79, number as u8, index as u8).into(),
        SocketAddr::V6(_) => Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, number, index).into(),
    };
    SocketAddr::new(address, first_port() + index)
}

/// What comes out of the device, to whom it is for.
fn dispatch(device: &Iface, packets: &Mutex<Packets>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = device.recv(&mut buffer) {
        let packet = &buffer[..length];
        let Ok(packets) = packets.lock() else { return };
        if let Some(to) = destination_of(packet).and_then(|to| packets.get(&to)) {
            // A peer that is done hears nothing any more.
            let _ = to.send((Instant::now(), packet.to_vec()));
        }
    }
}

/// Says what failed, and where the ways differ.
fn say(options: &Options, scripts: &[Arc<Script>], outcomes: Vec<(usize, Outcome)>) -> bool {
    let (mut passed, mut failed, mut differ, mut handoffs) = (0, 0, 0, 0);
    let mut last: BTreeMap<(usize, usize), (usize, Outcome)> = BTreeMap::new();
    for (attempt, outcome) in outcomes {
        handoffs += u32::from(outcome.was_accepted && options.ways[outcome.way].is_handed_off());
        let key = (outcome.script, outcome.way);
        if last.get(&key).is_none_or(|(before, _)| *before < attempt) {
            last.insert(key, (attempt, outcome));
        }
    }
    let mut outlines: BTreeMap<(usize, u8), (usize, Vec<String>)> = BTreeMap::new();
    for ((script, way), (_, outcome)) in last {
        let (name, way_name) = (&scripts[script].name, &options.ways[way].name);
        let settings = &scripts[script].settings;
        let expected = settings.handoffs > 0;
        let result = outcome.result.and_then(|()| {
            let is_wrong = options.ways[way].is_handed_off() && settings.must_fail.is_none() && outcome.was_accepted != expected;
            if is_wrong { Err(format!("handed off: {}, expected: {expected}\n", outcome.was_accepted)) } else { Ok(()) }
        });
        if let Err(failure) = result {
            failed += 1;
            println!("FAIL {name} {way_name}: {failure}");
            continue;
        }
        passed += 1;
        if settings.must_fail.is_some() || settings.differs.is_some() {
            continue;
        }
        match outlines.entry((script, options.ways[way].family())) {
            Entry::Vacant(first) => {
                first.insert((way, outcome.outline));
            }
            Entry::Occupied(first) => {
                let (other, outline) = first.get();
                if *outline != outcome.outline {
                    differ += 1;
                    let other = &options.ways[*other].name;
                    println!("DIFFERS {name}: {other} and {way_name}");
                    println!("    {other:14} {}\n    {way_name:14} {}", outline.join(" | "), outcome.outline.join(" | "));
                }
            }
        }
    }
    println!("played: {passed} passed, {failed} failed, {differ} differ");
    println!("handoffs: {handoffs}");
    failed == 0 && differ == 0
}

struct Player {
    device: Arc<Iface>,
    receiver: Receiver<(Instant, Vec<u8>)>,
    application: PathBuf,
    server: Option<BufReader<UnixStream>>,
    client: SocketAddr,
    began: Instant,
}

impl Player {
    fn play(&mut self, peer: &mut Peer) -> Result<(), String> {
        loop {
            while let Ok((at, packet)) = self.receiver.try_recv() {
                peer.receive(&packet, at.saturating_duration_since(self.began));
            }
            match peer.step(self.now()) {
                Step::Send(packet) => self.send(&packet)?,
                Step::Ask(app) => {
                    let answer = self.ask(&app)?;
                    peer.answered(&answer, self.now());
                }
                Step::WaitUntil(until) if until > SCRIPT_TIME_MAX => break Err("takes too long".to_owned()),
                Step::WaitUntil(until) => match self.receiver.recv_timeout(until.saturating_sub(self.now())) {
                    Ok((at, packet)) => peer.receive(&packet, at.saturating_duration_since(self.began)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break Err("the device is gone".to_owned()),
                },
                Step::Done(result) => break result.map_err(|failure| failure.to_string()),
            }
        }
    }

    /// Leaves no connection behind.
    fn reset(&self, peer: &mut Peer) {
        if let Some(reset) = peer.final_reset(self.now()) {
            // Whether a peer's last packet gets through is of no consequence to what it saw.
            let _ = self.send(&reset);
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn send(&self, packet: &[u8]) -> Result<(), String> {
        self.device.send(packet).map(|_| ()).map_err(|reason| format!("the device takes no packet: {reason}"))
    }

    /// Asks the application of the server that must have got the connection.
    fn ask(&mut self, app: &App) -> Result<String, String> {
        if self.server.is_none() {
            let path = self.application.display().to_string();
            let socket =
                UnixStream::connect(&self.application).map_err(|reason| format!("no application at {path}: {reason}"))?;
            socket.set_read_timeout(Some(SCRIPT_TIME_MAX)).map_err(|reason| reason.to_string())?;
            self.server = Some(BufReader::new(socket));
            let accepted = self.exchange(&format!("accept {} {}", self.client.ip(), self.client.port()))?;
            if accepted != "ok" {
                return Err(format!("the application at {path} has no connection from {}: {accepted}", self.client));
            }
        }
        self.exchange(&command(app))
    }

    /// Whether the application of this way ever had the connection. A script may end before a connection that is being
    /// handed off has got there; if it `must` get there, it is given time.
    fn was_accepted(&self, must: bool) -> bool {
        let Ok(socket) = UnixStream::connect(&self.application) else { return false };
        let mut server = BufReader::new(socket);
        let question = format!("had {} {}", self.client.ip(), self.client.port());
        let end = Instant::now() + if must { HANDOFF_TIME_MAX } else { Duration::ZERO };
        loop {
            let was_accepted = exchange(&mut server, &question).is_ok_and(|answer| answer == "yes");
            if was_accepted || Instant::now() >= end {
                return was_accepted;
            }
            thread::sleep(BETWEEN_QUESTIONS);
        }
    }

    fn exchange(&mut self, question: &str) -> Result<String, String> {
        exchange(self.server.as_mut().ok_or("no application")?, question)
    }
}

fn exchange(server: &mut BufReader<UnixStream>, question: &str) -> Result<String, String> {
    let mut answer = String::new();
    let asked = writeln!(server.get_mut(), "{question}").and_then(|()| server.read_line(&mut answer));
    asked.map_err(|reason| format!("the application does not answer '{question}': {reason}"))?;
    Ok(answer.trim_end().to_owned())
}

/// What `scripted_server.py` understands.
fn command(app: &App) -> String {
    match app {
        App::Read(octets) => format!("read {octets}"),
        App::ReadEnd | App::ReadError(_) => "read 1".to_owned(),
        App::ReadNothing => "peek".to_owned(),
        App::ReadUrgent => "oob".to_owned(),
        App::Write(octets) => format!("write {octets}"),
        App::WriteError(_) => "write 1".to_owned(),
        App::Shutdown(how) => format!("shutdown {how}"),
        App::Close => "close".to_owned(),
        App::Reset => "reset".to_owned(),
        App::Set(name, value) => format!("set {name} {value}"),
        App::State(state) => format!("state {state}"),
        App::Info(name, value) => format!("info {name} {value}"),
    }
}
