//! A real directory, and a clock that is only counted on.

use super::*;
use crate::node::clock::clock;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

struct Stage {
    directory: tempfile::TempDir,
    watch: Watch,
    now: Instant,
}

impl Stage {
    /// `prepare` makes `shop.yaml` in the directory.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The way to the temporary directory may itself have links.
        let real = fs::canonicalize(directory.path()).unwrap();
        prepare(&real);
        let mut now = clock();
        let mut watch = Watch::new(&real.join("shop.yaml"), now);
        assert!(watch.inotify.is_some());
        // The first look finds the file for the first time, if there is one.
        assert!(!watch.may_have_changed(now));
        now += CLUSTER_FILE_QUIET;
        let _ = watch.may_have_changed(now);
        assert!(!watch.may_have_changed(now));
        Self { directory, watch, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether what `change` does is noticed, by the kernel's word and not by a look.
    fn notices(&mut self, change: impl FnOnce(&Self)) -> bool {
        change(self);
        self.watch.handle_event(self.now);
        assert!(!self.watch.may_have_changed(self.now), "not while it may go on");
        self.now += CLUSTER_FILE_QUIET;
        assert!(self.watch.look > self.now);
        self.watch.may_have_changed(self.now)
    }
}

#[test]
fn a_file_written_in_place_is_noticed() {
    let mut stage = Stage::new(|at| fs::write(at.join("shop.yaml"), "1").unwrap());
    assert!(stage.notices(|stage| fs::write(stage.path("shop.yaml"), "2").unwrap()));
    assert!(stage.notices(|stage| fs::write(stage.path("shop.yaml"), "3").unwrap()));
    assert!(!stage.notices(|_| {}));
}

#[test]
fn a_file_renamed_over_it_is_noticed_again_and_again() {
    let mut stage = Stage::new(|at| fs::write(at.join("shop.yaml"), "1").unwrap());
    for text in ["2", "3", "4"] {
        fs::write(stage.path("new"), text).unwrap();
        assert!(stage.notices(|stage| fs::rename(stage.path("new"), stage.path("shop.yaml")).unwrap()));
    }
}

#[test]
fn a_link_that_leads_elsewhere_is_noticed_and_so_is_the_file_it_leads_to() {
    // As configuration volumes are updated: shop.yaml -> data/shop.yaml, data -> one, then data -> two.
    let mut stage = Stage::new(|at| {
        for version in ["one", "two"] {
            fs::create_dir(at.join(version)).unwrap();
            fs::write(at.join(version).join("shop.yaml"), version).unwrap();
        }
        symlink("one", at.join("data")).unwrap();
        symlink("data/shop.yaml", at.join("shop.yaml")).unwrap();
    });
    assert!(!stage.notices(|stage| fs::write(stage.path("two/shop.yaml"), "2").unwrap()), "nobody looks there yet");
    assert!(stage.notices(|stage| {
        symlink("two", stage.path("new")).unwrap();
        fs::rename(stage.path("new"), stage.path("data")).unwrap();
    }));
    assert!(stage.notices(|stage| fs::write(stage.path("two/shop.yaml"), "3").unwrap()), "now it leads there");
    assert!(!stage.notices(|stage| fs::write(stage.path("one/shop.yaml"), "4").unwrap()));
}

#[test]
fn a_file_that_was_missing_is_noticed_when_it_is_there() {
    let mut stage = Stage::new(|at| fs::create_dir(at.join("other")).unwrap());
    assert!(stage.notices(|stage| fs::write(stage.path("shop.yaml"), "1").unwrap()));
    assert!(stage.notices(|stage| fs::remove_file(stage.path("shop.yaml")).unwrap()));
    assert!(stage.notices(|stage| fs::write(stage.path("shop.yaml"), "1").unwrap()));
}

#[test]
fn what_else_happens_in_the_directory_does_not_matter() {
    let mut stage = Stage::new(|at| fs::write(at.join("shop.yaml"), "1").unwrap());
    assert!(!stage.notices(|stage| {
        fs::write(stage.path("log"), "many lines").unwrap();
        fs::rename(stage.path("log"), stage.path("log.1")).unwrap();
    }));
}

#[test]
fn who_writes_without_end_is_not_waited_for() {
    let mut stage = Stage::new(|at| fs::write(at.join("shop.yaml"), "1").unwrap());
    let began = stage.now;
    let noticed = (0..100).find(|count| {
        fs::write(stage.path("shop.yaml"), count.to_string()).unwrap();
        stage.now += CLUSTER_FILE_QUIET / 2;
        stage.watch.handle_event(stage.now);
        stage.watch.may_have_changed(stage.now)
    });
    assert!(noticed.is_some() && stage.now - began <= CLUSTER_FILE_WAIT_MAX + CLUSTER_FILE_QUIET);
}

#[test]
fn a_directory_that_was_replaced_is_noticed_at_the_next_look() {
    let directory = tempfile::tempdir().unwrap();
    let at = fs::canonicalize(directory.path()).unwrap();
    for version in ["now", "next"] {
        fs::create_dir(at.join(version)).unwrap();
        fs::write(at.join(version).join("shop.yaml"), version).unwrap();
    }
    let mut now = clock();
    let mut watch = Watch::new(&at.join("now/shop.yaml"), now);
    watch.inotify = None;
    assert!(!watch.may_have_changed(now));
    now += CLUSTER_FILE_QUIET;
    assert!(watch.may_have_changed(now));
    fs::rename(at.join("now"), at.join("past")).unwrap();
    fs::rename(at.join("next"), at.join("now")).unwrap();
    now += CLUSTER_FILE_LOOK_INTERVAL - Duration::from_millis(1);
    assert!(!watch.may_have_changed(now));
    now += Duration::from_millis(1);
    assert!(!watch.may_have_changed(now), "it may be being written");
    now += CLUSTER_FILE_QUIET;
    assert!(watch.may_have_changed(now));
    now += CLUSTER_FILE_LOOK_INTERVAL;
    assert!(!watch.may_have_changed(now));
    now += CLUSTER_FILE_QUIET;
    assert!(!watch.may_have_changed(now));
}

#[test]
fn links_in_a_circle_end() {
    let stage = Stage::new(|at| {
        symlink("shop.yaml", at.join("other")).unwrap();
        symlink("other", at.join("shop.yaml")).unwrap();
    });
    assert!(way_to(&stage.watch.path).len() <= SYMBOLIC_LINKS_MAX);
}
