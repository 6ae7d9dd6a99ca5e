//! Which mutant is awake in this process: the number in `BATON_MUTANT`, or none.
//!
//! With `BATON_MUTANTS_REACHED=FILE` all sleep, and the number of each that would have mattered is appended to the file.

#![allow(missing_docs, clippy::all)]

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const UNREAD: u32 = u32::MAX;
const RECORDING: u32 = u32::MAX - 1;
const MUTANTS_MAX: usize = 65_536;

static AWAKE: AtomicU32 = AtomicU32::new(UNREAD);
static REACHED: [AtomicBool; MUTANTS_MAX] = [const { AtomicBool::new(false) }; MUTANTS_MAX];

/// A constant is computed by the compiler, which cannot be asked later: there every mutant sleeps.
#[inline(always)]
pub const fn is(number: u32) -> bool {
    std::intrinsics::const_eval_select((number,), is_in_constants, is_awake)
}

const fn is_in_constants(_: u32) -> bool {
    false
}

fn is_awake(number: u32) -> bool {
    match AWAKE.load(Ordering::Relaxed) {
        UNREAD => {
            let awake = match std::env::var_os("BATON_MUTANTS_REACHED") {
                Some(_) => RECORDING,
                None => std::env::var("BATON_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            };
            AWAKE.store(awake, Ordering::Relaxed);
            is_awake(number)
        }
        RECORDING => {
            if !REACHED[number as usize].swap(true, Ordering::Relaxed) {
                let file = std::env::var_os("BATON_MUTANTS_REACHED").expect("recording");
                let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).expect("a file to record to");
                file.write_all(format!("{number}\n").as_bytes()).expect("recorded");
            }
            false
        }
        awake => awake == number,
    }
}
