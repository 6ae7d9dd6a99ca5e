//! What people see, whole.

use super::*;
use crate::admin::protocol::{
    ClusterFile, Connections, Flow, Frontend, Links, Overlay, Peer, PeerLink, PeerService, PeersUp, Service,
};

#[test]
fn status_is_one_screen() {
    let text = status(&Status {
        node: "a".into(),
        cluster: "shop".into(),
        version: "0.1.0".into(),
        state: State::Running,
        epoch: "18a3".into(),
        uptime_seconds: 3_725,
        pid: 71,
        device: "bt0".into(),
        cluster_file: ClusterFile { path: "/etc/baton/shop.yaml".into(), hash: "0123456789abcdef0123".into() },
        configuration: Configuration {
            loaded_at: "2026-03-01T12:00:00Z".into(),
            hash: "0123456789abcdef0123".into(),
            last_error: None,
        },
        peers: PeersUp { up: 1, total: 2 },
        connections: Connections { live: 3, front_end: 4, back_end: 1, lingering: 9 },
        services: vec![
            Service {
                name: "web".into(),
                frontends: vec![
                    Frontend { address: "10.77.0.1:80".into(), backlog: Some(4096), problem: None },
                    Frontend {
                        address: "[fd77::1]:80".into(),
                        backlog: None,
                        problem: Some("nothing listens on port 80".into()),
                    },
                ],
                application_port: Some(80),
                application_listens: Some(true),
                application_problem: None,
                health: Some(Health { state: "down".into(), since_seconds: 7, failure: Some("status 503".into()) }),
            },
            Service {
                name: "api".into(),
                frontends: vec![],
                application_port: None,
                application_listens: None,
                application_problem: None,
                health: None,
            },
            Service {
                name: "cart".into(),
                frontends: vec![],
                application_port: Some(81),
                application_listens: Some(false),
                application_problem: Some("the application listens only on 10.77.0.1:81".into()),
                health: None,
            },
        ],
        links: Some(Links { usable: 1, total: 2 }),
    });
    assert_eq!(
        text,
        "\
node         a of cluster shop, running
version      0.1.0, up 1h 2m 5s, epoch 18a3, process 71
file         /etc/baton/shop.yaml (hash 0123456789ab, read 2026-03-01T12:00:00Z)
device       bt0
peers        1 of 2 up
links        1 of 2 used; `baton peers` says why others are not
connections  3 live; 4 as front-end, 1 as back-end, 9 lingering

SERVICE  FRONT-END     BACKLOG                     APPLICATION
web      10.77.0.1:80  4096                        port 80, down for 7s, last check: status 503
         [fd77::1]:80  nothing listens on port 80
api      none here     -                           elsewhere
cart     none here     -                           port 81: takes no handoffs: the application listens only on 10.77.0.1:81
"
    );
}

#[test]
fn peers_say_why_one_is_down() {
    let probe =
        Probe { state: "ok".into(), last_ok_seconds: Some(3.25), round_trip_ms: Some(1.5), failed_at: None, failure: None };
    let up = Peer {
        name: "b".into(),
        address: "10.77.0.2:7400".into(),
        state: "up".into(),
        since_seconds: 61,
        error: None,
        round_trip_ms: Some(0.3141),
        protocol_version: Some(1),
        draining: true,
        sessions: 2,
        warnings: vec!["tcp_sack is off on b".into()],
        cluster_file_hash: Some("fedcba9876543210".into()),
        cluster_file_differs: true,
        links: vec![
            PeerLink { family: "ipv4".into(), usable: true, reason: None },
            PeerLink { family: "ipv6".into(), usable: false, reason: Some("fd77::2 is behind a router".into()) },
        ],
        services: vec![
            PeerService {
                service: "web".into(),
                health: "up".into(),
                connections: 12,
                ramp: 0.25,
                passed_over: None,
                probe: Some(probe.clone()),
            },
            PeerService {
                service: "api".into(),
                health: "down".into(),
                connections: 0,
                ramp: 1.0,
                passed_over: Some("peer_unhealthy".into()),
                probe: Some(Probe {
                    state: "failed".into(),
                    last_ok_seconds: None,
                    round_trip_ms: None,
                    failed_at: Some("overlay".into()),
                    failure: Some("what was sent was not acknowledged".into()),
                }),
            },
        ],
    };
    let down = Peer {
        name: "cache-3".into(),
        state: "waiting".into(),
        error: Some("connection refused".into()),
        round_trip_ms: None,
        protocol_version: None,
        draining: false,
        sessions: 0,
        warnings: Vec::new(),
        cluster_file_hash: None,
        cluster_file_differs: false,
        services: vec![],
        links: vec![],
        ..up.clone()
    };
    let overlay =
        Overlay { sent_packets: 1, sent_bytes: 2, received_packets: 3, received_bytes: 4, send_drops: 5, receive_drops: 6 };
    assert_eq!(
        peers(&Peers { peers: vec![up, down], overlay }),
        "\
PEER     ADDRESS         STATE    SINCE  ROUND TRIP  PROTOCOL  SESSIONS  REMARK
b        10.77.0.2:7400  up       1m 1s  0.31 ms     1         2         draining; another cluster file (hash fedcba987654)
cache-3  10.77.0.2:7400  waiting  1m 1s  -           -         0         connection refused
warning: tcp_sack is off on b

PEER  SERVICE  APPLICATION                        CONNECTIONS  WEIGHT  PROBE
b     web      up                                 12           25%     ok, 1.50 ms, 3.2s ago
b     api      down, passed over: peer_unhealthy  0            100%    failed at overlay: what was sent was not acknowledged; never ok

PEER  LINK  FORWARD
b     ipv4  link
b     ipv6  overlay: fd77::2 is behind a router

overlay  sent      1 packets, 2 bytes, 5 dropped
         received  3 packets, 4 bytes, 6 dropped
"
    );
    assert!(peers(&Peers { peers: vec![], overlay }).starts_with("no peers"));
}

#[test]
fn flows_say_when_the_list_was_cut() {
    let flow = Flow {
        client: "192.0.2.7:40000".into(),
        frontend: "10.77.0.1:80".into(),
        role: "front-end".into(),
        state: "handed_off".into(),
        treatment: "forward".into(),
        peer: Some("b".into()),
        socket: Some("198.18.0.1:8080".into()),
        rule: None,
        age_seconds: 1.26,
    };
    assert_eq!(
        flows(&Flows { total: 12, flows: vec![flow] }),
        "\
CLIENT           FRONT-END     ROLE       STATE       TREATMENT  PEER  SOCKET           RULE  AGE
192.0.2.7:40000  10.77.0.1:80  front-end  handed_off  forward    b     198.18.0.1:8080  -     1.3s
... 1 of 12 connections; --limit shows more
"
    );
}

#[test]
fn stats_are_one_a_line() {
    let stats_of = [("b{x=\"1\"}".to_owned(), 2u64.into()), ("a_total".to_owned(), 1u64.into())].into();
    assert_eq!(stats(&stats_of), "a_total 1\nb{x=\"1\"} 2\n");
}

#[test]
fn the_end_says_what_was_cut() {
    let text = stopped(&Stopped { cut: 1, seconds: 30.04, restored: true });
    assert_eq!(text, "stopped after 30.0s: 1 connection was cut, the host is as it was\n");
    let text = stopped(&Stopped { cut: 0, seconds: 0.0, restored: false });
    assert!(text.contains("no connection was cut") && text.contains("see the log"));
}

#[test]
fn a_refused_file_is_shown_with_its_reasons() {
    let error = "/etc/baton/shop.yaml:14:18: there is no node `d`\n   |\n";
    let mut refused = quiet();
    refused.configuration.last_error = Some(error.into());
    let text = status(&refused);
    assert!(text.contains("REFUSED"), "{text}");
    assert!(text.ends_with("there is no node `d`\n   |\n"), "{text}");
    assert!(!status(&quiet()).contains("REFUSED"));
}

/// Nothing to see.
fn quiet() -> Status {
    Status {
        node: "a".into(),
        cluster: "shop".into(),
        version: "0.1.0".into(),
        state: State::Running,
        epoch: "18a3".into(),
        uptime_seconds: 1,
        pid: 71,
        device: "bt0".into(),
        cluster_file: ClusterFile { path: "/etc/baton/shop.yaml".into(), hash: "0123456789abcdef0123".into() },
        configuration: Configuration {
            loaded_at: "2026-03-01T12:00:00Z".into(),
            hash: "0123456789abcdef0123".into(),
            last_error: None,
        },
        peers: PeersUp { up: 1, total: 2 },
        connections: Connections { live: 0, front_end: 0, back_end: 0, lingering: 0 },
        services: vec![],
        links: None,
    }
}

#[test]
fn a_reload_says_whether_anything_changed() {
    let reloaded_of = |changed| Reloaded { changed, hash: "0123456789abcdef0123".into(), error: None };
    assert_eq!(reloaded(&reloaded_of(true)), "reloaded (hash 0123456789ab)\n");
    assert!(reloaded(&reloaded_of(false)).starts_with("nothing to do"));
}
