//! Where the archives of Debian and Ubuntu are, and which suites a release has.
//!
//! Knows nothing of apt's files.

use super::sources::Settings;
use super::{Distribution, Error, Host, Target};
use crate::types::Architecture;

/// Where the archives of a distribution are.
pub struct Archives {
    /// The main archive.
    pub main: String,
    security: String,
    debug: Option<String>,
}

impl Archives {
    /// Where they are, by `Mirror=` and `Snapshot=`, or else as the host has them, or else the distribution's own.
    ///
    /// # Errors
    /// When a setting is not one word.
    pub fn find(target: &Target, settings: &Settings, host: &Host) -> Result<Self, Error> {
        let mirror = settings.mirror.as_deref().map(|m| word("Mirror=", m)).transpose()?;
        let mirror = mirror.map(|m| m.trim_end_matches('/'));
        let snapshot = settings.snapshot.as_deref().map(|s| word("Snapshot=", s)).transpose()?;
        Ok(match target.distribution {
            Distribution::Debian => Self::debian(mirror, snapshot, host),
            Distribution::Ubuntu => Self::ubuntu(mirror, snapshot, host, target.architecture),
        })
    }

    fn debian(mirror: Option<&str>, snapshot: Option<&str>, host: &Host) -> Self {
        if let Some(time) = snapshot {
            let base = mirror.unwrap_or("https://snapshot.debian.org");
            let at = |name: &str| format!("{base}/archive/{name}/{time}");
            return Self { main: at("debian"), security: at("debian-security"), debug: Some(at("debian-debug")) };
        }
        if let Some(base) = mirror {
            let at = |name: &str| format!("{base}/{name}");
            return Self { main: at("debian"), security: at("debian-security"), debug: Some(at("debian-debug")) };
        }
        let official = "http://security.debian.org/debian-security";
        match host.mirrors(Distribution::Debian) {
            Some((main, security)) => Self {
                main: main.to_owned(),
                security: security.unwrap_or(official).to_owned(),
                debug: main.strip_suffix("/debian").map(|base| format!("{base}/debian-debug")),
            },
            None => Self {
                main: "http://ftp.debian.org/debian".to_owned(),
                security: official.to_owned(),
                debug: Some("http://debug.mirrors.debian.org/debian-debug".to_owned()),
            },
        }
    }

    /// Ubuntu keeps the architectures that are not x86 in an archive of their own, with their security updates.
    fn ubuntu(mirror: Option<&str>, snapshot: Option<&str>, host: &Host, architecture: Architecture) -> Self {
        let x86 = |a: Architecture| matches!(a, Architecture::X86 | Architecture::X86_64);
        let both = |uri: String| Self { main: uri.clone(), security: uri, debug: None };
        if let Some(time) = snapshot {
            return both(format!("{}/{time}", mirror.unwrap_or("http://snapshot.ubuntu.com/ubuntu")));
        }
        let (main, security) = if x86(architecture) {
            ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
        } else {
            ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports")
        };
        let same = x86(architecture) == x86(Architecture::host());
        let (main, security) = match (mirror, host.mirrors(Distribution::Ubuntu).filter(|_| same)) {
            (Some(mirror), _) => (mirror, security),
            (None, Some((own, own_security))) => (own, own_security.unwrap_or(security)),
            (None, None) => (main, security),
        };
        Self { main: main.to_owned(), security: security.to_owned(), debug: None }
    }

    /// Each suite with its archive, and whether the mirror may lack it.
    pub fn suites(&self, release: &str, settings: &Settings) -> Vec<(String, String, bool)> {
        let mut suites = vec![(self.main.clone(), release.to_owned(), false)];
        if let Some(debug) = self.debug.as_ref().filter(|_| settings.debug) {
            suites.push((debug.clone(), format!("{release}-debug"), true));
        }
        if matches!(release, "sid" | "unstable" | "experimental" | "rc-buggy") {
            return suites;
        }
        // A snapshot of Debian already has what was in -updates at the time of a point release, and often lacks it.
        if settings.snapshot.is_none() || self.debug.is_none() {
            suites.push((self.main.clone(), format!("{release}-updates"), true));
        }
        suites.push((self.security.clone(), format!("{release}-security"), true));
        suites
    }
}

/// A value that must be one word, as it stands in a line of apt's files.
///
/// # Errors
/// When it is none; `what` is the setting.
pub fn word<'a>(what: &'static str, value: &'a str) -> Result<&'a str, Error> {
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control() || "\"#;".contains(c)) {
        return Err(Error::BadValue { what, value: value.to_owned() });
    }
    Ok(value)
}
