//! The only place that reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock. The loop reads it once per wake and hands it to everybody.
#[allow(clippy::disallowed_methods)]
pub fn clock() -> Instant {
    Instant::now()
}

/// What people call the time.
#[allow(clippy::disallowed_methods)]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Nanoseconds since 1970: different at every start, which is all an epoch needs.
#[allow(clippy::disallowed_methods)]
pub fn wall_clock_nanoseconds() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
