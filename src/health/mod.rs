//! Which applications can serve, and how busy they are. Pure: answers, words of peers and the time go in.
//!
//! Knows checks, their outcomes and what nodes say about themselves; must not know connections of clients, sockets or rules.
//!
//! | module | knows |
//! |---|---|
//! | `exchange`, `answer` | one question to an application, and what became of it |
//! | `judge` | how many outcomes in a row make a verdict |
//! | `loads` | what all nodes say, how old it is, and what follows for a choice |

mod answer;
mod exchange;
mod judge;
mod loads;

pub use answer::Failure;
pub use exchange::{Asker, Exchange};
pub use judge::Judge;
pub use loads::{Health, Loads, NodeState, Unfit};
