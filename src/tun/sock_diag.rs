//! Questions to the kernel about its TCP sockets (sock_diag(7)), synchronous, a few microseconds each.

use super::family::{Family, append_address};
use super::netlink::{self, Connection, Message, NLM_F_ACK, NLM_F_DUMP};
use crate::flow::Endpoint;
use crate::handoff::SocketState;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::io;
use std::net::IpAddr;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

// include/net/tcp_states.h
const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_RECV: u8 = 3;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_NEW_SYN_RECV: u8 = 12;
/// Every state of a connection: all but LISTEN, and not the bound sockets of newer kernels.
const CONNECTION_STATES: u32 = ((1 << (TCP_NEW_SYN_RECV + 1)) - (1 << TCP_ESTABLISHED)) & !(1 << TCP_LISTEN);

/// No particular socket of this 4-tuple (INET_DIAG_NOCOOKIE).
const ANY_SOCKET: [u8; 8] = [0xff; 8];
/// Octets of struct inet_diag_sockid.
const IDENTITY: usize = 48;
/// Rounds of listing and destroying: a socket may change its state in between.
const DESTROY_ROUNDS: usize = 4;

/// What the kernel says about one socket.
#[derive(Clone, Copy, Debug)]
struct Socket {
    family: u8,
    state: u8,
    identity: [u8; IDENTITY],
    /// For a listener its backlog.
    write_queue: u32,
}

impl Socket {
    fn parse(message: Message<'_>) -> Option<Self> {
        let payload = message.payload;
        Some(Self {
            family: *payload.first()?,
            state: *payload.get(1)?,
            identity: payload.get(4..4 + IDENTITY)?.try_into().ok()?,
            write_queue: netlink::number(payload.get(60..64)?)?,
        })
    }

    /// The local address; an IPv4 one also when the socket is an IPv6 one that takes both.
    fn local_address(&self) -> Option<IpAddr> {
        let address = Family::from_number(self.family)?.address_from(&self.identity[4..20])?;
        Some(address.to_canonical())
    }

    fn listener(&self) -> Option<Listener> {
        let port = u16::from_be_bytes([self.identity[0], self.identity[1]]);
        let device = netlink::number(&self.identity[36..40])?;
        Some(Listener { at: Endpoint::new(self.local_address()?, port), is_bound_to_device: device != 0 })
    }
}

/// A listening socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listener {
    /// Where it listens; the wildcard address of its family stands for every address.
    pub at: Endpoint,
    /// Bound to one device (SO_BINDTODEVICE): it does not see what comes from the TUN.
    pub is_bound_to_device: bool,
}

/// A sock_diag netlink socket.
#[derive(Debug)]
pub struct SockDiag {
    connection: Connection,
}

impl SockDiag {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        Ok(Self { connection: Connection::open(NETLINK_SOCK_DIAG)? })
    }

    /// State of the socket with exactly these ends.
    pub fn state(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<SocketState> {
        Ok(match self.find(local, remote)?.map(|socket| socket.state) {
            // Under a listener the kernel answers with the listener when the connection does not exist.
            None | Some(TCP_LISTEN | TCP_CLOSE) => SocketState::Absent,
            Some(TCP_SYN_RECV | TCP_NEW_SYN_RECV) => SocketState::SynReceived,
            Some(TCP_TIME_WAIT) => SocketState::TimeWait,
            Some(_) => SocketState::Open,
        })
    }

    /// Backlog of the listener that takes connections to this endpoint; None when nothing listens.
    pub fn backlog(&mut self, local: Endpoint) -> io::Result<Option<u32>> {
        Ok(self.listener(local)?.map(|listener| listener.write_queue))
    }

    /// Whether a listener for this endpoint's port is on the wildcard address (handed-off connections arrive at
    /// aliases). One that is bound to a device does not count: it would not see the TUN's packets.
    pub fn listens_on_wildcard(&mut self, local: Endpoint) -> io::Result<bool> {
        let wildcard = Endpoint::new(Family::of(local.address).unspecified(), local.port);
        Ok(self.listener(wildcard)?.is_some())
    }

    /// All listeners on a port, in order; for saying what is wrong with them.
    pub fn listeners_on(&mut self, port: u16) -> io::Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        for family in Family::BOTH {
            let any = identity(Endpoint::new(family.unspecified(), port), Endpoint::new(family.unspecified(), 0));
            let sockets = self.list(family, 1 << TCP_LISTEN, &any)?;
            listeners.extend(sockets.iter().filter_map(Socket::listener).filter(|listener| listener.at.port == port));
        }
        listeners.sort();
        listeners.dedup();
        Ok(listeners)
    }

    /// Destroys the socket with exactly these ends (whatever its state); Ok(false) when there is none.
    pub fn destroy(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<bool> {
        match self.find(local, remote)? {
            None => Ok(false),
            Some(socket) if socket.state == TCP_LISTEN => Ok(false),
            Some(socket) => self.destroy_socket(&socket),
        }
    }

    /// Whether this kernel can destroy sockets: asked with one that cannot exist, since nothing listens at port 0.
    pub fn check_destroy(&mut self) -> io::Result<()> {
        let nobody = Endpoint::new(Family::V4.unspecified(), 0);
        let socket = Socket { family: Family::V4.number(), state: TCP_CLOSE, write_queue: 0, identity: identity(nobody, nobody) };
        match self.destroy_socket(&socket) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(()),
        }
    }

    /// Destroys every socket whose local address lies in one of the prefixes; how many.
    ///
    /// The kernel tells the other end of each with a RST, to wherever the routing leads.
    pub fn destroy_in(&mut self, prefixes: &[ipnet::IpNet]) -> io::Result<usize> {
        let mut destroyed = 0;
        for _ in 0..DESTROY_ROUNDS {
            let mut remaining = Vec::new();
            for family in Family::BOTH {
                remaining.extend(self.connections_in(family, prefixes)?);
            }
            if remaining.is_empty() {
                break;
            }
            for socket in remaining {
                destroyed += usize::from(self.destroy_socket(&socket)?);
            }
        }
        Ok(destroyed)
    }

    /// How many connections have their local address in one of the prefixes.
    pub fn count_in(&mut self, prefixes: &[ipnet::IpNet]) -> io::Result<usize> {
        let mut count = 0;
        for family in Family::BOTH {
            count += self.connections_in(family, prefixes)?.len();
        }
        Ok(count)
    }

    fn connections_in(&mut self, family: Family, prefixes: &[ipnet::IpNet]) -> io::Result<Vec<Socket>> {
        let mut identity = [0; IDENTITY];
        identity[40..].copy_from_slice(&ANY_SOCKET);
        let inside = |address: IpAddr| prefixes.iter().any(|prefix| prefix.contains(&address));
        let mut listed = self.list(family, CONNECTION_STATES, &identity)?;
        listed.retain(|socket| socket.local_address().is_some_and(inside));
        Ok(listed)
    }

    /// All sockets in these states; a port in the identity selects those that have it.
    fn list(&mut self, family: Family, states: u32, identity: &[u8; IDENTITY]) -> io::Result<Vec<Socket>> {
        let writer = self.connection.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
        writer.fixed(&request(family.number(), states, identity));
        match self.connection.dump(Socket::parse) {
            // A kernel without IPv6 has no sockets of it.
            Err(error) if netlink::error_number(&error) == Some(libc::ENOENT) => Ok(Vec::new()),
            listed => listed,
        }
    }

    fn listener(&mut self, local: Endpoint) -> io::Result<Option<Socket>> {
        let nobody = Endpoint::new(Family::of(local.address).unspecified(), 0);
        Ok(self.find(local, nobody)?.filter(|socket| socket.state == TCP_LISTEN))
    }

    /// The socket with these ends, or the listener that would take the connection.
    fn find(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<Option<Socket>> {
        let family = Family::of(local.address).number();
        let identity = identity(local, remote);
        let writer = self.connection.request(SOCK_DIAG_BY_FAMILY, 0);
        writer.fixed(&request(family, u32::MAX, &identity));
        match self.connection.ask(Socket::parse) {
            Ok(socket) => Ok(socket.flatten()),
            Err(error) if netlink::error_number(&error) == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Destroys this very socket: named by its cookie, so that never a listener or a successor is meant.
    fn destroy_socket(&mut self, socket: &Socket) -> io::Result<bool> {
        let writer = self.connection.request(SOCK_DESTROY, NLM_F_ACK);
        writer.fixed(&request(socket.family, u32::MAX, &socket.identity));
        match self.connection.execute() {
            Ok(()) => Ok(true),
            Err(error) => match netlink::error_number(&error) {
                // Gone, replaced by another, or already closing down.
                Some(libc::ENOENT | libc::ESTALE) => Ok(false),
                Some(libc::EOPNOTSUPP) => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the kernel cannot destroy sockets: it needs CONFIG_INET_DIAG_DESTROY",
                )),
                _ => Err(error),
            },
        }
    }
}

/// struct inet_diag_req_v2.
fn request(family: u8, states: u32, identity: &[u8; IDENTITY]) -> Vec<u8> {
    let mut bytes = vec![family, libc::IPPROTO_TCP as u8, 0, 0];
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.extend_from_slice(identity);
    bytes
}

/// struct inet_diag_sockid: ports, 16 octets for each address, device, cookie.
fn identity(local: Endpoint, remote: Endpoint) -> [u8; IDENTITY] {
    let mut bytes = Vec::with_capacity(IDENTITY);
    bytes.extend_from_slice(&local.port.to_be_bytes());
    bytes.extend_from_slice(&remote.port.to_be_bytes());
    append_address(&mut bytes, local.address);
    bytes.resize(20, 0);
    append_address(&mut bytes, remote.address);
    bytes.resize(36, 0);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&ANY_SOCKET);
    bytes.try_into().expect("the fields above are 48 octets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    #[test]
    fn connection_states_are_all_but_listen() {
        assert_eq!(CONNECTION_STATES, 0b1_1011_1111_1110);
    }

    #[test]
    fn the_kernel_tells_a_listener_from_a_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let local: Endpoint = listener.local_addr().unwrap().into();
        let mut diag = SockDiag::open().unwrap();
        let nobody = Endpoint::new(Ipv4Addr::LOCALHOST.into(), 1);
        assert_eq!(diag.state(local, nobody).unwrap(), SocketState::Absent);
        assert!(diag.backlog(local).unwrap().is_some());
        assert!(!diag.listens_on_wildcard(local).unwrap());

        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let remote: Endpoint = client.local_addr().unwrap().into();
        assert_eq!(diag.state(local, remote).unwrap(), SocketState::Open);
    }

    #[test]
    fn nothing_listens_on_a_closed_port() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let local: Endpoint = listener.local_addr().unwrap().into();
        drop(listener);
        assert_eq!(SockDiag::open().unwrap().backlog(local).unwrap(), None);
    }

    #[test]
    fn listeners_of_a_port_are_listed_with_where_they_listen() {
        let wildcard = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = wildcard.local_addr().unwrap().port();
        let mut diag = SockDiag::open().unwrap();
        let at = |address| vec![Listener { at: Endpoint::new(address, port), is_bound_to_device: false }];
        assert_eq!(diag.listeners_on(port).unwrap(), at(Ipv6Addr::UNSPECIFIED.into()));
        drop(wildcard);
        assert_eq!(diag.listeners_on(port).unwrap(), []);
        let _one_address = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(diag.listeners_on(port).unwrap(), at(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_listener_of_ipv6_only_takes_no_ipv4() {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind(&std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let mut diag = SockDiag::open().unwrap();
        assert!(diag.listens_on_wildcard(Endpoint::new(Ipv6Addr::LOCALHOST.into(), port)).unwrap());
        assert!(!diag.listens_on_wildcard(Endpoint::new(Ipv4Addr::LOCALHOST.into(), port)).unwrap());
    }

    #[test]
    fn a_wildcard_listener_of_ipv6_takes_ipv4_too() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let local = Endpoint::new(Ipv4Addr::LOCALHOST.into(), port);
        assert!(SockDiag::open().unwrap().listens_on_wildcard(local).unwrap());
    }
}
