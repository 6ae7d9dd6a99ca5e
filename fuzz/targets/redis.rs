//! Commands of Redis: the same decision in any pieces, and the command that a simple reader finds.

use super::http::{cuts, in_pieces, with_service};
use super::input::Input;
use baton::flow::Endpoint;
use baton::policy::Examination;

/// Octets of choices before the commands.
const CHOICES: usize = 16;

pub fn run(octets: &[u8]) {
    let (choices, octets) = octets.split_at(CHOICES.min(octets.len()));
    let mut input = Input::new(choices);
    let client = Endpoint::new([203, 0, 113, 9].into(), 40_000);
    let cuts = cuts(&mut input, octets.len());
    with_service("cache", |service| {
        let whole = service.examine(octets, client);
        let decided = in_pieces(service, octets, &cuts, client);
        match &whole {
            Examination::NeedMore => assert_eq!(decided, None),
            Examination::Decided(decision) => {
                assert_eq!(decided.map(|(_, first)| first).as_ref(), Some(decision));
                let longer = [octets, b"\r\n*1\r\n$4\r\nPING\r\n"].concat();
                assert_eq!(service.examine(&longer, client), whole, "what follows changes it");
            }
        }
        let explained = service.explain(octets, client);
        assert_eq!(explained.examination, whole);
        let said = |name: &str| explained.request.iter().find(|(said, _)| *said == name).and_then(|(_, value)| value.clone());
        let Some(command) = said("command") else { return };
        assert!(!command.is_empty() && command == command.to_ascii_uppercase(), "{command:?}");
        // Whatever was read stands there in these letters, but for their case.
        let text = String::from_utf8_lossy(octets);
        assert!(text.to_ascii_uppercase().contains(&command), "{command:?}");
        if let Some(key) = said("key") {
            assert!(text.contains(&key), "{key:?}");
        }
    });
}
