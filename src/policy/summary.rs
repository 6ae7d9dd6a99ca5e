//! What a client asked for, in a few words: for the connection log.

use super::Service;
use super::inspect::{Content, Reading};
use super::subject::Origin;
use crate::limits::SUMMARY_VALUE_BYTES_MAX;

/// Names and values, such as `path` and `/images/1`, in the form rules compare; the protocol comes first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary(Vec<(&'static str, String)>);

impl Summary {
    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl Service {
    /// What these first bytes ask for; none if they are not one clear request or hello.
    pub fn summary(&self, first_flight: &[u8], origin: impl Into<Origin>) -> Option<Summary> {
        let mut text = Vec::new();
        match self.read(first_flight, origin.into(), false, &mut text).0 {
            Reading::Clear(content) => Some(content.summary()),
            Reading::Incomplete | Reading::Unclear(_) => None,
        }
    }
}

impl Content<'_> {
    fn summary(&self) -> Summary {
        let mut values = Vec::new();
        let mut say = |name, value: String| values.push((name, shortened(value)));
        match self {
            Self::Http(request) => {
                say("protocol", "http".to_owned());
                say("method", request.method.to_string());
                if let Some(host) = &request.host {
                    say("host", host.to_string());
                }
                say("path", String::from_utf8_lossy(&request.path).into_owned());
            }
            Self::Tls(hello) => {
                say("protocol", "tls".to_owned());
                if let Some(name) = hello.sni() {
                    say("sni", name.to_owned());
                }
                if let Some(protocols) = hello.alpn_text() {
                    say("alpn", protocols);
                }
                say("tls_version", hello.version().to_string());
            }
            Self::Raw(raw) => {
                say("protocol", "raw".to_owned());
                say("bytes", raw.shown());
            }
            Self::Redis(command) => {
                say("protocol", "redis".to_owned());
                say("command", command.name.clone());
                if let Some(key) = command.key {
                    say("key", String::from_utf8_lossy(key).into_owned());
                }
            }
            Self::Nothing => say("protocol", "none".to_owned()),
        }
        Summary(values)
    }
}

/// A path may be as long as a request may be; its beginning says enough.
fn shortened(mut value: String) -> String {
    if value.len() > SUMMARY_VALUE_BYTES_MAX {
        let end = (0..=SUMMARY_VALUE_BYTES_MAX).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        value.truncate(end);
        value.push('…');
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::testing::shop;
    use super::*;

    fn summary(bytes: &str) -> Option<String> {
        let summary = shop("a").services[0].summary(bytes.as_bytes(), Origin::default())?;
        Some(summary.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_request_is_told_in_the_form_rules_compare() {
        let request = "GET /a%20b?x=1 HTTP/1.1\r\nHost: IMG.example.com:80\r\n\r\n";
        assert_eq!(summary(request).as_deref(), Some("protocol=http method=GET host=img.example.com path=/a b"));
        assert_eq!(summary("GET / HTTP/1.0\r\n\r\n").as_deref(), Some("protocol=http method=GET path=/"));
    }

    #[test]
    fn what_is_unclear_or_incomplete_is_not_told() {
        assert_eq!(summary("GET /../x HTTP/1.0\r\n\r\n"), None);
        assert_eq!(summary("GET / HTTP/1.0\r\n"), None);
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let path = format!("/{}", "ä".repeat(SUMMARY_VALUE_BYTES_MAX));
        let told = shortened(path.clone());
        assert!(told.len() <= SUMMARY_VALUE_BYTES_MAX + '…'.len_utf8() && told.ends_with("ä…"));
        assert!(path.starts_with(told.trim_end_matches('…')));
    }
}
