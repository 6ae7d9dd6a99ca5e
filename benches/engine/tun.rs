//! What the kernel takes for a packet through a TUN: in a network namespace of this process's own, in which nothing else is.

use baton::rewrite::{Flags, SegmentSpec, Seq, ToServerWire};
use baton::tun::device::{Device, Offloading};
use baton::tun::offload::FRAME_BYTES_MAX;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Instant;

/// Set for the process that runs in the namespace.
const INSIDE: &str = "BATON_BENCH_IN_NAMESPACE";
const DEVICE: &str = "bt0";
const PACKETS: u32 = 512;

/// Nanoseconds of one read and of one write of a packet of 100 octets; none without the right to make a namespace.
pub fn measure(rounds: usize) -> Option<(f64, f64)> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("unshare").arg("-n").arg(program).env(INSIDE, rounds.to_string()).output().ok()?;
    let told = String::from_utf8(output.stdout).ok()?;
    let mut numbers = told.split_whitespace().map(str::parse::<f64>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(read), Ok(write)) => Some((read, write)),
        _ => None,
    }
}

/// Whether this is the process in the namespace; it has then said what it measured.
pub fn is_inside() -> bool {
    let Some(rounds) = std::env::var(INSIDE).ok().and_then(|rounds| rounds.parse().ok()) else { return false };
    match inside(rounds) {
        Ok((read, write)) => println!("{read} {write}"),
        Err(error) => eprintln!("TUN: {error:#}"),
    }
    true
}

#[allow(clippy::disallowed_methods)] // Time is what is measured.
fn inside(rounds: usize) -> anyhow::Result<(f64, f64)> {
    let device = Device::create(DEVICE, Offloading::Auto)?;
    for arguments in [["addr", "add", "10.9.0.1/24", "dev", DEVICE].as_slice(), &["link", "set", "lo", "up"]] {
        anyhow::ensure!(Command::new("ip").args(arguments).status()?.success(), "ip {arguments:?}");
    }
    let socket = UdpSocket::bind("10.9.0.1:0")?;
    let spec = SegmentSpec::<ToServerWire> {
        source: baton::flow::Endpoint::new([10, 9, 0, 7].into(), 40_000),
        destination: baton::flow::Endpoint::new([192, 0, 2, 1].into(), 80),
        seq: Seq::new(1),
        ack: Seq::new(1),
        flags: Flags::ACK,
        window: 500,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: &[7; 60],
    };
    // Nobody here has a route to it: the kernel looks for one, and drops it.
    let packet = spec.build().into_inner();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while device.receive(&mut buffer).is_ok() {}
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..PACKETS {
            socket.send_to(&[7; 72], "10.9.0.2:9")?;
        }
        let start = Instant::now();
        let mut count = 0;
        while device.receive(&mut buffer).is_ok() {
            count += 1;
        }
        // The one read that finds nothing belongs to them: so it is for the loop.
        reads.push(start.elapsed().as_nanos() as f64 / f64::from(count));
        anyhow::ensure!(count >= PACKETS, "{count} packets came");
        let start = Instant::now();
        for _ in 0..PACKETS {
            device.send(&packet)?;
        }
        writes.push(start.elapsed().as_nanos() as f64 / f64::from(PACKETS));
    }
    Ok((super::median(&mut reads), super::median(&mut writes)))
}
