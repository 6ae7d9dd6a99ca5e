//! `frontend`: the front-end address a client connected to.

use super::super::condition::alternatives;
use super::super::yaml::Value;
use super::*;
use std::net::{IpAddr, SocketAddr};

/// The client connected to one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Frontend(Vec<Wanted>);

/// An address, a port, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Test for Frontend {
    const NAME: &'static str = "frontend";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let read = |item: &Field<'_>, problems: &mut Problems| wanted(item, context, problems);
        Some(vec![Self(alternatives(field, read, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.origin.frontend.is_some_and(|frontend| self.0.iter().any(|wanted| wanted.fits(frontend))).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.origin.frontend.map(|frontend| frontend.to_string())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(frontend) => format!("front-end address {frontend} is not among its addresses"),
            None => "no front-end address is given".to_owned(),
        }
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.values())
    }

    fn covers(&self, other: &Self) -> bool {
        let covers = |this: &Wanted, other: &Wanted| {
            this.address.is_none_or(|address| other.address == Some(address))
                && this.port.is_none_or(|port| other.port == Some(port))
        };
        each_is_covered(&self.0, &other.0, covers)
    }
}

impl Wanted {
    fn fits(&self, frontend: Endpoint) -> bool {
        self.address.is_none_or(|address| address == frontend.address) && self.port.is_none_or(|port| port == frontend.port)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).fmt(f),
            (Some(address), None) => address.fmt(f),
            (None, Some(port)) => write!(f, "port {port}"),
            (None, None) => f.write_str("any"),
        }
    }
}

/// `10.77.0.1:80`, `10.77.0.1`, or `80`: some front-end address of the service.
fn wanted(item: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Wanted> {
    let wanted = match item.value {
        Value::Integer(_) => Wanted { address: None, port: Some(item.port(problems)?) },
        _ => {
            let text = item.text(problems)?;
            let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            match (address, text.parse::<SocketAddr>()) {
                (Ok(address), _) => Wanted { address: Some(address), port: None },
                (_, Ok(both)) => Wanted { address: Some(both.ip()), port: Some(both.port()) },
                _ => {
                    let remedy = "write an address, a port, or both: `10.77.0.1`, `80`, `10.77.0.1:80`, `\"[fd77::1]:80\"`";
                    problems.error(&item.place, format!("\"{text}\" is neither an address nor a port"), remedy);
                    return None;
                }
            }
        }
    };
    if !context.frontends.is_empty() && !context.frontends.iter().any(|(_, frontend)| wanted.fits(*frontend)) {
        let all: Vec<String> = context.frontends.iter().map(|(_, frontend)| frontend.to_string()).collect();
        let message = format!("no front-end address of the service is {wanted}");
        problems.error(&item.place, message, format!("they are {}", all.join(", ")));
        return None;
    }
    Some(wanted)
}
