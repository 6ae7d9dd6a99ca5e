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

static CODE: Code = canonical();

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

/// A string that is none: the end of the string within it, or padding that is too long or not of ones (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadString;

/// Appends what `encoded` stands for, at most 8/5 of its length.
pub(super) fn decode(encoded: &[u8], decoded: &mut Vec<u8>) -> Result<(), BadString> {
    let (mut code, mut length) = (0_u32, 0_usize);
    for octet in encoded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(octet >> bit & 1);
            length += 1;
            let row = CODE.rows.get(length).ok_or(BadString)?;
            let Some(at) = code.checked_sub(row.first_code).filter(|at| *at < row.count) else { continue };
            let symbol = CODE.symbols.get(row.first_symbol + at as usize).ok_or(BadString)?;
            // The end of the string must not be in it.
            decoded.push(u8::try_from(*symbol).map_err(|_| BadString)?);
            (code, length) = (0, 0);
        }
    }
    // Less than an octet of ones: the beginning of the end-of-string symbol.
    let is_padding = length < 8 && code == (1 << length) - 1;
    if is_padding { Ok(()) } else { Err(BadString) }
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

    proptest! {
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
