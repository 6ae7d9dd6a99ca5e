//! `command`: the first command of a Redis client.

use super::super::condition::alternatives;
use super::*;

/// The command is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Command(Vec<String>);

impl Test for Command {
    const NAME: &'static str = "command";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, command, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.content.redis().is_some_and(|command| self.0.contains(&command.name)).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.content.redis().map(|command| command.name.clone())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        format!("command {} is not among its commands", self.seen(subject).unwrap_or_default())
    }

    fn values(&self) -> Vec<String> {
        self.0.clone()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.0)
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this == other)
    }
}

/// In any letter case, as Redis takes it.
fn command(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        let remedy = "write the first word of it: GET, HGETALL, JSON.GET";
        problems.error(&item.place, format!("\"{text}\" is not a command"), remedy);
        return None;
    }
    Some(text.to_ascii_uppercase())
}
