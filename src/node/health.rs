//! The checks of this node's own applications: their connections, and when each is due. What comes of them goes to the
//! engine, and to the peers with every heartbeat.

use super::{Node, token};
use crate::control::report::{Report, ServiceReport, Told};
use crate::health::{Asker, Exchange, Failure, Health, Judge};
use crate::policy::{HealthCheck, Policy, Service};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Read from an application at once.
const READ_BYTES: usize = 16 << 10;

/// The services that this node serves.
#[derive(Debug)]
pub struct Applications {
    applications: Vec<Application>,
    /// What peers were told last.
    told: Option<Report>,
}

#[derive(Debug)]
struct Application {
    service: String,
    /// None: it is not checked.
    check: Option<Check>,
}

#[derive(Debug)]
struct Check {
    plan: HealthCheck,
    at: SocketAddr,
    judge: Judge,
    due: Instant,
    running: Option<Running>,
    /// What came of the last one.
    last: Option<Result<(), Failure>>,
    /// Since when the verdict is what it is.
    since: Instant,
}

#[derive(Debug)]
struct Running {
    stream: TcpStream,
    exchange: Exchange,
    is_connected: bool,
    deadline: Instant,
}

/// What `baton status` shows of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The verdict.
    pub health: Health,
    /// Since when.
    pub since: Instant,
    /// What was wrong the last time; none if nothing was.
    pub failure: Option<String>,
}

impl Applications {
    /// All checks are due.
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let applications = policy.services.iter().filter_map(|service| {
            let port = service.server_port(policy.node)?;
            let check = service.health.as_ref().map(|plan| Check {
                plan: plan.clone(),
                at: SocketAddr::new(local_address(service), plan.port.unwrap_or(port)),
                judge: Judge::new(plan.rise, plan.fall),
                due: now,
                running: None,
                last: None,
                since: now,
            });
            Some(Application { service: service.name.clone(), check })
        });
        Self { applications: applications.collect(), told: None }
    }

    /// Other services are in force. Verdicts about those that are asked the same stay.
    pub fn replace(&mut self, policy: &Policy, now: Instant) {
        let before = std::mem::replace(self, Self::new(policy, now));
        self.told = before.told;
        for known in before.applications {
            let Some(known_check) = known.check else { continue };
            let same = |application: &&mut Application| application.service == known.service;
            let Some(check) = self.applications.iter_mut().find(same).and_then(|application| application.check.as_mut()) else {
                continue;
            };
            if (&known_check.plan.question, known_check.at) == (&check.plan.question, check.at) {
                let plan = std::mem::replace(&mut check.plan, known_check.plan.clone());
                // A connection under way is dropped with the rest: tokens go by position.
                *check = Check { running: None, due: now, ..known_check };
                check.judge.adjust(plan.rise, plan.fall);
                check.plan = plan;
            }
        }
    }

    /// When the next check is due, or too slow.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.applications.iter().filter_map(|application| application.check.as_ref()).map(Check::poll_timeout).min()
    }

    /// Whether the token is one of a check's.
    pub fn owns(&self, token: Token) -> bool {
        (token::HEALTH_FIRST..token::PROBE_FIRST).contains(&token.0)
    }

    /// Of a service; None when it is not checked here.
    pub fn view(&self, service: &str) -> Option<View> {
        let application = self.applications.iter().find(|application| application.service == service)?;
        let check = application.check.as_ref()?;
        let failure = check.last.as_ref().and_then(|last| last.as_ref().err()).map(ToString::to_string);
        Some(View { health: check.judge.verdict(), since: check.since, failure })
    }
}

/// Handed-off connections need a listener on the wildcard address, so it is asked where no front-end is: what goes over the
/// loopback device is not captured, and never handed off.
fn local_address(service: &Service) -> IpAddr {
    let has_ipv4 = service.frontends.iter().any(|(_, frontend)| frontend.address.is_ipv4());
    if has_ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

impl Application {
    fn told(&self) -> Told {
        match self.check.as_ref().map(|check| check.judge.verdict()) {
            None => Told::Unchecked,
            Some(Health::Up) => Told::Up,
            Some(Health::Down) => Told::Down,
            Some(Health::Unknown) => Told::Unknown,
        }
    }

    /// Takes in an outcome, and tells people what changed.
    fn conclude(&mut self, outcome: Result<(), Failure>, registry: &Registry, now: Instant) -> bool {
        let service = &self.service;
        let Some(check) = &mut self.check else { return false };
        if let Some(mut running) = check.running.take() {
            let _ = registry.deregister(&mut running.stream);
        }
        let was_known = check.judge.verdict() != Health::Unknown;
        let is_changed = check.judge.hear(outcome.is_ok());
        if is_changed {
            check.since = now;
        }
        match &outcome {
            Ok(()) if is_changed && was_known => log::info!("service={service} application=up: connections are sent to it again"),
            Ok(()) if is_changed => log::info!("service={service} application=up"),
            Err(failure) if is_changed => log::warn!(
                "service={service} application=down check={} reason={failure}; other nodes pass this one over",
                check.at
            ),
            Err(failure) => log::debug!("service={service} check={} failed: {failure}", check.at),
            Ok(()) => {}
        }
        check.last = Some(outcome);
        is_changed
    }
}

impl Check {
    fn poll_timeout(&self) -> Instant {
        self.running.as_ref().map_or(self.due, |running| running.deadline)
    }

    /// Begins one; the failure, if that is already one.
    fn begin(&mut self, token: Token, registry: &Registry, now: Instant) -> Result<(), Failure> {
        self.due = now + self.plan.interval;
        let failure = |error: io::Error| Failure::Connect(error.to_string());
        let mut stream = TcpStream::connect(self.at).map_err(failure)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).map_err(failure)?;
        let exchange = Exchange::new(&self.plan.question, Asker::Check);
        self.running = Some(Running { stream, exchange, is_connected: false, deadline: now + self.plan.timeout });
        Ok(())
    }
}

impl Running {
    /// Goes on as far as it goes without waiting; the outcome, if there is one.
    fn advance(&mut self) -> Option<Result<(), Failure>> {
        if !self.is_connected {
            match self.connected() {
                Ok(false) => return None,
                Ok(true) => self.is_connected = true,
                Err(failure) => return Some(Err(failure)),
            }
            if self.exchange.asks_nothing() {
                return Some(Ok(()));
            }
        }
        let mut buffer = [0; READ_BYTES];
        while !self.exchange.outgoing().is_empty() {
            match self.stream.write(self.exchange.outgoing()) {
                Ok(octets) => self.exchange.advance(octets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(Failure::Broken(error.to_string()))),
            }
        }
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(self.exchange.end()),
                Ok(octets) => {
                    if let Some(outcome) = self.exchange.receive(&buffer[..octets]) {
                        return Some(outcome);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(Failure::Broken(error.to_string()))),
            }
        }
    }

    fn connected(&self) -> Result<bool, Failure> {
        let failure = |error: io::Error| Failure::Connect(error.to_string());
        if let Some(error) = self.stream.take_error().map_err(failure)? {
            return Err(failure(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    fn too_slow(&self) -> Failure {
        if self.is_connected { self.exchange.too_slow() } else { Failure::TooSlow("no connection") }
    }
}

impl Node {
    /// Readiness of a check's connection.
    pub(super) fn handle_check(&mut self, event: &Event, now: Instant) {
        let index = event.token().0 - token::HEALTH_FIRST;
        let Some(application) = self.applications.applications.get_mut(index) else { return };
        let Some(running) = application.check.as_mut().and_then(|check| check.running.as_mut()) else { return };
        if let Some(outcome) = running.advance()
            && application.conclude(outcome, self.poll.registry(), now)
        {
            self.tell_health(now);
        }
    }

    /// Begins the checks that are due, and gives up those that are too slow.
    pub(super) fn check_applications(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let mut is_changed = false;
        for (index, application) in self.applications.applications.iter_mut().enumerate() {
            let Some(check) = &mut application.check else { continue };
            if let Some(running) = &mut check.running
                && now >= running.deadline
            {
                // What waits in the socket came in time: it may be us who did not run.
                let outcome = running.advance().unwrap_or_else(|| Err(running.too_slow()));
                is_changed |= application.conclude(outcome, registry, now);
            }
            let Some(check) = &mut application.check else { continue };
            if check.running.is_none()
                && now >= check.due
                && let Err(failure) = check.begin(Token(token::HEALTH_FIRST + index), registry, now)
            {
                is_changed |= application.conclude(Err(failure), registry, now);
            }
        }
        if is_changed {
            self.tell_health(now);
        }
    }

    /// Tells the engine and the peers what there is to say about this node: changes at once, numbers with the next heartbeat.
    pub(super) fn tell_health(&mut self, now: Instant) {
        let served = self.engine.served();
        let services = self.applications.applications.iter().map(|application| {
            let connections = served.get(application.service.as_str()).copied().unwrap_or_default();
            ServiceReport { name: application.service.clone(), health: application.told(), connections }
        });
        let report = Report { policy: self.policy.hash.0, full: self.engine.is_full(), services: services.collect() };
        for service in &report.services {
            self.engine.handle_own_health(&service.name, service.health, service.connections, now);
        }
        if self.applications.told.as_ref() == Some(&report) {
            return;
        }
        let is_urgent = self.applications.told.as_ref().is_none_or(|told| is_other(told, &report));
        self.channel.set_report(report.clone(), is_urgent);
        self.applications.told = Some(report);
    }
}

/// Whether anything but numbers of connections has changed.
fn is_other(before: &Report, after: &Report) -> bool {
    let words = |report: &Report| -> Vec<(String, Told)> {
        report.services.iter().map(|service| (service.name.clone(), service.health)).collect()
    };
    (before.policy, before.full) != (after.policy, after.full) || words(before) != words(after)
}
