//! TLS for PostgreSQL: libpq's `sslmode`, by rustls.

mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, version};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind, Result};
use verify::{Check, Verifier};

/// When TLS is used and what is verified, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    /// Never.
    Disable,
    /// Only where the server refuses a plain connection.
    Allow,
    /// Where the server offers it, unverified; else plain.
    Prefer,
    /// Always; unverified unless a root certificate is there.
    Require,
    /// Always, from a known issuer.
    VerifyCa,
    /// Always, from a known issuer and for this host.
    VerifyFull,
}

impl SslMode {
    pub(crate) fn parse(text: &str) -> Option<SslMode> {
        Some(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
}

/// The trusted issuers of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// `~/.postgresql/root.crt` if it exists, else the system's where the mode allows it.
    Default,
    /// `sslrootcert=system`.
    System,
    /// `sslrootcert=FILE`.
    File(PathBuf),
}

/// The settings of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    pub(crate) roots: Roots,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// `sslnegotiation=direct` (PostgreSQL 17): TLS from the first byte.
    pub(crate) direct: bool,
    /// `ssl_min_protocol_version=TLSv1.3`.
    pub(crate) only_tls13: bool,
    /// The directory of libpq's default files; none without a home directory.
    pub(crate) home: Option<PathBuf>,
}

impl TlsSettings {
    /// The TLS side of a connection. Reads the files again, so that it uses renewed ones.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let (check, roots) = self.check()?;
        let verifier = Verifier::new(check, roots, algorithms);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions())
            .map_err(|error| {
                Error::new(ErrorKind::Internal, format!("cannot set up TLS: {error}"))
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = self.with_client_certificate(builder)?;
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    /// The same without anything to read, where TLS will not be used.
    pub(crate) fn without_files(&self) -> TlsSettings {
        TlsSettings {
            mode: SslMode::Disable,
            roots: Roots::System,
            certificate: None,
            key: None,
            direct: false,
            only_tls13: self.only_tls13,
            home: None,
        }
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        if self.only_tls13 { &BOTH[..1] } else { &BOTH }
    }

    fn default_file(&self, name: &str) -> Option<PathBuf> {
        let file = self.home.as_ref()?.join(".postgresql").join(name);
        file.exists().then_some(file)
    }

    fn check(&self) -> Result<(Check, Vec<CertificateDer<'static>>)> {
        let file = match &self.roots {
            Roots::File(file) => Some(file.clone()),
            Roots::System => None,
            Roots::Default => self.default_file("root.crt"),
        };
        let check = match self.mode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => Check::Nothing,
            SslMode::Require if file.is_none() => Check::Nothing,
            SslMode::Require | SslMode::VerifyCa => Check::Issuer,
            SslMode::VerifyFull => Check::IssuerAndName,
        };
        let roots = match (check, file) {
            (Check::Nothing, _) => Vec::new(),
            (_, Some(file)) => certificates(&file, "sslrootcert")?,
            (Check::Issuer, None) => return Err(no_root_for_verify_ca()),
            (Check::IssuerAndName, None) => system_roots()?,
        };
        Ok((check, roots))
    }

    fn with_client_certificate(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig> {
        let certificate = self.certificate.clone();
        let Some(certificate) = certificate.or_else(|| self.default_file("postgresql.crt")) else {
            return Ok(builder.with_no_client_auth());
        };
        let key = self.key.clone();
        let Some(key) = key.or_else(|| self.default_file("postgresql.key")) else {
            return Err(Error::new(
                ErrorKind::Setting,
                format!(
                    "the client certificate {} has no key",
                    certificate.display()
                ),
            )
            .with_hint("name the key's file with sslkey"));
        };
        let chain = certificates(&certificate, "sslcert")?;
        let key_der =
            PrivateKeyDer::from_pem_file(&key).map_err(|e| unreadable(&key, "sslkey", e))?;
        builder
            .with_client_auth_cert(chain, key_der)
            .map_err(|error| {
                Error::new(
                    ErrorKind::Setting,
                    format!("the key does not match the client certificate: {error}"),
                )
                .with_location(key.display().to_string())
                .with_hint("sslcert and sslkey must be a pair, the key not encrypted")
            })
    }
}

fn no_root_for_verify_ca() -> Error {
    Error::new(
        ErrorKind::Setting,
        "sslmode=verify-ca has no root certificate to verify with",
    )
    .with_hint("name its file with sslrootcert, or use sslmode=verify-full for the system's roots")
}

/// The certificates of a PEM file; an empty file is a fault.
fn certificates(file: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().map_err(|error| unreadable(file, option, error))?;
    if certificates.is_empty() {
        return Err(unreadable(file, option, "no certificate in it"));
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| unreadable(file, option, error))?;
    }
    Ok(certificates)
}

fn unreadable(file: &Path, option: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Setting, format!("cannot read {option}: {why}"))
        .with_location(file.display().to_string())
        .with_hint(format!("{option} must be a readable file in PEM format"))
}

/// The operating system's trusted issuers, read once: they are many and change with the system.
fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::Setting,
            "the system has no trusted root certificates",
        )
        .with_hint("install the package ca-certificates, or name a file with sslrootcert"));
    }
    Ok(roots.clone())
}
