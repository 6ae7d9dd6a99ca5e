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
    /// The setting for all devices, which writes through to each, and its first value.
    general: Option<(sysctl::Name, String)>,
}

impl Setting {
    /// Whether the administrator meanwhile set for all devices what baton had set for one.
    fn is_general_now(&self) -> io::Result<bool> {
        match &self.general {
            Some((name, first)) => Ok(*first != self.ours && sysctl::is(name, &self.ours)?),
            None => Ok(false),
        }
    }

    fn put_back(&self, name: &str) -> io::Result<String> {
        let Self { first, ours, .. } = self;
        Ok(match sysctl::read(name)? {
            // A device that is gone took its settings with it.
            None => format!("left net/{name}: it is gone"),
            Some(now) if now != *ours => format!("left net/{name}={now}: somebody changed it meanwhile"),
            Some(now) if self.is_general_now()? => format!("left net/{name}={now}: it was set for all devices meanwhile"),
            Some(_) => {
                sysctl::write(name, first)?;
                format!("set net/{name} back from {ours} to {first}")
            }
        })
    }
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
        self.change_with(name, ours, None)
    }

    /// The same for a setting of one device that has a `general` one for all devices.
    pub(super) fn change_of_device(&mut self, name: &str, ours: &str, general: &str) -> anyhow::Result<()> {
        let first = sysctl::read(general)?.unwrap_or_default();
        self.change_with(name, ours, Some((general.to_owned(), first)))
    }

    /// Saves what these settings are that the kernel is about to make `ours` along with another one. Gives the names of
    /// those that are something else now.
    pub(super) fn remember(&mut self, settings: &[(sysctl::Name, &str)]) -> anyhow::Result<Vec<sysctl::Name>> {
        let mut remembered = Vec::new();
        for (name, ours) in settings {
            let Some(first) = sysctl::read(name)? else { continue };
            if first != *ours && !self.saved.settings.contains_key(name) {
                self.saved.settings.insert(name.clone(), Setting { first, ours: (*ours).to_owned(), general: None });
                remembered.push(name.clone());
            }
        }
        self.save().with_context(|| format!("saving first values to {}", self.path.display()))?;
        Ok(remembered)
    }

    /// Puts these back, if they are not what they were, and forgets them.
    pub(super) fn put_back(&mut self, names: &[sysctl::Name]) -> anyhow::Result<()> {
        for name in names {
            if let Some(setting) = self.saved.settings.remove(name)
                && sysctl::is(name, &setting.ours)?
            {
                sysctl::write(name, &setting.first)?;
            }
        }
        self.save().with_context(|| format!("saving first values to {}", self.path.display()))
    }

    fn change_with(&mut self, name: &str, ours: &str, general: Option<(sysctl::Name, String)>) -> anyhow::Result<()> {
        let Some(current) = sysctl::read(name)? else { bail!("this kernel has no setting net/{name}") };
        if !self.saved.settings.contains_key(name) {
            if current == ours {
                return Ok(());
            }
            let setting = Setting { first: current.clone(), ours: ours.to_owned(), general };
            self.saved.settings.insert(name.to_owned(), setting);
            self.save().with_context(|| format!("saving first values to {}", self.path.display()))?;
        }
        if current != ours {
            sysctl::write(name, ours)?;
        }
        Ok(())
    }

    /// Puts every value back that is still ours (whoever changed it since had a reason) and forgets it; says which.
    /// One that resists stays in the file, and does not keep the others from going back.
    pub(super) fn restore(&mut self, lines: &mut Vec<String>) -> anyhow::Result<()> {
        let mut failure = None;
        self.saved.settings.retain(|name, setting| match setting.put_back(name) {
            Ok(outcome) => {
                lines.push(outcome);
                false
            }
            Err(error) => {
                failure.get_or_insert(error);
                true
            }
        });
        if let Some(error) = failure {
            self.save().with_context(|| format!("saving first values to {}", self.path.display()))?;
            return Err(error).with_context(|| format!("putting settings back (what remains is in {})", self.path.display()));
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing was saved.
    pub(super) fn is_empty(&self) -> bool {
        self.saved.settings.is_empty()
    }

    /// Where they are saved.
    pub(super) fn path(&self) -> &Path {
        &self.path
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

/// In which run of the kernel a file was written; None when it cannot be read.
pub(super) fn boot_of(path: &Path) -> Option<String> {
    let saved: Saved = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(saved.namespace.boot)
}

impl Saved {
    fn nothing(namespace: &Namespace) -> Self {
        Self { namespace: namespace.clone(), settings: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(namespace: &Namespace) -> Saved {
        let setting = Setting { first: "1".into(), ours: "0".into(), general: None };
        Saved { namespace: namespace.clone(), settings: [("ipv4/tcp_early_demux".to_owned(), setting)].into() }
    }

    #[test]
    fn the_values_of_before_the_first_start_are_found_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let namespace = Namespace::current().unwrap();
        let mut values = FirstValues::load(directory.path(), "bt0", &namespace).unwrap();
        assert_eq!(values.first("ipv4/tcp_early_demux"), None);
        values.saved = saved(&namespace);
        values.save().unwrap();
        let values = FirstValues::load(directory.path(), "bt0", &namespace).unwrap();
        assert_eq!(values.first("ipv4/tcp_early_demux"), Some("1"));
    }

    #[test]
    fn values_of_a_namespace_that_is_gone_say_nothing_about_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let namespace = Namespace::current().unwrap();
        let mut gone = namespace.clone();
        gone.boot = "another".into();
        let mut values = FirstValues::load(directory.path(), "bt0", &gone).unwrap();
        values.saved = saved(&gone);
        values.save().unwrap();
        let values = FirstValues::load(directory.path(), "bt0", &namespace).unwrap();
        assert_eq!(values.first("ipv4/tcp_early_demux"), None);
    }

    #[test]
    fn a_damaged_file_stops_the_start_instead_of_forgetting_values() {
        let directory = tempfile::tempdir().unwrap();
        let namespace = Namespace::current().unwrap();
        fs::write(directory.path().join(format!("bt0-{}.json", namespace.inode)), "{").unwrap();
        assert!(FirstValues::load(directory.path(), "bt0", &namespace).is_err());
    }
}
