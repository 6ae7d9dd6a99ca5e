//! The first flight of HTTP/2: the same decision in any pieces, and what is read looks like a request.

use super::http::{cuts, in_pieces, with_service};
use super::input::Input;
use baton::flow::Endpoint;
use baton::policy::Examination;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Octets of choices before the frames.
const CHOICES: usize = 17;

pub fn run(octets: &[u8]) {
    let (choices, rest) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    // With its preface and an empty SETTINGS, or as it is.
    let octets = if input.bool() { [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], rest].concat() } else { rest.to_vec() };
    let client = Endpoint::new([203, 0, 113, 9].into(), 40_000);
    let cuts = cuts(&mut input, octets.len());
    // By the head, and by a field of the body.
    for service in ["web", "models"] {
        judge(service, &octets, &cuts, client);
    }
}

fn judge(service: &str, octets: &[u8], cuts: &[usize], client: Endpoint) {
    with_service(service, |service| {
        let whole = service.examine(octets, client);
        let decided = in_pieces(service, octets, cuts, client);
        match &whole {
            Examination::NeedMore => assert_eq!(decided, None),
            Examination::Decided(decision) => {
                assert_eq!(decided.map(|(_, first)| first).as_ref(), Some(decision));
                assert!(!service.awaits_server(octets, client), "decided, and yet waiting");
                let longer = [octets, b"\0\0\x04\x08\0\0\0\0\0GET / HTTP/1.1\r\n\r\n"].concat();
                assert_eq!(service.examine(&longer, client), whole, "what follows changes it");
            }
        }
        let explained = service.explain(octets, client);
        assert_eq!(explained.examination, whole);
        let said = |name: &str| explained.request.iter().find(|(said, _)| *said == name).and_then(|(_, value)| value.clone());
        if octets.starts_with(PREFACE) && !explained.request.is_empty() {
            let method = said("method").expect("a request has a method");
            assert!(!method.is_empty() && !method.contains([' ', '\r', '\n', ':']), "{method:?}");
            let path = said("path").expect("a request has a path");
            assert!(path.starts_with('/') || (path == "*" && method == "OPTIONS"), "{path:?}");
            assert!(!path.split('/').any(|part| part == "." || part == ".."), "{path:?}");
            let host = said("host").expect("a request of HTTP/2 names its host");
            assert!(!host.is_empty() && !host.contains(['/', '@', ' ']) && host == host.to_ascii_lowercase(), "{host:?}");
        }
    });
}
