//! Plays scripts against real kernels: one peer per script and way, each with an address of its own behind a TUN device.
//!
//! ```text
//! drill check SCRIPT...                         reads them
//! drill list SCRIPT...                          their names, and the rule each of them holds
//! drill run --tun NAME --way WAY... SCRIPT...   plays every script once in every way, all at the same time
//! ```
//!
//! WAY: `NAME,SERVER,PATH,SOCKET,MSS`, such as `handed-off,10.77.0.1:80,/images/x,/run/b.sock,1404`: the server's address,
//! the path that makes this way of it, the socket of the scripted application that must have got the connection, and the
//! MSS that the SYN-ACK has where scripts say 1460. The device's addresses are 10.79.0.0/16 and fd79::/64; the caller
//! makes the routes.

mod play;

use drill::Script;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("drill: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool, String> {
    let usage = "expected check, list or run, and scripts";
    let (command, mut rest) = arguments.split_first().ok_or(usage)?;
    let mut options = play::Options::default();
    while let [name, value, after @ ..] = rest
        && name.starts_with("--")
    {
        match name.as_str() {
            "--tun" => options.tun.clone_from(value),
            "--way" => options.ways.push(play::Way::parse(value)?),
            "--traces" => options.traces = Some(value.into()),
            _ => return Err(format!("{name}: not known; there are --tun, --way and --traces")),
        }
        rest = after;
    }
    let scripts = rest.iter().map(|file| read(file)).collect::<Result<Vec<Script>, String>>()?;
    if scripts.is_empty() {
        return Err(usage.to_owned());
    }
    match command.as_str() {
        "check" => Ok(true),
        "list" => {
            for script in scripts {
                println!("{:36} {}", script.name, script.about[0]);
            }
            Ok(true)
        }
        "run" => play::all(scripts, options),
        other => Err(format!("'{other}': {usage}")),
    }
}

fn read(file: &str) -> Result<Script, String> {
    let text = std::fs::read_to_string(file).map_err(|reason| format!("cannot read {file}: {reason}"))?;
    Script::parse(file, &text).map_err(|wrong| wrong.to_string())
}
