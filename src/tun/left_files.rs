//! Files in the state directory that no process and no network namespace needs any more.
//!
//! They cost nothing but a reader's time: a file about a namespace that is gone is never believed (it names the run of
//! the kernel and the namespace's cookie). So whenever there is a doubt, a file stays.

use super::first_values;
use super::host_lock::{self, Namespace};
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The first process id namespace has this inode in every kernel (PROC_PID_INIT_INO): from there all processes are seen.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Removes what is left over; says what.
pub(super) fn remove(directory: &Path, device: &str, namespace: &Namespace) -> anyhow::Result<Vec<String>> {
    // Listed before the namespaces are: what appears in between belongs to one that exists.
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let paths: BTreeSet<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let existing = existing_namespaces();
    let (mut lines, mut gone) = (Vec::new(), 0);
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "sock") {
            lines.extend(remove_dead_socket(&path)?);
        } else if let Some(file) = File::parse(&path, device)
            && is_left_over(&file, &path, namespace, existing.as_ref())
            && host_lock::is_free(&directory.join(host_lock::file_name(file.namespace)))
        {
            remove_file(&path)?;
            gone += 1;
        }
    }
    if gone > 0 {
        lines.push(format!("removed {gone} files in {} about network namespaces that are gone", directory.display()));
    }
    Ok(lines)
}

/// A file of ours about a network namespace.
struct File {
    namespace: u64,
    has_first_values: bool,
}

impl File {
    fn parse(path: &Path, device: &str) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if let Some(lock) = name.strip_prefix("netns-").and_then(|rest| rest.strip_suffix(".lock")) {
            return Some(Self { namespace: lock.parse().ok()?, has_first_values: false });
        }
        let rest = name.strip_prefix(device)?.strip_prefix('-')?;
        let (number, extension) = rest.split_once('.')?;
        matches!(extension, "json" | "new").then_some(())?;
        Some(Self { namespace: number.parse().ok()?, has_first_values: extension == "json" })
    }
}

fn is_left_over(file: &File, path: &Path, own: &Namespace, existing: Option<&BTreeSet<u64>>) -> bool {
    if file.namespace == own.inode {
        return false;
    }
    let of_another_boot = file.has_first_values && first_values::boot_of(path).is_some_and(|boot| boot != own.boot);
    of_another_boot || existing.is_some_and(|existing| !existing.contains(&file.namespace))
}

/// The inodes of all network namespaces that something holds: a process, an open file, a mount. None when this process
/// cannot see all processes.
fn existing_namespaces() -> Option<BTreeSet<u64>> {
    if fs::metadata("/proc/self/ns/pid").ok()?.ino() != FIRST_PID_NAMESPACE {
        return None;
    }
    let mut existing = BTreeSet::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        if !process.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let process = process.path();
        // A process that ends meanwhile holds nothing.
        if let Ok(namespace) = fs::metadata(process.join("ns/net")) {
            existing.insert(namespace.ino());
        }
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        existing.extend(files.filter_map(|file| namespace_in(fs::read_link(file.path()).ok()?.to_str()?)));
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        existing.extend(mounts.lines().filter_map(namespace_in));
    }
    Some(existing)
}

/// The number in `net:[4026532254]`, as links and lists of mounts have it.
fn namespace_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("net:[")?;
    rest.split_once(']')?.0.parse().ok()
}

/// Removes a socket that was bound and that nobody listens at any more, and nothing else; says so.
pub(super) fn remove_dead_socket(path: &Path) -> anyhow::Result<Option<String>> {
    let dead = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if !dead {
        return Ok(None);
    }
    remove_file(path)?;
    Ok(Some(format!("removed {}: no daemon answers there", path.display())))
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_in_links_and_mounts() {
        assert_eq!(namespace_in("net:[4026532254]"), Some(4_026_532_254));
        assert_eq!(namespace_in("36 25 0:4 net:[17] /run/netns/x rw - nsfs nsfs rw"), Some(17));
        assert_eq!(namespace_in("/dev/null"), None);
    }

    #[test]
    fn files_of_namespaces_that_are_gone_and_dead_sockets_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let own = Namespace::current().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let of_an_earlier_boot = r#"{"namespace":{"inode":2,"cookie":1,"boot":"earlier"},"settings":{}}"#;
        put("bt0-2.json", of_an_earlier_boot);
        let kept = [format!("bt0-{}.json", own.inode), "a.key".into(), "bt1-2.json".into(), "c.sock".into(), "live.sock".into()];
        put(&kept[0], of_an_earlier_boot);
        put(&kept[1], "");
        put(&kept[2], of_an_earlier_boot);
        put(&kept[3], "not a socket");
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.sock")).unwrap());
        let _live = std::os::unix::net::UnixListener::bind(directory.path().join(&kept[4])).unwrap();

        let lines = remove(directory.path(), "bt0", &own).unwrap();
        let mut left: Vec<String> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(left, kept);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(remove(directory.path(), "bt0", &own).unwrap().is_empty(), "nothing is left to do");
    }
}
