//! How a service's applications are checked, as the file writes it.

use super::Protocol;
use super::reader::{Field, Mapping};
use super::report::Problems;
use super::yaml::Value;
use crate::limits::cluster_file as bounds;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How each node checks its own application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: Question,
    /// The port that is asked; that of the application if there is none.
    pub port: Option<u16>,
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row until an application that was down is up.
    pub rise: u32,
    /// Failures in a row until one that was up is down.
    pub fall: u32,
}

/// What an application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it takes a connection.
    Tcp,
    /// An HTTP request.
    Http(HttpQuestion),
}

/// A request, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpQuestion {
    /// Path and query.
    pub path: String,
    /// The `Host` field.
    pub host: String,
    /// Good ones.
    pub status: Vec<RangeInclusive<u16>>,
    /// What the body must contain.
    pub body: Option<String>,
}

/// How the way through each peer is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row until a way that was broken counts as whole.
    pub rise: u32,
    /// Failures in a row until one that was whole counts as broken.
    pub fall: u32,
    /// Whether a peer is passed over while the way through it is broken.
    pub enforce: bool,
}

const KNOWN: [&str; 10] = ["tcp", "http", "port", "host", "status", "body", "interval", "timeout", "rise", "fall"];
const STATUS: RangeInclusive<u16> = 100..=599;
const STATUS_DEFAULT: RangeInclusive<u16> = 200..=299;

/// Reads `health`.
pub(super) fn health(field: &Field<'_>, problems: &mut Problems) -> Option<HealthCheck> {
    let fields = field.mapping(&KNOWN, problems)?;
    let question = question(field, &fields, problems);
    let (interval, timeout) = times(
        &fields,
        (bounds::HEALTH_INTERVAL, bounds::HEALTH_INTERVAL_DEFAULT),
        (bounds::HEALTH_TIMEOUT, bounds::HEALTH_TIMEOUT_DEFAULT),
        problems,
    );
    let rise = in_a_row(&fields, "rise", bounds::HEALTH_RISE_DEFAULT, problems);
    let fall = in_a_row(&fields, "fall", bounds::HEALTH_FALL_DEFAULT, problems);
    let port = match fields.optional("port") {
        Some(field) => Some(field.port(problems)?),
        None => None,
    };
    Some(HealthCheck { question: question?, port, interval, timeout, rise, fall })
}

/// Whether it says `off`. What has gone through a tool of YAML 1.1 says `false` there.
pub(super) fn is_off(field: &Field<'_>) -> bool {
    matches!(field.value, Value::Bool(false)) || matches!(field.value, Value::Text(text) if text == "off")
}

/// Warns of a question that the application would not understand: a check speaks HTTP/1 in clear, and says no PROXY header.
pub(super) fn warn_of_another_protocol(
    field: &Field<'_>,
    health: &HealthCheck,
    inspect: Option<Protocol>,
    is_behind_proxies: bool,
    problems: &mut Problems,
) {
    // What listens on a port of its own may speak what it likes.
    if health.port.is_some() || health.question == Question::Tcp {
        return;
    }
    let http = || field.mapping(&KNOWN, &mut Problems::default()).and_then(|fields| fields.optional("http"));
    let place = http().map_or_else(|| field.place.key(), |http| http.place.key());
    let remedy = "write `tcp: true`, or the `port` on which the application answers plain HTTP";
    let not_http = inspect.filter(|inspect| !inspect.knows(Protocol::Http) && *inspect != Protocol::None);
    if let Some(inspect) = not_http {
        let message = format!("the check asks in plain HTTP/1, and clients of this service speak `{}`", inspect.word());
        problems.warning(&place, message, remedy);
    } else if is_behind_proxies {
        let message = "the check says no PROXY header: an application that demands one refuses it";
        problems.warning(&place, message, remedy);
    }
}

/// Reads `probe`; None when it is off.
pub(super) fn probe(field: &Field<'_>, problems: &mut Problems) -> Option<ProbePlan> {
    if is_off(field) {
        return None;
    }
    let fields = field.mapping(&["interval", "timeout", "rise", "fall", "enforce"], problems)?;
    let (interval, timeout) = times(
        &fields,
        (bounds::PROBE_INTERVAL, bounds::PROBE_INTERVAL_DEFAULT),
        (bounds::PROBE_TIMEOUT, bounds::PROBE_TIMEOUT_DEFAULT),
        problems,
    );
    let rise = in_a_row(&fields, "rise", bounds::PROBE_RISE_DEFAULT, problems);
    let fall = in_a_row(&fields, "fall", bounds::PROBE_FALL_DEFAULT, problems);
    let enforce = fields.optional("enforce").and_then(|field| truth(&field, problems)).unwrap_or(false);
    Some(ProbePlan { interval, timeout, rise, fall, enforce })
}

impl Default for ProbePlan {
    fn default() -> Self {
        Self {
            interval: bounds::PROBE_INTERVAL_DEFAULT,
            timeout: bounds::PROBE_TIMEOUT_DEFAULT,
            rise: bounds::PROBE_RISE_DEFAULT,
            fall: bounds::PROBE_FALL_DEFAULT,
            enforce: false,
        }
    }
}

type Bounded = (RangeInclusive<Duration>, Duration);

/// Interval and timeout; a default timeout is never longer than the interval.
fn times(fields: &Mapping<'_>, interval: Bounded, timeout: Bounded, problems: &mut Problems) -> (Duration, Duration) {
    let read = |name: &str, (bounds, default): Bounded, problems: &mut Problems| {
        fields.optional(name).map_or(Some(default), |field| field.duration(bounds, problems))
    };
    let (default_interval, default_timeout) = (interval.1, timeout.1);
    let (interval, timeout) = (read("interval", interval, problems), read("timeout", timeout, problems));
    let (Some(interval), Some(timeout)) = (interval, timeout) else { return (default_interval, default_timeout) };
    let Some(field) = fields.optional("timeout") else { return (interval, timeout.min(interval)) };
    if timeout > interval {
        let show = |duration| humantime::format_duration(duration).to_string();
        let message = format!("`timeout` is longer than the interval, {} and {}", show(timeout), show(interval));
        problems.error(&field.place, message, format!("write a value up to {}, or a longer `interval`", show(interval)));
    }
    (interval, timeout)
}

fn in_a_row(fields: &Mapping<'_>, name: &str, default: u32, problems: &mut Problems) -> u32 {
    let read = fields.optional(name).and_then(|field| field.integer(bounds::HEALTH_IN_A_ROW, problems));
    read.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
}

fn truth(field: &Field<'_>, problems: &mut Problems) -> Option<bool> {
    match field.value {
        Value::Bool(truth) => Some(*truth),
        _ => {
            field.expected("`true` or `false`", problems);
            None
        }
    }
}

fn question(field: &Field<'_>, fields: &Mapping<'_>, problems: &mut Problems) -> Option<Question> {
    match (fields.optional("tcp"), fields.optional("http")) {
        (Some(tcp), None) => {
            if tcp.value != &Value::Bool(true) {
                problems.error(
                    &tcp.place,
                    format!("`tcp` cannot be {}", tcp.value.describe()),
                    "write `tcp: true`, or `http: /PATH`",
                );
            }
            for name in ["host", "status", "body"] {
                if let Some(field) = fields.optional(name) {
                    let remedy = "leave it out, or write `http: /PATH` instead of `tcp: true`";
                    problems.error(&field.place.key(), format!("`{name}` is about an answer, and `tcp` asks for none"), remedy);
                }
            }
            Some(Question::Tcp)
        }
        (None, Some(http)) => {
            let path = path(&http, problems);
            let host = match fields.optional("host") {
                Some(field) => host(&field, problems),
                None => Some("localhost".to_owned()),
            };
            let status = match fields.optional("status") {
                Some(field) => statuses(&field, problems),
                None => Some(vec![STATUS_DEFAULT]),
            };
            let body = match fields.optional("body") {
                Some(field) => Some(body(&field, problems)?),
                None => None,
            };
            Some(Question::Http(HttpQuestion { path: path?, host: host?, status: status?, body }))
        }
        (Some(tcp), Some(_)) => {
            problems.error(
                &tcp.place.key(),
                "`health` has both `tcp` and `http`",
                "remove one of them; `http` needs a connection, too",
            );
            None
        }
        // What is wrong with it was said if there was anything else.
        (None, None) => {
            problems.error(&field.place.key(), "`health` does not say what to ask", "write `tcp: true`, or `http: /PATH`");
            None
        }
    }
}

/// What can stand in a request line without being quoted.
fn path(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_path {
        let message = format!("{text:?} cannot be asked for");
        problems.error(&field.place, message, "write a path as it stands in a request: it begins with `/`, and has no spaces");
        return None;
    }
    within(field, text, bounds::HEALTH_PATH_BYTES_MAX, problems)
}

fn host(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    let is_host = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    if !is_host {
        problems.error(&field.place, format!("{text:?} cannot be a host"), "write a name or an address, with a port if need be");
        return None;
    }
    within(field, text, bounds::HEALTH_PATH_BYTES_MAX, problems)
}

fn body(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    if text.is_empty() {
        problems.error(&field.place, "`body` is empty, which every body contains", "write some text, or remove the field");
        return None;
    }
    within(field, text, bounds::HEALTH_BODY_BYTES_MAX, problems)
}

fn within(field: &Field<'_>, text: &str, bytes_max: usize, problems: &mut Problems) -> Option<String> {
    if text.len() > bytes_max {
        let message = format!("`{}` has {} bytes", field.name, text.len());
        problems.error(&field.place, message, format!("write at most {bytes_max}"));
        return None;
    }
    Some(text.to_owned())
}

/// One or several, each `200` or `200-299`.
fn statuses(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<RangeInclusive<u16>>> {
    let mut statuses = Vec::new();
    let items = field.one_or_more(problems)?;
    for item in &items {
        match status(item.value) {
            Some(range) => statuses.push(range),
            None => {
                let message = format!("`status` cannot be {}", item.value.describe());
                problems.error(&item.place, message, "write a status or a range of them, from 100 to 599: `200`, `200-299`");
            }
        }
    }
    statuses.sort_by_key(|range| (*range.start(), *range.end()));
    (statuses.len() == items.len()).then_some(statuses)
}

fn status(value: &Value) -> Option<RangeInclusive<u16>> {
    let range = match value {
        Value::Integer(number) => {
            let status = u16::try_from(*number).ok()?;
            status..=status
        }
        Value::Text(text) => {
            let (from, to) = text.split_once('-')?;
            from.trim().parse().ok()?..=to.trim().parse().ok()?
        }
        _ => return None,
    };
    (!range.is_empty() && STATUS.contains(range.start()) && STATUS.contains(range.end())).then_some(range)
}
