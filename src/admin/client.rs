//! The command line's end of the admin socket: one question, one answer, then the connection is over.

use super::protocol::{self, Reply, Request};
use crate::limits::{ADMIN_ANSWER_TIMEOUT, ADMIN_REPLY_BYTES_MAX};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where daemons put their sockets unless told otherwise.
pub const SOCKET_DIRECTORY: &str = "/run/baton";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody to ask.
    #[error("{0}")]
    NoDaemon(String),
    /// Somebody, but not to be understood.
    #[error("{0}")]
    Broken(String),
}

/// The only socket in the directory.
pub fn only_socket(directory: &Path) -> Result<PathBuf, AskError> {
    let start = "start one with `baton run --node NAME CLUSTER.yaml`, or name its socket with --socket PATH";
    let mut sockets = match std::fs::read_dir(directory) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
            .collect::<Vec<_>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let directory = directory.display();
            return Err(AskError::NoDaemon(format!(
                "cannot look for a daemon in {directory}: {error}; try as root, or name its socket with --socket PATH"
            )));
        }
    };
    sockets.sort();
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        0 => Err(AskError::NoDaemon(format!("no daemon runs here: no socket in {}; {start}", directory.display()))),
        _ => {
            let list: String = sockets.iter().map(|path| format!("\n  --socket {}", path.display())).collect();
            Err(AskError::NoDaemon(format!("several daemons run here; say which one:{list}")))
        }
    }
}

/// Asks the daemon behind the socket. `Request::Stop` waits as long as the daemon needs, provided that it goes on
/// answering other questions meanwhile.
pub fn ask(socket: &Path, request: &Request) -> Result<Reply, AskError> {
    ask_within(ADMIN_ANSWER_TIMEOUT, socket, request)
}

fn ask_within(patience: Duration, socket: &Path, request: &Request) -> Result<Reply, AskError> {
    let place = socket.display();
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(patience)).map_err(|error| broken(socket, &error))?;
    stream.set_write_timeout(Some(patience)).map_err(|error| broken(socket, &error))?;
    stream.write_all(&protocol::to_line(request)).map_err(|error| broken(socket, &error))?;

    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(ADMIN_REPLY_BYTES_MAX));
    while let Err(error) = reader.read_until(b'\n', &mut line) {
        let may_last = matches!(request, Request::Stop { .. }) && is_time_out(&error);
        if !may_last {
            return Err(broken(socket, &error));
        }
        match ask_within(patience, socket, &Request::Status) {
            // It has come to its end in this moment, and answers.
            Err(AskError::NoDaemon(_)) if !socket.exists() => {}
            status => drop(status?),
        }
    }
    if line.last() != Some(&b'\n') {
        return Err(AskError::Broken(format!("the daemon at {place} ended before it had answered; see its log")));
    }
    serde_json::from_slice(&line).map_err(|error| {
        AskError::Broken(format!("cannot read the answer of the daemon at {place} ({error}); is it of another version?"))
    })
}

fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    let place = socket.display();
    UnixStream::connect(socket).map_err(|error| {
        AskError::NoDaemon(match error.kind() {
            io::ErrorKind::NotFound => format!("no daemon answers at {place}: there is no such socket; is `baton run` up?"),
            io::ErrorKind::ConnectionRefused => {
                format!("no daemon answers at {place}: the socket is left over from one that is gone; start it again")
            }
            io::ErrorKind::PermissionDenied => format!("no permission to talk to the daemon at {place}; try as root"),
            _ => format!("no daemon answers at {place}: {error}"),
        })
    })
}

fn broken(socket: &Path, error: &io::Error) -> AskError {
    let place = socket.display();
    if is_time_out(error) {
        return AskError::NoDaemon(format!(
            "the daemon at {place} does not answer within {}s: it hangs or is stopped; see its log",
            ADMIN_ANSWER_TIMEOUT.as_secs()
        ));
    }
    AskError::Broken(format!("talking to the daemon at {place}: {error}"))
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(directory: &Path) -> String {
        only_socket(directory).unwrap_err().to_string()
    }

    #[test]
    fn the_only_socket_is_found_and_several_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(error_of(&directory.path().join("absent")).contains("no daemon runs here"));
        assert!(error_of(directory.path()).contains("no daemon runs here"));
        std::fs::write(directory.path().join("b.sock"), "").unwrap();
        std::fs::write(directory.path().join("notes"), "").unwrap();
        assert_eq!(only_socket(directory.path()).unwrap(), directory.path().join("b.sock"));
        std::fs::write(directory.path().join("a.sock"), "").unwrap();
        let error = error_of(directory.path());
        assert!(error.find("a.sock").unwrap() < error.find("b.sock").unwrap(), "{error}");
    }

    #[test]
    fn an_absent_daemon_is_told_from_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let error = ask(&path, &Request::Status).unwrap_err();
        assert!(matches!(&error, AskError::NoDaemon(text) if text.contains("no such socket")), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = ask(&path, &Request::Status).unwrap_err();
        assert!(matches!(&error, AskError::NoDaemon(text) if text.contains("left over")), "{error}");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // The other side of the socket.
    fn a_stop_is_waited_for_as_long_as_the_daemon_lives_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let stop = Request::Stop { timeout_seconds: None };
        let patience = Duration::from_millis(50);
        // Nobody accepts: it hangs.
        let error = ask_within(patience, &path, &stop).unwrap_err();
        assert!(matches!(&error, AskError::NoDaemon(text) if text.contains("hangs")), "{error}");

        let daemon = std::thread::spawn(move || {
            // What the attempt before left in the queue: its request and its question.
            drop((listener.accept().unwrap(), listener.accept().unwrap()));
            let (mut stopping, _) = listener.accept().unwrap();
            for _ in 0..3 {
                let (mut asked, _) = listener.accept().unwrap();
                BufReader::new(&asked).read_line(&mut String::new()).unwrap();
                asked.write_all(&protocol::to_line(&Reply::Error("busy".to_owned()))).unwrap();
            }
            stopping.write_all(&protocol::to_line(&Reply::Error("done".to_owned()))).unwrap();
        });
        let reply = ask_within(patience, &path, &stop).unwrap();
        assert!(matches!(reply, Reply::Error(text) if text == "done"));
        daemon.join().unwrap();
    }
}
