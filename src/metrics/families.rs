//! Every metric there is. A name keeps its meaning: dashboards rely on it.

/// What kind of metric one is (Prometheus: metric types).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until the process starts anew.
    Counter,
    /// As it is now.
    Gauge,
    /// Durations in seconds, by bucket.
    Histogram,
}

impl Kind {
    /// The word for it in the text format.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric, with any labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// As in `baton stats`; scraped, there is `baton_` before it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, help }
}

/// In the order they are shown.
pub const FAMILIES: &[Family] = &[
    gauge("connections_front_end", "Connections this node is the front-end of, in any state but over."),
    gauge("connections_handshake", "Of these: the client has not completed the handshake."),
    gauge("connections_undecided", "Of these: the request is being read."),
    gauge("connections_parked", "Of these: undecided for so long that the kernel half was purged."),
    gauge("connections_offered", "Of these: a node was asked to take it."),
    gauge("connections_handed_off", "Of these: served by its owner."),
    gauge("connections_back_end", "Connections that this node serves for whichever front-end."),
    gauge("connections_lingering", "Connections that are over and still remembered, in either role."),
    gauge("syns_pending", "SYNs whose SYN-ACK has not been seen."),
    gauge("openings_pending", "SYNs given to peers whose handshake is not known to be complete."),
    gauge("openings_unfinished", "Forwarded SYNs whose clients have not completed the handshake with this node."),
    gauge("owners_known", "Owners of connections to shared addresses that did not begin here."),
    gauge("owners_asked_for", "Connections to shared addresses whose owner is being asked for."),
    gauge("orphans", "Connections guarded in an earlier life of the process whose owner has not spoken yet."),
    gauge("commits_unsettled", "Handoffs taken whose commit the front-end may still repeat."),
    gauge("first_flight_bytes", "Octets of requests held while they are read."),
    counter("syns_total", "SYNs to front-end addresses of this node."),
    counter("syns_evicted_total", "SYNs forgotten before the kernel answered, because there were too many."),
    counter("connections_total", "Connections followed from their SYN-ACK on."),
    counter("decisions_total", "Decisions of the policy, by service and rule."),
    counter("chosen_total", "Nodes that were chosen first, by service and rule; without a name: nobody, the client was reset."),
    counter("observed_total", "What would have been chosen in services of `mode: observe`, by service, rule and node."),
    counter(
        "observed_undecided_total",
        "Connections of such services that were let go of undecided, where they would have been parked.",
    ),
    counter("resets_by_policy_total", "Connections reset because the policy says so."),
    counter("outcomes_total", "Connections by service, rule, the node that serves them, and what became of them."),
    histogram("decision_seconds", "From the first octet of a request to the decision."),
    histogram("handoff_seconds", "From the decision to the commit that makes a peer the owner."),
    counter("decisions_local_total", "Connections served by the local server, natively or through a replay."),
    counter("released_local_total", "Connections released to the local server, untouched."),
    counter("replays_to_self_total", "Connections served by the local server through a replay."),
    counter("ambiguous_requests_total", "Requests too unclear to choose a server by, by what is unclear."),
    counter("parked_total", "Connections whose half in the kernel was purged because they were undecided for too long."),
    counter("early_acknowledgements_total", "First flights acknowledged on the kernel's behalf."),
    counter("offers_sent_total", "Connections offered to peers."),
    counter("handoffs_committed_total", "Connections given to peers."),
    counter("handoffs_closed_total", "Connections given to peers that are over."),
    counter("handoffs_returned_total", "Connections given back by their owner, untouched."),
    counter("handoffs_accepted_total", "Connections taken from peers."),
    counter("offers_refused_total", "Connections refused to peers."),
    counter("probes_sent_total", "Probes of the full path sent to peers."),
    counter("probes_accepted_total", "Probes of peers taken."),
    counter("syns_forwarded_total", "SYNs given to peers, in services of `inspect: none`."),
    counter("local_on_syn_total", "SYNs left to the local server, in services of `inspect: none`."),
    counter("local_packets_total", "Packets that clients sent to the local server and that came through baton."),
    counter("owner_questions_total", "Questions to peers about who owns a connection to a shared address."),
    counter("owner_questions_unanswered_total", "Such questions of peers that ask too many."),
    counter("owners_found_total", "Owners of connections to shared addresses that were found, this node included."),
    counter("redeliveries_total", "First flights delivered again because the kernel had not acknowledged them."),
    counter("fallbacks_total", "Candidates that a rule chose and that did not serve, by reason."),
    counter("resets_total", "Connections reset because nobody could serve them."),
    counter("reset_by_client_total", "Connections reset by their client while undecided."),
    counter("challenge_acks_total", "Challenge ACKs sent (RFC 5961)."),
    counter("disowned_total", "Connections destroyed here because their front-end had given them up."),
    counter("adopted_total", "Connections taken over from an earlier life of this process."),
    counter("rules_restored_total", "Times the nf_tables rules were gone and were put back."),
    counter("rules_errors_total", "Times the nf_tables rules could not be looked at or put back."),
    counter("link_forwarded_packets_total", "Clients' packets that the kernel forwarded to a peer over a link by itself."),
    counter("link_held_up_total", "Times a rule of this host's was found to drop what is forwarded over a link."),
    counter("linked_total", "Connections whose packets went to a peer over a link, without the overlay."),
    counter("linked_received_total", "Packets of connections served here that came over a link."),
    gauge("links_usable", "Links to peers, by family, that clients' packets can go over now."),
    counter("link_sent_packets_total", "Clients' packets sent over a link by the process; the kernel forwards what follows."),
    counter("link_client_on_peer_packets_total", "Packets sent through the overlay because the client is a peer or behind one."),
    counter("link_send_failed_packets_total", "Packets sent through the overlay because a link did not take them."),
    counter("link_probes_sent_total", "Probes of links sent."),
    counter("link_probes_answered_total", "Probes of links that came back."),
    counter("link_lost_total", "Links that were used and could not be used any more."),
    counter("link_unlearned_total", "Connections the kernel was told to forward no more over a link."),
    counter("link_errors_total", "Changes for links that the kernel did not take."),
    counter("overlay_cut_plain_total", "Packets of clients that were promised a link, cut to fit the overlay."),
    counter("drops_total", "Packets that went nowhere, by reason."),
    counter("local_taught_total", "Packets by which the kernel learned that the local server serves a connection."),
    counter("local_not_taught_total", "Packets by which it did not, because it knows as many as it may."),
    counter("local_bypassed_packets_total", "Packets of such connections that did not come through baton."),
    gauge("local_flows", "Connections that the kernel has learned and not forgotten; kernels before 6.16 do not tell."),
    gauge("tun_offload", "1 while the kernel leaves checksums and segmentation to the TUN, else 0."),
    counter("tun_read_packets_total", "Packets read from the TUN."),
    counter("tun_read_bytes_total", "Octets read from the TUN."),
    counter("tun_read_errors_total", "Reads from the TUN that failed."),
    counter("tun_read_bad_headers_total", "Packets dropped because their virtio header did not fit them."),
    counter("tun_written_packets_total", "Packets written to the TUN, signs of life included."),
    counter("tun_written_bytes_total", "Octets written to the TUN."),
    counter("tun_write_errors_total", "Packets the kernel did not take, by reason."),
    counter("tun_super_segments_read_total", "Packets of several segments read from the TUN."),
    counter("tun_super_segments_written_total", "Packets of several segments written to the TUN whole."),
    counter("tun_super_segments_cut_total", "Packets of several segments written to the TUN in pieces."),
    counter("tun_joined_packets_total", "Packets written to the TUN as one with the packet before."),
    gauge("overlay_udp_gso", "Whether the kernel takes several datagrams of the overlay in one call: 1 or 0."),
    gauge("overlay_udp_gro", "Whether the kernel hands over several datagrams of the overlay in one call: 1 or 0."),
    counter("overlay_send_calls_total", "Calls in which datagrams were sent to peers."),
    counter("overlay_receive_calls_total", "Calls in which datagrams of peers were received, or none was there."),
    counter("overlay_joined_packets_total", "Packets from peers that were joined to the one before."),
    counter("overlay_sent_packets_total", "Packets sent to peers through the overlay."),
    counter("overlay_sent_bytes_total", "Octets sent to peers through the overlay, before sealing."),
    counter("overlay_received_packets_total", "Packets received from peers through the overlay."),
    counter("overlay_received_bytes_total", "Octets received from peers through the overlay, after opening."),
    counter("overlay_super_segments_cut_total", "Packets of several segments cut before they went to a peer."),
    counter("overlay_send_drops_total", "Packets not sent to a peer, by reason."),
    counter("overlay_receive_drops_total", "Datagrams of the overlay not accepted, by reason."),
    gauge("peers", "Other nodes of the cluster file."),
    gauge("peers_up", "Other nodes with a session."),
    gauge("peer_up", "1 while there is a session with this peer, else 0."),
    gauge("peer_draining", "1 while this peer says that it takes no new handoffs, else 0."),
    counter("peer_sessions_total", "Sessions with this peer since start."),
    gauge("peer_round_trip_seconds", "Round trip on the control channel to this peer."),
    counter("control_messages_lost_total", "Messages to a peer without a session."),
    counter("guard_write_errors_total", "Guards the kernel did not take; those connections stayed local."),
    counter("sockets_destroyed_total", "Kernel sockets destroyed because their connection was lost."),
    counter("socket_questions_failed_total", "Questions about a socket that the kernel did not answer."),
    counter("connection_log_lines_total", "Lines of the connection log, by what became of them."),
    counter("reloads_total", "Cluster files read while running, by outcome."),
    gauge("cluster_file_ok", "1 while the cluster file, as it was read last, is in force, else 0."),
    gauge("limit_connections", "Most connections this node remembers (limits.connections)."),
    gauge("limit_first_flight_bytes", "Most octets of requests held (limits.first_flight_bytes)."),
    counter("loop_wakes_total", "Turns of the loop."),
    counter("loop_stalls_total", "Turns of the loop that came too late."),
    gauge("build_info", "Always 1; the version is in the label."),
    gauge("node_state", "1 for the state this node is in, 0 for the others."),
    gauge("uptime_seconds", "Seconds since start."),
    gauge("process_resident_memory_bytes", "Resident memory."),
    gauge("process_open_fds", "Open file descriptors."),
    counter("process_cpu_seconds_total", "Processor time, user and system."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len(), "each is there once");
        for family in FAMILIES {
            let is_total = family.name.ends_with("_total");
            assert_eq!(is_total, family.kind == Kind::Counter, "{}", family.name);
            assert!(family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains(['\\', '\n']), "{}", family.name);
        }
    }

    #[test]
    fn what_the_engine_counts_has_a_family() {
        let counters = crate::handoff::counters::Counters::default();
        let has_family = |name: &String| FAMILIES.iter().any(|family| family.has(name));
        let without: Vec<_> = counters.list(&[]).into_iter().map(|(name, _)| name).filter(|name| !has_family(name)).collect();
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn every_metric_is_documented() {
        let document = include_str!("../../docs/admin.md");
        let missing: Vec<_> = FAMILIES.iter().map(|family| family.name).filter(|name| !document.contains(name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
