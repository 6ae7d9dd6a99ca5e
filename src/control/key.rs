//! Keys of a node: Ed25519, as text in files. Knows file modes; must not know TLS sessions.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// PKCS #8 version 1 around an Ed25519 seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// An Ed25519 private key as the key file has it: the 32-octet seed (RFC 8032, section 5.1.5).
pub struct PrivateKey {
    seed: [u8; 32],
    public: [u8; 32],
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl Drop for PrivateKey {
    /// The seed should not outlive the key in memory. `black_box` keeps the compiler from dropping the dead store.
    fn drop(&mut self) {
        self.seed.fill(0);
        std::hint::black_box(&self.seed);
    }
}

/// Why a key file cannot be used; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be opened or read.
    #[error("cannot read key file {path}: {error}. {remedy}", path = .path.display(), remedy = how_to_read(path, error))]
    Unreadable {
        /// The key file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// Others than the owner can read or write the file.
    #[error("key file {path} has mode {mode:04o}: others can use it. Run `chmod 600 {path}`, and replace the key if \
        somebody may have read it", path = .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path names something else than a file.
    #[error("{path} is not a regular file. Give the path of a key file; `baton keygen --out FILE` makes one",
        path = .path.display())]
    NotAFile {
        /// What was given as key file.
        path: PathBuf,
    },
    /// The file holds something else than a key.
    #[error("{path} is not a key file: it must be one line of 44 base64 characters (32 octets). `baton keygen --out \
        FILE` makes one", path = .path.display())]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
    /// A key must not be overwritten: the cluster would refuse the node from then on.
    #[error("{path} exists and is not overwritten. Give another path, or remove the file if no node uses it any more",
        path = .path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The new file cannot be written.
    #[error("cannot write key file {path}: {error}. Give a path in an existing directory you may write to",
        path = .path.display())]
    Unwritable {
        /// The key file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// A public key that is not one.
    #[error("not a public key: it must be 44 base64 characters (32 octets), as `baton keygen` prints it")]
    NotAPublicKey,
}

impl PrivateKey {
    /// A fresh key.
    ///
    /// # Panics
    /// When the kernel has no randomness to give, which it says only before it has booted.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the kernel gives random octets");
        Self::from_seed(seed)
    }

    fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 octets are an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { seed, public }
    }

    /// Reads a key file; refuses one that others can read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |error| KeyError::Unreadable { path: path.to_owned(), error };
        let file = File::open(path).map_err(unreadable)?;
        // The mode of the file that is open, not of whatever the path names by then.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile { path: path.to_owned() });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Vec::new();
        file.take(crate::limits::KEY_FILE_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        let seed = key_octets(text.trim_ascii()).ok_or_else(|| KeyError::NotAKey { path: path.to_owned() });
        text.fill(0);
        std::hint::black_box(&text);
        seed.map(Self::from_seed)
    }

    /// Writes a new key file that only its owner can read; never overwrites one.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeyError::Exists { path: path.to_owned() });
            }
            Err(error) => return Err(KeyError::Unwritable { path: path.to_owned(), error }),
        };
        writeln!(file, "{}", self.to_text()).and_then(|()| file.sync_all()).map_err(|error| {
            // Half a key is no key, and the next attempt must not find it in its way.
            let _ = std::fs::remove_file(path);
            KeyError::Unwritable { path: path.to_owned(), error }
        })
    }

    /// One line of base64.
    pub fn to_text(&self) -> String {
        BASE64.encode(self.seed)
    }

    /// The raw public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// As the TLS library wants it.
    pub(super) fn to_pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.seed[..]].concat()
    }
}

fn how_to_read(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("`baton keygen --out {}` makes one", path.display()),
        io::ErrorKind::PermissionDenied => "Run as the user who owns it, usually root".to_owned(),
        _ => "Give the path of a key file with --key".to_owned(),
    }
}

/// A public key as the cluster file has it.
pub fn public_key_to_text(key: &[u8; 32]) -> String {
    BASE64.encode(key)
}

/// Reads a public key of the cluster file.
pub fn public_key_from_text(text: &str) -> Result<[u8; 32], KeyError> {
    key_octets(text.trim().as_bytes()).ok_or(KeyError::NotAPublicKey)
}

fn key_octets(text: &[u8]) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_written_key_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let key = PrivateKey::generate();
        key.write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", key.to_text()));
        let read = PrivateKey::read(&path).unwrap();
        assert_eq!((read.public_key(), read.to_text()), (key.public_key(), key.to_text()));
        assert!(matches!(PrivateKey::generate().write_new(&path), Err(KeyError::Exists { .. })));
        assert_eq!(PrivateKey::read(&path).unwrap().public_key(), key.public_key());
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        PrivateKey::generate().write_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o610, 0o644] {
            chmod(&path, mode);
            let error = PrivateKey::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        chmod(&path, 0o400);
        assert!(PrivateKey::read(&path).is_ok());
    }

    #[test]
    fn what_is_not_a_key_file_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let missing = PrivateKey::read(&path).unwrap_err().to_string();
        assert!(missing.contains("baton keygen --out"), "{missing}");
        let forbidden = KeyError::Unreadable { path: path.clone(), error: io::ErrorKind::PermissionDenied.into() }.to_string();
        assert!(forbidden.contains("root") && !forbidden.contains("keygen"), "{forbidden}");
        assert!(matches!(PrivateKey::read(directory.path()), Err(KeyError::NotAFile { .. })));
        for text in ["", "hello\n", "AAAA\n", &"A".repeat(5_000)] {
            let _ = fs::remove_file(&path);
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(matches!(PrivateKey::read(&path), Err(KeyError::NotAKey { .. })));
        }
    }

    #[test]
    fn the_public_key_is_the_one_of_rfc_8032_test_1() {
        let seed = public_key_from_text("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        let key = PrivateKey::from_seed(seed);
        assert_eq!(public_key_to_text(&key.public_key()), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(format!("{key:?}"), "PrivateKey");
    }

    #[test]
    fn a_public_key_of_wrong_length_is_refused() {
        for text in ["", "AAAA", "not base64 at all", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"] {
            assert!(public_key_from_text(text).is_err(), "{text}");
        }
    }
}
