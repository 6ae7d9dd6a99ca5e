//! The TLS profile: TLS 1.3, raw public keys on both sides (RFC 7250), keys pinned, nothing negotiable that need not be.
//!
//! Knows keys. Must not know what is said inside.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, ServerConfig, ServerConnection, SignatureScheme,
};

use crate::control::key::PrivateKey;

/// Keeps the port from being taken for another protocol's (RFC 7301).
const ALPN: &[u8] = b"baton-control";
/// SubjectPublicKeyInfo of an Ed25519 key, less the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A handshake ended because the other side showed another key than it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("key is not the pinned one")]
pub struct WrongKey {
    /// What it showed; None when it was no Ed25519 key.
    pub shown: Option<[u8; 32]>,
}

/// TLS configurations of a node: one to accept with, one for each peer to dial with.
#[derive(Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    clients: Vec<Arc<ClientConfig>>,
}

impl Tls {
    /// `keys` are the public keys of all nodes, in order of their ids.
    pub fn new(key: &PrivateKey, keys: &[[u8; 32]]) -> Result<Self, Error> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
                provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![provider::kx_group::X25519],
            ..provider::default_provider()
        });
        let algorithms = provider.signature_verification_algorithms;
        let signer = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.to_pkcs8()))?;
        let spki = CertificateDer::from([&SPKI_PREFIX[..], &key.public_key()[..]].concat());
        let certified = Arc::new(CertifiedKey::new(vec![spki], signer));

        // A node that shows our own key is ourselves or an impostor; neither is a peer.
        let peers = keys.iter().copied().filter(|peer| *peer != key.public_key()).collect();
        let mut server = ServerConfig::builder_with_details(provider.clone(), Arc::new(NoClock))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Pinned { keys: peers, algorithms }))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.clone())));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let client = |pinned: &[u8; 32]| -> Result<Arc<ClientConfig>, Error> {
            let mut client = ClientConfig::builder_with_details(provider.clone(), Arc::new(NoClock))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { keys: vec![*pinned], algorithms }))
                .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified.clone())));
            client.alpn_protocols = vec![ALPN.to_vec()];
            client.resumption = Resumption::disabled();
            client.enable_sni = false;
            Ok(Arc::new(client))
        };
        Ok(Self { server: Arc::new(server), clients: keys.iter().map(client).collect::<Result<_, _>>()? })
    }

    /// The dialler's side of a handshake with the node of this index.
    pub fn dial(&self, peer: usize) -> Result<Connection, Error> {
        let config = self.clients.get(peer).ok_or_else(|| Error::General("no such node".into()))?;
        // Nobody asks for the name: the key is pinned, and SNI is off.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let mut connection = ClientConnection::new(config.clone(), name)?;
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }

    /// The listener's side of a handshake with whoever dialled.
    pub fn accept(&self) -> Result<Connection, Error> {
        let mut connection = ServerConnection::new(self.server.clone())?;
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }
}

/// The key the other side has proved to hold, once the handshake is complete.
pub fn shown_key(connection: &Connection) -> Option<[u8; 32]> {
    key_in(connection.peer_certificates()?.first()?)
}

/// Whether this is how a peer says that it does not accept our key.
pub const fn is_key_refusal(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

/// The reason in `error`, when it is one of ours.
pub fn wrong_key(error: &Error) -> Option<&WrongKey> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

fn key_in(spki: &CertificateDer<'_>) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// Accepts exactly these keys.
#[derive(Debug)]
struct Pinned {
    keys: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        match key_in(shown) {
            Some(key) if self.keys.contains(&key) => Ok(()),
            shown => Err(CertificateError::Other(OtherError(Arc::new(WrongKey { shown }))).into()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken".into()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Raw public keys do not expire, and there are no tickets: TLS needs no clock here.
#[derive(Debug)]
struct NoClock;

impl rustls::time_provider::TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}
