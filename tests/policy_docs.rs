//! The description of the cluster file names what the code knows.

use baton::policy::Ambiguity;

const DESCRIPTION: &str = include_str!("../docs/policy.md");

#[test]
fn every_label_of_an_unclear_request_is_described() {
    for kind in Ambiguity::ALL {
        assert!(DESCRIPTION.contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn every_field_of_the_full_example_is_described() {
    let example = include_str!("../examples/every-field.yaml");
    let words = example.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| line.split(['{', ',']));
    let keys = words.filter_map(|word| word.trim().trim_start_matches("- ").split_once(": ")).map(|(key, _)| key.trim());
    let mut count = 0;
    for key in keys.filter(|key| key.len() > 3 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')) {
        assert!(DESCRIPTION.contains(&format!("`{key}")), "{key}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}
