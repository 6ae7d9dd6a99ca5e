//! Why something cannot be, and what to do about it.

/// An error with its remedy kept apart. Displayed as `what: remedy`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct Refusal {
    /// What is wrong, and where.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
}

/// An error with a remedy.
pub fn refusal(what: impl Into<String>, remedy: impl Into<String>) -> anyhow::Error {
    Refusal { what: what.into(), remedy: remedy.into() }.into()
}
