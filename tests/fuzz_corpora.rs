//! Replays what fuzzing has found, with the toolchain everything else is built with: every file of `fuzz/corpus/` and
//! `fuzz/regressions/`, and some mutations of them. `fuzz/grow.sh` makes the corpora grow; `docs/fuzzing.md` tells more.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../fuzz/targets/lib.rs"]
mod targets;

/// Mutated inputs of each target; `BATON_FUZZ_MUTATIONS` sets another number.
const MUTATIONS: usize = 200;

fn directory(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

/// The files of a directory by name; none if it is not there.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(&path).expect("a readable file"))).collect()
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Some octets changed, taken out, doubled, or another input's from there on.
    fn mutate(&mut self, octets: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(octets.len());
            match self.below(5) {
                0 if at < octets.len() => octets[at] = self.next() as u8,
                1 if at < octets.len() => octets[at] ^= 1 << self.below(8),
                2 => octets.truncate(at),
                3 => {
                    let end = at + self.below(16).min(octets.len() - at);
                    let doubled = octets[at..end].to_vec();
                    octets.splice(at..at, doubled);
                }
                _ => {
                    octets.truncate(at);
                    octets.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
    }
}

fn holds(run: targets::Run, name: &str, octets: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| run(octets))).is_err() {
        panic!("{name}: {}", octets.escape_ascii());
    }
}

fn replay(target: &str) {
    let run = targets::ALL.iter().find(|(name, _)| *name == target).expect("a target").1;
    let corpus = files(&directory("corpus", target));
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} is empty: nothing would be tested");
    for (name, octets) in corpus.iter().chain(&files(&directory("regressions", target))) {
        holds(run, name, octets);
    }
    let mutations = std::env::var("BATON_FUZZ_MUTATIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(MUTATIONS);
    let mut random = Random(7);
    for number in 0..mutations {
        let (name, octets) = &corpus[random.below(corpus.len())];
        let mut octets = octets.clone();
        let other = &corpus[random.below(corpus.len())].1;
        random.mutate(&mut octets, other);
        holds(run, &format!("mutation {number}, of {name}"), &octets);
    }
}

macro_rules! replayed {
    ($($target:ident)+) => {
        const REPLAYED: &[&str] = &[$(stringify!($target)),+];
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )+
    };
}

replayed! { admin cluster control engine flight hello http http2 icmp overlay proxy redis segment }

#[test]
fn every_target_is_replayed_and_has_its_shell() {
    let all: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(all, REPLAYED);
    let in_place = |kind: &str| -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind);
        let Ok(entries) = fs::read_dir(root) else { return BTreeSet::new() };
        let names = entries.map(|entry| entry.expect("a readable directory").path());
        names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    };
    let all: BTreeSet<String> = all.into_iter().map(str::to_owned).collect();
    assert_eq!(in_place("fuzz_targets"), all);
    assert_eq!(in_place("corpus"), all);
    assert!(in_place("regressions").is_subset(&all), "findings of no target");
}
