//! 2. What either end reads is what the other wrote: a prefix at all times, and all of it where the connection ends in order.

use super::super::bytes::answer;
use super::{ApplicationEvent, ClientEvent, Ending, Facts, Rule, Seen};
use baton::flow::Endpoint;
use std::collections::BTreeMap;

struct Reading {
    read: usize,
    /// What those servers write that it may be.
    candidates: Vec<Vec<u8>>,
}

pub struct Streams {
    /// What each errand writes.
    written: Vec<Vec<u8>>,
    answers: BTreeMap<usize, Reading>,
    /// What each application has read: by node, kernel's connection, and errands it may be of.
    requests: BTreeMap<(usize, u64), (usize, Vec<usize>)>,
}

impl Streams {
    pub fn new(facts: &Facts) -> Self {
        let count = facts.plan.errands.iter().map(|errand| errand.number + 1).max().unwrap_or(0);
        let mut written = vec![Vec::new(); count];
        for errand in &facts.plan.errands {
            written[errand.number] = errand.requests.iter().flat_map(|request| request.octets()).collect();
        }
        Self { written, answers: BTreeMap::new(), requests: BTreeMap::new() }
    }

    fn application_reads(
        &mut self,
        node: usize,
        serial: u64,
        remote: Endpoint,
        octets: &[u8],
        facts: &Facts,
    ) -> Result<(), String> {
        let (read, errands) = self.requests.entry((node, serial)).or_insert_with(|| {
            let errands = facts.plan.errands.iter().filter(|errand| facts.flow_of(errand).client == remote);
            (0, errands.map(|errand| errand.number).collect())
        });
        let written = &self.written;
        errands.retain(|errand| written[*errand].get(*read..*read + octets.len()) == Some(octets));
        *read += octets.len();
        if errands.is_empty() {
            return Err(format!("the application of node {node} reads from {remote}, up to octet {read}, what no client wrote"));
        }
        Ok(())
    }

    fn client_reads(&mut self, number: usize, octets: &[u8], facts: &Facts) -> Result<(), String> {
        let errand = facts.plan.errands.iter().find(|errand| errand.number == number).expect("a known errand");
        let reading = self.answers.entry(number).or_insert_with(|| {
            let all = |node| errand.requests.iter().flat_map(move |request| answer(node, request.id, request.answer_bytes));
            Reading { read: 0, candidates: (0..facts.plan.nodes.len()).map(|node| all(node).collect()).collect() }
        });
        let (from, to) = (reading.read, reading.read + octets.len());
        reading.read = to;
        reading.candidates.retain(|whole| whole.get(from..to) == Some(octets));
        if reading.candidates.is_empty() {
            return Err(format!("errand {number} reads, in octets {from} to {to}, what no one server wrote"));
        }
        Ok(())
    }

    fn is_whole(&self, number: usize) -> bool {
        let is_whole = |reading: &Reading| reading.candidates.iter().any(|whole| whole.len() == reading.read);
        self.answers.get(&number).is_some_and(is_whole)
    }
}

impl Rule for Streams {
    fn name(&self) -> &'static str {
        "2 byte streams"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Application { node, event: ApplicationEvent::Read { serial, remote, octets } } => {
                self.application_reads(*node, *serial, *remote, octets, facts)
            }
            Seen::Client { event: ClientEvent::Read { errand, octets } } => self.client_reads(*errand, octets, facts),
            Seen::Client { event: ClientEvent::Ended { errand, ending } } => match ending {
                Ending::Complete if !self.is_whole(*errand) => Err(format!("errand {errand} is complete, its answers are not")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
