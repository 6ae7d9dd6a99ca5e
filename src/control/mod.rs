//! How two nodes talk: the control channel (TLS 1.3 over TCP) and the overlay (AES-256-GCM over UDP).
//!
//! Pure, bytes in and bytes out: [`message`] and its [`codec`], [`greeting`], [`report`], [`frame`], [`session`] (one TLS session),
//! [`seal`] and [`replay`] (overlay packets). With descriptors: [`channel`] (all sessions of a node) and [`overlay`].
//! `docs/control-channel.md` describes what stands on the wire.

mod backoff;
pub mod channel;
pub mod codec;
mod complaints;
mod connection;
pub mod ending;
pub mod frame;
pub mod greeting;
pub mod key;
pub mod message;
mod outbox;
pub mod overlay;
mod peer;
pub mod profile;
pub mod replay;
pub mod report;
pub mod seal;
pub mod session;
pub mod settings;
pub mod socket;
pub mod tls;
pub mod wire;
