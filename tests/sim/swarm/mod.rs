//! Swarm: each seed is a world of its own, with its own topology, workload and faults, and in each of them all rules hold.
//!
//! `BATON_SEEDS=N` for more seeds, `BATON_FIRST_SEED=N` for others, `BATON_SEED=N` for one, with its trace and its packets.

mod application;
mod bytes;
mod client;
mod cluster;
pub mod control;
mod ecn;
mod errors;
mod faults;
mod fragments;
mod kernel;
mod link;
mod node;
mod odd;
mod on_syn;
mod path;
mod plan;
mod process;
mod relabel;
mod rules;
mod run;
mod sabotage;
mod stop;
mod trace;
mod world;
