//! The octets of both streams, which both ends can compute.

/// What the client says: a request, and then octets that tell their place.
pub fn of_client(path: &str, length: usize) -> Vec<u8> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n").into_bytes();
    let rest = request.len()..length.max(request.len());
    request.iter().copied().chain(rest.map(|at| octet(at as u32, 0x5a))).collect()
}

/// What the scripted application says.
pub fn of_server(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| octet(at, 0xa5)).collect()
}

/// Not periodic within less than 16 MiB; `netns-scripts/tools/scripted_server.py` computes the same.
fn octet(at: u32, salt: u8) -> u8 {
    (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(17)) as u8 ^ salt
}
