//! `mkosi latest-snapshot`: the newest snapshot that a distribution's archive has.
//!
//! The addresses and forms are those of the archives themselves.

use serde::Deserialize;

use super::error::{Result, RunError};
use super::process::finished;
use super::tools::Tools;
use crate::config::Image;

/// Where the answer lies, and how it is read.
struct Source {
    /// The archive, where `Mirror=` names none.
    archive: &'static str,
    /// The path of the answer.
    path: String,
    read: fn(&str, &str) -> Option<String>,
}

fn source(distribution: &str, release: &str) -> Option<Source> {
    let capital: String = {
        let mut letters = release.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    };
    Some(match distribution {
        "debian" => Source { archive: "https://snapshot.debian.org", path: "mr/timestamp".to_owned(), read: debian },
        "ubuntu" => Source {
            archive: "http://snapshot.ubuntu.com",
            path: format!("ubuntu/dists/{release}-updates/Release"),
            read: ubuntu,
        },
        "arch" => Source {
            archive: "https://archive.archlinux.org",
            path: "repos/last/lastsync".to_owned(),
            read: |text, _| arch(text),
        },
        "fedora" => Source {
            archive: "https://kojipkgs.fedoraproject.org",
            path: format!("compose/{release}/latest-Fedora-{capital}/COMPOSE_ID"),
            read: |text, release| {
                text.trim().to_lowercase().strip_prefix(&format!("fedora-{release}-")).map(str::to_owned)
            },
        },
        "centos" => Source {
            archive: "https://composes.stream.centos.org",
            path: format!("stream-{release}/production/latest-CentOS-Stream/compose/.composeinfo"),
            read: |text, release| {
                let prefix = format!("id = CentOS-Stream-{release}-");
                text.lines().find_map(|line| line.trim().strip_prefix(&prefix)).map(str::to_owned)
            },
        },
        "opensuse" => Source {
            archive: "https://download.opensuse.org",
            path: "history/latest".to_owned(),
            read: |text, _| Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        },
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Timestamps {
    result: std::collections::BTreeMap<String, Vec<String>>,
}

fn debian(text: &str, _: &str) -> Option<String> {
    let mut timestamps: Timestamps = serde_json::from_str(text).ok()?;
    timestamps.result.remove("debian")?.pop()
}

/// `Date: Thu, 06 Nov 2025 10:11:12 UTC` as `20251106T101112Z`.
fn ubuntu(text: &str, _: &str) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = text.lines().find_map(|line| line.strip_prefix("Date: "))?;
    let mut words = date.split_whitespace().skip(1);
    let day: u32 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year: u32 = words.next()?.parse().ok()?;
    let time = words.next()?.replace(':', "");
    Some(format!("{year:04}{month:02}{day:02}T{time}Z"))
}

/// Seconds since 1970 as `2025/11/06`.
fn arch(text: &str) -> Option<String> {
    let mut days = text.trim().parse::<u64>().ok()? / 86_400;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    Some(format!("{year:04}/{month:02}/{:02}", days + 1))
}

/// The newest snapshot for an image.
///
/// # Errors
/// When the distribution has none, or the archive can't be asked.
pub fn latest_snapshot(image: &Image, tools: &Tools) -> Result<String> {
    let text = |name: &str| image.text(name).unwrap_or_default();
    let (distribution, release) = (text("Distribution"), text("Release"));
    let source = source(distribution, release).ok_or_else(|| {
        RunError::unfit(
            format!("no archive of snapshots is known for {distribution}"),
            "there is one for debian, ubuntu, arch, fedora, centos and opensuse",
        )
    })?;
    let archive = image.text("Mirror").filter(|mirror| !mirror.is_empty()).unwrap_or(source.archive);
    let url = format!("{}/{}", archive.trim_end_matches('/'), source.path);
    let purpose = "ask the archive for its snapshots";
    let curl = tools.need(&["curl"], purpose, "install curl")?;
    let mut command = tools.command(&curl);
    command.args(["--location", "--silent", "--show-error", "--fail", "--max-time", "60"]);
    if let Some(proxy) = image.text("ProxyUrl").filter(|proxy| !proxy.is_empty()) {
        command.args(["--proxy", proxy]);
    }
    command.args(["--noproxy", &image.texts("ProxyExclude").join(",")]);
    for (option, setting) in [
        ("--proxy-cacert", "ProxyPeerCertificate"),
        ("--proxy-cert", "ProxyClientCertificate"),
        ("--proxy-key", "ProxyClientKey"),
    ] {
        if let Some(path) = image.path(setting) {
            command.arg(option).arg(path);
        }
    }
    let output = finished(command.arg(&url), purpose).map_err(|error| match error {
        RunError::Failed { text, .. } => RunError::unfit(
            format!("can't ask {url} for the newest snapshot{text}"),
            "look at the network and at ProxyUrl=; Mirror= names another archive",
        ),
        other => other,
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (source.read)(&text, release)
        .ok_or_else(|| RunError::Other(format!("{url} does not say which snapshot is the newest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let read =
            |distribution, release: &str, text: &str| (source(distribution, release).unwrap().read)(text, release);
        let json = r#"{"result": {"debian": ["20250101T000000Z", "20250102T000000Z"], "debian-ports": []}}"#;
        assert_eq!(read("debian", "trixie", json).as_deref(), Some("20250102T000000Z"));
        assert_eq!(read("debian", "trixie", "<html>"), None);
        let release = "Origin: Ubuntu\nDate: Thu, 06 Nov 2025 10:11:12 UTC\n";
        assert_eq!(read("ubuntu", "noble", release).as_deref(), Some("20251106T101112Z"));
        assert_eq!(read("ubuntu", "noble", "Date: x"), None);
        for (seconds, date) in [("0", "1970/01/01"), ("1709164800", "2024/02/29"), ("1735603200", "2024/12/31")] {
            assert_eq!(read("arch", "rolling", seconds).as_deref(), Some(date));
        }
        assert_eq!(read("fedora", "rawhide", "Fedora-Rawhide-20250101.n.0\n").as_deref(), Some("20250101.n.0"));
        assert_eq!(read("centos", "10", "x\nid = CentOS-Stream-10-20250101.0\n").as_deref(), Some("20250101.0"));
        assert_eq!(source("fedora", "rawhide").unwrap().path, "compose/rawhide/latest-Fedora-Rawhide/COMPOSE_ID");
        assert!(source("custom", "").is_none());
    }
}
