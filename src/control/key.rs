//! Keys of a node.
use std::path::Path;
/// An Ed25519 private key as the key file has it.
pub struct PrivateKey {}
impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("PrivateKey") }
}
/// Why a key file cannot be used; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {}
impl PrivateKey {
    /// A fresh key.
    pub fn generate() -> Self { todo!() }
    /// Reads a key file; refuses one that others can read.
    pub fn read(path: &Path) -> Result<Self, KeyError> { let _ = path; todo!() }
    /// One line of base64.
    pub fn to_text(&self) -> String { todo!() }
    /// The raw public key.
    pub fn public_key(&self) -> [u8; 32] { todo!() }
}
