//! What Prometheus scrapes: the counters of `baton stats` with their types and explanations, over HTTP.
//!
//! | module | knows |
//! |---|---|
//! | `families` | every metric there is: its name, type and meaning |
//! | `exposition` | the text format (Prometheus 0.0.4) |
//! | `histogram` | counts of durations by bucket |
//! | `server` | just enough HTTP/1.1 for a scraper; driven by the node's loop |

mod exposition;
mod families;
mod histogram;
pub mod server;

pub use exposition::{CONTENT_TYPE, label_value, text};
pub use families::{FAMILIES, Family, Kind};
pub use histogram::Histogram;

/// A metric's name with its labels, as `baton stats` shows it, and its value.
pub type Sample = (String, serde_json::Number);
