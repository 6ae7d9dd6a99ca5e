//! The head of an HTTP request: the same decision however it comes in pieces, and none that is taken back.

use super::input::Input;
use baton::flow::{Endpoint, NodeId};
use baton::policy::{Ambiguity, ClusterFile, Decision, Examination, Looks, Policy, Service};
use std::rc::Rc;

const CLUSTER: &str = include_str!("cluster.yaml");

/// One of the services of `cluster.yaml`, as node `a` has it.
pub(super) fn with_service<T>(name: &str, then: impl FnOnce(&Service) -> T) -> T {
    thread_local! {
        static POLICY: Rc<Policy> =
            Rc::new(ClusterFile::parse("cluster.yaml", CLUSTER).expect("a good file").compile("a").expect("node a"));
    }
    POLICY.with(|policy| then(policy.services.iter().find(|service| service.name == name).expect("the service")))
}

/// Where the octets are cut when they come one after the other: everywhere if there are few.
pub(super) fn cuts(input: &mut Input<'_>, length: usize) -> Vec<usize> {
    if length <= 100 {
        return (0..=length).collect();
    }
    let mut cuts: Vec<usize> = (0..8).map(|_| usize::from(input.u16()) % (length + 1)).collect();
    cuts.extend([0, 1, length - 1, length]);
    cuts.sort_unstable();
    cuts
}

/// The first decision of those about growing prefixes, checked against all others.
pub(super) fn in_pieces(service: &Service, octets: &[u8], cuts: &[usize], client: Endpoint) -> Option<(usize, Decision)> {
    let mut decided: Option<(usize, Decision)> = None;
    let mut looks = Looks::default();
    for cut in cuts {
        let examined = service.examine(&octets[..*cut], client);
        let looked = service.look(&octets[..*cut], client, &mut looks);
        let is_over = |decision: &Decision| decision.note == Some(Ambiguity::TooManyPieces);
        if !matches!(&looked, Examination::Decided(decision) if is_over(decision)) {
            assert_eq!(looked, examined, "what was remembered changes it at {cut}");
        }
        match (examined, &decided) {
            (Examination::NeedMore, None) => {
                assert!(*cut < service.inspect_bytes_max, "more is needed than may be looked at");
            }
            (Examination::NeedMore, Some(decision)) => panic!("{decision:?} was taken back at {cut}"),
            (Examination::Decided(decision), None) => decided = Some((*cut, decision)),
            (Examination::Decided(now), Some((at, before))) => {
                assert_eq!(&now, before, "decided at {at}, otherwise at {cut}");
            }
        }
    }
    decided
}

pub fn run(octets: &[u8]) {
    let (choices, head) = octets.split_at(24.min(octets.len()));
    let mut input = Input::new(choices);
    let name = if input.bool() { "web" } else { "narrow" };
    let client = Endpoint::new(if input.bool() { [10, 1, 2, 3] } else { [203, 0, 113, 9] }.into(), 40_000);
    let cuts = cuts(&mut input, head.len());
    with_service(name, |service| {
        let whole = service.examine(head, client);
        let decided = in_pieces(service, head, &cuts, client);
        match &whole {
            Examination::NeedMore => assert_eq!(decided, None),
            Examination::Decided(decision) => {
                let (_, first) = decided.expect("the last piece makes it whole");
                assert_eq!(&first, decision, "in pieces otherwise than as a whole");
                assert!(decision.targets().iter().all(|target| target.node() != Some(NodeId(0))), "the node itself is `local`");
            }
        }
        // Whatever follows a head that was read changes nothing.
        if let Examination::Decided(_) = whole {
            let longer = [head, b"\0\r\n\r\nGET / HTTP/1.1\r\nHost: other\r\n\r\n"].concat();
            assert_eq!(service.examine(&longer, client), whole);
        }
        let explained = service.explain(head, Some(client.address));
        assert_eq!(explained.examination, whole);
        if !explained.request.is_empty() {
            read_alike(&head[..head.len().min(service.inspect_bytes_max)], &explained.request);
        }
    });
}

/// What was read as a request looks like one to a reader that knows little.
fn read_alike(head: &[u8], request: &[(&'static str, Option<String>)]) {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches(['\r', '\n']);
    let end = ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"].into_iter().filter_map(|end| text.find(end)).min();
    let head = &text[..end.expect("a request has an end")];
    assert!(!head.contains('\0'), "NUL");
    assert!(!head.replace("\r\n", "\n").contains('\r'), "a bare CR");
    let mut lines = head.split('\n').map(|line| line.trim_end_matches('\r'));
    let first = lines.next().expect("a first line");
    let said = |name: &str| request.iter().find(|(said, _)| *said == name).and_then(|(_, value)| value.clone());
    assert_eq!(said("method").as_deref(), first.split(' ').next());
    let hosts: Vec<&str> = lines
        .filter_map(|line| {
            assert!(!line.starts_with([' ', '\t']), "a folded line");
            let (name, value) = line.split_once(':').expect("a field has a colon");
            name.eq_ignore_ascii_case("host").then(|| value.trim_matches([' ', '\t']))
        })
        .collect();
    assert!(hosts.len() <= 1, "two hosts");
    if let (Some(host), Some(said), true) =
        (hosts.first(), said("host"), first.split(' ').nth(1).is_some_and(|t| t.starts_with('/')))
    {
        let named = host.to_ascii_lowercase();
        assert!(named.starts_with(said.trim_end_matches('.')), "{said:?} for {host:?}");
    }
    if let Some(path) = said("path") {
        assert!(path == "*" || path.starts_with('/'), "{path:?}");
        assert!(!path.split('/').any(|part| part == "." || part == ".."), "{path:?}");
    }
}
