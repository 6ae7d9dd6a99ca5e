//! The command line's end of the admin socket: one question, one answer, then the connection is over.

use super::protocol::{self, Reply, Request};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

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

/// Asks the daemon behind the socket. `Request::Stop` waits as long as the daemon needs.
pub fn ask(socket: &Path, request: &Request) -> Result<Reply, AskError> {
    let place = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        AskError::NoDaemon(match error.kind() {
            io::ErrorKind::NotFound => format!("no daemon answers at {place}: there is no such socket; is `baton run` up?"),
            io::ErrorKind::ConnectionRefused => {
                format!("no daemon answers at {place}: the socket is left over from one that is gone; start it again")
            }
            io::ErrorKind::PermissionDenied => format!("no permission to talk to the daemon at {place}; try as root"),
            _ => format!("no daemon answers at {place}: {error}"),
        })
    })?;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::NoDaemon(format!(
            "the daemon at {place} does not answer within {}s: it hangs or is stopped; see its log",
            crate::limits::ADMIN_ANSWER_TIMEOUT.as_secs()
        )),
        _ => AskError::Broken(format!("talking to the daemon at {place}: {error}")),
    };
    let patience = (!matches!(request, Request::Stop { .. })).then_some(crate::limits::ADMIN_ANSWER_TIMEOUT);
    stream.set_read_timeout(patience).map_err(broken)?;
    stream.set_write_timeout(Some(crate::limits::ADMIN_ANSWER_TIMEOUT)).map_err(broken)?;
    stream.write_all(&protocol::to_line(request)).map_err(broken)?;

    let mut line = Vec::new();
    BufReader::new(stream.take(crate::limits::ADMIN_REPLY_BYTES_MAX)).read_until(b'\n', &mut line).map_err(broken)?;
    if line.last() != Some(&b'\n') {
        return Err(AskError::Broken(format!("the daemon at {place} ended before it had answered; see its log")));
    }
    serde_json::from_slice(&line).map_err(|error| {
        AskError::Broken(format!("cannot read the answer of the daemon at {place} ({error}); is it of another version?"))
    })
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
}
