//! How two nodes talk: the control channel (TLS 1.3 over TCP) and the overlay (AES-256-GCM over UDP).

pub mod channel;
pub mod key;
pub mod message;
pub mod overlay;
