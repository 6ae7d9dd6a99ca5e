//! What `baton check` says about wrong files, word for word.
//!
//! Every `tests/golden/NAME.yaml` has the expected report beside it in `NAME.txt`. After a deliberate change run
//! `BATON_UPDATE_GOLDEN=1 cargo test --test policy_golden` and read the difference.

use baton::policy::ClusterFile;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that are used in spite of what is said about them.
const ONLY_WARNED_OF: &str = "warning-";

fn wrong_files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

fn report(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let result = ClusterFile::parse(&name, &fs::read_to_string(path).unwrap());
    assert_eq!(result.is_ok(), name.starts_with(ONLY_WARNED_OF), "{name}: {result:?}");
    match result {
        Ok(file) => file.warnings.to_string(),
        Err(report) => report.to_string(),
    }
}

#[test]
fn wrong_files_are_explained() {
    let update = std::env::var_os("BATON_UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for path in wrong_files() {
        let said = report(&path);
        let expected_path = path.with_extension("txt");
        if update {
            fs::write(&expected_path, &said).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            differing.push(format!("{}: expected\n{expected}\nbut it says\n{said}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn there_are_many_wrong_files_and_every_kind_of_warning() {
    let (warned_of, wrong): (Vec<_>, Vec<_>) =
        wrong_files().into_iter().partition(|path| path.file_name().unwrap().to_string_lossy().starts_with(ONLY_WARNED_OF));
    assert!(wrong.len() >= 50, "{}", wrong.len());
    let said: String = warned_of.iter().map(|path| report(path)).collect();
    for words in ["can never match", "has no part in any service", "fits nothing", "has only one node to choose from"] {
        assert!(said.contains(words), "nothing is said with {words:?}");
    }
}

#[test]
fn every_problem_begins_with_file_line_and_column() {
    for path in wrong_files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let problems = match ClusterFile::parse(&name, &text) {
            Ok(file) => file.warnings.problems,
            Err(report) => report.problems,
        };
        assert!(!problems.is_empty(), "{name} is right");
        for problem in problems {
            let (line, column) = problem.position.unwrap();
            assert!(problem.to_string().starts_with(&format!("{name}:{line}:{column}: ")), "{problem}");
            assert!(!problem.remedy.is_empty(), "{problem}");
        }
    }
}
