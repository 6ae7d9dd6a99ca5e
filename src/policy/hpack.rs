//! Decodes one header block of HPACK (RFC 7541): the first of a connection.
//!
//! Nothing came before it and nobody has answered, so the dynamic table is empty at its beginning, and its size is the
//! one every decoder must begin with (RFC 9113, section 6.5.2). The block is complete: frames were put together before.

use super::huffman;
use crate::limits::cluster_file::{FIELDS_BYTES_MAX, HEADERS_MAX};
use std::collections::VecDeque;
use std::ops::Range;

/// Size of the dynamic table until the decoder's side says otherwise (RFC 9113, section 6.5.2).
const TABLE_SIZE_MAX: usize = 4_096;
/// What an entry is counted with beside its octets (section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// An integer's octets after its prefix: no length or index needs more (section 5.1 asks for a bound).
const INTEGER_OCTETS_MAX: usize = 4;

/// Why a block was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It breaks RFC 7541, and every decoder must say so.
    Malformed,
    /// It has more fields than common servers take.
    TooManyFields,
    /// Names and values have more octets together.
    TooLarge,
}

/// A field, as places in the text it was decoded into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Decodes `block`. Names and values are appended to `text`: at most 8/5 of the block, and 64 octets a field of the static
/// table; an entry that is used again is not written again.
pub(super) fn decode(block: &[u8], text: &mut Vec<u8>) -> Result<Vec<Field>, Unreadable> {
    let mut decoder = Decoder { rest: block, text, table: VecDeque::new(), table_size: 0, table_size_max: TABLE_SIZE_MAX };
    let mut fields = Vec::new();
    let mut size = 0;
    while let Some(&first) = decoder.rest.first() {
        let field = match first {
            0x80.. => decoder.indexed()?,
            0x40..=0x7f => {
                let field = decoder.literal(6)?;
                decoder.remember(&field);
                field
            }
            0x20..=0x3f => {
                // Section 4.2: only before the first field, and not above what the other side allows.
                let size = decoder.integer(5)?;
                if !fields.is_empty() || size > TABLE_SIZE_MAX {
                    return Err(Unreadable::Malformed);
                }
                decoder.table_size_max = size;
                continue;
            }
            // Never indexed, or not indexed here: the same for a reader.
            0..=0x1f => decoder.literal(4)?,
        };
        if fields.len() == HEADERS_MAX {
            return Err(Unreadable::TooManyFields);
        }
        size += field.name.len() + field.value.len();
        if size > FIELDS_BYTES_MAX {
            return Err(Unreadable::TooLarge);
        }
        fields.push(field);
    }
    Ok(fields)
}

struct Decoder<'a> {
    rest: &'a [u8],
    text: &'a mut Vec<u8>,
    /// The newest entry first.
    table: VecDeque<Field>,
    table_size: usize,
    table_size_max: usize,
}

impl Decoder<'_> {
    /// Section 5.1.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Unreadable> {
        let mask = 0xff >> (8 - prefix_bits);
        let (first, mut rest) = self.rest.split_first().ok_or(Unreadable::Malformed)?;
        let mut value = usize::from(first & mask);
        if first & mask == mask {
            for number in 0.. {
                let (octet, behind) = rest.split_first().ok_or(Unreadable::Malformed)?;
                if number == INTEGER_OCTETS_MAX {
                    return Err(Unreadable::Malformed);
                }
                rest = behind;
                value += usize::from(octet & 0x7f) << (7 * number);
                if octet & 0x80 == 0 {
                    break;
                }
            }
        }
        self.rest = rest;
        Ok(value)
    }

    /// Section 5.2.
    fn string(&mut self) -> Result<Range<usize>, Unreadable> {
        let is_coded = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, behind) = self.rest.split_at_checked(length).ok_or(Unreadable::Malformed)?;
        self.rest = behind;
        let start = self.text.len();
        if is_coded {
            huffman::decode(string, self.text).map_err(|_| Unreadable::Malformed)?;
        } else {
            self.text.extend_from_slice(string);
        }
        Ok(start..self.text.len())
    }

    /// Section 6.1.
    fn indexed(&mut self) -> Result<Field, Unreadable> {
        let index = self.integer(7)?;
        let field = self.entry(index, true)?;
        Ok(field)
    }

    /// Section 6.2.
    fn literal(&mut self, prefix_bits: u32) -> Result<Field, Unreadable> {
        let name = match self.integer(prefix_bits)? {
            0 => self.string()?,
            index => self.entry(index, false)?.name,
        };
        Ok(Field { name, value: self.string()? })
    }

    /// Section 2.3.3: the static table, and behind it the dynamic one.
    fn entry(&mut self, index: usize, with_value: bool) -> Result<Field, Unreadable> {
        let index = index.checked_sub(1).ok_or(Unreadable::Malformed)?;
        let Some((name, value)) = STATIC_TABLE.get(index) else {
            return self.table.get(index - STATIC_TABLE.len()).cloned().ok_or(Unreadable::Malformed);
        };
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let middle = self.text.len();
        if with_value {
            self.text.extend_from_slice(value.as_bytes());
        }
        Ok(Field { name: start..middle, value: middle..self.text.len() })
    }

    /// Section 4.4: the oldest entries make room; one that is larger than the table empties it.
    fn remember(&mut self, field: &Field) {
        let size = |field: &Field| field.name.len() + field.value.len() + ENTRY_OVERHEAD;
        self.table.push_front(field.clone());
        self.table_size += size(field);
        while self.table_size > self.table_size_max {
            let Some(oldest) = self.table.pop_back() else { break };
            self.table_size -= size(&oldest);
        }
    }
}

/// RFC 7541, appendix A.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::super::testing::octets;
    use super::*;
    use proptest::prelude::*;

    fn decoded(block: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
        let mut text = Vec::new();
        let fields = decode(block, &mut text)?;
        let part = |range: &Range<usize>| String::from_utf8_lossy(&text[range.clone()]).into_owned();
        Ok(fields.iter().map(|field| (part(&field.name), part(&field.value))).collect())
    }

    #[track_caller]
    fn assert_block(hex: &str, fields: &[(&str, &str)]) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(decoded(&octets(hex)), Ok(fields));
    }

    #[test]
    fn integers_of_the_rfc_are_read() {
        // Appendix C.1.
        let integer = |octets: &[u8], bits: u32| {
            let mut text = Vec::new();
            let mut decoder = Decoder { rest: octets, text: &mut text, table: VecDeque::new(), table_size: 0, table_size_max: 0 };
            decoder.integer(bits).map(|value| (value, decoder.rest.len()))
        };
        assert_eq!(integer(&[0b0000_1010], 5), Ok((10, 0)));
        assert_eq!(integer(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5), Ok((1337, 0)));
        assert_eq!(integer(&[0b0010_1010, 7], 8), Ok((42, 1)));
        assert_eq!(integer(&[31, 0x80, 0x80, 0x80, 0], 5), Ok((31, 0)));
        assert_eq!(integer(&[31, 0x80, 0x80, 0x80, 0x80, 0], 5), Err(Unreadable::Malformed), "too many octets");
        assert_eq!(integer(&[31, 0x80], 5), Err(Unreadable::Malformed), "no end");
        assert_eq!(integer(&[], 5), Err(Unreadable::Malformed));
    }

    #[test]
    fn fields_of_the_rfc_are_read() {
        // Appendix C.2.
        assert_block("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", &[("custom-key", "custom-header")]);
        assert_block("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")]);
        assert_block("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")]);
        assert_block("82", &[(":method", "GET")]);
    }

    #[test]
    fn requests_of_the_rfc_are_read() {
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        // Appendix C.3.1 and, with Huffman coding, C.4.1.
        assert_block("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", &first);
        assert_block("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &first);
    }

    #[test]
    fn an_entry_of_the_dynamic_table_is_found_again() {
        // The three requests of appendix C.4 as one block: they share the table.
        let blocks = "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff   8286 84be 5886 a8eb 1064 9cbf \
                      8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf";
        let fields = decoded(&octets(blocks)).unwrap();
        let values: Vec<&str> = fields.iter().map(|field| &*field.1).collect();
        let expected = "GET http / www.example.com GET http / www.example.com no-cache GET https /index.html www.example.com \
                        custom-value";
        assert_eq!(values.join(" "), expected);
        assert_eq!(fields.last().map(|field| &*field.0), Some("custom-key"));
    }

    #[test]
    fn old_entries_leave_a_full_table() {
        // Of 32 octets more than their own, two entries of 1,990 octets fill 4,044; a third one drives out the first.
        let entry = |letter: u8| [&[0x40, 1, letter, 0x7f, 0xc6, 0x0e][..], &[letter; 1_989]].concat();
        let three = [entry(b'a'), entry(b'b'), entry(b'c')].concat();
        let first = |block: &[u8]| decoded(block).map(|fields| fields.last().map(|field| field.0.clone()));
        assert_eq!(first(&[&three[..], &[0xbe]].concat()), Ok(Some("c".into())));
        assert_eq!(first(&[&three[..], &[0xbf]].concat()), Ok(Some("b".into())));
        assert_eq!(first(&[&three[..], &[0xc0]].concat()), Err(Unreadable::Malformed));
        // One that is larger than the table empties it.
        let huge = [&[0x40, 1, b'd', 0x7f, 0x81, 0x1f][..], &[b'd'; 4_096]].concat();
        assert!(decoded(&huge).is_ok());
        assert_eq!(decoded(&[&three[..], &huge, &[0xbe]].concat()), Err(Unreadable::Malformed));
    }

    #[test]
    fn the_table_shrinks_at_the_beginning_of_a_block_only() {
        // To nothing, and to what is allowed at most: 4,096.
        assert_block("20 82", &[(":method", "GET")]);
        assert_block("3fe1 1f 82", &[(":method", "GET")]);
        assert_eq!(decoded(&octets("3fe2 1f 82")), Err(Unreadable::Malformed));
        assert_eq!(decoded(&octets("82 20")), Err(Unreadable::Malformed));
        // Nothing is remembered in a table of no size.
        assert_eq!(decoded(&octets("20 4001 6101 62 be")), Err(Unreadable::Malformed));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        for hex in ["80", "be", "ff", "40", "4001", "40 01 61", "41 05 61", "00 81 1e 00", "00 00", "0f"] {
            assert_eq!(decoded(&octets(hex)), Err(Unreadable::Malformed), "{hex}");
        }
    }

    #[test]
    fn fields_are_counted() {
        assert_eq!(decoded(&[0x82; HEADERS_MAX]).map(|fields| fields.len()), Ok(HEADERS_MAX));
        assert_eq!(decoded(&[0x82; HEADERS_MAX + 1]), Err(Unreadable::TooManyFields));
        // An entry of 4,062 octets, and a reference to it an octet: 17 of them are too many.
        let entry = [&[0x40, 1, b'a', 0x7f, 0xde, 0x1e][..], &[b'a'; 4_061]].concat();
        assert!(decoded(&[&entry[..], &[0xbe; 15]].concat()).is_ok());
        assert_eq!(decoded(&[&entry[..], &[0xbe; 16]].concat()), Err(Unreadable::TooLarge));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_or_grow(block: Vec<u8>) {
            let mut text = Vec::new();
            if let Ok(fields) = decode(&block, &mut text) {
                prop_assert!(fields.iter().all(|field| field.name.end <= text.len() && field.value.end <= text.len()));
            }
            prop_assert!(text.len() <= block.len() * 8 / 5 + 64 * (HEADERS_MAX + 1));
        }
    }
}
