//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and follow those of the
//! lengths before. So the lengths say all of it.

/// Symbols: every octet, and the end of the string, which never appears in one.
const SYMBOLS: usize = 257;
const LENGTH_MAX: usize = 30;

/// Bits of each symbol's code (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    first_code: u32,
    count: u32,
    /// Where its symbols begin in the table of all symbols.
    first_symbol: usize,
}

struct Code {
    rows: [Row; LENGTH_MAX + 1],
    /// By length, then by number.
    symbols: [u16; SYMBOLS],
}

const CODE: Code = canonical();

const fn canonical() -> Code {
    let mut rows = [Row { first_code: 0, count: 0, first_symbol: 0 }; LENGTH_MAX + 1];
    let mut symbols = [0; SYMBOLS];
    let (mut code, mut placed, mut length) = (0_u32, 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        rows[length] = Row { first_code: code, count: 0, first_symbol: placed };
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                symbols[placed] = symbol as u16;
                placed += 1;
                rows[length].count += 1;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    Code { rows, symbols }
}

/// Inner nodes of the code's tree, which is complete: one less than it has leaves. Each is a state of the decoder; the first is
/// the root, where a symbol begins.
const NODES: usize = SYMBOLS - 1;
/// A child that is no node but the symbol this much less.
const LEAF: u16 = NODES as u16;
const END_OF_STRING: u16 = LEAF + 256;

/// What half an octet does in a state. The shortest code has five bits, so it ends one symbol at most.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    symbol: u8,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
enum Outcome {
    Nothing,
    Symbol,
    /// The end of the string, which must not be in it.
    Bad,
}

struct Automaton {
    steps: [[Step; 16]; NODES],
    /// Whether a string may end there: behind less than an octet of ones, as the code for the end of the string begins.
    may_end: [bool; NODES],
}

static AUTOMATON: Automaton = automaton();

/// The tree, by what each bit leads to.
const fn tree() -> [[u16; 2]; NODES] {
    let mut nodes = [[0_u16; 2]; NODES];
    let (mut nodes_count, mut length) = (1, 1);
    while length <= LENGTH_MAX {
        let row = CODE.rows[length];
        let mut number = 0;
        while number < row.count {
            let code = row.first_code + number;
            let (mut node, mut bits_left) = (0, length);
            while bits_left > 1 {
                bits_left -= 1;
                let bit = (code >> bits_left & 1) as usize;
                if nodes[node][bit] == 0 {
                    nodes[node][bit] = nodes_count;
                    nodes_count += 1;
                }
                node = nodes[node][bit] as usize;
            }
            nodes[node][(code & 1) as usize] = LEAF + CODE.symbols[row.first_symbol + number as usize];
            number += 1;
        }
        length += 1;
    }
    nodes
}

const fn automaton() -> Automaton {
    let nodes = tree();
    let nothing = Step { next: 0, symbol: 0, outcome: Outcome::Nothing };
    let mut steps = [[nothing; 16]; NODES];
    let mut state = 0;
    while state < NODES {
        let mut nibble = 0;
        while nibble < 16 {
            let mut step = nothing;
            let (mut node, mut bits_left) = (state, 4);
            while bits_left > 0 {
                bits_left -= 1;
                let child = nodes[node][nibble >> bits_left & 1];
                node = if child < LEAF { child as usize } else { 0 };
                if child == END_OF_STRING {
                    step.outcome = Outcome::Bad;
                } else if child >= LEAF {
                    step.outcome = Outcome::Symbol;
                    step.symbol = (child - LEAF) as u8;
                }
            }
            step.next = node as u8;
            steps[state][nibble] = step;
            nibble += 1;
        }
        state += 1;
    }
    let mut may_end = [false; NODES];
    let (mut node, mut ones) = (0, 0);
    while ones < 8 {
        may_end[node] = true;
        node = nodes[node][1] as usize;
        ones += 1;
    }
    Automaton { steps, may_end }
}

/// A string that is none: the end of the string within it, or padding that is too long or not of ones (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadString;

/// Appends what `encoded` stands for, at most 8/5 of its length.
pub(super) fn decode(encoded: &[u8], decoded: &mut Vec<u8>) -> Result<(), BadString> {
    let mut state = 0_u8;
    for octet in encoded {
        for nibble in [octet >> 4, octet & 15] {
            let step = AUTOMATON.steps[usize::from(state)][usize::from(nibble)];
            match step.outcome {
                Outcome::Nothing => {}
                Outcome::Symbol => decoded.push(step.symbol),
                Outcome::Bad => return Err(BadString),
            }
            state = step.next;
        }
    }
    if AUTOMATON.may_end[usize::from(state)] { Ok(()) } else { Err(BadString) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::octets;
    use super::*;
    use proptest::prelude::*;

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, BadString> {
        let mut text = Vec::new();
        decode(encoded, &mut text).map(|()| text)
    }

    /// Bit by bit, from the lengths alone.
    fn decoded_bit_by_bit(encoded: &[u8]) -> Result<Vec<u8>, BadString> {
        let (mut code, mut length) = (0_u32, 0_usize);
        let mut text = Vec::new();
        for octet in encoded {
            for bit in (0..8).rev() {
                code = code << 1 | u32::from(octet >> bit & 1);
                length += 1;
                let row = CODE.rows.get(length).ok_or(BadString)?;
                let Some(at) = code.checked_sub(row.first_code).filter(|at| *at < row.count) else { continue };
                let symbol = CODE.symbols[row.first_symbol + at as usize];
                text.push(u8::try_from(symbol).map_err(|_| BadString)?);
                (code, length) = (0, 0);
            }
        }
        let is_padding = length < 8 && code == (1 << length) - 1;
        if is_padding { Ok(text) } else { Err(BadString) }
    }

    /// The other direction, from the same lengths.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for octet in text {
            let length = usize::from(LENGTHS[usize::from(*octet)]);
            let row = CODE.rows[length];
            let symbols = &CODE.symbols[row.first_symbol..][..row.count as usize];
            let code = row.first_code + symbols.iter().position(|symbol| *symbol == u16::from(*octet)).unwrap() as u32;
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|bits| bits.iter().fold(0, |octet, bit| octet << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_code_is_complete() {
        // A few codes as the appendix lists them, from each of its ends.
        let code = |symbol: usize| {
            let row = CODE.rows[usize::from(LENGTHS[symbol])];
            let at = CODE.symbols[row.first_symbol..].iter().position(|listed| usize::from(*listed) == symbol).unwrap();
            row.first_code + at as u32
        };
        let listed = [
            (0, 0x1ff8),
            (10, 0x3fff_fffc),
            (32, 0x14),
            (48, 0),
            (97, 0x3),
            (122, 0x7b),
            (195, 0x7_fff1),
            (255, 0x3ff_ffee),
            (256, 0x3fff_ffff),
        ];
        for (symbol, expected) in listed {
            assert_eq!(code(symbol), expected, "{symbol}");
        }
        assert_eq!(CODE.symbols[SYMBOLS - 1], 256);
        assert_eq!(LENGTHS.iter().map(|length| 1_u64 << (LENGTH_MAX - usize::from(*length))).sum::<u64>(), 1 << LENGTH_MAX);
    }

    #[test]
    fn the_strings_of_the_rfc_are_read() {
        // RFC 7541, appendices C.4 and C.6.
        let strings = [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("25a8 49e9 5ba9 7d7f", "custom-key"),
            ("25a8 49e9 5bb8 e8b4 bf", "custom-value"),
            ("6402", "302"),
            ("aec3 771a 4b", "private"),
            ("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3", "https://www.example.com"),
            ("9bd9 ab", "gzip"),
        ];
        for (hex, text) in strings {
            assert_eq!(decoded(&octets(hex)), Ok(text.as_bytes().to_vec()), "{text}");
            assert_eq!(encode(text.as_bytes()), octets(hex), "{text}");
        }
    }

    #[test]
    fn padding_is_less_than_an_octet_of_ones() {
        assert_eq!(decoded(b""), Ok(vec![]));
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(BadString), "not of ones");
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(BadString), "an octet too much");
        assert_eq!(decoded(&[0xff; 4]), Err(BadString), "the end of the string");
    }

    #[test]
    fn every_symbol_is_read_from_every_place_of_an_octet() {
        let every: Vec<u8> = (0..=255).collect();
        for before in 0..8 {
            // `0` has five bits: eight beginnings, each at another one.
            let text = [&b"0".repeat(before)[..], &every].concat();
            assert_eq!(decoded(&encode(&text)), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn octets_are_read_as_bit_by_bit(encoded: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded), decoded_bit_by_bit(&encoded));
        }

        #[test]
        fn what_is_nearly_right_is_read_as_bit_by_bit(text: Vec<u8>, spoilt: prop::sample::Index, octet: u8, more in prop::collection::vec(any::<u8>(), 0..3)) {
            let mut encoded = [encode(&text), more].concat();
            if !encoded.is_empty() {
                let at = spoilt.index(encoded.len());
                encoded[at] ^= octet & 1 << (octet & 7);
            }
            prop_assert_eq!(decoded(&encoded), decoded_bit_by_bit(&encoded));
        }

        #[test]
        fn what_is_written_is_read(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encode(&text)), Ok(text));
        }

        #[test]
        fn no_octets_make_it_panic_or_grow(encoded: Vec<u8>) {
            let mut text = Vec::new();
            let _ = decode(&encoded, &mut text);
            prop_assert!(text.len() <= encoded.len() * 8 / 5);
        }
    }
}
