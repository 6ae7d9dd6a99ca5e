//! Tells when the cluster file may have changed: it was written in place, another was renamed over it, or a symbolic link
//! on the way to it leads elsewhere, as it does when a configuration volume is updated. Only suspects; who reads the file
//! knows.

use crate::limits::{CLUSTER_FILE_LOOK_INTERVAL, CLUSTER_FILE_QUIET, CLUSTER_FILE_WAIT_MAX, SYMBOLIC_LINKS_MAX};
use inotify::{Inotify, WatchDescriptor, WatchMask};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

/// Reads of the queue at once: all that the kernel keeps (`fs.inotify.max_queued_events`, 16,384 by default).
const READS_MAX: usize = 256;

/// Watches the directories that the way to the cluster file leads through. A watched file would be lost with the first
/// one that is renamed over it.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// None: the kernel gives no more; then only the looks from time to time are left.
    inotify: Option<Inotify>,
    /// What is watched, and which names in it matter.
    names: HashMap<WatchDescriptor, HashSet<OsString>>,
    /// The first and the last sign of a change that nobody has looked into.
    suspected: Option<(Instant, Instant)>,
    /// What the file was like when it was looked at last.
    stamp: Option<Stamp>,
    look: Instant,
}

/// Enough to tell two states of a file apart, or two files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Begins to watch; what changed before shows in the first look.
    pub fn new(path: &Path, now: Instant) -> Self {
        let inotify = Inotify::init().map_err(|error| {
            log::warn!(
                "cannot watch {}: {error}; a change is noticed within {}s, or at once by `baton reload` (see \
                 fs.inotify.max_user_instances)",
                path.display(),
                CLUSTER_FILE_LOOK_INTERVAL.as_secs()
            );
        });
        let mut watch =
            Self { path: path.to_owned(), inotify: inotify.ok(), names: HashMap::new(), suspected: None, stamp: None, look: now };
        watch.arm();
        watch
    }

    /// The descriptor to register with mio.
    pub fn descriptor(&self) -> Option<i32> {
        self.inotify.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Something happened in a watched directory.
    pub fn handle_event(&mut self, now: Instant) {
        let Some(inotify) = &mut self.inotify else { return };
        let mut buffer = [0; 4096];
        let mut matters = false;
        for _ in 0..READS_MAX {
            let Ok(events) = inotify.read_events(&mut buffer) else { break };
            for event in events {
                let names = self.names.get(&event.wd);
                // An event without a name is about the directory itself, or says that others were lost.
                matters |= event.name.is_none_or(|name| names.is_some_and(|names| names.contains(name)));
            }
        }
        if matters {
            self.suspect(now);
        }
    }

    /// When to call [`Watch::may_have_changed`].
    pub fn poll_timeout(&self) -> Instant {
        self.settled().map_or(self.look, |settled| settled.min(self.look))
    }

    /// A file is written in pieces: only when nothing has happened for a moment is it worth reading.
    fn settled(&self) -> Option<Instant> {
        self.suspected.map(|(first, last)| (last + CLUSTER_FILE_QUIET).min(first + CLUSTER_FILE_WAIT_MAX))
    }

    /// Whether the file should be read again now.
    pub fn may_have_changed(&mut self, now: Instant) -> bool {
        let is_settled = self.settled().is_some_and(|settled| settled <= now);
        if !is_settled && self.look > now {
            return false;
        }
        // Links may lead elsewhere now, so others must be watched: first that, then the look at the file.
        self.arm();
        self.look = now + CLUSTER_FILE_LOOK_INTERVAL;
        let stamp = Stamp::of(&self.path);
        let is_other = std::mem::replace(&mut self.stamp, stamp) != stamp;
        if is_settled {
            self.suspected = None;
        } else if is_other {
            // Perhaps it is being written at this very moment.
            self.suspect(now);
        }
        is_settled
    }

    fn suspect(&mut self, now: Instant) {
        let first = self.suspected.map_or(now, |(first, _)| first);
        self.suspected = Some((first, now));
    }

    fn arm(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut watches = inotify.watches();
        let mut names: HashMap<WatchDescriptor, HashSet<OsString>> = HashMap::new();
        for (directory, name) in way_to(&self.path) {
            match watches.add(&directory, mask) {
                Ok(descriptor) => {
                    names.entry(descriptor).or_default().insert(name);
                }
                Err(error) => log::debug!("cannot watch {}: {error}", directory.display()),
            }
        }
        for old in self.names.keys().filter(|old| !names.contains_key(old)) {
            // It is gone already if the directory is.
            let _ = watches.remove(old.clone());
        }
        self.names = names;
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Every directory entry whose change may make an absolute path lead to another file: symbolic links on the way, and the
/// file itself or the first name that is missing.
fn way_to(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut entries = Vec::new();
    let mut links = 0;
    let mut at = PathBuf::from("/");
    let mut names = reversed_names(path);
    while let Some(name) = names.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        match std::fs::read_link(&here) {
            Ok(target) if links < SYMBOLIC_LINKS_MAX => {
                links += 1;
                entries.push((at.clone(), name));
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                names.extend(reversed_names(&target));
            }
            Ok(_) => return entries,
            Err(error) => {
                if names.is_empty() || error.kind() == io::ErrorKind::NotFound {
                    entries.push((at.clone(), name));
                    return entries;
                }
                at = here;
            }
        }
    }
    entries
}

fn reversed_names(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
