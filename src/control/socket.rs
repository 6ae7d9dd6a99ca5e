//! Sockets of the control channel and the overlay, with their options, and several datagrams in one call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::limits::{OVERLAY_SOCKET_BUFFER_BYTES, PEER_SILENCE_MAX};

/// More peers than this in one instant wait for a retransmitted SYN.
const LISTEN_BACKLOG: i32 = 128;

/// The control channel's listener.
pub fn listen(address: SocketAddr) -> anyhow::Result<mio::net::TcpListener> {
    let open = || -> io::Result<mio::net::TcpListener> {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        // A restart finds connections of the life before in TIME-WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(mio::net::TcpListener::from_std(socket.into()))
    };
    open().map_err(|error| cannot_bind("control channel", "TCP", "ss -ltnp", address, &error))
}

/// Whether a port can be had.
pub enum Port {
    /// It can.
    Free,
    /// Somebody has it; what a start would say.
    Taken(anyhow::Error),
    /// Whoever has it; what a start would say.
    Unusable(anyhow::Error),
}

/// Tries the ports of control channel and overlay, in this order, and gives them back. Nothing can connect meanwhile.
pub fn try_ports(address: SocketAddr) -> [Port; 2] {
    let attempt = |kind, protocol, what: &str, name: &str, command: &str| {
        let bound = socket(address, kind, protocol).and_then(|socket| {
            if kind == Type::STREAM {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&address.into())
        });
        match bound {
            Ok(()) => Port::Free,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Port::Taken(cannot_bind(what, name, command, address, &error))
            }
            Err(error) => Port::Unusable(cannot_bind(what, name, command, address, &error)),
        }
    };
    [
        attempt(Type::STREAM, Protocol::TCP, "control channel", "TCP", "ss -ltnp"),
        attempt(Type::DGRAM, Protocol::UDP, "overlay", "UDP", "ss -lunp"),
    ]
}

/// Begins to connect to a peer, from this node's own address: the one peers and firewalls know.
pub fn dial(from: IpAddr, to: SocketAddr) -> io::Result<mio::net::TcpStream> {
    let socket = socket(to, Type::STREAM, Protocol::TCP)?;
    if from.is_ipv4() == to.is_ipv4() {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

/// Options of an established connection: a message leaves when it is written, and the kernel gives up with us.
pub fn tune(stream: &mio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(PEER_SILENCE_MAX))
}

/// The overlay's socket.
pub fn overlay(address: SocketAddr) -> anyhow::Result<mio::net::UdpSocket> {
    let open = || -> io::Result<Socket> {
        let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.bind(&address.into())?;
        never_fragment(&socket, address)?;
        Ok(socket)
    };
    let socket = open().map_err(|error| cannot_bind("overlay", "UDP", "ss -lunp", address, &error))?;
    enlarge_buffers(&socket);
    Ok(mio::net::UdpSocket::from_std(socket.into()))
}

/// Whether the kernel cuts what is sent in one piece into datagrams (UDP_SEGMENT, Linux 4.18). One that does not know the
/// option would send one large datagram.
pub fn cuts_datagrams(socket: &mio::net::UdpSocket) -> bool {
    // Zero is the default: each call says for itself what it is.
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Asks the kernel to hand over consecutive datagrams of one sender in one piece (UDP_GRO, Linux 5.0); whether it does.
pub fn join_datagrams(socket: &mio::net::UdpSocket) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
}

/// Room for one control message with a number.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: both only compute with the length.
#[allow(unsafe_code)]
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize;

/// Sends `datagrams`, each but the last of so many octets, in one call.
///
/// # Errors
///
/// Besides those of any datagram: `EIO` where the way out computes no checksums, `EINVAL` where a datagram is longer than its
/// MTU. Nothing was sent then.
#[allow(unsafe_code)]
pub fn send_datagrams(
    socket: &mio::net::UdpSocket,
    datagrams: &[u8],
    datagram_bytes: u16,
    address: SocketAddr,
) -> io::Result<usize> {
    let address = socket2::SockAddr::from(address);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: datagrams.as_ptr().cast_mut().cast(), iov_len: datagrams.len() };
    // SAFETY: `msghdr` is made of numbers and pointers, for which zero is a value. The header and its control message point to
    // `address`, `part`, `datagrams` and `control`, all of which outlive the call; the kernel only reads them. `control` is
    // aligned for a `cmsghdr` and has room for one with a number in it, so `CMSG_FIRSTHDR` is not null.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = address.len();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        (*first).cmsg_level = libc::SOL_UDP;
        (*first).cmsg_type = libc::UDP_SEGMENT;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(first).cast::<u16>().write_unaligned(datagram_bytes);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives datagrams of one sender: how many octets, and how many each has but the last.
#[allow(unsafe_code)]
pub fn receive_datagrams(socket: &mio::net::UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as above; the kernel writes at most as many octets to `buffer` and `control` as it is told they have, and what
    // `CMSG_FIRSTHDR` finds lies within what it says it wrote to `control`.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        let is_size = !first.is_null()
            && (*first).cmsg_level == libc::SOL_UDP
            && (*first).cmsg_type == libc::UDP_GRO
            && (*first).cmsg_len as usize >= libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
        let datagram_bytes = is_size.then(|| libc::CMSG_DATA(first).cast::<libc::c_int>().read_unaligned());
        Ok((length, datagram_bytes.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0).unwrap_or(length)))
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A sealed packet fits the path or is lost: fragments would be lost as wholes, and reassembly is a target. `PROBE`, not
/// `DO`: an ICMP error that anyone can forge must not shrink the path; MSS clamping keeps packets small enough.
fn never_fragment(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    }
}

/// As large as wanted with CAP_NET_ADMIN, otherwise as large as `net.core.rmem_max` and `wmem_max` allow.
fn enlarge_buffers(socket: &Socket) {
    let octets = OVERLAY_SOCKET_BUFFER_BYTES;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets as i32).is_err() {
        let _ = socket.set_recv_buffer_size(octets);
    }
    if set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, octets as i32).is_err() {
        let _ = socket.set_send_buffer_size(octets);
    }
    log::debug!("overlay buffers receive={:?} send={:?} wanted={octets}", socket.recv_buffer_size(), socket.send_buffer_size());
}

/// For options that `socket2` does not have.
#[allow(unsafe_code)]
fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel only reads `length` octets of
    // `value`, which outlives the call.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn cannot_bind(what: &str, protocol: &str, command: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let (ip, port) = (address.ip(), address.port());
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process has the port: `{command} 'sport = :{port}'` names it. Stop it, or change `overlay.port` \
             in the cluster file on every node"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "{ip} is not an address of this host. Run with the `--node` name this host has in the cluster file, or \
             correct the node's `address` there"
        ),
        io::ErrorKind::PermissionDenied => {
            "the process may not use this port. Choose an `overlay.port` above 1023, or grant CAP_NET_BIND_SERVICE".into()
        }
        _ => "correct the node's `address` or `overlay.port` in the cluster file".into(),
    };
    crate::doctor::refusal(format!("cannot bind {what} to {ip} port {port} ({protocol}): {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn an_occupied_port_is_said_with_address_port_and_remedy() {
        let taken = listen(free()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address).unwrap_err().to_string();
        for part in ["control channel to 127.0.0.1", &format!("port {}", address.port()), "ss -ltnp", "overlay.port"] {
            assert!(error.contains(part), "{error}");
        }
        let taken = overlay(free()).unwrap();
        let error = overlay(taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.contains("overlay to 127.0.0.1") && error.contains("ss -lunp"), "{error}");
    }

    #[test]
    fn an_address_of_another_host_is_said() {
        let error = listen("192.0.2.1:7400".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("not an address of this host"), "{error}");
    }

    #[test]
    fn the_overlay_socket_takes_its_options_in_both_families() {
        let socket = overlay(free()).unwrap();
        assert!(SockRef::from(&socket).recv_buffer_size().unwrap() > 0);
        overlay("[::1]:0".parse().unwrap()).unwrap();
    }
}
