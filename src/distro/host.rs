//! What the host's own apt is set up to use: its mirrors and its network settings.
//!
//! Only the defaults of a build come from here; nothing of it enters a key or an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Distribution, KEYRINGS, deb822};

/// The settings of apt on the host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Which of [`super::KEYRINGS`] there are among the tools.
    pub keyrings: Vec<&'static str>,
    /// `ID=` of the host's os-release.
    pub id: String,
    /// Where the host's apt finds the distribution's archive, if it is Debian or Ubuntu.
    pub archive: Option<String>,
    /// Where the host's apt finds the security archive.
    pub security: Option<String>,
    /// Lines of apt configuration that say how to reach the network: proxies, retries, clocks that run wrong.
    pub acquire: Vec<String>,
}

/// The parts of `Acquire::` that say how to reach a mirror and nothing about what is wanted from it (apt.conf(5)).
const ACQUIRE: [&str; 9] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::ftp::",
    "Acquire::Retries",
    "Acquire::Check-Date",
    "Acquire::Max-FutureTime",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::EnableSrvRecords",
];

impl Host {
    /// Reads the settings below `root`, `/` for the running system. What can't be read counts as not set: then the
    /// distribution's own mirrors are used.
    pub fn read(root: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let release = [read("etc/os-release"), read("usr/lib/os-release")].into_iter().find(|t| !t.is_empty());
        let release = release.unwrap_or_default();
        let field = |name: &str| {
            let line = release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let keyrings = KEYRINGS.into_iter().filter(|path| root.join(path.trim_start_matches('/')).exists()).collect();
        let mut host = Self { keyrings, id: field("ID"), ..Self::default() };
        host.find_mirrors(&field("VERSION_CODENAME"), &sources_of(&root.join("etc/apt")));
        host
    }

    /// Adds the network settings that apt on the running system reports (`apt-config dump`).
    pub fn with_network_settings(mut self) -> Self {
        if let Ok(output) = Command::new("apt-config").arg("dump").output() {
            self.acquire = network_settings(&String::from_utf8_lossy(&output.stdout));
        }
        self
    }

    /// The mirrors of the host's own archive, if the host is of this distribution.
    pub(super) fn mirrors(&self, distribution: Distribution) -> Option<(&str, Option<&str>)> {
        (self.id == distribution.name()).then_some((self.archive.as_deref()?, self.security.as_deref()))
    }

    fn find_mirrors(&mut self, codename: &str, sources: &[(String, String)]) {
        const SUITES: [&str; 7] = ["stable", "oldstable", "testing", "unstable", "sid", "devel", "rolling"];
        let own = |suite: &str| (!codename.is_empty() && suite == codename) || SUITES.contains(&suite);
        for (uri, suite) in sources {
            if own(suite) {
                self.archive.get_or_insert_with(|| uri.clone());
            } else if suite.strip_suffix("-security").is_some_and(own) {
                self.security.get_or_insert_with(|| uri.clone());
            }
        }
    }
}

/// The `Acquire::` lines of a dump that say how to reach the network.
fn network_settings(dump: &str) -> Vec<String> {
    let wanted = |line: &&str| ACQUIRE.iter().any(|p| line.to_ascii_lowercase().starts_with(&p.to_ascii_lowercase()));
    dump.lines().filter(wanted).filter(|l| !l.ends_with("\"\";")).map(str::to_owned).collect()
}

/// Every pair of URI and suite of binary packages below `etc/apt`, in the order in which apt reads the files.
fn sources_of(etc: &Path) -> Vec<(String, String)> {
    let mut files = vec![etc.join("sources.list")];
    let mut parts: Vec<PathBuf> = std::fs::read_dir(etc.join("sources.list.d"))
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    parts.sort();
    files.extend(parts);
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => found.extend(one_line(&text)),
            Some("sources") => found.extend(stanzas(&text)),
            _ => {}
        }
    }
    found
}

/// The one-line style of sources.list(5): `deb [ options ] uri suite components`.
fn one_line(text: &str) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        Some((words.next()?.trim_end_matches('/').to_owned(), words.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

/// The deb822 style of sources.list(5).
fn stanzas(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for stanza in deb822::parse(text) {
        let off = stanza.get("Enabled").is_some_and(|v| ["no", "false", "0"].contains(&v.trim()));
        let words = |name: &str| stanza.get(name).unwrap_or_default().split_whitespace();
        if off || !words("Types").any(|t| t == "deb") {
            continue;
        }
        for uri in words("URIs") {
            found.extend(words("Suites").map(|suite| (uri.trim_end_matches('/').to_owned(), suite.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(id: &str, list: &str, sources: &str) -> Host {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/apt/sources.list.d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("etc/os-release", &format!("NAME=x\nID={id}\nVERSION_CODENAME=bookworm\n"));
        write("etc/apt/sources.list", list);
        write("etc/apt/sources.list.d/a.sources", sources);
        write("etc/apt/sources.list.d/b.list.off", "deb http://off.example/debian bookworm main\n");
        Host::read(dir.path())
    }

    #[test]
    fn finds_the_mirrors_in_both_styles() {
        let found = host(
            "debian",
            "# deb http://a.example/x bookworm main\ndeb-src http://b.example bookworm main\n\
             deb https://tools.example/apt tool main\n\
             deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n",
            "Types: deb\nURIs: http://s.example/security\nSuites: bookworm-security\nComponents: main\n",
        );
        let expected = ("http://mirror.example/debian", Some("http://s.example/security"));
        assert_eq!(found.mirrors(Distribution::Debian), Some(expected));
        assert_eq!(found.mirrors(Distribution::Ubuntu), None);
    }

    #[test]
    fn disabled_and_source_stanzas_are_passed_over() {
        let found = host(
            "debian",
            "",
            "Enabled: no\nTypes: deb\nURIs: http://a.example\nSuites: bookworm\n\nTypes: deb-src\nURIs: http://b.example\n\
             Suites: bookworm\n\nTypes: deb-src deb\nURIs: http://c.example/\nSuites: bookworm-updates\n bookworm\n",
        );
        assert_eq!(found.mirrors(Distribution::Debian), Some(("http://c.example", None)));
    }

    #[test]
    fn keeps_only_network_settings() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http \"\";\nAcquire::http::Proxy \"http://p:1/\";\n\
                    Acquire::Check-Date \"false\";\nAcquire::Languages:: \"none\";\nDPkg::Post-Invoke:: \"rm x\";\n";
        assert_eq!(network_settings(dump), ["Acquire::http::Proxy \"http://p:1/\";", "Acquire::Check-Date \"false\";"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(deb |\\[|\\]|[a-z/:]|\\PC| |\n)*") {
            one_line(&text);
            stanzas(&text);
            network_settings(&text);
        }
    }
}
