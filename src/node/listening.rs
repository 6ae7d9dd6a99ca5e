//! Where applications must listen, and what to say when one does not. Pure: what listens goes in, words come out.

use crate::flow::Endpoint;
use crate::tun::sock_diag::Listener;
use std::fmt;

/// What keeps an application from being reached, said so that somebody can put it right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Which service, and which of its addresses.
    pub about: String,
    /// What is wrong, in a few words.
    pub what: String,
    /// What follows from that.
    pub consequence: &'static str,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, what, consequence, remedy } = self;
        write!(f, "{about}: {what}, so {consequence}; {remedy}")
    }
}

/// Nobody takes what clients send to a front-end address: neither a listener on the address nor one on the wildcard.
pub fn not_at_frontend(service: &str, frontend: Endpoint, others: &[Listener]) -> Complaint {
    let wildcard = wildcard(frontend);
    let remedy = match others {
        [] => format!("start the application; it must listen on {frontend}, or better on {wildcard}"),
        _ if others.iter().any(|other| other.is_bound_to_device) => no_device(),
        _ => format!("let it listen on {frontend}, or better on {wildcard}"),
    };
    Complaint {
        about: format!("service={service} frontend={frontend}"),
        what: found(frontend, others),
        consequence: "clients whose connections stay here are refused",
        remedy,
    }
}

/// Nobody takes what arrives at aliases: that is only for a listener on the wildcard address.
pub fn not_at_aliases(service: &str, alias: Endpoint, others: &[Listener]) -> Complaint {
    let wildcard = wildcard(alias);
    let port = alias.port;
    let remedy = match others {
        [] => format!("start the application; it must listen on {wildcard}: handed-off connections arrive at alias addresses"),
        _ if others.iter().any(|other| other.is_bound_to_device) => no_device(),
        _ => {
            let line = if alias.address.is_ipv4() { port.to_string() } else { wildcard.to_string() };
            format!("let it listen on {wildcard} (nginx: `listen {line};`): handed-off connections arrive at alias addresses")
        }
    };
    Complaint {
        about: format!("service={service} application_port={port}"),
        what: found(alias, others),
        consequence: "connections handed to this node are refused",
        remedy,
    }
}

fn no_device() -> String {
    "do not bind it to a device (SO_BINDTODEVICE): what it should take comes from the TUN".to_owned()
}

/// What listens on the port, though not where it is needed.
fn found(needed: Endpoint, others: &[Listener]) -> String {
    if others.is_empty() {
        return format!("nothing listens on port {}", needed.port);
    }
    let needs_ipv4 = needed.address.is_ipv4();
    let words = others.iter().map(|listener| {
        let at = listener.at;
        if listener.is_bound_to_device {
            format!("{at} of one device")
        } else if is_wildcard(listener) && at.address.is_ipv6() && needs_ipv4 {
            format!("{at} for IPv6 only")
        } else {
            at.to_string()
        }
    });
    format!("the application listens only on {}", words.collect::<Vec<_>>().join(", "))
}

fn is_wildcard(listener: &Listener) -> bool {
    listener.at.address.is_unspecified()
}

fn wildcard(of: Endpoint) -> Endpoint {
    let unspecified: std::net::IpAddr =
        if of.address.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    Endpoint::new(unspecified, of.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    fn at(texts: &[&str]) -> Vec<Listener> {
        texts.iter().map(|text| Listener { at: end(text), is_bound_to_device: false }).collect()
    }

    #[test]
    fn an_application_that_is_not_there_must_be_started() {
        let text = not_at_aliases("web", end("198.18.0.1:8080"), &[]).to_string();
        let expected = "service=web application_port=8080: nothing listens on port 8080, so connections handed to this node are \
                        refused; start the application; it must listen on 0.0.0.0:8080: handed-off connections arrive at alias \
                        addresses";
        assert_eq!(text, expected);
        let text = not_at_frontend("web", end("[fd77::1]:80"), &[]).to_string();
        let expected = "service=web frontend=[fd77::1]:80: nothing listens on port 80, so clients whose connections stay here are \
                        refused; start the application; it must listen on [fd77::1]:80, or better on [::]:80";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_application_on_one_address_is_told_the_other_line_to_write() {
        let complaint = not_at_aliases("web", end("198.18.0.1:80"), &at(&["10.77.0.1:80", "127.0.0.1:80"]));
        assert_eq!(complaint.what, "the application listens only on 10.77.0.1:80, 127.0.0.1:80");
        assert_eq!(
            complaint.remedy,
            "let it listen on 0.0.0.0:80 (nginx: `listen 80;`): handed-off connections arrive at alias addresses"
        );
        let complaint = not_at_aliases("web", end("[fd00:ba70::1]:80"), &at(&["0.0.0.0:80"]));
        assert!(complaint.remedy.contains("let it listen on [::]:80 (nginx: `listen [::]:80;`)"), "{complaint}");
    }

    #[test]
    fn a_wildcard_of_ipv6_that_refuses_ipv4_is_named_as_such() {
        let complaint = not_at_aliases("web", end("198.18.0.1:80"), &at(&["[::]:80"]));
        assert_eq!(complaint.what, "the application listens only on [::]:80 for IPv6 only");
        assert!(complaint.remedy.contains("let it listen on 0.0.0.0:80"), "{complaint}");
    }

    #[test]
    fn a_listener_of_one_device_does_not_see_the_tun() {
        let bound = [Listener { at: end("0.0.0.0:80"), is_bound_to_device: true }];
        for complaint in
            [not_at_aliases("web", end("198.18.0.1:80"), &bound), not_at_frontend("web", end("10.77.0.1:80"), &bound)]
        {
            assert_eq!(complaint.what, "the application listens only on 0.0.0.0:80 of one device");
            assert!(complaint.remedy.contains("SO_BINDTODEVICE"), "{complaint}");
        }
    }
}
