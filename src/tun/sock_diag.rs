//! Questions to the kernel about its TCP sockets (sock_diag(7)), synchronous, a few microseconds each.
use crate::flow::Endpoint;
use crate::handoff::SocketState;
use std::io;
/// A sock_diag netlink socket.
#[derive(Debug)]
pub struct SockDiag {}
impl SockDiag {
    /// Opens it.
    pub fn open() -> io::Result<Self> { todo!() }
    /// State of the socket with exactly these ends.
    pub fn state(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<SocketState> { let _ = (local, remote); todo!() }
    /// Backlog of the listener that takes connections to this endpoint; None when nothing listens.
    pub fn backlog(&mut self, local: Endpoint) -> io::Result<Option<u32>> { let _ = local; todo!() }
    /// Whether the listener for this endpoint's port is on the wildcard address (handed-off connections arrive at aliases).
    pub fn listens_on_wildcard(&mut self, local: Endpoint) -> io::Result<bool> { let _ = local; todo!() }
    /// Destroys the socket with exactly these ends (whatever its state); Ok(false) when there is none.
    pub fn destroy(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<bool> { let _ = (local, remote); todo!() }
    /// Destroys every socket whose local address lies in one of the prefixes; how many.
    pub fn destroy_in(&mut self, prefixes: &[ipnet::IpNet]) -> io::Result<usize> { let _ = prefixes; todo!() }
}
