//! The program that `tests/host.sh` runs inside network namespaces: a node without an engine, servers and clients.
//!
//! It is one test that does nothing unless the script names a part to play in `BATON_HOST_DRIVER`.
#![allow(missing_docs, clippy::disallowed_methods)]

use baton::flow::{Endpoint, FlowKey};
use baton::rewrite::Offload;
use baton::tun::capture::{Capture, CaptureConfig};
use baton::tun::device::{Device, Offloading};
use baton::tun::offload::{FRAME_BYTES_MAX, Frame, HEADER_BYTES};
use baton::tun::sock_diag::SockDiag;
use etherparse::icmpv4::TimeExceededCode;
use etherparse::{Icmpv4Header, Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

#[test]
fn driver() {
    let Ok(part) = std::env::var("BATON_HOST_DRIVER") else {
        println!("nothing to play: run tests/host.sh as root");
        return;
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words: Vec<&str> = part.split_whitespace().collect();
    let result = match words[..] {
        ["node", device, ref addresses @ ..] => node(device, addresses),
        ["serve", address] => serve(address),
        ["load", address, seconds] => load(address, seconds.parse().unwrap()),
        ["chatter", alias, to] => chatter(alias, to),
        ["knock", from, to] => knock(from, to),
        ["complain", to] => complain(to),
        ["measure", device, frontend] => measure(device, frontend),
        ["sockets", address] => sockets(address),
        ["offload", device] => offload(device),
        _ => panic!("unknown part {part}"),
    };
    // Not by returning: the test harness would add lines the script would have to know.
    std::process::exit(match result {
        Ok(()) => 0,
        Err(error) => {
            println!("failed: {error:#}");
            1
        }
    });
}

fn config(device: &str, addresses: &[&str]) -> CaptureConfig {
    let number = |name, default: usize| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    CaptureConfig {
        device: device.to_owned(),
        shared: Vec::new(),
        frontends: addresses.iter().filter(|a| !a.contains('/')).map(|a| endpoint(a)).collect(),
        answered_addresses: Vec::new(),
        answered: Vec::new(),
        aliases: addresses.iter().filter(|a| a.contains('/')).map(|a| a.parse().unwrap()).collect(),
        control: None,
        server_ports: vec![80],
        state_directory: PathBuf::from(std::env::var("BATON_HOST_STATE").unwrap()),
        guards_max: number("BATON_HOST_GUARDS", 1000),
        bypass: true,
        links: Vec::new(),
    }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn flow(client: &str, frontend: &str) -> FlowKey {
    FlowKey { client: endpoint(client), frontend: endpoint(frontend) }
}

/// Writes every packet back that it reads, as a node does that decides "local" for all; obeys lines on its input.
fn node(device: &str, addresses: &[&str]) -> anyhow::Result<()> {
    let device = Device::create(device, Offloading::Auto)?;
    let config = config(device.name(), addresses);
    let aliases = config.aliases.clone();
    // A node translates what comes from aliases. This one cannot, so it keeps it.
    let write_back = |mut frame: Frame<'_>| {
        if !source(frame.packet()).is_some_and(|source| aliases.iter().any(|prefix| prefix.contains(&source))) {
            // EINVAL and the like concern this packet only.
            let _ = device.send_frame(&mut frame);
        }
    };
    let mut capture = Capture::install(config)?;
    capture.probe(&device)?;
    println!("\nready guards_found={} mtu={}", capture.guards_found().len(), device.mtu());
    for guard in capture.guards_found() {
        println!("guard {guard}");
    }

    let (lines, commands) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut beating = true;
    let mut next_beat = Instant::now();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut read = 0_u64;
    loop {
        if beating && Instant::now() >= next_beat {
            for packet in capture.heartbeats() {
                device.send(packet)?;
            }
            next_beat = Instant::now() + HEARTBEAT_INTERVAL;
        }
        match device.receive(&mut buffer) {
            Ok((length, offload)) => {
                read += 1;
                write_back(Frame::new(&mut buffer[..HEADER_BYTES + length], offload));
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let Ok(line) = commands.try_recv() else {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["read"] => println!("read={read}"),
            ["quiet"] => beating = false,
            ["beat"] => beating = true,
            ["guard", client, frontend] => match capture.change_guards(&[flow(client, frontend)], &[]) {
                Ok(()) => println!("guarded"),
                Err(error) => println!("not guarded: {error}"),
            },
            ["unguard", client, frontend] => {
                capture.change_guards(&[], &[flow(client, frontend)])?;
                println!("unguarded");
            }
            ["replay", client, alias] => {
                replay(&device, endpoint(client), endpoint(alias))?;
                println!("replayed");
            }
            ["mtu", peer] => println!("mtu={}", capture.mtu_towards(&[peer.parse()?])?),
            ["release"] => {
                capture.release()?;
                println!("released");
            }
            ["restore"] => {
                // Nothing more comes in; what has come in goes on its way before the TUN closes.
                capture.release()?;
                while let Ok((length, offload)) = device.receive(&mut buffer) {
                    write_back(Frame::new(&mut buffer[..HEADER_BYTES + length], offload));
                }
                capture.restore()?;
                println!("restored");
                return Ok(());
            }
            ["drop"] => {
                drop(capture);
                println!("dropped");
                return Ok(());
            }
            ["panic"] => panic!("on request"),
            _ => println!("unknown command {line}"),
        }
    }
}

/// Opens a connection from `client` to an alias in the local stack and sends a request on it that nobody acknowledges the
/// answer of, so that the local stack has something to say for a long time.
fn replay(device: &Device, client: Endpoint, alias: Endpoint) -> anyhow::Result<()> {
    const ISN: u32 = 1_000;
    let segment = |sequence: u32, acknowledgement: Option<u32>, payload: &[u8]| {
        let ip = match (client.address, alias.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            _ => panic!("two versions of IP in one connection"),
        };
        let tcp = ip.tcp(client.port, alias.port, sequence, 65_535);
        let tcp = match acknowledgement {
            None => tcp.syn(),
            Some(number) => tcp.ack(number),
        };
        let mut bytes = Vec::new();
        tcp.write(&mut bytes, payload).unwrap();
        bytes
    };
    device.send(&segment(ISN, None, b""))?;
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let Ok((length, _)) = device.receive(&mut buffer) else { continue };
        let packet = &buffer[HEADER_BYTES..HEADER_BYTES + length];
        if source(packet) != Some(alias.address) {
            continue;
        }
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(packet)?.transport else { continue };
        anyhow::ensure!(tcp.syn() && tcp.ack(), "the local stack answered, but not with a SYN-ACK");
        let next = tcp.sequence_number().wrapping_add(1);
        device.send(&segment(ISN + 1, Some(next), b""))?;
        return Ok(device.send(&segment(ISN + 1, Some(next), b"hello"))?);
    }
    anyhow::bail!("the local stack did not answer")
}

/// The source address of a packet.
fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Answers each connection with what it sent, once.
fn serve(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("\nserving");
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else {
            continue;
        };
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = connection.read(&mut buffer) {
                if connection.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// One request after the other on new connections, beside one connection that lasts; how many failed.
fn load(address: &str, seconds: f64) -> anyhow::Result<()> {
    let address: SocketAddr = address.parse()?;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let exchange = |connection: &mut TcpStream| -> std::io::Result<()> {
        let mut answer = [0; 5];
        connection.write_all(b"hello")?;
        connection.read_exact(&mut answer)?;
        if answer == *b"hello" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    };
    let connect = || -> std::io::Result<TcpStream> {
        let connection = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        connection.set_read_timeout(Some(Duration::from_secs(3)))?;
        Ok(connection)
    };
    let mut lasting = connect()?;
    let (mut good, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    while Instant::now() < deadline {
        let begin = Instant::now();
        let results = [connect().and_then(|mut connection| exchange(&mut connection)), exchange(&mut lasting)];
        slowest = slowest.max(begin.elapsed());
        for result in results {
            match result {
                Ok(()) => good += 1,
                Err(error) => {
                    failed += 1;
                    println!("failed request: {error}");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("\ngood={good} failed={failed} slowest_ms={}", slowest.as_millis());
    Ok(())
}

/// Whether anything comes back for a SYN: a connection and a refusal both are an answer.
fn knock(from: &str, to: &str) -> anyhow::Result<()> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // No TIME-WAIT: the same port knocks again.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&from.into())?;
    match socket.connect_timeout(&to.into(), Duration::from_millis(600)) {
        Err(error) if error.kind() == ErrorKind::TimedOut => println!("\nknocked silence"),
        Ok(()) => println!("\nknocked answer"),
        Err(error) => println!("\nknocked answer: {error}"),
    }
    Ok(())
}

/// Sends an ICMP error about a packet of this front-end's: "time exceeded", quoting the beginning of a TCP segment.
fn complain(frontend: &str) -> anyhow::Result<()> {
    let SocketAddr::V4(frontend) = frontend.parse()? else { anyhow::bail!("an IPv4 front-end is needed") };
    let mut quoted = Vec::new();
    let segment = PacketBuilder::ipv4(frontend.ip().octets(), [10, 77, 0, 9], 1).tcp(frontend.port(), 1000, 1, 1);
    segment.write(&mut quoted, &[])?;
    let header = Icmpv4Header::with_checksum(Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit), &quoted);
    let message = [&header.to_bytes()[..], &quoted].concat();
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    for _ in 0..10 {
        socket.send_to(&message, &SocketAddr::from((*frontend.ip(), 0)).into())?;
    }
    Ok(())
}

/// Sends from an alias for ever, whatever the kernel says to it.
fn chatter(alias: &str, to: &str) -> anyhow::Result<()> {
    let alias = SocketAddr::new(alias.parse()?, 0);
    let socket = Socket::new(Domain::for_address(alias), Type::DGRAM, None)?;
    // A prefix that a route makes local is not quite local for bind, in IPv6; for accepted connections it is.
    if alias.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&alias.into())?;
    let socket = UdpSocket::from(socket);
    println!("\nchattering");
    loop {
        let _ = socket.send_to(b"untranslated", to);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How long a change of guards takes, with 50,000 of them in the kernel.
fn measure(device: &str, frontend: &str) -> anyhow::Result<()> {
    let device = Device::create(device, Offloading::Auto)?;
    let mut capture = Capture::install(config(device.name(), &[frontend]))?;
    let frontend = endpoint(frontend);
    let guard = |number: u32| FlowKey {
        client: Endpoint::new(Ipv4Addr::from(0x0b00_0000 + (number >> 8)).into(), 1024 + (number & 0xff) as u16),
        frontend,
    };
    let all: Vec<FlowKey> = (0..50_000).map(guard).collect();
    let begin = Instant::now();
    capture.change_guards(&all, &[])?;
    println!("\nfilled with {} in {} ms", all.len(), begin.elapsed().as_millis());
    for size in [1_u32, 32] {
        for (name, adding) in [("add", true), ("remove", false)] {
            let mut times: Vec<Duration> = (0..500)
                .map(|round| {
                    let flows: Vec<FlowKey> = (0..size).map(|i| guard(100_000 + round * size + i)).collect();
                    let begin = Instant::now();
                    let result = if adding { capture.change_guards(&flows, &[]) } else { capture.change_guards(&[], &flows) };
                    result.unwrap();
                    begin.elapsed()
                })
                .collect();
            times.sort();
            println!("{name} {size}: median {:?} p99 {:?} max {:?}", times[250], times[495], times[499]);
        }
    }
    capture.restore()
}

/// What sock_diag says, compared with what is so.
fn sockets(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    let local: Endpoint = listener.local_addr()?.into();
    let mut diag = SockDiag::open()?;
    let client = TcpStream::connect(address)?;
    let remote: Endpoint = client.local_addr()?.into();
    let begin = Instant::now();
    for _ in 0..10_000 {
        diag.state(local, remote)?;
    }
    println!("\nstate takes {:?}", begin.elapsed() / 10_000);
    let prefix = [ipnet::IpNet::new(local.address, 32)?];
    anyhow::ensure!(diag.destroy(local, remote)?, "the connection was not destroyed");
    anyhow::ensure!(!diag.destroy(local, remote)?, "it was destroyed twice");
    anyhow::ensure!(diag.backlog(local)?.is_some(), "the listener did not survive");
    let _second = TcpStream::connect(address)?;
    println!("destroyed {} in the prefix", diag.destroy_in(&prefix)?);
    anyhow::ensure!(diag.count_in(&prefix)? == 0, "connections remain in the prefix");
    anyhow::ensure!(diag.backlog(local)?.is_some(), "the listener did not survive destroy_in");
    Ok(())
}

/// What becomes of super-segments when the kernel takes them, and from the first on that it does not take.
fn offload(device: &str) -> anyhow::Result<()> {
    const SEGMENTS: u64 = 10;
    let has_feature = |name: &str| -> anyhow::Result<bool> {
        let features = std::process::Command::new("ethtool").args(["-k", device]).output()?;
        Ok(String::from_utf8(features.stdout)?.lines().any(|line| line.trim() == format!("{name}: on")))
    };
    let received = || -> anyhow::Result<u64> {
        Ok(std::fs::read_to_string(format!("/sys/class/net/{device}/statistics/rx_packets"))?.trim().parse()?)
    };
    {
        let plain = Device::create(device, Offloading::Off)?;
        anyhow::ensure!(!plain.offloads() && !has_feature("tx-tcp-segmentation")?, "offload although it was refused");
    }
    let tun = Device::create(device, Offloading::Auto)?;
    for feature in ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation"] {
        anyhow::ensure!(has_feature(feature)?, "the kernel does not offload {feature}");
    }
    let super_segment = |start: u16| {
        let mut frame = vec![0; HEADER_BYTES];
        let tcp = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(1, 2, 3, 4).ack(5);
        tcp.write(&mut frame, &vec![0; 1_000 * SEGMENTS as usize]).expect("a vector takes all");
        (frame, Offload { partial_checksum: Some(start), segment_bytes: std::num::NonZeroU16::new(1_000), ecn: false })
    };
    let send = |start: u16| {
        let (mut frame, offload) = super_segment(start);
        tun.send_frame(&mut Frame::new(&mut frame, offload))
    };
    let before = received()?;
    send(20)?;
    anyhow::ensure!(received()? - before == 1, "a super-segment did not reach the kernel whole");

    // A checksum to be put behind the end of the packet: what any kernel answers EINVAL to.
    anyhow::ensure!(send(65_000).is_err() && !tun.offloads(), "the kernel takes everything, or nobody noticed that it does not");
    anyhow::ensure!(!has_feature("tx-tcp-segmentation")?, "the kernel goes on making super-segments");
    let before = received()?;
    send(20)?;
    anyhow::ensure!(received()? - before == SEGMENTS, "a super-segment was not cut");
    let counted = tun.super_segments();
    anyhow::ensure!((counted.written, counted.cut) == (1, 1), "counted {counted:?}");
    println!("\noffload falls back at run time");
    Ok(())
}
