//! What an application answers to the question whether it is well: HTTP/1 (RFC 9112), as far as that needs.

use crate::limits::HEALTH_ANSWER_BYTES_MAX;
use crate::policy::HttpQuestion;
use std::fmt;

/// What is wrong with an application, in words for a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No connection; the kernel's reason.
    Connect(String),
    /// A connection that broke; the kernel's reason.
    Broken(String),
    /// Nothing, or not all, in time.
    TooSlow(&'static str),
    /// Something that is no answer of HTTP/1.
    NotHttp,
    /// The connection ended within the answer.
    Ended,
    /// More octets than are read.
    TooLong,
    /// A status that was not asked for.
    Status(u16),
    /// The text that was asked for is not in the body.
    Body,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::TooSlow(what) => write!(f, "{what} in time"),
            Self::NotHttp => write!(f, "what it answers is not HTTP/1"),
            Self::Ended => write!(f, "the connection ended before the answer did"),
            Self::TooLong => write!(f, "no verdict within the first {HEALTH_ANSWER_BYTES_MAX} octets of the answer"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => write!(f, "the text that must be in the body is not"),
        }
    }
}

/// An answer on its way in.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    octets: Vec<u8>,
}

impl Answer {
    /// More of it; the verdict, as soon as there is one.
    pub fn take(&mut self, octets: &[u8], question: &HttpQuestion) -> Option<Result<(), Failure>> {
        let room = HEALTH_ANSWER_BYTES_MAX - self.octets.len();
        self.octets.extend_from_slice(&octets[..octets.len().min(room)]);
        match self.judge(question, false) {
            None if octets.len() > room => Some(Err(Failure::TooLong)),
            verdict => verdict,
        }
    }

    /// That was all.
    pub fn end(&mut self, question: &HttpQuestion) -> Result<(), Failure> {
        self.judge(question, true).unwrap_or(Err(Failure::Ended))
    }

    /// Whether anything of it has come.
    pub fn has_begun(&self) -> bool {
        !self.octets.is_empty()
    }

    fn judge(&mut self, question: &HttpQuestion, is_all: bool) -> Option<Result<(), Failure>> {
        loop {
            let head = match Head::read(&self.octets) {
                Ok(Some(head)) => head,
                Ok(None) => return None,
                Err(failure) => return Some(Err(failure)),
            };
            // What comes before the final answer (RFC 9110, section 15.2).
            if (100..200).contains(&head.status) {
                self.octets.drain(..head.octets);
                continue;
            }
            if !question.status.iter().any(|range| range.contains(&head.status)) {
                return Some(Err(Failure::Status(head.status)));
            }
            let Some(text) = &question.body else { return Some(Ok(())) };
            let (body, is_whole) = match head.body(&self.octets[head.octets..]) {
                Ok(read) => read,
                Err(failure) => return Some(Err(failure)),
            };
            if body.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Some(Ok(()));
            }
            return (is_whole || is_all && head.length == Length::UntilTheEnd).then_some(Err(Failure::Body));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Length {
    Octets(usize),
    Chunked,
    UntilTheEnd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    status: u16,
    /// Its own.
    octets: usize,
    /// Of the body behind it.
    length: Length,
}

impl Head {
    /// None: more must come.
    fn read(octets: &[u8]) -> Result<Option<Self>, Failure> {
        const BEGIN: &[u8] = b"HTTP/1.";
        let common = octets.len().min(BEGIN.len());
        if octets[..common] != BEGIN[..common] {
            return Err(Failure::NotHttp);
        }
        let Some(end) = octets
            .windows(2)
            .position(|pair| pair == b"\n\n")
            .map(|at| at + 2)
            .into_iter()
            .chain(octets.windows(3).position(|three| three == b"\n\r\n").map(|at| at + 3))
            .min()
        else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&octets[..end]).map_err(|_| Failure::NotHttp)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split_ascii_whitespace().nth(1)).filter(|status| status.len() == 3);
        let status = status.and_then(|status| status.parse().ok()).ok_or(Failure::NotHttp)?;
        let mut length = Length::UntilTheEnd;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked") {
                length = Length::Chunked;
            } else if name.eq_ignore_ascii_case("content-length") && length != Length::Chunked {
                length = Length::Octets(value.trim().parse().map_err(|_| Failure::NotHttp)?);
            }
        }
        Ok(Some(Self { status, octets: end, length }))
    }

    /// The body as far as it is there, and whether that is all of it.
    fn body(&self, octets: &[u8]) -> Result<(Vec<u8>, bool), Failure> {
        match self.length {
            Length::UntilTheEnd => Ok((octets.to_vec(), false)),
            Length::Octets(length) => Ok((octets[..octets.len().min(length)].to_vec(), octets.len() >= length)),
            Length::Chunked => unchunked(octets),
        }
    }
}

/// The chunks that are there, put together (RFC 9112, section 7.1).
fn unchunked(mut octets: &[u8]) -> Result<(Vec<u8>, bool), Failure> {
    let mut body = Vec::new();
    loop {
        let Some(end) = octets.iter().position(|octet| *octet == b'\n') else { return Ok((body, false)) };
        let line = std::str::from_utf8(&octets[..end]).map_err(|_| Failure::NotHttp)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Failure::NotHttp)?;
        octets = &octets[end + 1..];
        if size == 0 {
            return Ok((body, true));
        }
        if octets.len() < size {
            body.extend_from_slice(octets);
            return Ok((body, false));
        }
        let (chunk, behind) = octets.split_at(size);
        body.extend_from_slice(chunk);
        octets = match behind {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok((body, false)),
            _ => return Err(Failure::NotHttp),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(body: Option<&str>) -> HttpQuestion {
        HttpQuestion { path: "/".into(), host: "h".into(), status: vec![200..=299], body: body.map(str::to_owned) }
    }

    /// The verdict, however the octets are cut, with the end behind them.
    fn judged(octets: &str, body: Option<&str>) -> Result<(), Failure> {
        let question = question(body);
        let verdicts = [1, 2, 3, 7, 1_000].map(|piece| {
            let mut answer = Answer::default();
            let early = octets.as_bytes().chunks(piece).find_map(|piece| answer.take(piece, &question));
            early.unwrap_or_else(|| answer.end(&question))
        });
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{octets:?}: {verdicts:?}");
        verdicts[0].clone()
    }

    #[test]
    fn the_status_decides() {
        assert_eq!(judged("HTTP/1.1 200 OK\r\n\r\n", None), Ok(()));
        assert_eq!(judged("HTTP/1.0 204\r\nA: b\r\n\r\n", None), Ok(()));
        assert_eq!(judged("HTTP/1.1 503 no\r\n\r\n", None), Err(Failure::Status(503)));
        assert_eq!(judged("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None), Ok(()));
    }

    #[test]
    fn the_text_is_found_in_every_form_of_body() {
        for body in [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall ok!",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5;x=y\r\nall o\r\n2\r\nk!\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nall ok!",
        ] {
            assert_eq!(judged(body, Some("all ok")), Ok(()), "{body}");
            assert_eq!(judged(body, Some("all well")), Err(Failure::Body), "{body}");
        }
        assert_eq!(judged("HTTP/1.1 200 OK\r\nX: all ok\r\nContent-Length: 0\r\n\r\n", Some("all ok")), Err(Failure::Body));
    }

    #[test]
    fn what_is_cut_short_is_no_answer() {
        for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot", "HTTP/1.1 103 x\r\n\r\n"] {
            assert_eq!(judged(cut, Some("all")), Err(Failure::Ended), "{cut:?}");
        }
        assert_eq!(judged("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nnot", Some("all")), Err(Failure::Ended));
    }

    #[test]
    fn other_protocols_are_told_at_once() {
        for other in ["SSH-2.0-x\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", "HTTP/1.1 2000 x\r\n\r\n"] {
            assert_eq!(judged(other, None), Err(Failure::NotHttp), "{other:?}");
        }
        assert_eq!(judged("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", None), Err(Failure::NotHttp));
        let negative = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n";
        assert_eq!(judged(negative, Some("x")), Err(Failure::NotHttp));
    }

    #[test]
    fn an_endless_answer_is_given_up() {
        let question = question(Some("x"));
        let mut answer = Answer::default();
        assert_eq!(answer.take(b"HTTP/1.1 200 OK\r\n\r\n", &question), None);
        let verdicts = (0..=HEALTH_ANSWER_BYTES_MAX / 1_000).find_map(|_| answer.take(&[b'.'; 1_000], &question));
        assert_eq!(verdicts, Some(Err(Failure::TooLong)));
        assert!(answer.octets.len() <= HEALTH_ANSWER_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), text in "[a-z]{1,3}") {
            let begun = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &octets].concat();
            for octets in [octets, begun] {
                let question = question(Some(&text));
                let mut answer = Answer::default();
                let _ = (answer.take(&octets, &question), answer.end(&question));
            }
        }
    }
}
