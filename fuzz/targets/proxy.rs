//! The PROXY header: the same decision in any pieces; and behind it, what is decided without it for the client it names.

use super::http::{cuts, in_pieces, with_service};
use super::input::Input;
use baton::flow::Endpoint;
use baton::policy::Examination;

/// Octets of choices before the header.
const CHOICES: usize = 16;
const REQUEST: &[u8] = b"GET /images/1 HTTP/1.0\r\n\r\n";

pub fn run(octets: &[u8]) {
    let (choices, octets) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    let proxy = Endpoint::new([203, 0, 113, 9].into(), 40_000);
    let cuts = cuts(&mut input, octets.len());
    with_service("proxied", |service| {
        let whole = service.examine(octets, proxy);
        let decided = in_pieces(service, octets, &cuts, proxy);
        match &whole {
            Examination::NeedMore => assert_eq!(decided, None),
            Examination::Decided(decision) => assert_eq!(decided.map(|(_, first)| first).as_ref(), Some(decision)),
        }
        // A header that is whole, and nothing behind it.
        if !service.awaits_server(octets, proxy) || whole != Examination::NeedMore {
            return;
        }
        let explained = service.explain(&[octets, REQUEST].concat(), proxy);
        if explained.request.is_empty() {
            return;
        }
        let client = explained.request.iter().find(|(name, _)| *name == "client").and_then(|(_, value)| value.clone());
        // From elsewhere the same request comes without a header.
        with_service("direct", |direct| {
            let client = client.as_deref().and_then(|client| client.parse::<std::net::IpAddr>().ok());
            let alone = direct.explain(REQUEST, client);
            assert_eq!(alone.decision.rule, explained.decision.rule, "for {client:?}");
        });
    });
}
