//! Why a connection would be routed as it would be, for `baton explain`. The code that routes does the work; it is only
//! asked to tell.

use super::decide::settles;
use super::inspect::{Content, Reading};
use super::subject::{Origin, Subject};
use super::{Ambiguity, Decision, Examination, Hello, KeySeen, Protocol, Service};
use std::rc::Rc;

/// How an examination came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the engine would be told.
    pub examination: Examination,
    /// What decides in the end: if more bytes are needed and none come, the default.
    pub decision: Decision,
    /// What the choice goes by, if it goes by anything.
    pub key: Option<KeySeen>,
    /// What the rules were compared with, by the names of conditions; empty if the bytes are nothing
    /// complete and clear.
    pub request: Vec<(&'static str, Option<String>)>,
    /// The rules in order, up to the one that matched.
    pub tried: Vec<Tried>,
}

/// One rule of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Name of the rule.
    pub rule: Rc<str>,
    /// Its conditions, one line.
    pub conditions: String,
    /// Why it did not match; none if it did.
    pub unmet: Option<Unmet>,
}

/// The first condition of a rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Where it is in `when`, such as `path`, `header x-shard` or `any[1].host`.
    pub condition: String,
    /// What was compared with it; none if the client sent no such thing.
    pub seen: Option<String>,
    /// The same in words.
    pub reason: String,
}

impl Explanation {
    /// Why the rules were not asked, if they were not because of what the client sent.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.decision.note
    }

    /// Whether the connection would wait for more bytes, and be the default's if none came.
    pub fn needs_more(&self) -> bool {
        self.examination == Examination::NeedMore
    }
}

impl Service {
    /// [`Service::examine`] with its reasons.
    pub fn explain(&self, first_flight: &[u8], origin: impl Into<Origin>) -> Explanation {
        let mut text = Vec::new();
        let (reading, origin) = self.read(first_flight, origin.into(), false, &mut text);
        self.explain_reading(&reading, origin)
    }

    /// [`Service::explain`] for the bytes of a TLS client that says this.
    pub fn explain_hello(&self, hello: Hello, origin: impl Into<Origin>) -> Explanation {
        let reading = match self.inspect {
            Protocol::Tls | Protocol::Auto => Reading::Clear(Content::Tls(hello)),
            Protocol::Http => Reading::Unclear(Ambiguity::NotHttp),
            Protocol::None => Reading::Clear(Content::Nothing),
            Protocol::Redis => Reading::Unclear(Ambiguity::RedisUnreadable),
            // Which bytes it would have is not known.
            Protocol::Raw => Reading::Incomplete,
        };
        self.explain_reading(&reading, origin.into())
    }

    fn explain_reading(&self, reading: &Reading<'_>, origin: Origin) -> Explanation {
        let examination = self.judge(reading, origin, None);
        let decision = match &examination {
            Examination::Decided(decision) => decision.clone(),
            Examination::NeedMore => self.by_default(origin),
        };
        let (request, tried) = match reading {
            Reading::Clear(content) => (content.attributes(origin), self.tried(&Subject::new(content, origin, &self.pointers))),
            Reading::Incomplete | Reading::Unclear(_) => (Vec::new(), Vec::new()),
        };
        let read = match (&examination, reading) {
            (Examination::Decided(Decision { note: None, .. }), Reading::Clear(content)) => {
                Some(Subject::new(content, origin, &self.pointers))
            }
            _ => None,
        };
        let key = decision.choice.key().map(|key| KeySeen {
            key: key.to_string(),
            value: key.seen(read.as_ref(), origin),
            hash: decision.key,
        });
        Explanation { examination, decision, key, request, tried }
    }

    /// The rules one after the other, up to the first that matches or that cannot be told about yet.
    fn tried(&self, subject: &Subject<'_>) -> Vec<Tried> {
        let mut tried = Vec::new();
        for rule in &self.rules {
            let unmet = rule.mismatch(subject);
            let is_last = settles(rule.holds(subject));
            tried.push(Tried { rule: Rc::clone(&rule.name), conditions: rule.conditions(), unmet });
            if is_last {
                break;
            }
        }
        tried
    }
}

impl Content<'_> {
    fn attributes(&self, origin: Origin) -> Vec<(&'static str, Option<String>)> {
        let client = ("client", origin.client.map(|client| client.to_string()));
        match self {
            Self::Http(request) => vec![
                ("method", Some(request.method.to_string())),
                ("host", request.host.as_deref().map(str::to_owned)),
                ("path", Some(String::from_utf8_lossy(&request.path).into_owned())),
                client,
            ],
            Self::Tls(hello) => vec![
                ("sni", hello.sni().map(str::to_owned)),
                ("alpn", hello.alpn_text()),
                ("tls_version", Some(hello.version().to_string())),
                ("ech", Some(hello.has_ech().to_string())),
                client,
            ],
            Self::Raw(raw) => vec![("bytes", Some(raw.shown())), client],
            Self::Redis(command) => vec![
                ("command", Some(command.name.clone())),
                ("key", command.key.map(|key| String::from_utf8_lossy(key).into_owned())),
                client,
            ],
            Self::Nothing => vec![client],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoint, shop};
    use super::*;

    const FAR: &str = "203.0.113.1:4000";

    fn explain(head: &str, client: &str) -> Explanation {
        let request = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        shop("a").services[0].explain(request.as_bytes(), Some(endpoint(client).address))
    }

    #[test]
    fn an_explanation_says_why_each_earlier_rule_did_not_match() {
        let explanation = explain("GET /a%20b HTTP/1.1\nHost: X\nX-Shard: 7", FAR);
        let request: Vec<String> =
            explanation.request.iter().map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("-"))).collect();
        assert_eq!(request, ["method=GET", "host=x", "path=/a b", "client=203.0.113.1"]);
        let lines: Vec<String> = explanation
            .tried
            .iter()
            .map(|tried| {
                let reason = tried.unmet.as_ref().map(|unmet| &*unmet.reason);
                format!("{} ({}): {reason:?}", tried.rule, tried.conditions)
            })
            .collect();
        let expected = [
            "images (method GET or HEAD, path /images/*): Some(\"path /a b fits none of its patterns\")",
            "image host (host img.example.com): Some(\"host x is not among its hosts\")",
            "sharded (header x-shard 7): None",
        ];
        assert_eq!(lines, expected);
        assert_eq!(&*explanation.decision.rule, "sharded");
    }

    #[test]
    fn an_explanation_of_no_match_shows_every_rule_with_what_was_seen() {
        let explanation = explain("GET / HTTP/1.0\nx-shard: 77", FAR);
        let why: Vec<_> = explanation.tried.into_iter().filter_map(|tried| tried.unmet).collect();
        let seen: Vec<(&str, Option<&str>)> = why.iter().map(|unmet| (&*unmet.condition, unmet.seen.as_deref())).collect();
        let expected = [("path", Some("/")), ("host", None), ("header x-shard", Some("77")), ("client", Some("203.0.113.1"))];
        assert_eq!(seen, expected);
        assert_eq!(why[2].reason, "header x-shard has the value \"77\", which is none of its values");
        assert_eq!(&*explanation.decision.rule, "default");
    }

    #[test]
    fn what_is_no_clear_request_is_explained_by_the_default() {
        let unclear = explain("GET /../x HTTP/1.0", FAR);
        assert_eq!((unclear.ambiguity(), unclear.needs_more()), (Some(Ambiguity::PathDots), false));
        assert!(unclear.tried.is_empty() && &*unclear.decision.rule == "default");
        let incomplete = shop("a").services[0].explain(b"GET / HT", Some(endpoint(FAR).address));
        assert_eq!((incomplete.ambiguity(), incomplete.needs_more(), &*incomplete.decision.rule), (None, true, "default"));
    }

    #[test]
    fn what_is_explained_is_what_is_decided() {
        for head in ["GET /images/1 HTTP/1.0", "GET / HTTP/1.1\nHost: img.example.com", "GET / HTTP/1.0", "\0"] {
            for client in [FAR, "192.0.2.9:1"] {
                let explanation = explain(head, client);
                assert_eq!(explanation.examination, Examination::Decided(explanation.decision), "{head}");
            }
        }
    }
}
