//! The engine alone, one input at a time: what it answers, and in which order. `tests/sim` shows that whole connections go
//! well; here stand the single rules on which that rests, each where it can be seen to be broken (`tests/wrong-rules.sh`).

mod choice;
mod chronicle;
mod driver;
mod handed_off;
mod handshake;
mod health;
mod holes;
mod limits;
mod links;
mod noise;
mod notes;
mod offer;
mod on_syn;
mod opening;
mod owner;
mod owners;
mod parked;
mod release;
mod shared;
mod shared_over;
