//! The pcapng file format (draft-ietf-opsawg-pcapng): section, interfaces and packets with comments, as octets.
//!
//! Knows no file and no connection. Little-endian throughout; the section header says so.

/// LINKTYPE_RAW: packets begin with their IP header, version 4 or 6.
const LINK_TYPE_RAW: u16 = 101;
/// Times are counted in nanoseconds: 10 to the power of minus nine.
const RESOLUTION: u8 = 9;
/// What the file says of each packet at most: an option's length has 16 bits, and a person reads it.
const COMMENT_BYTES_MAX: usize = 1_024;

mod block {
    pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
    pub const INTERFACE_DESCRIPTION: u32 = 1;
    pub const ENHANCED_PACKET: u32 = 6;
}

mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    /// Of a section header.
    pub const APPLICATION: u16 = 4;
    /// Of an interface description.
    pub const NAME: u16 = 2;
    pub const DESCRIPTION: u16 = 3;
    pub const TIME_RESOLUTION: u16 = 9;
    /// Of a packet.
    pub const FLAGS: u16 = 2;
}

/// Which way a packet went, as this process sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came here.
    Inbound,
    /// It was sent from here.
    Outbound,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Which interface, counted from 0 in the order of their descriptions.
    pub interface: u32,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: u64,
    /// Which way.
    pub direction: Direction,
    /// From the IP header on.
    pub packet: &'a [u8],
    /// What is to be said of it; may be empty.
    pub comment: &'a str,
}

/// The beginning of a file.
pub fn section_header(out: &mut Vec<u8>, application: &str) {
    write_block(out, block::SECTION_HEADER, |out| {
        out.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        // The length of the section is not known.
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        write_option(out, option::APPLICATION, application.as_bytes());
        write_option(out, option::END, &[]);
    });
}

/// One interface; they come before any packet.
pub fn interface(out: &mut Vec<u8>, name: &str, description: &str) {
    write_block(out, block::INTERFACE_DESCRIPTION, |out| {
        out.extend_from_slice(&LINK_TYPE_RAW.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        // Whole packets.
        out.extend_from_slice(&0u32.to_le_bytes());
        write_option(out, option::NAME, name.as_bytes());
        write_option(out, option::DESCRIPTION, description.as_bytes());
        write_option(out, option::TIME_RESOLUTION, &[RESOLUTION]);
        write_option(out, option::END, &[]);
    });
}

/// One packet.
pub fn packet(out: &mut Vec<u8>, record: &Record<'_>) {
    write_block(out, block::ENHANCED_PACKET, |out| {
        let length = (record.packet.len() as u32).to_le_bytes();
        out.extend_from_slice(&record.interface.to_le_bytes());
        out.extend_from_slice(&((record.time >> 32) as u32).to_le_bytes());
        out.extend_from_slice(&(record.time as u32).to_le_bytes());
        // Captured, and original.
        out.extend_from_slice(&length);
        out.extend_from_slice(&length);
        write_padded(out, record.packet);
        if !record.comment.is_empty() {
            write_option(out, option::COMMENT, cut(record.comment, COMMENT_BYTES_MAX).as_bytes());
        }
        let flags = match record.direction {
            Direction::Inbound => 1u32,
            Direction::Outbound => 2u32,
        };
        write_option(out, option::FLAGS, &flags.to_le_bytes());
        write_option(out, option::END, &[]);
    });
}

/// A block: its type, its length before and after its body.
fn write_block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = ((out.len() - start + 4) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn write_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    write_padded(out, value);
}

/// At most so many octets of a text, and whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Everything begins at a multiple of four octets.
fn write_padded(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(octets: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"))
    }

    /// Type and body of each block; the two lengths must agree.
    fn blocks(mut octets: &[u8]) -> Vec<(u32, &[u8])> {
        let mut found = Vec::new();
        while !octets.is_empty() {
            let length = word(octets, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(octets, length - 4) as usize, length);
            found.push((word(octets, 0), &octets[8..length - 4]));
            octets = &octets[length..];
        }
        found
    }

    #[test]
    fn blocks_have_their_length_at_both_ends() {
        let mut file = Vec::new();
        section_header(&mut file, "baton");
        interface(&mut file, "bt0", "x");
        for length in 20..25 {
            let packet_octets = vec![7; length];
            let record = Record {
                interface: 0,
                time: 1 << 32 | 5,
                direction: Direction::Outbound,
                packet: &packet_octets,
                comment: "why",
            };
            packet(&mut file, &record);
        }
        let found = blocks(&file);
        let kinds: Vec<u32> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6, 6, 6, 6]);
        let (_, body) = found[2];
        assert_eq!([word(body, 4), word(body, 8), word(body, 12), word(body, 16)], [1, 5, 20, 20], "time and lengths");
        assert_eq!(&body[20..40], &[7; 20]);
        assert_eq!(&body[40..48], &[1, 0, 3, 0, b'w', b'h', b'y', 0], "the comment");
        assert_eq!(word(body, 52), 2, "outbound");
    }

    #[test]
    fn a_comment_is_cut_between_characters() {
        let comment = format!("x{}", "é".repeat(COMMENT_BYTES_MAX));
        let mut file = Vec::new();
        packet(&mut file, &Record { interface: 0, time: 0, direction: Direction::Inbound, packet: &[0; 20], comment: &comment });
        let found = blocks(&file);
        let length = u16::from_le_bytes([found[0].1[42], found[0].1[43]]);
        assert_eq!(usize::from(length), COMMENT_BYTES_MAX - 1);
    }
}
