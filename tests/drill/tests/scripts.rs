//! The scripts read, and the documentation names each of them.

use drill::Script;
use std::path::Path;

fn scripts(directory: &str) -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let files = std::fs::read_dir(&directory).expect("the directory").map(|entry| entry.expect("an entry").path());
    files
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("a text");
            Script::parse(&file.display().to_string(), &text).unwrap_or_else(|wrong| panic!("{wrong}"))
        })
        .collect()
}

#[test]
fn every_case_is_in_the_documentation_with_its_rule() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/packet-scripts.md"))
        .expect("the document");
    let cases = scripts("cases");
    assert!(cases.len() > 30);
    for case in cases {
        assert!(case.settings.must_fail.is_none(), "{}: a control", case.file);
        let line = format!("- `{}`: {}\n", case.name, case.about[0]);
        assert!(text.contains(&line), "docs/packet-scripts.md lacks: {line}");
    }
}

#[test]
fn every_control_says_how_it_fails() {
    for control in scripts("controls") {
        assert!(control.settings.must_fail.is_some(), "{}", control.file);
    }
}
