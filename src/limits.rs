//! Every bound of the process, in one place, each with its reason.
//!
//! Bounds an operator may set are fields of `policy::Limits` and have their defaults here.

use std::time::Duration;

/// Descriptors a start must have: a dozen of its own, 16 admin clients, and a few for each peer. Systemd gives 1024.
pub const OPEN_FILES_MIN: u64 = 64;
/// How long `baton doctor` waits for the control ports of all other nodes together: a person is waiting.
pub const PEER_PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// SYNs remembered until the kernel's SYN-ACK makes them a connection. 64 Ki x ~100 octets: a SYN flood costs 6 MB and
/// pushes out only other unanswered SYNs (a connection whose SYN was pushed out is served locally).
pub const SYNS_MAX: usize = 65_536;
/// How long a SYN waits for the kernel's SYN-ACK. The kernel answers at once or, with a full backlog, never.
pub const SYN_LIFETIME: Duration = Duration::from_secs(3);
/// Forwarded SYNs remembered until the connection's owner names itself. 64 Ki x ~300 octets: a SYN flood costs 20 MB and
/// pushes out only other connections that have not been opened yet, whose clients repeat their SYN.
pub const OPENINGS_MAX: usize = 65_536;
/// The same at the node that a SYN was forwarded to, until its client has acknowledged the kernel's SYN-ACK: they do not count as
/// connections, so that a SYN flood takes no room from those there are. The oldest goes first; a client that completes its
/// handshake has done so within seconds, in which as many others must come to push it out. 64 Ki x ~300 octets.
pub const OPENINGS_UNFINISHED_MAX: usize = 65_536;
/// How long a forwarded SYN is remembered: Linux repeats its SYN-ACK for 63 s, and a client may answer each.
pub const OPENING_LIFETIME: Duration = Duration::from_secs(75);
/// Owners remembered of connections to shared addresses that did not begin here, in each of two generations: 64 octets each.
pub const KNOWN_OWNERS_MAX: usize = 131_072;
/// A remembered owner that no packet asks for is forgotten after one to two of these: less than a TIME-WAIT each, so that
/// what is remembered is seldom another connection's.
pub const KNOWN_OWNER_LIFETIME: Duration = Duration::from_secs(30);
/// Whom a policy would choose everywhere, and who said that it is not so, is not taken for the owner again for so long: longer than the
/// longest pause between repetitions (120 s in Linux) and between keep-alive probes (75 s), so that the second one asks everybody.
pub const DENIED_OWNER_LIFETIME: Duration = Duration::from_secs(300);
/// Owners looked for in a second: each costs a question to the kernel (5 us) here and one at each peer. What comes beyond that
/// is dropped, and sent again by clients that are real.
pub const OWNER_QUESTIONS_PER_SECOND: usize = 10_000;
/// The same for connections whose handshake is known here: a flood of packets of nothing uses up what is above, and must not keep
/// these from being asked about. A flood of SYNs as well can use up both.
pub const HANDSHAKE_QUESTIONS_PER_SECOND: usize = 2_500;
/// Questions of one peer that are put to the kernel in a second, packets of connections that it takes this node to own included:
/// what an honest one asks in two of its seconds.
pub const PEER_QUESTIONS_PER_SECOND: usize = 2 * (OWNER_QUESTIONS_PER_SECOND + HANDSHAKE_QUESTIONS_PER_SECOND);
/// ICMP errors about connections that nothing is known of that all peers are told of in a second: routers send some for each
/// connection whose path has changed, and repeat them.
pub const ERRORS_TOLD_PER_SECOND: usize = 1_000;
/// How long all peers together may take to say whether they own a connection: many round trips between servers, and less than
/// a client waits before it repeats a segment the second time.
pub const OWNER_PATIENCE: Duration = Duration::from_millis(500);
/// Longest hold of a connection in the kernel's SYN-RECV: the second retransmission of the SYN-ACK would follow at 3 s.
pub const HOLD_MAX: Duration = Duration::from_millis(2_500);
/// Share of a listener's backlog that held connections may take (1/4): the rest stays for connections on their way.
pub const HOLD_BACKLOG_SHARE: usize = 4;
/// Backlog assumed before the kernel has told: the smallest default in common use.
pub const BACKLOG_ASSUMED: u32 = 128;
/// A request still incomplete this long after its first byte is acknowledged on the kernel's behalf: a client that waits
/// for an acknowledgement (Nagle, RFC 896) goes on.
pub const EARLY_ACKNOWLEDGEMENT_AFTER: Duration = Duration::from_millis(50);
/// A client that has said something whole, but nothing to decide by (the SETTINGS of HTTP/2 without a request), may be
/// waiting for the server to speak. It is given this and two round trips to go on: time for a segment that was lost to
/// be sent again (200 ms after a round trip in Linux), and for one that waited for an early acknowledgement.
pub const AWAITS_SERVER_MAX: Duration = Duration::from_millis(300);
/// Segments a client may send unacknowledged at first (RFC 6928): more needed means acknowledging early.
pub const INITIAL_WINDOW_SEGMENTS: usize = 10;
/// How long both ends remember a connection that is over (the TIME-WAIT of Linux).
pub const LINGER: Duration = Duration::from_secs(60);
/// How long a back-end waits for its own kernel's SYN-ACK to a replayed SYN before it says "backlog full".
pub const REPLAY_DEADLINE: Duration = Duration::from_millis(200);
/// How often this host's TCP settings are read again, so that a warning goes when its reason is mended: six small files.
pub const SETTINGS_INTERVAL: Duration = Duration::from_secs(1);
/// Units a client was promised to count windows in that must fit into a back-end's first window, where windows are rounded
/// down to such units: with 8, at most an eighth of what the kernel offers is lost.
pub const PROMISED_UNITS_MIN: u32 = 8;
/// Longest round trip of a client whose replayed handshake gives the kernel a sample: of one millisecond, the least that an
/// echoed timestamp can say. With it the kernel's loss probe waits 4 ms (twice the sample and `TCP_TIMEOUT_MIN_US`).
pub const NEAR_ROUND_TRIP_MAX: Duration = Duration::from_millis(2);
/// Longest hold that the local kernel may take for a part of the round trip: it adds at most three times as much to a
/// retransmission time-out of 200 ms at least, and a client's delayed acknowledgement may add 40 ms as well.
pub const HOLD_TIMED_MAX: Duration = Duration::from_millis(20);
/// Hold and round trip after which, without timestamps, no sample is better than that one: without any the kernel probes
/// for a loss after 1 s, with this one after twice the time.
pub const UNTIMED_AFTER: Duration = Duration::from_millis(500);
/// How long the local kernel may take to answer a repeated SYN before what was withheld is released without: it answers
/// within the write, or not at all.
pub const RELEASE_PATIENCE: Duration = Duration::from_millis(10);
/// How long the SYN-ACK that a repeated SYN asked for is still kept from the client when its connection was let go of without
/// it: longer than it can wait in the TUN's queue, and over when the kernel's own second repetition may follow, 3 s after a
/// SYN that was held for [`HOLD_MAX`] at most.
pub const LATE_SYN_ACK_LIFETIME: Duration = Duration::from_millis(500);
/// Such SYN-ACKs that are waited for at a time, 40 octets each; more than that were never held at once.
pub const LATE_SYN_ACKS_MAX: usize = 16_384;
/// How long a prepared replay waits for commit or abort when the front-end has gone silent.
pub const PREPARED_LIFETIME: Duration = Duration::from_secs(5);
/// Interval between deliveries of the first flight until the kernel has acknowledged it.
pub const DELIVERY_INTERVAL: Duration = Duration::from_millis(50);
/// After this long without an acknowledgement of the first flight the owner returns the connection, if it safely can.
pub const DELIVERY_DEADLINE: Duration = Duration::from_millis(500);
/// How long an owner goes on delivering to a kernel that took nothing when it cannot return the connection: about as long
/// as a client repeats its request to a server whose accept queue is full (after 1, 3 and 7 s).
pub const DELIVERY_PATIENCE: Duration = Duration::from_secs(8);
/// Longest interval between these deliveries: each is one chance at an accept queue that is emptied quickly.
pub const DELIVERY_INTERVAL_OF_NOTHING_TAKEN: Duration = Duration::from_millis(250);
/// Segments a back-end keeps that overtook their commit.
pub const OVERTAKING_SEGMENTS_MAX: usize = 64;
/// Segments kept of one undecided connection (one-octet segments included).
pub const HELD_SEGMENTS_MAX: usize = 4_096;
/// Octets of them: an initial window of the largest segments in common use.
pub const OVERTAKING_BYTES_MAX: usize = 128 << 10;
/// Least time between two questions to the kernel whether a client's RST has ended a connection.
pub const RESET_QUESTIONS_INTERVAL: Duration = Duration::from_millis(50);
/// A connection is looked up in the kernel when it is this old, and then each time it is twice as old: what the kernel forgot
/// without a word costs no more than memory. One whose server has finished is looked up this often: a kernel forgets it soon.
pub const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// But no less often than this: a million idle connections are then a thousand questions a second, of 5 us each.
pub const IDLE_CHECK_INTERVAL_MAX: Duration = Duration::from_secs(15 * 60);
/// A loop that did not run for this long must assume that the kernel went on without it (capture needs a sign of life
/// every second), so no undecided connection may be handed off any more.
pub const STALL: Duration = Duration::from_millis(800);
/// How often the loop shows the kernel that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long guards found at start wait for a peer that owns their connection.
pub const ORPHAN_LIFETIME: Duration = Duration::from_secs(10);
/// Connections of a node, both roles (cluster file: `limits.connections`).
pub const CONNECTIONS_DEFAULT: usize = 1_000_000;
/// Octets held in all first flights together (cluster file: `limits.first_flight_bytes`).
pub const FIRST_FLIGHT_BYTES_DEFAULT: usize = 64 << 20;
/// Alias addresses per front-end address: that many connections of one client port within one linger.
pub const ALIASES_PER_FRONTEND: usize = 64;
/// Largest control message: a first flight and its state fit; a peer that claims more is misbehaving.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Octets a session may have waiting to be written before the peer counts as down.
pub const SESSION_BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Octets a first flight may hold beyond what is inspected: segments that came before the decision took effect.
pub const FIRST_FLIGHT_SLACK_BYTES: usize = 64 << 10;
/// How long the kernel remembers that it forwards a connection over a link by itself; each packet begins that time anew. The
/// next packet after it comes to the process once more.
pub const LEARNED_TIMEOUT: Duration = Duration::from_secs(60);
/// How often neighbours are looked at, and links probed: as often as peers show that they live.
pub const LINK_PROBE_INTERVAL: Duration = PEER_HEARTBEAT_INTERVAL;
/// Probes in a row that may stay without an answer. With one more a link is not used any more: then about as long has passed as
/// until a peer counts as down ([`PEER_SILENCE_MAX`]).
pub const LINK_PROBES_LOST_MAX: u8 = 2;
/// Answers in a row before a link is used again that was lost: two seconds, as long as it takes to lose it. A link that loses one
/// probe in two would otherwise be left and taken again every few seconds, and all its connections be taught anew.
pub const LINK_ANSWERS_TO_RETURN: u8 = 4;
/// Looks in a row at which the kernel had packets to forward over a link and none passed the host's rules. At one look a packet
/// may just be between the two counters; after these, one and a half seconds of retransmissions were dropped.
pub const LINK_HELD_UP_MAX: u8 = 3;
/// How often a firewall that drops what would be forwarded over links is read again.
pub const LINK_FIREWALL_INTERVAL: Duration = Duration::from_secs(30);
/// Where reading says nothing and only trying does, the wait doubles up to this: each try costs connections a second.
pub const LINK_FIREWALL_INTERVAL_MAX: Duration = Duration::from_secs(30 * 60);
/// How often baton looks whether its nf_tables rules are there: four questions to the kernel, of some microseconds. While they
/// are not, the kernel resets clients of handed-off connections that send something.
pub const RULES_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Clients of which is remembered whether they are reached through a peer.
pub const LINK_CLIENTS_MAX: usize = 4096;
/// How long that is believed.
pub const LINK_CLIENT_LIFETIME: Duration = Duration::from_secs(10);
/// How often a client is asked where its reset must be when its owner is lost and its packets passed by here: a kernel answers
/// such questions twice a second at most, and one or the other may get lost.
pub const RESET_QUESTIONS_MAX: u8 = 5;
/// The time between two of them.
pub const RESET_QUESTION_INTERVAL: Duration = Duration::from_secs(1);
/// How long a handed-off connection outlives the session with its owner: a peer that is gone this long is dead, and its
/// clients are reset. (Control alone may break: the overlay goes on meanwhile.)
pub const OWNER_LOST_AFTER: Duration = Duration::from_secs(30);
/// Least time between two challenge ACKs of one connection (RFC 5961, section 7), so that nobody can use us to send traffic:
/// Linux's `tcp_invalid_ratelimit`. A limit for all connections together would tell a stranger, by what is left of it for a
/// connection of their own, whether another one was challenged (CVE-2016-5696).
pub const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

// Health.

/// Octets of an application's answer to a check that are read: a head of 16 KiB and a body to find a word in.
pub const HEALTH_ANSWER_BYTES_MAX: usize = 64 << 10;
/// A peer's word about its applications counts for three of its heartbeats: one may be late and one lost on the way. It is
/// old before the peer counts as down ([`PEER_SILENCE_MAX`]).
pub const PEER_WORD_LIFETIME: Duration = Duration::from_millis(1_500);
/// Cluster files may differ for this long before the log says so: people and programs copy them to one node after the other.
pub const CLUSTER_FILES_MAY_DIFFER: Duration = Duration::from_secs(5);
/// How long a probe that has its verdict waits for the other side's end before it resets: a round trip, and a loss.
pub const PROBE_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a probe sent through the overlay is sent again after this long, as a kernel's least time-out is.
pub const PROBE_REPEAT_INTERVAL: Duration = Duration::from_millis(200);
/// Probes under way at once: each has a socket, and is a handoff for some milliseconds. The others wait.
pub const PROBES_AT_ONCE: usize = 16;
/// Source ports of probes: no kernel gives them to its own clients, so that nobody else's connection can have these ends. In turn,
/// they come again after more than a minute, when nothing remembers the connection before.
pub const PROBE_PORTS: std::ops::RangeInclusive<u16> = 512..=1_023;
/// Least share of its weight that a node has after it has recovered: with none it would get nothing to warm up with.
pub const RAMP_MIN: f32 = 0.05;

// Control channel and overlay.

/// Each node shows its peers this often that it lives: four chances within `PEER_SILENCE_MAX`.
pub const PEER_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// A peer that said nothing for this long is down. Longer than one loss and its retransmission on any link between
/// servers, short enough that a client whose connection was being handed off still waits.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a TCP connection to a peer may take: one lost SYN (retransmitted after 1 s) is forgiven.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long TLS and Hello may take together. Two round trips and a millisecond of arithmetic; the rest is generosity.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Accepted connections that have not shown a key of the cluster. Far more than nodes that start at once, and a
/// stranger who opens more costs 64 descriptors and TLS states (some 2 MB).
pub const UNAUTHENTICATED_MAX: usize = 64;
/// First wait before a peer is dialled again; a restart of the process takes about that long.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a peer is dialled again. Also how long a session must have lasted for the waits to start anew.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a closing connection may take to deliver its last words (the reason of a refusal).
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Octets read from one peer before the others and the packets get their turn.
pub const SESSION_READ_BUDGET_BYTES: usize = 256 << 10;
/// Octets of a cluster, node or service name in a message: what its length field can say.
pub const NAME_BYTES_MAX: usize = 255;
/// Octets of the text in a Goodbye: a few lines for a person.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 1_024;
/// Octets of client bytes in one message: the largest message less its other fields.
pub const FLIGHT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1_024;
/// The same complaint about a peer or a stranger is a warning once in this time; in between it is DEBUG.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// Distinct complaints remembered. More within one interval are DEBUG: somebody is trying to fill the log.
pub const COMPLAINTS_MAX: usize = 64;
/// Overlay packets a straggler may be behind the newest and still be told from a replay: reordering across receive
/// queues stays within some hundred packets, and the window costs 256 octets a key.
pub const REPLAY_WINDOW_PACKETS: u64 = 2_048;
/// Overlay packets sealed under one derived key before the next is derived: AES-GCM's integrity and confidentiality
/// margins (RFC 9001, section 6.6) hold with room to spare.
pub const OVERLAY_PACKETS_PER_KEY: u64 = 1 << 23;
/// Socket buffer asked for in each direction of the overlay: 10 ms at 400 MB/s while the loop is busy elsewhere.
pub const OVERLAY_SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Datagrams of the overlay in one call: what Linux takes since it takes several (`UDP_MAX_SEGMENTS`; later ones take twice as
/// many, but 64 KiB are 45 of the usual length).
pub const OVERLAY_DATAGRAMS_PER_CALL: usize = 64;
/// Longest packet that waits in the TUN's loop for one that continues it: it is copied for that. Longer ones are worth a write of
/// their own.
pub const HELD_PACKET_BYTES_MAX: usize = 16 << 10;
/// Overlay datagrams rejected in one wake before the loop turns to other work: as many as packets are taken, and each costs
/// less than a packet does.
pub const OVERLAY_REJECTED_PER_WAKE: usize = PACKETS_PER_WAKE;
/// A front-end address that a new cluster file has no more is known this long at least: what the TUN's queue holds of its
/// packets (10,000 at most) has been read by then.
pub const RETIRED_FRONTEND_MIN: Duration = Duration::from_secs(10);
/// A cluster file that was changed is read when nothing has happened to it for this long: editors and copies write in
/// pieces, milliseconds apart.
pub const CLUSTER_FILE_QUIET: Duration = Duration::from_millis(200);
/// Longest wait for that.
pub const CLUSTER_FILE_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often the cluster file is looked at where the kernel tells nothing: on network file systems, or when the directory
/// itself was replaced. One question to the file system.
pub const CLUSTER_FILE_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Symbolic links on the way to the cluster file, as many as the kernel follows.
pub const SYMBOLIC_LINKS_MAX: usize = 40;
/// How often the engine tidies up.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// Segments kept beyond a hole: more than an initial window's worth is not a hole but an attack.
pub const SEGMENTS_BEYOND_HOLE_MAX: usize = 64;
/// Farthest a segment may lie ahead: the largest window a SYN-ACK can promise.
pub const OCTETS_AHEAD_MAX: i32 = u16::MAX as i32;
/// How long the client may take to acknowledge a SYN-ACK and still be followed.
pub const HANDSHAKE_LIFETIME: Duration = Duration::from_secs(10);
/// No two SYN-ACKs of one connection are further apart: [`HANDSHAKE_LIFETIME`] and [`HOLD_MAX`] are 12.5 s, and the rest is for
/// a process that was late. A clock that ticked more often ticks in microseconds, 20,000 times in [`HOLD_TIMED_MAX`].
pub const MILLISECONDS_BETWEEN_SYN_ACKS_MAX: u32 = 15_000;
/// A changed backlog or a restarted application is noticed this soon; one question costs some microseconds.
pub const LISTENERS_INTERVAL: Duration = Duration::from_secs(1);
/// While stopping the engine is asked this often whether anything still lives.
pub const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// Packets read from the TUN at the very end: its queue (500 by default) and what the resets add.
pub const LAST_PACKETS_MAX: usize = 2_048;
/// A daemon that says nothing for this long hangs: its loop answers between two packets.
pub const ADMIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients at once: people and a monitor or two.
pub const ADMIN_CLIENTS_MAX: usize = 16;
/// Longest request line: the longest request there is has two short fields.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 4 * 1024;
/// Longest reply line the command line accepts: `FLOWS_MAX` connections of at most 400 octets.
pub const ADMIN_REPLY_BYTES_MAX: u64 = 40 << 20;
/// Most connections one reply lists: more would hold up the loop for longer than a heartbeat.
pub const ADMIN_FLOWS_MAX: usize = 100_000;
/// Scrapers at once: one or two monitors, and a person with curl.
pub const METRICS_CLIENTS_MAX: usize = 8;
/// Scrapers taken, or turned away, at one time.
pub const METRICS_ACCEPTED_PER_WAKE: usize = 64;
/// Longest head of a scraper's request.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most of a path or a name that the connection log tells; a path may be as long as a request.
pub const SUMMARY_VALUE_BYTES_MAX: usize = 512;
/// Lines that the connection log keeps while its file takes none (a pipe that nobody reads, a full disk), in octets. What
/// comes then is counted and not written.
pub const CONNECTION_LOG_BYTES_MAX: usize = 4 << 20;
/// Connections of the local server, of each family, whose packets leave the TUN: 26,000 new ones a second for
/// [`LOCAL_FLOW_LIFETIME`]. The kernel takes some 150 octets for each, when it is used; those beyond go through the TUN.
pub const LOCAL_FLOWS_MAX: usize = 262_144;
/// The kernel forgets one that was silent for this long. A connection that is over takes its room meanwhile; one that goes on
/// costs one packet through the process.
pub const LOCAL_FLOW_LIFETIME: Duration = Duration::from_secs(10);
/// How long one packet that came past the host's firewall proves that others will, with the same port and device: if the
/// firewall changes, connections wait this long at most.
pub const DIRECT_WAY_LIFETIME: Duration = Duration::from_secs(30);
/// Ports and devices of both families of which that is known: 65,536 ports of one device.
pub const DIRECT_WAYS_MAX: usize = 65_536;
/// Changes in one transaction: a message takes 64 KiB, the kernel's answers must fit the socket's buffer (each removal
/// of a missing element is one), and a transaction must not hold up the loop.
pub const GUARDS_PER_TRANSACTION_MAX: usize = 128;
/// A key file is one line of 44 characters. What is longer is not one.
pub const KEY_FILE_BYTES_MAX: u64 = 256;
/// Extension headers walked before giving up. RFC 8200, section 4.1, recommends an order with at most four of those we
/// walk; RFC 8504, section 5.3, allows a limit. It bounds what one hostile packet costs.
pub const EXTENSION_HEADERS_MAX: usize = 8;
/// Packets of one source per wake: a few hundred microseconds, so that a heartbeat is never late because of a flood.
pub const PACKETS_PER_WAKE: usize = 256;
/// How long a deadline waits for the packets that came before it, so that nothing is late that only was not read yet: the
/// TUN's queue (10,000 packets) is read within 200 ms, and a flood that fills it again must not stop the clock.
pub const OVERDUE_MAX: Duration = Duration::from_millis(200);
/// Octets of a capture file (`--pcap`): a forgotten one must not fill the disk.
pub const RECORDING_BYTES_MAX: u64 = 4 << 30;
/// Octets of a capture that wait for the end of the wake.
pub const RECORDING_BUFFER_BYTES: usize = 1 << 20;
/// Octets of a capture that wait for the reader of a pipe; more end the recording.
pub const RECORDING_UNREAD_BYTES_MAX: usize = 8 << 20;
/// Targets of `by: locality` whose nodes are remembered, of all services together: some 100 octets each, and more than a
/// server's cache has files that are worth the name. The one that was not asked for the longest is forgotten first.
pub const LOCALITY_TARGETS_MAX: usize = 131_072;
/// Nodes that may serve one target of `by: locality` together. One that needs more needs no locality.
pub const LOCALITY_REPLICAS_MAX: usize = 8;
/// Events of one wake; more wait for the next.
pub const EVENTS_PER_WAKE: usize = 256;

/// Bounds of everything a cluster file can say, and the defaults that are the policy's own.
pub mod cluster_file {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    /// Room for as many rules as there may be; more is hardly a cluster file.
    pub const FILE_BYTES_MAX: usize = 4 << 20;
    /// A node is an index of 16 bits, and every node keeps a session with every other.
    pub const NODES_MAX: usize = 512;
    /// Services are looked up by address, so their number costs nothing but memory.
    pub const SERVICES_MAX: usize = 256;
    /// Rules are found by host and path, so that their number costs nothing but memory and the time to read them: this
    /// many take some tens of milliseconds.
    pub const RULES_MAX: usize = 10_000;
    /// Matchers compared to find rules that can never match, some tens of milliseconds: beyond, nobody is warned.
    pub const COVERING_COMPARISONS_MAX: usize = 1_000_000;
    /// Values of one matcher, likewise tried in turn.
    pub const ALTERNATIVES_MAX: usize = 256;
    /// How deep `any`, `all` and `not` may be nested in `when`: people do not follow more, and walking it recurses.
    pub const CONDITION_DEPTH_MAX: usize = 4;
    /// Matchers of one rule, its nested conditions together: what one comparison may cost.
    pub const CONDITIONS_MAX: usize = 256;
    /// Every failed candidate costs a round trip of the handoff's time. Of more members of a `send_to` that has `by`, this many
    /// are asked.
    pub const TARGETS_MAX: usize = 16;
    /// `weight`: nobody needs finer shares; 0 takes a node out of a choice.
    pub const WEIGHT: RangeInclusive<u64> = 0..=1_000;
    /// `bound` of a hash, in hundredths: at 1 every connection but the first would be passed on, and from 100 on it bounds nothing.
    pub const BOUND: RangeInclusive<u32> = 101..=10_000;
    /// `low` and `high` of `locality`, in connections: a million is no limit.
    pub const LOCALITY_LOAD: RangeInclusive<u64> = 1..=1_000_000;
    /// `low`: what keeps the servers that LARD was written for busy (Pai et al., ASPLOS 1998).
    pub const LOCALITY_LOW_DEFAULT: u32 = 25;
    /// `high`: what makes connections wait there for long (the same).
    pub const LOCALITY_HIGH_DEFAULT: u32 = 65;
    /// `decay`: below a second sets of nodes come and go with every burst; a day is for ever.
    pub const LOCALITY_DECAY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
    /// `decay`: likewise.
    pub const LOCALITY_DECAY_DEFAULT: Duration = Duration::from_secs(20);
    /// Names of nodes travel in every control session's greeting.
    pub const NAME_BYTES_MAX: usize = 63;
    /// Rule names appear in log lines.
    pub const RULE_NAME_BYTES_MAX: usize = 128;
    /// Patterns are compared with every request.
    pub const PATTERN_BYTES_MAX: usize = 1_024;
    /// Regular expressions of one service.
    pub const REGEXES_MAX: usize = 256;
    /// A compiled regular expression: room for some Unicode classes. All of a service take 64 MiB at most.
    pub const REGEX_BYTES_MAX: usize = 256 << 10;
    /// What one may cache while it is tried, likewise.
    pub const REGEX_CACHE_BYTES_MAX: usize = 256 << 10;
    /// Different JSON fields that the rules of a service may ask about: all are taken from a body in one pass.
    pub const JSON_FIELDS_MAX: usize = 64;
    /// A JSON pointer.
    pub const JSON_POINTER_BYTES_MAX: usize = 256;
    /// How deep the objects and arrays of a body may be nested: reading them recurses. Common parsers stop at 100 to 512.
    pub const JSON_DEPTH_MAX: usize = 64;
    /// Chunks of a chunked body: every one that arrives lets all of them be walked again.
    pub const CHUNKS_MAX: usize = 1_024;
    /// Name of a protocol: what its length field in a ClientHello can say (RFC 7301, section 3.1).
    pub const ALPN_BYTES_MAX: usize = 255;
    /// A ClientHello, whatever `inspect_bytes_max` says: rustls takes 64 KiB with the headers of its records.
    pub const HELLO_BYTES_MAX: usize = 60 << 10;
    /// Header fields of a request; common servers stop at 100.
    pub const HEADERS_MAX: usize = 128;
    /// Names and values of an HTTP/2 request together, decoded: an octet on the wire can stand for 4 KiB. Common servers
    /// stop at 16 to 32 KiB.
    pub const FIELDS_BYTES_MAX: usize = 64 << 10;
    /// Arguments of a command: what Redis takes.
    pub const REDIS_ARGUMENTS_MAX: usize = 1 << 20;
    /// How often each of `inspect_bytes_max` octets may be looked at, on average, when a request comes in pieces. The largest one
    /// in segments of 1,220 octets, the least that IPv6 makes common, takes 108; 16 KiB in pieces of 64 octets take 128.
    pub const LOOKS_PER_BYTE_MAX: usize = 128;
    /// Frames of HTTP/2 before the first request is complete; curl and browsers send three to seven.
    pub const FRAMES_MAX: usize = 128;

    /// `inspect_timeout`: a request takes at least a round trip; the client's own patience ends soon after the other end.
    pub const INSPECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
    /// From the client's first byte until the default decides.
    pub const INSPECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
    /// `inspect_bytes_max`: room for a request line at least; at most what fits well into one control message.
    pub const INSPECT_BYTES_MAX: RangeInclusive<u64> = 256..=256 << 10;
    /// The largest request head common servers take by default is 8 to 16 KiB.
    pub const INSPECT_BYTES_MAX_DEFAULT: usize = 16 << 10;
    /// `silence_timeout`: parked connections are cheap but count against `limits.connections`.
    pub const SILENCE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
    /// How long a silent client is parked until the default decides.
    pub const SILENCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
    /// `handoff_timeout`: two round trips between servers at least; beyond 30 s clients have given up.
    pub const HANDOFF_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
    /// The bound of a whole handoff.
    pub const HANDOFF_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
    /// `health.interval`: a check costs the application a connection; after an hour nobody would call it a check.
    pub const HEALTH_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
    /// What common balancers have.
    pub const HEALTH_INTERVAL_DEFAULT: Duration = Duration::from_secs(2);
    /// `health.timeout`: an application on the same host answers within milliseconds; and not longer than the interval.
    pub const HEALTH_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
    /// How long an application may take.
    pub const HEALTH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
    /// `rise` and `fall`: outcomes in a row; a hundred of the shortest interval are ten seconds.
    pub const HEALTH_IN_A_ROW: RangeInclusive<u64> = 1..=100;
    /// Successes until an application that was down is up.
    pub const HEALTH_RISE_DEFAULT: u32 = 2;
    /// Failures until one that was up is down.
    pub const HEALTH_FALL_DEFAULT: u32 = 3;
    /// `health.body`: a word to look for.
    pub const HEALTH_BODY_BYTES_MAX: usize = 256;
    /// `health.http` and `health.host`: a request must fit one segment.
    pub const HEALTH_PATH_BYTES_MAX: usize = 512;
    /// `slow_start`: an hour warms any cache up.
    pub const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
    /// `probe.interval`: each probe is a handoff, and its ends linger for a minute, of which there are 64 at once.
    pub const PROBE_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
    /// How often each peer is probed.
    pub const PROBE_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
    /// `probe.timeout`: at least what a handoff may take; and not longer than the interval.
    pub const PROBE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
    /// How long a probe may take: a handoff, a delivery that was lost once, and the application.
    pub const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
    /// Probes in a row until a way that was broken counts as whole.
    pub const PROBE_RISE_DEFAULT: u32 = 1;
    /// Probes in a row until a way that was whole counts as broken.
    pub const PROBE_FALL_DEFAULT: u32 = 2;
    /// `limits.connections`: some 450 octets each (`tests/memory.rs`), so that the largest table takes some 7 GB.
    pub const CONNECTIONS: RangeInclusive<u64> = 1..=16_000_000;
    /// `limits.first_flight_bytes`: one largest request at least.
    pub const FIRST_FLIGHT_BYTES: RangeInclusive<u64> = 256 << 10..=64 << 30;
    /// `limits.linger`: below a second late packets of live connections meet a node that forgot them; an hour fills tables.
    pub const LINGER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
    /// `limits.drain_timeout`: zero stops at once; more than a day is not a drain.
    pub const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
    /// How long `stop` waits for handed-off connections.
    pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
}
