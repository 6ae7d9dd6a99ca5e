//! What two nodes say to each other about the session itself: Hello, Heartbeat, Goodbye.

use crate::control::message::Epoch;
use crate::control::settings::Settings;
use crate::control::wire::{DecodeError, EncodeError, Reader, put_name, put_text};
use std::fmt;

/// Type octet of [`Hello`].
pub const HELLO: u8 = 0x01;
/// Type octet of [`Heartbeat`].
pub const HEARTBEAT: u8 = 0x02;
/// Type octet of [`Goodbye`].
pub const GOODBYE: u8 = 0x03;
/// Type octet of [`Settings`] that have changed.
pub const SETTINGS: u8 = 0x04;

/// "bat" and the layout of Hello, which never changes but at its end.
pub const MAGIC: u32 = 0x6261_7401;

const SETTINGS_SACK: u8 = 0x01;
const SETTINGS_TIMESTAMPS: u8 = 0x02;
const SETTINGS_WINDOW_SCALING: u8 = 0x04;

const HEARTBEAT_DRAINING: u8 = 0x01;

/// The versions of the protocol a node speaks, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// Lowest.
    pub min: u16,
    /// Highest.
    pub max: u16,
}

impl Versions {
    /// What this program speaks.
    pub const SPOKEN: Self = Self { min: 1, max: 2 };

    /// The highest version both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { self.min.fmt(f) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// The first frame in each direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the sender speaks.
    pub versions: Versions,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Its name there; must be the name its key has there.
    pub node: String,
    /// Its life.
    pub epoch: Epoch,
    /// Its kernel's TCP.
    pub settings: Settings,
}

impl Hello {
    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&self.versions.min.to_be_bytes());
        out.extend_from_slice(&self.versions.max.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        self.settings.encode(out);
        put_name(&self.cluster, out)?;
        put_name(&self.node, out)
    }

    /// Reads the fields. A later version may append some and define more flags, so that two versions can still greet
    /// each other: what is not known here is ignored. No other message has that freedom.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        if fields.u32()? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let versions = Versions { min: fields.u16()?, max: fields.u16()? };
        if versions.min > versions.max {
            return Err(DecodeError::VersionRange { min: versions.min, max: versions.max });
        }
        let epoch = Epoch(fields.u64()?);
        let flags = fields.u8()?;
        let settings = Settings::decode(flags, &mut fields)?;
        Ok(Self { versions, cluster: fields.name()?, node: fields.name()?, epoch, settings })
    }
}

impl Settings {
    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(self.sack, SETTINGS_SACK)
                | flag(self.timestamps, SETTINGS_TIMESTAMPS)
                | flag(self.window_scaling, SETTINGS_WINDOW_SCALING),
        );
        out.push(self.ecn);
        out.push(self.window_scale);
        out.extend_from_slice(&self.first_window.to_be_bytes());
    }

    /// Reads the fields behind the flags.
    fn decode(flags: u8, fields: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sack: flags & SETTINGS_SACK != 0,
            timestamps: flags & SETTINGS_TIMESTAMPS != 0,
            window_scaling: flags & SETTINGS_WINDOW_SCALING != 0,
            ecn: fields.u8()?,
            window_scale: fields.u8()?,
            first_window: fields.u16()?,
        })
    }

    /// Reads a frame of nothing else.
    pub fn decode_changed(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        let flags = fields.flags(SETTINGS_SACK | SETTINGS_TIMESTAMPS | SETTINGS_WINDOW_SCALING)?;
        let settings = Self::decode(flags, &mut fields)?;
        fields.finish()?;
        Ok(settings)
    }
}

/// "I live", every `PEER_HEARTBEAT_INTERVAL` and whenever draining changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The sender's clock, microseconds since it opened the session.
    pub sent: u64,
    /// `sent` of the latest Heartbeat the sender received; 0 when there was none.
    pub echo: u64,
    /// How long the sender has had that, in microseconds: not part of the round trip.
    pub held: u32,
    /// The sender takes no new connections.
    pub draining: bool,
    /// Reserved; 0, and ignored. What a node says about its load is in its reports.
    pub load: u16,
}

impl Heartbeat {
    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sent.to_be_bytes());
        out.extend_from_slice(&self.echo.to_be_bytes());
        out.extend_from_slice(&self.held.to_be_bytes());
        out.push(if self.draining { HEARTBEAT_DRAINING } else { 0 });
        out.extend_from_slice(&self.load.to_be_bytes());
    }

    /// Reads the fields.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        let heartbeat = Self {
            sent: fields.u64()?,
            echo: fields.u64()?,
            held: fields.u32()?,
            draining: fields.flags(HEARTBEAT_DRAINING)? != 0,
            load: fields.u16()?,
        };
        fields.finish()?;
        Ok(heartbeat)
    }
}

/// Why a node closes a session. Numbers a later version adds arrive as [`Parting::Other`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// The process stops.
    Stopping,
    /// A newer session of the same peer took over.
    Replaced,
    /// The other side belongs to another cluster.
    Cluster,
    /// The other side's name is not the one its key has in the cluster file.
    Name,
    /// No common version.
    Version,
    /// The node with the smaller name dials.
    Direction,
    /// The other side broke the protocol.
    Protocol,
    /// Any other; the text says.
    Other(u8),
}

impl Parting {
    const fn octet(self) -> u8 {
        match self {
            Self::Stopping => 1,
            Self::Replaced => 2,
            Self::Cluster => 3,
            Self::Name => 4,
            Self::Version => 5,
            Self::Direction => 6,
            Self::Protocol => 7,
            Self::Other(octet) => octet,
        }
    }

    const fn from_octet(octet: u8) -> Self {
        match octet {
            1 => Self::Stopping,
            2 => Self::Replaced,
            3 => Self::Cluster,
            4 => Self::Name,
            5 => Self::Version,
            6 => Self::Direction,
            7 => Self::Protocol,
            octet => Self::Other(octet),
        }
    }
}

/// The last frame of a session. May come instead of a Hello, so its layout is the same in every version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goodbye {
    /// For programs.
    pub reason: Parting,
    /// For people.
    pub text: String,
}

impl Goodbye {
    /// Appends the fields; a long text is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.reason.octet());
        put_text(&self.text, out);
    }

    /// Reads the fields.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new(body);
        let goodbye = Self { reason: Parting::from_octet(fields.u8()?), text: fields.text()? };
        fields.finish()?;
        Ok(goodbye)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            versions: Versions { min: 1, max: 3 },
            cluster: "shop".into(),
            node: "a".into(),
            epoch: Epoch(0x0102_0304_0506_0708),
            settings: Settings { timestamps: false, first_window: 0x0102, ..Settings::USUAL },
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 1).common(versions(1, 1)), Some(1));
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(4, 5).common(versions(1, 4)), Some(4));
        assert_eq!(versions(1, 1).common(versions(2, 3)), None);
    }

    #[test]
    fn hello_survives_a_version_that_appends_fields_but_not_truncation() {
        let mut octets = Vec::new();
        hello().encode(&mut octets).unwrap();
        assert_eq!(Hello::decode(&octets), Ok(hello()));
        for cut in 0..octets.len() {
            assert_eq!(Hello::decode(&octets[..cut]), Err(DecodeError::Truncated));
        }
        octets.extend_from_slice(b"later");
        assert_eq!(Hello::decode(&octets), Ok(hello()));
    }

    /// The layout is a promise to all versions. This is how `docs/control-channel.md` draws it.
    #[test]
    fn greetings_stand_on_the_wire_as_documented() {
        let mut octets = Vec::new();
        hello().encode(&mut octets).unwrap();
        assert_eq!(octets, b"\x62\x61\x74\x01\0\x01\0\x03\x01\x02\x03\x04\x05\x06\x07\x08\x05\x02\x07\x01\x02\x04shop\x01a");
        let mut octets = Vec::new();
        Heartbeat { sent: 1, echo: 2, held: 3, draining: true, load: 0 }.encode(&mut octets);
        assert_eq!(octets, b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x03\x01\0\0");
        let mut octets = Vec::new();
        hello().settings.encode(&mut octets);
        assert_eq!(octets, b"\x05\x02\x07\x01\x02");
        let mut octets = Vec::new();
        Goodbye { reason: Parting::Replaced, text: "bye".into() }.encode(&mut octets);
        assert_eq!(octets, b"\x02\0\x03bye");
    }

    #[test]
    fn each_setting_is_read_as_it_was_written() {
        for set in 0..8 {
            let (sack, timestamps, window_scaling) = (set & 1 != 0, set & 2 != 0, set & 4 != 0);
            let settings = Settings { sack, timestamps, window_scaling, ..Settings::USUAL };
            let mut octets = Vec::new();
            settings.encode(&mut octets);
            assert_eq!(Settings::decode_changed(&octets), Ok(settings));
        }
    }

    #[test]
    fn hello_of_another_protocol_is_refused() {
        assert_eq!(Hello::decode(b"GET / HTTP/1.1"), Err(DecodeError::Magic));
        let mut octets = Vec::new();
        Hello { versions: Versions { min: 2, max: 1 }, ..hello() }.encode(&mut octets).unwrap();
        assert_eq!(Hello::decode(&octets), Err(DecodeError::VersionRange { min: 2, max: 1 }));
    }

    proptest! {
        #[test]
        fn heartbeats_settings_and_goodbyes_are_read_as_written(
            sent: u64, echo: u64, held: u32, draining: bool, load: u16, reason: u8, text in "\\PC{0,80}",
        ) {
            let heartbeat = Heartbeat { sent, echo, held, draining, load };
            let mut octets = Vec::new();
            heartbeat.encode(&mut octets);
            prop_assert_eq!(Heartbeat::decode(&octets), Ok(heartbeat));
            for cut in 0..octets.len() {
                prop_assert!(Heartbeat::decode(&octets[..cut]).is_err());
            }
            let settings = Settings { sack: draining, ecn: reason, first_window: load, ..Settings::USUAL };
            let mut octets = Vec::new();
            settings.encode(&mut octets);
            prop_assert_eq!(Settings::decode_changed(&octets), Ok(settings));
            for cut in 0..octets.len() {
                prop_assert!(Settings::decode_changed(&octets[..cut]).is_err());
            }
            let goodbye = Goodbye { reason: Parting::from_octet(reason), text };
            let mut octets = Vec::new();
            goodbye.encode(&mut octets);
            prop_assert_eq!(Goodbye::decode(&octets), Ok(goodbye));
            for cut in 0..octets.len() {
                prop_assert!(Goodbye::decode(&octets[..cut]).is_err());
            }
        }

        #[test]
        fn no_octets_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Hello::decode(&body), Heartbeat::decode(&body), Settings::decode_changed(&body), Goodbye::decode(&body));
        }
    }
}
