//! One connection of a client: requests, and answers of which every octet is checked.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use crate::head::{self, Collector};
use crate::pattern::Pattern;

/// What is asked, and what must be answered.
pub struct Question {
    /// The request's head.
    pub request: Vec<u8>,
    /// Octets of the pattern that follow it.
    pub upload: u64,
    /// One of them that is wrong on purpose.
    pub spoiled: Option<u64>,
    /// The length of the answer's body, which is the pattern's beginning; or, for an upload, any.
    pub answer: Option<u64>,
    /// `X-Server` of the answer.
    pub server: String,
    /// Whether the server must close after it.
    pub close: bool,
}

/// Where an exchange is.
enum Stage {
    /// The request, from that octet on, of head and upload together.
    Asking(u64),
    /// Nothing, or a part of the head, has come.
    Head,
    /// That much of the body has come, of so much.
    Body(u64, u64),
    /// Complete; the server closes.
    Ended,
}

/// What became of an exchange when its socket had nothing more to say.
pub enum Progress {
    /// It goes on.
    Pending,
    /// Complete and right. The connection may ask again, unless the server has closed it.
    Answered,
}

/// A connection.
pub struct Exchange {
    stream: TcpStream,
    stage: Stage,
    head: Collector,
    verdict: Vec<u8>,
    began: Instant,
    first_octet: Option<Duration>,
}

impl Exchange {
    /// A connection that has been told to connect at `began`.
    pub fn new(stream: TcpStream, began: Instant) -> Self {
        Self { stream, stage: Stage::Asking(0), head: Collector::default(), verdict: Vec::new(), began, first_octet: None }
    }

    /// The socket, to register it.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// From `began`, or the question, to the answer's first octet.
    pub fn first_octet(&self) -> Duration {
        self.first_octet.unwrap_or_default()
    }

    /// The next question on the same connection.
    pub fn ask_again(&mut self, now: Instant) {
        self.stage = Stage::Asking(0);
        self.head.clear();
        self.verdict.clear();
        self.began = now;
        self.first_octet = None;
    }

    /// Does what can be done now.
    pub fn proceed(&mut self, question: &Question, pattern: &Pattern, buffer: &mut [u8]) -> Result<Progress, String> {
        if let Stage::Asking(_) = self.stage {
            self.ask(question, pattern)?;
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return self.closed(question),
                Ok(length) => {
                    if self.first_octet.is_none() {
                        self.first_octet = Some(self.began.elapsed());
                    }
                    self.read(&buffer[..length], question, pattern)?;
                    if matches!(self.stage, Stage::Ended) && !question.close {
                        return Ok(Progress::Answered);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Pending),
                // Not connected yet.
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(Progress::Pending),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("reading: {error}")),
            }
        }
    }

    fn ask(&mut self, question: &Question, pattern: &Pattern) -> Result<(), String> {
        let Stage::Asking(mut position) = self.stage else { return Ok(()) };
        let head = question.request.len() as u64;
        while position < head + question.upload {
            let wrong;
            let piece = match (position.checked_sub(head), question.spoiled) {
                (None, _) => &question.request[position as usize..],
                (Some(sent), Some(spoiled)) if sent == spoiled => {
                    wrong = [!pattern.piece(sent, question.upload)[0]];
                    &wrong[..]
                }
                (Some(sent), Some(spoiled)) if sent < spoiled => pattern.piece(sent, spoiled.min(question.upload)),
                (Some(sent), _) => pattern.piece(sent, question.upload),
            };
            match self.stream.write(piece) {
                Ok(length) => position += length as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    self.stage = Stage::Asking(position);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("writing: {error}")),
            }
        }
        self.stage = Stage::Head;
        Ok(())
    }

    fn read(&mut self, octets: &[u8], question: &Question, pattern: &Pattern) -> Result<(), String> {
        let mut rest = octets;
        match self.stage {
            Stage::Asking(_) => return Err("an answer before the end of the question".to_owned()),
            Stage::Head => {
                let Some(body) = self.head.take(octets)? else { return Ok(()) };
                self.stage = Stage::Body(0, self.check_head(question)?);
                rest = body;
            }
            Stage::Body(..) => {}
            Stage::Ended => return Err(format!("{} octets after the answer", octets.len())),
        }
        let Stage::Body(position, length) = &mut self.stage else { return Ok(()) };
        if rest.len() as u64 > *length - *position {
            return Err("octets after the answer".to_owned());
        }
        if question.answer.is_none() {
            self.verdict.extend_from_slice(rest);
        } else if !pattern.has(*position, rest) {
            return Err("a wrong octet".to_owned());
        }
        *position += rest.len() as u64;
        if position == length {
            // Who took an upload says how many octets came, and whether each was right.
            if question.answer.is_none() && self.verdict != crate::sink::verdict(question.upload, true).as_bytes() {
                return Err(format!("the server says: {}", String::from_utf8_lossy(&self.verdict)));
            }
            self.stage = Stage::Ended;
        }
        Ok(())
    }

    fn check_head(&self, question: &Question) -> Result<u64, String> {
        let text = self.head.text()?;
        if !text.starts_with("HTTP/1.1 200 ") {
            return Err(format!("answered: {}", text.lines().next().unwrap_or_default()));
        }
        let server = head::field(text, "X-Server").unwrap_or("nobody");
        if server != question.server {
            return Err(format!("{server} answered instead of {}", question.server));
        }
        let length = head::content_length(text)?;
        match question.answer {
            Some(expected) if length != expected => Err(format!("{length} octets instead of {expected}")),
            None if length > head::HEAD_MAX as u64 => Err(format!("{length} octets instead of a verdict")),
            _ => Ok(length),
        }
    }

    fn closed(&self, question: &Question) -> Result<Progress, String> {
        match self.stage {
            Stage::Ended if question.close => Ok(Progress::Answered),
            Stage::Head if self.head.is_empty() => Err("closed without an answer".to_owned()),
            _ => Err("closed early".to_owned()),
        }
    }
}
