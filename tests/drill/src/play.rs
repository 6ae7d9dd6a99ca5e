//! The shell around peers: the TUN device, the clock, the scripted applications, one thread for each peer.
#![allow(clippy::disallowed_methods)] // The shell reads the clock and starts threads.

use drill::notation::App;
use drill::segment::destination_of;
use drill::{Peer, Script, Setup, Step, peer, stream};
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
const BETWEEN_PEERS: Duration = Duration::from_millis(4);
/// The octets that an application can write.
const ANSWER_OCTETS: usize = 1 << 20;
const SOURCE_PORT: u16 = 40_000;
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
    script: Arc<Script>,
    result: Result<(), String>,
    outline: Vec<String>,
}

type Packets = HashMap<IpAddr, Sender<(Instant, Vec<u8>)>>;

/// Plays everything, says what failed; whether nothing did.
pub fn all(scripts: Vec<Script>, options: Options) -> Result<bool, String> {
    let device =
        Iface::without_packet_info(&options.tun, Mode::Tun).map_err(|reason| format!("no device {}: {reason}", options.tun))?;
    let device = Arc::new(device);
    let mut packets = Packets::new();
    let answer: Arc<[u8]> = stream::of_server(ANSWER_OCTETS).into();
    let mut players = Vec::new();
    for (index, script) in scripts.into_iter().map(Arc::new).enumerate() {
        for (number, way) in options.ways.iter().enumerate() {
            if !script.settings.families.contains(&way.family()) {
                continue;
            }
            let (sender, receiver) = channel();
            let client = client_address(way, number, index);
            packets.insert(client.ip(), sender);
            let setup = Setup {
                client,
                server: way.server,
                router: if way.server.is_ipv4() { ROUTERS.0 } else { ROUTERS.1 },
                stream: peer::request(&way.path),
                answer: answer.clone(),
                server_mss: way.mss,
                isn: Setup::isn_of(&script.name),
            };
            players.push((number, script.clone(), setup, receiver));
        }
    }
    let packets = Arc::new(packets);
    {
        let device = device.clone();
        thread::spawn(move || dispatch(&device, &packets));
    }
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for (way, script, setup, receiver) in players {
        thread::sleep(BETWEEN_PEERS);
        let (device, outcomes) = (device.clone(), outcomes.clone());
        let application = options.ways[way].application.clone();
        let traces = options.traces.as_ref().map(|to| to.join(format!("{}-{}", script.name, options.ways[way].name)));
        threads.push(thread::spawn(move || {
            let mut player = Player { device, receiver, application, server: None, client: setup.client, began: Instant::now() };
            let mut peer = Peer::new(script.clone(), setup);
            let result = player.play(&mut peer);
            if let Some(traces) = traces {
                let _ = std::fs::write(traces, peer.trace().join("\n") + "\n");
            }
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes.push(Outcome { way, script, result, outline: peer.outline().to_vec() });
            }
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| "a player panicked")?;
    }
    let outcomes = std::mem::take(&mut *outcomes.lock().map_err(|_| "a player panicked")?);
    Ok(say(&options, outcomes))
}

/// 10.79.WAY.SCRIPT or fd79::WAY:SCRIPT: what a kernel remembers about a client's address (RFC 9040) is of one script only.
fn client_address(way: &Way, number: usize, index: usize) -> SocketAddr {
    let (number, index) = (number as u16 + 1, index as u16 + 1);
    let address: IpAddr = match way.server {
        SocketAddr::V4(_) => Ipv4Addr::new(10, 79, number as u8, index as u8).into(),
        SocketAddr::V6(_) => Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, number, index).into(),
    };
    SocketAddr::new(address, SOURCE_PORT + index)
}

/// What comes out of the device, to whom it is for.
fn dispatch(device: &Iface, packets: &Packets) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = device.recv(&mut buffer) {
        let packet = &buffer[..length];
        if let Some(to) = destination_of(packet).and_then(|to| packets.get(&to)) {
            // A peer that is done hears nothing any more.
            let _ = to.send((Instant::now(), packet.to_vec()));
        }
    }
}

/// Says what failed, and where the ways differ.
fn say(options: &Options, outcomes: Vec<Outcome>) -> bool {
    let mut passed = 0;
    let mut failed = 0;
    let mut outlines: BTreeMap<(String, u8), Vec<(usize, Vec<String>)>> = BTreeMap::new();
    for Outcome { way, script, result, outline } in outcomes {
        let name = &options.ways[way].name;
        let result = match (&script.settings.must_fail, result) {
            (None, result) => result,
            (Some(_), Ok(())) => Err(format!("{}: this control must fail, and did not\n", script.file)),
            (Some((line, what)), Err(failure)) => {
                let first = failure.lines().next().unwrap_or_default();
                if first.starts_with(&format!("{}:{line}: ", script.file)) && first.contains(what.as_str()) {
                    Ok(())
                } else {
                    Err(format!("this control must fail in line {line} with '{what}':\n{failure}"))
                }
            }
        };
        match result {
            Ok(()) => {
                passed += 1;
                let key = (script.name.clone(), options.ways[way].family());
                outlines.entry(key).or_default().push((way, outline));
            }
            Err(failure) => {
                failed += 1;
                println!("FAIL {} {name}: {failure}", script.name);
            }
        }
    }
    let mut differ = 0;
    for ((script, _), mut ways) in outlines {
        ways.sort();
        let Some((first, outline)) = ways.first() else { continue };
        for (way, other) in &ways[1..] {
            if outline != other {
                differ += 1;
                let (one, two) = (&options.ways[*first].name, &options.ways[*way].name);
                println!("DIFFERS {script}: {one} and {two}");
                println!("    {one:14} {}\n    {two:14} {}", outline.join(" | "), other.join(" | "));
            }
        }
    }
    println!("played: {passed} passed, {failed} failed, {differ} differ");
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
        let result = loop {
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
        };
        if let Some(reset) = peer.final_reset(self.now()) {
            self.send(&reset)?;
        }
        result
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

    fn exchange(&mut self, question: &str) -> Result<String, String> {
        let Some(server) = &mut self.server else { return Err("no application".to_owned()) };
        let mut answer = String::new();
        let asked = writeln!(server.get_mut(), "{question}").and_then(|()| server.read_line(&mut answer));
        asked.map_err(|reason| format!("the application does not answer '{question}': {reason}"))?;
        Ok(answer.trim_end().to_owned())
    }
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
