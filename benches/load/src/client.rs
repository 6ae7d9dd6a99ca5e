//! The clients: new connections as fast as they are served, or one at a time at a given pace; or the same ones again and again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::exchange::{Exchange, Progress, Question};
use crate::pattern::{PIECE, Pattern};

/// Without any event for so long, everything that is open has failed: the servers here answer in milliseconds, and a lost
/// SYN is repeated after one and three seconds.
const STALL: Duration = Duration::from_secs(15);

/// How much is asked, by how many.
pub struct Course {
    /// The server.
    pub address: SocketAddr,
    /// Most connections at a time.
    pub concurrency: usize,
    /// No new question after that.
    pub time: Option<Duration>,
    /// No more questions than that.
    pub count: Option<u64>,
    /// From one new connection to the next.
    pub pace: Option<Duration>,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Connections that were tried.
    pub connections: u64,
    /// Right answers.
    pub answered: u64,
    /// Of these, in time, and how long it took.
    pub counted: u64,
    /// From the beginning to the last counted answer, or the end of time.
    pub elapsed: Duration,
    /// Each answer's time to its first octet.
    pub first_octets: Vec<Duration>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

struct Crew<'a> {
    course: &'a Course,
    question: &'a Question,
    pattern: Pattern,
    buffer: Vec<u8>,
    poll: Poll,
    exchanges: Vec<Option<Exchange>>,
    free: Vec<usize>,
    asked: u64,
    began: Instant,
    outcome: Outcome,
}

/// Asks `question` as `course` says.
pub fn run(course: &Course, question: &Question) -> io::Result<Outcome> {
    let mut crew = Crew {
        course,
        question,
        pattern: Pattern::new(),
        buffer: vec![0; PIECE],
        poll: Poll::new()?,
        exchanges: (0..course.concurrency).map(|_| None).collect(),
        free: (0..course.concurrency).rev().collect(),
        asked: 0,
        began: Instant::now(),
        outcome: Outcome::default(),
    };
    crew.run()?;
    Ok(crew.outcome)
}

impl Crew<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut last_event = self.began;
        loop {
            let now = Instant::now();
            self.start_what_is_due(now);
            let idle = self.free.len() == self.exchanges.len();
            if idle && !self.may_ask(now) {
                break;
            }
            if !idle && now - last_event > STALL {
                let open = self.exchanges.iter().flatten().count();
                self.exchanges.clear();
                *self.outcome.errors.entry(format!("nothing for {STALL:?}")).or_default() += open as u64;
                break;
            }
            match self.poll.poll(&mut events, Some(self.patience(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if !events.is_empty() {
                last_event = Instant::now();
            }
            for event in &events {
                self.proceed(event.token().0);
            }
        }
        Ok(())
    }

    /// Whether another question may still be asked.
    fn may_ask(&self, now: Instant) -> bool {
        self.course.count.is_none_or(|count| self.asked < count) && self.course.time.is_none_or(|time| now - self.began < time)
    }

    /// When the next connection is due, if there is a pace.
    fn next_due(&self) -> Option<Instant> {
        let pace = self.course.pace?;
        Some(self.began + pace.saturating_mul(u32::try_from(self.asked).unwrap_or(u32::MAX)))
    }

    fn patience(&self, now: Instant) -> Duration {
        let most = Duration::from_millis(200);
        match self.next_due() {
            Some(due) if self.may_ask(now) => due.saturating_duration_since(now).min(most),
            _ => most,
        }
    }

    fn start_what_is_due(&mut self, now: Instant) {
        while self.may_ask(now) && self.next_due().is_none_or(|due| due <= now) {
            let Some(slot) = self.free.pop() else { return };
            self.asked += 1;
            self.outcome.connections += 1;
            if let Err(error) = self.connect(slot) {
                self.fail(slot, format!("connecting: {error}"));
            }
        }
    }

    fn connect(&mut self, slot: usize) -> io::Result<()> {
        let began = Instant::now();
        let mut exchange = Exchange::new(TcpStream::connect(self.course.address)?, began);
        exchange.stream().set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(exchange.stream(), Token(slot), interest)?;
        self.exchanges[slot] = Some(exchange);
        Ok(())
    }

    fn proceed(&mut self, slot: usize) {
        while let Some(exchange) = self.exchanges[slot].as_mut() {
            match exchange.proceed(self.question, &self.pattern, &mut self.buffer) {
                Ok(Progress::Pending) => return,
                Ok(Progress::Answered) => self.answered(slot),
                Err(error) => self.fail(slot, error),
            }
        }
    }

    fn answered(&mut self, slot: usize) {
        let now = Instant::now();
        let outcome = &mut self.outcome;
        outcome.answered += 1;
        match self.course.time {
            None => {
                outcome.counted += 1;
                outcome.elapsed = now - self.began;
            }
            // Who began in time and ends late is checked, and not counted: one that waits for a lost SYN would else decide
            // the figure of all.
            Some(time) => {
                outcome.counted += u64::from(now - self.began <= time);
                outcome.elapsed = time;
            }
        }
        if let Some(exchange) = self.exchanges[slot].as_mut() {
            outcome.first_octets.push(exchange.first_octet());
        }
        let again = !self.question.close && self.course.pace.is_none() && self.may_ask(now);
        match self.exchanges[slot].as_mut() {
            Some(exchange) if again => {
                self.asked += 1;
                exchange.ask_again(now);
            }
            _ => self.leave(slot),
        }
    }

    fn fail(&mut self, slot: usize, error: String) {
        *self.outcome.errors.entry(error).or_default() += 1;
        self.leave(slot);
    }

    fn leave(&mut self, slot: usize) {
        self.exchanges[slot] = None;
        self.free.push(slot);
    }
}
