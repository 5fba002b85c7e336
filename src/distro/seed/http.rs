//! Reads files of a repository over HTTP, or from a directory. Knows nothing of what is in them.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Proxy};

use super::forward::Forward;
use crate::distro::Error;
use crate::distro::proxy::Proxies;
use crate::sandbox::Cancel;

/// Where systems keep the certificates that they trust; the first that is there counts. `SSL_CERT_FILE` goes before.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// How often a transfer that broke off is begun again.
const TRIES: usize = 3;

/// Why a file could not be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The repository doesn't have it.
    NotThere,
    /// The user wants to stop.
    Cancelled,
    /// Anything else, in words.
    Other(String),
}

/// A client for one run.
pub(super) struct Client<'a> {
    agent: Agent,
    proxies: Proxies,
    cancel: &'a Cancel,
}

impl<'a> Client<'a> {
    /// A client that goes through these proxies.
    pub fn new(proxies: Proxies, tls: TlsConfig, cancel: &'a Cancel) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .tls_config(tls)
            .user_agent(concat!("mkosi/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build();
        let agent = Agent::with_parts(config.clone(), Forward::new(config), DefaultResolver::default());
        Self { agent, proxies, cancel }
    }

    /// The contents of a file of at most `limit` bytes.
    pub fn get(&self, uri: &str, limit: u64) -> Result<Vec<u8>, Trouble> {
        self.tried(uri, || {
            let mut bytes = Vec::new();
            self.copy(uri, limit, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Writes a file of `size` bytes to `path`, and gives back its SHA-256 in hexadecimal digits.
    pub fn save(&self, uri: &str, size: u64, path: &Path) -> Result<String, Trouble> {
        self.tried(uri, || {
            let mut file = Hashed { file: std::fs::File::create(path)?, hasher: Sha256::new() };
            self.copy(uri, size, &mut file)?;
            Ok(hex(&file.hasher.finalize()))
        })
    }

    fn tried<T>(&self, uri: &str, action: impl Fn() -> Result<T, ureq::Error>) -> Result<T, Trouble> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            if self.cancel.is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(300 << attempt));
            }
            match action() {
                Ok(value) => return Ok(value),
                Err(ureq::Error::StatusCode(404 | 410)) => return Err(Trouble::NotThere),
                Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Trouble::NotThere);
                }
                Err(ureq::Error::StatusCode(code @ 400..500)) => {
                    return Err(Trouble::Other(format!("{uri}: the server answered {code}")));
                }
                Err(error) => last = format!("{uri}: {error}"),
            }
        }
        if self.cancel.is_cancelled() { Err(Trouble::Cancelled) } else { Err(Trouble::Other(last)) }
    }

    fn copy(&self, uri: &str, limit: u64, to: &mut dyn Write) -> Result<(), ureq::Error> {
        let mut reader: Box<dyn Read> = match uri.strip_prefix("copy:").or_else(|| uri.strip_prefix("file:")) {
            Some(path) => Box::new(std::fs::File::open(path.strip_prefix("//").unwrap_or(path))?),
            None => {
                let proxy = self.proxies.of(uri).map(proxy).transpose()?;
                let answer = self.agent.get(uri).config().proxy(proxy).build().call()?;
                Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader())
            }
        };
        let mut buffer = vec![0; 1 << 16];
        let mut left = limit;
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| io::Error::other(format!("it is larger than the {limit} bytes that it may have")))?;
            to.write_all(buffer.get(..count).unwrap_or_default())?;
        }
    }
}

/// The proxy at an address.
fn proxy(address: &str) -> Result<Proxy, ureq::Error> {
    // Without the user and the password.
    let shown = address.rsplit_once('@').map_or(address, |(_, place)| place);
    Proxy::new(address).map_err(|error| io::Error::other(format!("the proxy {shown} can't be used: {error}")).into())
}

/// A file whose contents are hashed on the way.
struct Hashed {
    file: std::fs::File,
    hasher: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Hexadecimal digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whom connections over TLS trust, and who we are to them: what the host trusts and, where the settings name a proxy
/// over TLS, its certificates and ours.
///
/// # Errors
/// When a file of the proxy can't be read, or has nothing of the kind.
pub(super) fn tls(proxy: &crate::distro::Proxy) -> Result<TlsConfig, Error> {
    let (mut trusted, mut chain, mut key) = (host_certificates(), Vec::new(), None);
    for (path, _, option, _) in proxy.files() {
        let pem = std::fs::read(path).map_err(Error::io("could not read", path))?;
        let what = match option {
            "SslKey" => {
                key = parse_pem(&pem).find_map(|item| match item {
                    Ok(PemItem::PrivateKey(key)) => Some(key),
                    _ => None,
                });
                key.is_none().then_some("key")
            }
            "SslCert" => {
                chain = certificates(&pem);
                chain.is_empty().then_some("certificate")
            }
            _ => {
                let peer = certificates(&pem);
                let none = peer.is_empty();
                trusted.extend(peer);
                none.then_some("certificate")
            }
        };
        if let Some(what) = what {
            return Err(Error::NotPem { path: path.to_owned(), what });
        }
    }
    let mut config = TlsConfig::builder();
    // Else those that the library carries are used.
    if !trusted.is_empty() {
        config = config.root_certs(RootCerts::Specific(Arc::new(trusted)));
    }
    Ok(config.client_cert(own(&chain, key)).build())
}

fn own(chain: &[Certificate<'static>], key: Option<PrivateKey<'static>>) -> Option<ClientCert> {
    (!chain.is_empty()).then_some(())?;
    Some(ClientCert::new_with_certs(chain, key?))
}

/// The certificates that the host trusts, if it says which.
fn host_certificates() -> Vec<Certificate<'static>> {
    let own = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let mut paths = own.into_iter().chain(CERTIFICATES.iter().map(std::path::PathBuf::from));
    paths.find_map(|path| std::fs::read(path).ok()).map(|pem| certificates(&pem)).unwrap_or_default()
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(cancel: &Cancel) -> Client<'_> {
        Client::new(Proxies::default(), TlsConfig::default(), cancel)
    }

    #[test]
    fn reads_a_directory_and_hashes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        let (cancel, uri) = (Cancel::default(), format!("copy:{}/a", dir.path().display()));
        assert_eq!(client(&cancel).get(&uri, 3).unwrap(), b"abc");
        let to = dir.path().join("b");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(client(&cancel).save(&uri, 3, &to).unwrap(), expected);
        assert_eq!(std::fs::read(to).unwrap(), b"abc");
    }

    #[test]
    fn tells_what_is_missing_from_what_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        let cancel = Cancel::default();
        let get = |name: &str| client(&cancel).get(&format!("file://{}/{name}", dir.path().display()), 2);
        assert!(matches!(get("b"), Err(Trouble::NotThere)));
        assert!(matches!(get("a"), Err(Trouble::Other(text)) if text.contains("larger than the 2 bytes")));
    }
}
