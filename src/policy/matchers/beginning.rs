//! `starts_with`, `bytes` and `regex`: the first bytes of a stream of any protocol.

use super::super::condition::alternatives;
use super::super::prefix::{Beginning, Begins, Regex as Expression};
use super::super::truth::Unknown;
use super::*;
use crate::limits::cluster_file::{PATTERN_BYTES_MAX, REGEXES_MAX};

type Read = fn(&Field<'_>, Context<'_>, &mut Problems) -> Option<Beginning>;

/// One kind of them: how it is written is all that differs.
macro_rules! beginning {
    ($kind:ident, $name:literal, $read:expr, $reason:literal) => {
        #[doc = concat!("The stream begins with one of these, written as `", $name, "`.")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(in crate::policy) struct $kind(Vec<Beginning>);

        impl Test for $kind {
            const NAME: &'static str = $name;

            fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
                let read: Read = $read;
                let beginnings =
                    alternatives(field, |item: &Field<'_>, problems: &mut Problems| read(item, context, problems), problems)?;
                Some(vec![Self(beginnings)])
            }

            fn holds(&self, subject: &Subject<'_>) -> Truth {
                holds(&self.0, subject)
            }

            fn seen(&self, subject: &Subject<'_>) -> Option<String> {
                seen(subject)
            }

            fn reason(&self, subject: &Subject<'_>) -> String {
                match self.holds(subject) {
                    Truth::Unknown(Unknown::SoFar) => "more bytes will tell".to_owned(),
                    _ => format!("the bytes are {}, {}", seen(subject).unwrap_or_default(), $reason),
                }
            }

            fn values(&self) -> Vec<String> {
                self.0.iter().map(ToString::to_string).collect()
            }

            fn spelling(&self) -> String {
                self.0.iter().map(Beginning::spelling).collect::<Vec<_>>().join(" ")
            }

            fn always(&self) -> bool {
                self.0.iter().any(Beginning::is_any)
            }

            fn covers(&self, other: &Self) -> bool {
                each_is_covered(&self.0, &other.0, Beginning::covers)
            }
        }
    };
}

beginning!(StartsWith, "starts_with", text, "which is none of its texts");
beginning!(Bytes, "bytes", octets, "which begin with none of its bytes");
beginning!(Regex, "regex", expression, "which begin with nothing its expressions fit");

fn holds(beginnings: &[Beginning], subject: &Subject<'_>) -> Truth {
    let Some(raw) = subject.content.raw() else { return Truth::Unknown(Unknown::Forever) };
    Truth::any(beginnings.iter().map(|beginning| match beginning.goes_on(raw.bytes, subject.searches) {
        Begins::Yes => Truth::Yes,
        // No more will be looked at.
        Begins::Open if !raw.is_all => Truth::Unknown(Unknown::SoFar),
        Begins::Open | Begins::No => Truth::No,
    }))
}

fn seen(subject: &Subject<'_>) -> Option<String> {
    subject.content.raw().map(|raw| raw.shown())
}

fn text(item: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Beginning> {
    let text = item.text(problems)?;
    whole(item, text.as_bytes().to_vec(), text.escape_debug().to_string(), problems)
}

/// `16 03 01`: pairs of hexadecimal digits, with or without spaces.
fn octets(item: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Beginning> {
    let text = item.text(problems)?;
    let digits: Option<Vec<u32>> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16)).collect();
    let octets = digits.filter(|digits| digits.len() % 2 == 0).map(|digits| {
        digits.chunks(2).filter_map(|pair| u8::try_from(pair.iter().fold(0, |octet, digit| octet * 16 + digit)).ok()).collect()
    });
    let Some(octets) = octets else {
        let remedy = "write pairs of hexadecimal digits, such as `\"16 03\"`";
        problems.error(&item.place, format!("\"{text}\" is not a row of bytes"), remedy);
        return None;
    };
    whole(item, octets, text.to_owned(), problems)
}

fn whole(item: &Field<'_>, octets: Vec<u8>, written: String, problems: &mut Problems) -> Option<Beginning> {
    if octets.is_empty() || octets.len() > PATTERN_BYTES_MAX {
        let message = format!("`{}` must have from 1 to {PATTERN_BYTES_MAX} bytes", item.name);
        problems.error(&item.place, message, "leave it out to match everything");
        return None;
    }
    Some(Beginning::Octets { octets: octets.into(), written })
}

fn expression(item: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Beginning> {
    let text = item.text(problems)?;
    let count = context.regexes.get() + 1;
    context.regexes.set(count);
    if count > REGEXES_MAX {
        if count == REGEXES_MAX + 1 {
            let message = format!("a service can have at most {REGEXES_MAX} regular expressions");
            problems.error(&item.place, message, "write `starts_with` or `bytes` where they will do");
        }
        return None;
    }
    match Expression::new(text, count - 1) {
        Ok(expression) => {
            if expression.matches_nothing() {
                problems.warning(&item.place, format!("\"{text}\" fits nothing"), "no stream begins so");
            }
            Some(Beginning::Regex(expression))
        }
        Err(why) => {
            let remedy =
                "see https://docs.rs/regex/latest/regex/#syntax for what can be written; it must fit from the first byte on";
            problems.error(&item.place, format!("\"{text}\" is no expression for the first bytes: {why}"), remedy);
            None
        }
    }
}
