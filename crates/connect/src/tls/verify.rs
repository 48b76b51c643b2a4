//! The requirements on a server's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// How much is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Encryption only.
    Nothing,
    /// A known issuer signed it, and it is valid now.
    Issuer,
    /// The same, and it names the host.
    IssuerAndName,
}

/// rustls' own verification, without the parts that libpq's modes leave out.
#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    store: RootCertStore,
    roots: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        check: Check,
        roots: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Verifier {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        Verifier {
            check,
            store,
            roots: roots.into(),
            algorithms,
        }
    }

    fn verify_issuer(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let verified = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.store,
            intermediates,
            now,
            self.algorithms.all,
        );
        match verified {
            Err(error) if is_ca_itself(&error) && self.is_root(certificate) => Ok(()),
            verified => verified,
        }
    }

    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        self.roots.iter().any(|root| root == certificate)
    }
}

/// `openssl req -x509`, PostgreSQL's own recipe, makes a certificate that is a CA as well. webpki
/// refuses it as a server's after it has checked its time; where it is itself the trusted root, as
/// OpenSSL has it, nothing more is to be verified.
fn is_ca_itself(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("{other:?}").contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Nothing {
            self.verify_issuer(end_entity, intermediates, now)?;
        }
        if self.check == Check::IssuerAndName {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
