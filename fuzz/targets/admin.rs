//! Lines between the command line and the daemon.

use baton::admin::protocol::{Reply, Request, parse_request, to_line};
use baton::limits::ADMIN_REQUEST_BYTES_MAX;

pub fn run(line: &[u8]) {
    match parse_request(line) {
        Ok(request) => {
            let written = to_line(&request);
            assert!(written.len() < ADMIN_REQUEST_BYTES_MAX && written.ends_with(b"\n"));
            assert!(!written[..written.len() - 1].contains(&b'\n'), "two lines");
            assert_eq!(parse_request(&written).as_ref(), Ok(&request));
            if let Request::Stop { timeout_seconds: Some(seconds) } = request {
                let _ = std::time::Duration::from_secs_f64(seconds);
            }
        }
        Err(advice) => assert!(advice.len() > 40, "{advice:?}"),
    }
    // What the command line reads it can write, and reads the same again.
    if let Ok(reply) = serde_json::from_slice::<Reply>(line) {
        let written = to_line(&reply);
        assert_eq!(written.iter().filter(|octet| **octet == b'\n').count(), 1);
        let again: Reply = serde_json::from_slice(&written).expect("a reply");
        assert_eq!(to_line(&again), written);
    }
}
