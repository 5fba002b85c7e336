//! Through which proxy an address is fetched, by the rules of apt-transport-http(1) and apt-transport-https(1). Knows
//! nothing of how a proxy is spoken to.

use std::collections::BTreeMap;

/// What says how the network is reached: lines of apt's configuration, and variables.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    /// Names of options in small letters, and their values. The last one of a name counts.
    options: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Proxies {
    /// `acquire` has lines as `apt-config dump` prints them, `environment` variables such as `https_proxy`.
    pub fn new(acquire: &[String], environment: &BTreeMap<String, String>) -> Self {
        let option = |line: &String| {
            let (name, value) = line.trim().split_once(' ')?;
            Some((name.to_ascii_lowercase(), value.trim().strip_prefix('"')?.strip_suffix("\";")?.to_owned()))
        };
        Self { options: acquire.iter().filter_map(option).collect(), environment: environment.clone() }
    }

    /// The proxy for an address; none where it is reached directly.
    pub fn of(&self, uri: &str) -> Option<&str> {
        let (scheme, rest) = uri.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let host = host(rest);
        if self.variable("no_proxy").is_some_and(|list| list.split(',').any(|entry| covers(entry.trim(), &host))) {
            return None;
        }
        // What is said of http holds for https too, where nothing else is said of that.
        let schemes = if scheme == "https" { ["https", "http"].as_slice() } else { &["http"] };
        let option = |name: String| self.options.get(&name).filter(|value| !value.is_empty());
        let of_host = schemes.iter().find_map(|scheme| option(format!("acquire::{scheme}::proxy::{host}")));
        let of_all = || schemes.iter().find_map(|scheme| option(format!("acquire::{scheme}::proxy")));
        let variable = || schemes.iter().find_map(|scheme| self.variable(&format!("{scheme}_proxy")));
        let proxy = of_host.or_else(of_all).map(String::as_str).or_else(variable)?;
        (!proxy.eq_ignore_ascii_case("DIRECT")).then_some(proxy)
    }

    /// A variable, by its name in small letters or else in large ones; an empty one is none.
    fn variable(&self, name: &str) -> Option<&str> {
        let named = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        named(name).or_else(|| named(&name.to_ascii_uppercase())).map(String::as_str)
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

    fn proxies(lines: &[&str], variables: &[(&str, &str)]) -> Proxies {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        Proxies::new(&lines, &variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_scheme_of_the_address_decides() {
        let both = proxies(&[], &[("http_proxy", "http://plain:1"), ("https_proxy", "http://tls:2")]);
        assert_eq!(both.of("http://a.example/x"), Some("http://plain:1"));
        assert_eq!(both.of("HTTPS://a.example/x"), Some("http://tls:2"));
        let plain = proxies(&[], &[("HTTP_PROXY", "http://plain:1")]);
        assert_eq!(plain.of("https://a.example/x"), Some("http://plain:1"));
        let tls = proxies(&[], &[("http_proxy", ""), ("https_proxy", "http://tls:2")]);
        assert_eq!(tls.of("http://a.example/x"), None);
        assert_eq!(both.of("copy:/a"), None);
    }

    #[test]
    fn options_go_before_variables_and_those_of_a_host_before_all() {
        let found = proxies(
            &[
                "Acquire::http::Proxy \"http://old:1\";",
                "Acquire::http::Proxy \"http://plain:1\";",
                "Acquire::HTTP::Proxy::near.example \"DIRECT\";",
                "Acquire::https::Proxy::far.example \"http://far:3\";",
                "Acquire::Retries \"3\";",
            ],
            &[("http_proxy", "http://variable:9"), ("https_proxy", "http://variable:9")],
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
        let without = |list: &str, uri: &str| proxies(&lines, &[("no_proxy", list)]).of(uri).is_none();
        for list in ["a.example", "example", ".example", "*.example", "x, A.Example", "*"] {
            assert!(without(list, "http://a.example:8080/x"), "{list}");
        }
        for list in ["", ",", "le", "b.a.example", "ample", "a.example.org"] {
            assert!(!without(list, "http://a.example/x"), "{list}");
        }
        assert!(without("::1", "http://[::1]:80/x") && without("10.0.0.1", "http://10.0.0.1/"));
    }

    proptest! {
        #[test]
        fn never_panics(uri in "(https?://)?(\\PC|[@:/\\[\\]])*", line in "Acquire::(\\PC|[:\"; ])*", list in "(\\PC|[.,*])*") {
            proxies(&[&line], &[("no_proxy", &list)]).of(&uri);
        }
    }
}
