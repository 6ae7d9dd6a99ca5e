//! One question to an application. The shell has the connection; here is what goes over it.

use super::answer::{Answer, Failure};
use crate::policy::{HttpQuestion, Question};

/// Who asks; the application can tell by the `User-Agent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// The node whose application it is.
    Check,
    /// Another node, through a handoff.
    Probe,
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    question: Question,
    request: Vec<u8>,
    sent: usize,
    answer: Answer,
}

impl Exchange {
    /// Nothing has been sent.
    pub fn new(question: &Question, asker: Asker) -> Self {
        let request = match question {
            Question::Tcp => Vec::new(),
            Question::Http(question) => request(question, asker),
        };
        Self { question: question.clone(), request, sent: 0, answer: Answer::default() }
    }

    /// Whether a connection alone is the answer.
    pub const fn asks_nothing(&self) -> bool {
        matches!(self.question, Question::Tcp)
    }

    /// The whole request.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// What is still to be sent.
    pub fn outgoing(&self) -> &[u8] {
        self.request.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was sent.
    pub fn advance(&mut self, octets: usize) {
        self.sent += octets;
    }

    /// What came back; the verdict, as soon as there is one.
    pub fn receive(&mut self, octets: &[u8]) -> Option<Result<(), Failure>> {
        match &self.question {
            Question::Tcp => None,
            Question::Http(question) => self.answer.take(octets, question),
        }
    }

    /// The other side has ended.
    pub fn end(&mut self) -> Result<(), Failure> {
        match &self.question {
            Question::Tcp => Ok(()),
            Question::Http(question) => self.answer.end(question),
        }
    }

    /// The time is over.
    pub fn too_slow(&self) -> Failure {
        Failure::TooSlow(if self.answer.has_begun() { "no whole answer" } else { "no answer" })
    }
}

fn request(question: &HttpQuestion, asker: Asker) -> Vec<u8> {
    let agent = match asker {
        Asker::Check => "baton-check",
        Asker::Probe => "baton-probe",
    };
    let HttpQuestion { path, host, .. } = question;
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_one_of_http_and_says_who_asks() {
        let question = Question::Http(HttpQuestion {
            path: "/healthz?a=b".into(),
            host: "shop.example".into(),
            status: vec![200..=200],
            body: None,
        });
        let mut exchange = Exchange::new(&question, Asker::Probe);
        let written = "GET /healthz?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: baton-probe\r\nAccept: */*\r\n\
                       Connection: close\r\n\r\n";
        assert_eq!(exchange.outgoing(), written.as_bytes());
        exchange.advance(4);
        assert_eq!(exchange.outgoing(), &written.as_bytes()[4..]);
        assert_eq!(exchange.too_slow().to_string(), "no answer in time");
        assert_eq!(exchange.receive(b"HTTP/1.1 2"), None);
        assert_eq!(exchange.too_slow().to_string(), "no whole answer in time");
        assert_eq!(exchange.receive(b"00 OK\r\n\r\n"), Some(Ok(())));
    }

    #[test]
    fn a_connection_is_all_that_tcp_asks_for() {
        let exchange = Exchange::new(&Question::Tcp, Asker::Check);
        assert!(exchange.asks_nothing() && exchange.outgoing().is_empty());
    }
}
