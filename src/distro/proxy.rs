//! The proxy that the settings name, as tools are told of it, and through which proxy an address is fetched, by the rules
//! of apt-transport-http(1) and apt-transport-https(1). Knows nothing of how a proxy is spoken to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::sandbox::Mount;

/// Where the files of a proxy are in a sandbox.
const DIRECTORY: &str = "/run/mkosi/proxy";

/// What the settings say of the proxy. It changes where bytes come from, never which: nothing of it enters a key.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// `ProxyUrl=`: for all addresses.
    pub url: Option<String>,
    /// `ProxyExclude=`: hosts and domains that are reached without it.
    pub exclude: Vec<String>,
    /// `ProxyPeerCertificate=`: the certificates (PEM) that one over TLS is checked with.
    pub peer_certificate: Option<PathBuf>,
    /// `ProxyClientCertificate=`: the certificate (PEM) to show to one over TLS.
    pub client_certificate: Option<PathBuf>,
    /// `ProxyClientKey=`: the key (PEM) of that.
    pub client_key: Option<PathBuf>,
}

impl Proxy {
    /// The files that a proxy over TLS is spoken to with, and what they are for: where each is in a sandbox, the option
    /// of apt and the variable of git (git-config(1), `http.proxySSLCert` and its kin).
    pub(super) fn files(&self) -> Vec<(&Path, String, &'static str, &'static str)> {
        let tls = self.url.as_ref().is_some_and(|url| url.to_ascii_lowercase().starts_with("https://"));
        let files = [
            (&self.peer_certificate, "peer.pem", "CaInfo", "GIT_PROXY_SSL_CAINFO"),
            (&self.client_certificate, "client.pem", "SslCert", "GIT_PROXY_SSL_CERT"),
            (&self.client_key, "client.key", "SslKey", "GIT_PROXY_SSL_KEY"),
        ];
        files
            .into_iter()
            .filter(|_| tls)
            .filter_map(|(path, name, option, variable)| {
                Some((path.as_deref()?, format!("{DIRECTORY}/{name}"), option, variable))
            })
            .collect()
    }

    /// The mounts of its files.
    pub fn mounts(&self) -> Vec<Mount> {
        let bind = |(source, target, ..): (&Path, String, _, _)| Mount::Bind {
            source: source.to_owned(),
            target: target.into(),
            read_only: true,
            optional: false,
        };
        self.files().into_iter().map(bind).collect()
    }

    /// Variables for tools that use the network.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        if let Some(url) = &self.url {
            for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
                set(name, url);
            }
        }
        if !self.exclude.is_empty() {
            for name in ["no_proxy", "NO_PROXY"] {
                set(name, &self.exclude.join(","));
            }
        }
        for (_, inside, _, variable) in self.files() {
            set(variable, &inside);
        }
        environment
    }

    /// The lines of apt's configuration, for repositories at these addresses. apt has no options for the TLS of a proxy:
    /// it takes those of the address, and for HTTPS those of HTTP where it has no others. A mirror over TLS would be checked
    /// by the proxy's certificates, so they are given only where there is none.
    pub(super) fn acquire<'a>(&self, uris: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(url) = &self.url else { return lines };
        for scheme in ["http", "https"] {
            lines.push(format!("Acquire::{scheme}::Proxy \"{url}\";"));
        }
        let plain = !uris.clone().any(|uri| uri.to_ascii_lowercase().starts_with("https:"));
        for (_, inside, option, _) in self.files().into_iter().filter(|_| plain) {
            lines.push(format!("Acquire::http::{option} \"{inside}\";"));
        }
        // apt knows no `*` in `no_proxy`, and takes its entries for ends of names.
        let hosts: BTreeSet<String> = uris.filter_map(|uri| Some(host(uri.split_once("://")?.1))).collect();
        let word = |host: &&String| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        for host in hosts.iter().filter(|host| self.excludes(host)).filter(word) {
            for scheme in ["http", "https"] {
                lines.push(format!("Acquire::{scheme}::Proxy::{host} \"DIRECT\";"));
            }
        }
        lines
    }

    fn excludes(&self, host: &str) -> bool {
        self.exclude.iter().any(|entry| covers(entry.trim(), host))
    }
}

/// What says how the network is reached: the settings, and lines of apt's configuration.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    /// Names of options in small letters, and their values. The last one of a name counts.
    options: BTreeMap<String, String>,
    settings: Proxy,
}

impl Proxies {
    /// `acquire` has lines as `apt-config dump` prints them, what [`Proxy::acquire`] says among them.
    pub fn new(acquire: &[String], settings: &Proxy) -> Self {
        let option = |line: &String| {
            let (name, value) = line.trim().split_once(' ')?;
            Some((name.to_ascii_lowercase(), value.trim().strip_prefix('"')?.strip_suffix("\";")?.to_owned()))
        };
        Self { options: acquire.iter().filter_map(option).collect(), settings: settings.clone() }
    }

    /// The proxy for an address; none where it is reached directly.
    pub fn of(&self, uri: &str) -> Option<&str> {
        let (scheme, rest) = uri.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let host = host(rest);
        if self.settings.excludes(&host) {
            return None;
        }
        // What is said of http holds for https too, where nothing else is said of that.
        let schemes = if scheme == "https" { ["https", "http"].as_slice() } else { &["http"] };
        let option = |name: String| self.options.get(&name).filter(|value| !value.is_empty());
        let of_host = schemes.iter().find_map(|scheme| option(format!("acquire::{scheme}::proxy::{host}")));
        let of_all = || schemes.iter().find_map(|scheme| option(format!("acquire::{scheme}::proxy")));
        let proxy = of_host.or_else(of_all)?;
        (!proxy.eq_ignore_ascii_case("DIRECT")).then_some(proxy)
    }
}

/// The host in what stands after an address's `//`, in small letters.
fn host(rest: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}

/// Whether an entry of `no_proxy` means a host: the host itself, a domain that it is in, or `*`.
fn covers(entry: &str, host: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    let domain = entry.strip_prefix('*').unwrap_or(&entry).trim_start_matches('.');
    entry == "*"
        || (!domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(lines: &[&str], exclude: &[&str]) -> Proxies {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let exclude = exclude.iter().map(|entry| (*entry).to_owned()).collect();
        Proxies::new(&lines, &Proxy { exclude, ..Proxy::default() })
    }

    #[test]
    fn the_scheme_of_the_address_decides() {
        let both =
            proxies(&["Acquire::http::Proxy \"http://plain:1\";", "Acquire::https::Proxy \"http://tls:2\";"], &[]);
        assert_eq!(both.of("http://a.example/x"), Some("http://plain:1"));
        assert_eq!(both.of("HTTPS://a.example/x"), Some("http://tls:2"));
        let plain = proxies(&["Acquire::http::Proxy \"http://plain:1\";"], &[]);
        assert_eq!(plain.of("https://a.example/x"), Some("http://plain:1"));
        let tls = proxies(&["Acquire::https::Proxy \"http://tls:2\";"], &[]);
        assert_eq!(tls.of("http://a.example/x"), None);
        assert_eq!(both.of("copy:/a"), None);
    }

    #[test]
    fn options_of_a_host_go_before_those_of_all() {
        let found = proxies(
            &[
                "Acquire::http::Proxy \"http://old:1\";",
                "Acquire::http::Proxy \"http://plain:1\";",
                "Acquire::HTTP::Proxy::near.example \"DIRECT\";",
                "Acquire::https::Proxy::far.example \"http://far:3\";",
                "Acquire::Retries \"3\";",
            ],
            &[],
        );
        assert_eq!(found.of("http://a.example/x"), Some("http://plain:1"));
        assert_eq!(found.of("https://a.example/x"), Some("http://plain:1"));
        assert_eq!(found.of("http://near.example:80/x"), None);
        assert_eq!(found.of("https://me:word@FAR.example/x"), Some("http://far:3"));
        assert_eq!(found.of("http://far.example/x"), Some("http://plain:1"));
    }

    #[test]
    fn some_hosts_are_reached_without_a_proxy() {
        let lines = ["Acquire::http::Proxy \"http://p:1\";"];
        let without = |list: &[&str], uri: &str| proxies(&lines, list).of(uri).is_none();
        for entry in ["a.example", "example", ".example", "*.example", " A.Example", "*"] {
            assert!(without(&["x", entry], "http://a.example:8080/x"), "{entry}");
        }
        for entry in ["", "le", "b.a.example", "ample", "a.example.org"] {
            assert!(!without(&[entry], "http://a.example/x"), "{entry}");
        }
        assert!(without(&["::1"], "http://[::1]:80/x") && without(&["10.0.0.1"], "http://10.0.0.1/"));
    }

    #[test]
    fn apt_is_told_of_the_hosts_that_are_excluded() {
        let proxy = Proxy {
            url: Some("http://p:1".to_owned()),
            exclude: vec!["*.example".to_owned(), "::1".to_owned()],
            peer_certificate: Some("/host/ca.pem".into()),
            ..Proxy::default()
        };
        let uris = ["http://a.example/debian", "https://b.other/", "copy:/c", "http://A.example:80/x", "http://[::1]/"];
        let expected = [
            "Acquire::http::Proxy \"http://p:1\";",
            "Acquire::https::Proxy \"http://p:1\";",
            "Acquire::http::Proxy::a.example \"DIRECT\";",
            "Acquire::https::Proxy::a.example \"DIRECT\";",
        ];
        assert_eq!(proxy.acquire(uris.into_iter()), expected);
        assert_eq!(proxy.environment()["no_proxy"], "*.example,::1");
        assert!(proxy.mounts().is_empty() && !proxy.environment().contains_key("GIT_PROXY_SSL_CAINFO"));
        assert!(Proxy { url: None, ..proxy }.acquire(uris.into_iter()).is_empty());
    }

    #[test]
    fn a_proxy_over_tls_has_files() {
        let proxy = Proxy {
            url: Some("https://p:1".to_owned()),
            peer_certificate: Some("/host/ca.pem".into()),
            client_key: Some("/host/own.key".into()),
            ..Proxy::default()
        };
        assert_eq!(proxy.acquire(["http://a.example/", "https://b.example/"].into_iter()).len(), 2);
        let lines = proxy.acquire(["http://a.example/"].into_iter());
        assert_eq!(
            lines[2..],
            [
                "Acquire::http::CaInfo \"/run/mkosi/proxy/peer.pem\";",
                "Acquire::http::SslKey \"/run/mkosi/proxy/client.key\";",
            ]
        );
        assert_eq!(proxy.environment()["GIT_PROXY_SSL_KEY"], "/run/mkosi/proxy/client.key");
        assert_eq!(proxy.mounts().len(), 2);
    }

    proptest! {
        #[test]
        fn never_panics(uri in "(https?://)?(\\PC|[@:/\\[\\]])*", line in "Acquire::(\\PC|[:\"; ])*", entry in "(\\PC|[.,*])*") {
            proxies(&[&line], &[&entry]).of(&uri);
        }
    }
}
