//! What kernel settings were before baton changed them.
//!
//! Written to a file before each change, so that a start after a crash still knows the values of before the *first*
//! start, and the next orderly stop puts those back.

use super::host_lock::Namespace;
use super::sysctl;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The first values of one network namespace and device.
#[derive(Debug)]
pub(super) struct FirstValues {
    path: PathBuf,
    saved: Saved,
}

/// The file's content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Which namespace, in which run of the kernel: a file about another one says nothing.
    namespace: Namespace,
    settings: BTreeMap<sysctl::Name, Setting>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    first: String,
    ours: String,
}

impl FirstValues {
    /// What an earlier life saved, or nothing.
    pub(super) fn load(directory: &Path, device: &str, namespace: &Namespace) -> anyhow::Result<Self> {
        let path = directory.join(format!("{device}-{}.json", namespace.inode));
        let saved = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Saved>(&bytes).with_context(|| {
                format!(
                    "{} is damaged: it says which kernel settings to put back after a crash; \
                     set them by hand, then delete it",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::nothing(namespace),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let saved = if saved.namespace == *namespace { saved } else { Saved::nothing(namespace) };
        Ok(Self { path, saved })
    }

    /// The value of before the first start: None when baton has not changed it.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.saved.settings.get(name).map(|setting| setting.first.as_str())
    }

    /// Sets a value, its first one saved before. A setting that has the value already is not ours and not touched.
    pub(super) fn change(&mut self, name: &str, ours: &str) -> anyhow::Result<()> {
        let Some(current) = sysctl::read(name)? else { bail!("this kernel has no setting net/{name}") };
        if !self.saved.settings.contains_key(name) {
            if current == ours {
                return Ok(());
            }
            let setting = Setting { first: current.clone(), ours: ours.to_owned() };
            self.saved.settings.insert(name.to_owned(), setting);
            self.save().with_context(|| format!("saving first values to {}", self.path.display()))?;
        }
        if current != ours {
            sysctl::write(name, ours)?;
        }
        Ok(())
    }

    /// Puts every value back that is still ours (whoever changed it since had a reason) and forgets it.
    pub(super) fn restore(&mut self) -> anyhow::Result<()> {
        for (name, setting) in &self.saved.settings {
            // A device that is gone took its settings with it.
            if sysctl::is(name, &setting.ours)? {
                sysctl::write(name, &setting.first)?;
            }
        }
        self.saved.settings.clear();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the file as a whole: a crash leaves the old one or the new one.
    fn save(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&self.saved)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

impl Saved {
    fn nothing(namespace: &Namespace) -> Self {
        Self { namespace: namespace.clone(), settings: BTreeMap::new() }
    }
}
