//! The bounds of everything a cluster file can say, each with its reason, and the defaults that are the policy's own.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A cluster file is written by people; more than this is not one.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;
/// A node is an index of 16 bits, and every node keeps a session with every other.
pub(super) const NODES_MAX: usize = 512;
/// Services are looked up by address, so their number costs nothing but memory.
pub(super) const SERVICES_MAX: usize = 256;
/// Rules are tried in turn: this many take some tens of microseconds.
pub(super) const RULES_MAX: usize = 1_000;
/// Values of one matcher, likewise tried in turn.
pub(super) const ALTERNATIVES_MAX: usize = 256;
/// Every failed candidate costs a round trip of the handoff's time.
pub(super) const TARGETS_MAX: usize = 16;
/// Names of nodes travel in every control session's greeting.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// Rule names appear in log lines.
pub(super) const RULE_NAME_BYTES_MAX: usize = 128;
/// Patterns are compared with every request.
pub(super) const PATTERN_BYTES_MAX: usize = 1_024;
/// Header fields of a request; common servers stop at 100.
pub(super) const HEADERS_MAX: usize = 128;

/// `inspect_timeout`: a request takes at least a round trip; the client's own patience ends soon after the other end.
pub(super) const INSPECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// From the client's first byte until the default decides.
pub(super) const INSPECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// `inspect_bytes_max`: room for a request line at least; at most what fits well into one control message.
pub(super) const INSPECT_BYTES_MAX: RangeInclusive<u64> = 256..=256 << 10;
/// The largest request head common servers take by default is 8 to 16 KiB.
pub(super) const INSPECT_BYTES_MAX_DEFAULT: usize = 16 << 10;
/// `silence_timeout`: parked connections are cheap but count against `limits.connections`.
pub(super) const SILENCE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// How long a silent client is parked until the default decides.
pub(super) const SILENCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// `handoff_timeout`: two round trips between servers at least; beyond 30 s clients have given up.
pub(super) const HANDOFF_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
/// The bound of a whole handoff.
pub(super) const HANDOFF_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// `limits.connections`: about 300 octets each, so that the largest table takes some 5 GB.
pub(super) const CONNECTIONS: RangeInclusive<u64> = 1..=16_000_000;
/// `limits.first_flight_bytes`: one largest request at least.
pub(super) const FIRST_FLIGHT_BYTES: RangeInclusive<u64> = 256 << 10..=64 << 30;
/// `limits.linger`: below a second late packets of live connections meet a node that forgot them; an hour fills tables.
pub(super) const LINGER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// `limits.drain_timeout`: zero stops at once; more than a day is not a drain.
pub(super) const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
/// How long `stop` waits for handed-off connections.
pub(super) const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
