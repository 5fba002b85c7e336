//! Which repositories a target is built from, and the text of the `.sources` file that says so to apt
//! (sources.list(5), deb822 style).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::archives::{Archives, word};
use super::{Distribution, Error, Host, Proxy, Target};
use crate::sandbox::Mount;

/// What the configuration says of repositories.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `Mirror=`: Debian's archives are looked for below it (`…/debian`, `…/debian-security`), Ubuntu's at it.
    pub mirror: Option<String>,
    /// `LocalMirror=`: takes the place of every other repository. A directory or a URL; needs no signature.
    pub local_mirror: Option<String>,
    /// `Repositories=`: components on top of `main`, `contrib` for instance.
    pub components: Vec<String>,
    /// `Snapshot=`: the archive as it was at a time, `20250520T000000Z` for instance.
    pub snapshot: Option<String>,
    /// `RepositoryKeyCheck=`: whether metadata must be signed.
    pub key_check: bool,
    /// Whether the archive of debug symbols (`*-dbgsym`) is wanted.
    pub debug: bool,
    /// How the network is reached.
    pub proxy: Proxy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mirror: None,
            local_mirror: None,
            components: Vec::new(),
            snapshot: None,
            key_check: true,
            debug: false,
            proxy: Proxy::default(),
        }
    }
}

/// The directories of apt's configuration (apt.conf(5), `Dir::Etc`) whose files a sandbox tree can add to.
pub const ETC: [&str; 5] = ["apt.conf.d", "auth.conf.d", "preferences.d", "sources.list.d", "trusted.gpg.d"];

/// One suite of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the repository is.
    pub uri: String,
    /// The suite below `dists/`.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// The keyring that must have signed it; without one it is trusted unsigned.
    pub signed_by: Option<PathBuf>,
    /// Whether a mirror that doesn't carry it is fine.
    pub optional: bool,
}

/// The repositories of one target, and how to reach them.
#[derive(Clone, Debug)]
pub struct Repositories {
    /// What is built from them.
    pub target: Target,
    /// The suites.
    pub sources: Vec<Source>,
    /// More files below `etc/apt` by their path there: the user's own `sources.list.d/x.sources`,
    /// `preferences.d/x.pref`, `apt.conf.d/x.conf`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What these need in the sandbox: keyrings, directories of local repositories.
    pub mounts: Vec<Mount>,
    /// apt configuration that says how to reach the network. Never part of a key.
    pub acquire: Vec<String>,
    /// What the settings say of it.
    pub proxy: Proxy,
    /// Whether metadata must be signed.
    pub key_check: bool,
}

impl Repositories {
    /// The repositories that the settings ask for; where they name no mirror and the host is of the same
    /// distribution, those that the host's own apt uses.
    ///
    /// # Errors
    /// When the archive's keyring is missing, a value can't stand in a sources file, or the distribution doesn't
    /// have the architecture.
    pub fn new(target: &Target, settings: &Settings, host: &Host) -> Result<Self, Error> {
        if target.architecture.debian().is_empty() {
            return Err(Error::Architecture {
                distribution: target.distribution.name(),
                architecture: target.architecture.name().to_owned(),
            });
        }
        let mut repositories = Self {
            target: target.clone(),
            sources: Vec::new(),
            files: BTreeMap::new(),
            mounts: Vec::new(),
            acquire: host.acquire.clone(),
            proxy: settings.proxy.clone(),
            key_check: settings.key_check,
        };
        repositories.add(settings, host)?;
        if let Some(url) = &settings.proxy.url {
            word("ProxyUrl=", url)?;
        }
        let uris = repositories.sources.iter().map(|source| source.uri.as_str());
        let lines = settings.proxy.acquire(uris);
        repositories.acquire.extend(lines);
        Ok(repositories)
    }

    fn add(&mut self, settings: &Settings, host: &Host) -> Result<(), Error> {
        let target = self.target.clone();
        let release = word("Release=", &target.release)?;
        if let Some(mirror) = &settings.local_mirror {
            self.add_local(word("LocalMirror=", mirror)?, release);
            return Ok(());
        }
        let archives = Archives::find(&target, settings, host)?;
        let keyring = keyring(target.distribution, settings.key_check, &host.keyrings, &archives.main)?;
        let mut components = vec!["main".to_owned()];
        for component in &settings.components {
            components.push(word("Repositories=", component)?.to_owned());
        }
        for (uri, suite, optional) in archives.suites(release, settings) {
            let (components, signed_by) = (components.clone(), keyring.clone());
            self.sources.push(Source { uri, suite, components, signed_by, optional });
        }
        Ok(())
    }

    fn add_local(&mut self, mirror: &str, release: &str) {
        let path = mirror.strip_prefix("file://").or(mirror.strip_prefix("file:")).unwrap_or(mirror);
        let uri = if path.starts_with('/') {
            let (source, target) = (PathBuf::from(path), PathBuf::from(path));
            self.mounts.push(Mount::Bind { source, target, read_only: true, optional: false });
            // `file:` would leave links to the repository in the place of the lists, which then change under us.
            format!("copy:{path}")
        } else {
            mirror.to_owned()
        };
        let components = vec!["main".to_owned()];
        self.sources.push(Source { uri, suite: release.to_owned(), components, signed_by: None, optional: false });
    }

    /// What stands in apt's `Dir::Etc`, for which `directory` is taken: the user's own files, and the directories.
    pub fn etc(&self, directory: &str) -> Vec<Mount> {
        let directories =
            ETC.iter().map(|name| Mount::Directory { target: format!("{directory}/{name}").into(), mode: 0o755 });
        let files = self.files.iter().map(|(path, contents)| Mount::File {
            target: format!("{directory}/{path}").into(),
            contents: contents.clone(),
            mode: 0o644,
        });
        directories.chain(files).collect()
    }

    /// The text of the `.sources` file.
    pub fn text(&self) -> String {
        self.sources.iter().map(|source| stanza("deb", source)).collect()
    }

    /// The text of the `.sources` file that an image which has apt itself is given: the distribution's official
    /// archives with sources, whatever mirror it was built from.
    ///
    /// # Errors
    /// When a value can't stand in a sources file.
    pub fn image_text(target: &Target, components: &[String]) -> Result<String, Error> {
        let settings = Settings { key_check: false, components: components.to_vec(), ..Settings::default() };
        let official = Self::new(target, &settings, &Host::default())?;
        let keyring = Some(PathBuf::from(keyring_of(target.distribution).0));
        let signed = |source: &Source| Source { signed_by: keyring.clone(), ..source.clone() };
        Ok(official.sources.iter().map(|source| stanza("deb deb-src", &signed(source))).collect())
    }
}

fn stanza(types: &str, source: &Source) -> String {
    let Source { uri, suite, components, signed_by, .. } = source;
    let trust = match signed_by {
        Some(keyring) => format!("Signed-By: {}", keyring.display()),
        None => "Trusted: yes".to_owned(),
    };
    format!("Types: {types}\nURIs: {uri}\nSuites: {suite}\nComponents: {}\n{trust}\n\n", components.join(" "))
}

/// The keyrings that sign the archives: of Debian, and of Ubuntu.
pub const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"];

/// The keyring that signs a distribution's archive, and the package that has it.
fn keyring_of(distribution: Distribution) -> (&'static str, &'static str) {
    let [debian, ubuntu] = KEYRINGS;
    match distribution {
        Distribution::Debian => (debian, "debian-archive-keyring"),
        Distribution::Ubuntu => (ubuntu, "ubuntu-keyring"),
    }
}

fn keyring(distribution: Distribution, check: bool, there: &[&str], uri: &str) -> Result<Option<PathBuf>, Error> {
    if !check {
        return Ok(None);
    }
    let (path, package) = keyring_of(distribution);
    if !there.contains(&path) {
        return Err(Error::MissingKeyring { path: path.into(), uri: uri.to_owned(), package });
    }
    Ok(Some(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Architecture;

    fn host() -> Host {
        Host { keyrings: KEYRINGS.to_vec(), ..Host::default() }
    }

    fn target(distribution: Distribution, release: &str, architecture: Architecture) -> Target {
        Target { distribution, release: release.to_owned(), architecture }
    }

    fn text(target: &Target, settings: &Settings) -> String {
        let host = host();
        Repositories::new(target, settings, &host).unwrap().text()
    }

    #[test]
    fn debian_stable() {
        let settings = Settings { components: vec!["contrib".to_owned()], ..Settings::default() };
        insta::assert_snapshot!(text(&target(Distribution::Debian, "trixie", Architecture::X86_64), &settings));
    }

    #[test]
    fn debian_from_the_hosts_mirror() {
        let mut host = host();
        host.id = "debian".to_owned();
        host.archive = Some("http://mirror.example/debian".to_owned());
        let target = target(Distribution::Debian, "trixie", Architecture::X86_64);
        let settings = Settings { debug: true, ..Settings::default() };
        let all = Repositories::new(&target, &settings, &host).unwrap();
        let uris: Vec<_> = all.sources.iter().map(|s| format!("{} {}", s.uri, s.suite)).collect();
        assert_eq!(
            uris,
            [
                "http://mirror.example/debian trixie",
                "http://mirror.example/debian-debug trixie-debug",
                "http://mirror.example/debian trixie-updates",
                "http://security.debian.org/debian-security trixie-security",
            ]
        );
    }

    #[test]
    fn unstable_has_one_suite_and_a_mirror_is_a_prefix() {
        let settings = Settings { mirror: Some("http://m.example/".to_owned()), ..Settings::default() };
        let text = text(&target(Distribution::Debian, "sid", Architecture::Arm64), &settings);
        assert_eq!(text.matches("Suites:").count(), 1);
        assert!(text.contains("URIs: http://m.example/debian\n"), "{text}");
    }

    #[test]
    fn snapshots() {
        let settings = Settings { snapshot: Some("20250520T000000Z".to_owned()), ..Settings::default() };
        insta::assert_snapshot!(text(&target(Distribution::Debian, "trixie", Architecture::X86_64), &settings));
        let ubuntu = text(&target(Distribution::Ubuntu, "noble", Architecture::X86_64), &settings);
        assert_eq!(ubuntu.matches("http://snapshot.ubuntu.com/ubuntu/20250520T000000Z\n").count(), 3, "{ubuntu}");
    }

    #[test]
    fn ubuntu_ports() {
        insta::assert_snapshot!(text(
            &target(Distribution::Ubuntu, "noble", Architecture::Arm64),
            &Settings::default()
        ));
    }

    #[test]
    fn a_local_mirror_replaces_all() {
        let settings = Settings { local_mirror: Some("file:///srv/repo".to_owned()), ..Settings::default() };
        let host = host();
        let target = target(Distribution::Debian, "trixie", Architecture::X86_64);
        let all = Repositories::new(&target, &settings, &host).unwrap();
        assert_eq!(all.text(), "Types: deb\nURIs: copy:/srv/repo\nSuites: trixie\nComponents: main\nTrusted: yes\n\n");
        assert_eq!(all.mounts.len(), 1);
    }

    #[test]
    fn a_missing_keyring_names_its_package() {
        let host = Host::default();
        let target = target(Distribution::Ubuntu, "noble", Architecture::X86_64);
        let error = Repositories::new(&target, &Settings::default(), &host).unwrap_err().to_string();
        assert!(error.contains("`ubuntu-keyring`") && error.contains("RepositoryKeyCheck=no"), "{error}");
        let unchecked = Settings { key_check: false, ..Settings::default() };
        assert!(Repositories::new(&target, &unchecked, &host).unwrap().text().contains("Trusted: yes"));
    }

    #[test]
    fn values_that_would_break_the_file_are_refused() {
        let host = host();
        let bad = target(Distribution::Debian, "trixie\nTrusted: yes", Architecture::X86_64);
        assert!(matches!(Repositories::new(&bad, &Settings::default(), &host), Err(Error::BadValue { .. })));
        let none = target(Distribution::Debian, "trixie", Architecture::Riscv32);
        assert!(matches!(Repositories::new(&none, &Settings::default(), &host), Err(Error::Architecture { .. })));
    }

    #[test]
    fn an_image_is_given_the_official_archives() {
        let target = target(Distribution::Debian, "trixie", Architecture::X86_64);
        insta::assert_snapshot!(Repositories::image_text(&target, &[]).unwrap());
    }
}
