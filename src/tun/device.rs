//! The TUN device.
use std::io;
/// An open TUN device, non-blocking; gone when the process is.
#[derive(Debug)]
pub struct Device {}
impl Device {
    /// Creates it, with no side effect when the name is taken. Without packet information, without offload.
    pub fn create(name: &str) -> anyhow::Result<Self> { let _ = name; todo!() }
    /// Its name.
    pub fn name(&self) -> &str { todo!() }
    /// One packet; WouldBlock when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> { let _ = buffer; todo!() }
    /// One packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> { let _ = packet; todo!() }
}
impl std::os::fd::AsRawFd for Device {
    fn as_raw_fd(&self) -> std::os::fd::RawFd { todo!() }
}
