//! As much of HTTP/1.1 as the measurements need: heads with a known length of body, nothing chunked.

/// A head longer than that is an error: nobody here sends one.
pub const HEAD_MAX: usize = 8 * 1024;

/// Collects a head that may come in pieces.
#[derive(Default)]
pub struct Collector(Vec<u8>);

impl Collector {
    /// Takes what belongs to the head. `Some` when it is complete: the rest, which is of the body.
    pub fn take<'a>(&mut self, octets: &'a [u8]) -> Result<Option<&'a [u8]>, String> {
        let before = self.0.len();
        let room = octets.len().min(HEAD_MAX - before);
        self.0.extend_from_slice(&octets[..room]);
        let from = before.saturating_sub(3);
        match self.0[from..].windows(4).position(|four| four == b"\r\n\r\n") {
            Some(found) => {
                self.0.truncate(from + found + 4);
                Ok(Some(&octets[self.0.len() - before..]))
            }
            None if self.0.len() == HEAD_MAX => Err("a head without an end".to_owned()),
            None => Ok(None),
        }
    }

    /// The collected head.
    pub fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.0).map_err(|_| "a head that is no text".to_owned())
    }

    /// For the next one on the same connection.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The value of a field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `Content-Length`, which every message here has.
pub fn content_length(head: &str) -> Result<u64, String> {
    let value = field(head, "Content-Length").ok_or("no Content-Length")?;
    value.parse().map_err(|_| format!("Content-Length: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_may_come_in_pieces_of_any_length() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Server: b\r\n\r\nbody";
        for cut in 1..whole.len() {
            let mut collector = Collector::default();
            let rest = match collector.take(&whole[..cut]).unwrap() {
                Some(rest) => [rest, &whole[cut..]].concat(),
                None => collector.take(&whole[cut..]).unwrap().unwrap().to_vec(),
            };
            assert_eq!(rest, b"body", "cut after {cut}");
            assert_eq!(content_length(collector.text().unwrap()), Ok(12));
            assert_eq!(field(collector.text().unwrap(), "x-server"), Some("b"));
        }
    }

    #[test]
    fn a_head_without_an_end_is_an_error() {
        let mut collector = Collector::default();
        assert!(collector.take(&[b'a'; HEAD_MAX - 1]).unwrap().is_none());
        assert!(collector.take(b"aa").is_err());
    }
}
