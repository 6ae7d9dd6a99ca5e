//! The engine alone, one input at a time: what it answers, and in which order. `tests/sim` shows that whole connections go
//! well; here stand the single rules on which that rests, each where it can be seen to be broken (`tests/wrong-rules.sh`).

mod choice;
mod driver;
mod frontend;
mod health;
mod limits;
mod noise;
mod notes;
mod on_syn;
mod owner;
mod parked;
mod shared;
