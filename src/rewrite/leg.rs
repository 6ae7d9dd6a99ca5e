//! Legs: which way a segment goes and on which side of baton it is, hence whose numbers it carries.

use super::coordinates::{Client, Local, Wire};

/// One direction on one side of baton: which coordinate systems a segment's numbers are in.
pub trait Leg: Copy {
    /// Space of the sequence number and the TSval.
    type Sender: Copy;
    /// Space of the acknowledgement number, the SACK blocks and the TSecr.
    type Receiver: Copy;
}

/// From the client, as it arrived: acknowledges [`Wire`] numbers.
#[derive(Clone, Copy, Debug)]
pub enum ToServerWire {}
/// From the client, as the owner's kernel must see it.
#[derive(Clone, Copy, Debug)]
pub enum ToServerLocal {}
/// From the owner's kernel, as it came out of it.
#[derive(Clone, Copy, Debug)]
pub enum ToClientLocal {}
/// To the client, as the client must see it.
#[derive(Clone, Copy, Debug)]
pub enum ToClientWire {}

impl Leg for ToServerWire {
    type Sender = Client;
    type Receiver = Wire;
}
impl Leg for ToServerLocal {
    type Sender = Client;
    type Receiver = Local;
}
impl Leg for ToClientLocal {
    type Sender = Local;
    type Receiver = Client;
}
impl Leg for ToClientWire {
    type Sender = Wire;
    type Receiver = Client;
}
