//! The packages of a repository: fetches its release file and package lists, and checks each by the one before.
//!
//! The format is that of <https://wiki.debian.org/DebianRepository/Format>. Knows nothing of dependencies.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::http::{Client, Trouble, hex};
use super::release::{DEBIAN_KEYRING, verified};
use crate::distro::deb822::{self, Paragraph};
use crate::distro::{Distribution, Error, Repositories, Source};

/// More than any release file has, in bytes.
const RELEASE_LIMIT: u64 = 32 << 20;

/// More than any package list has, in bytes, unpacked.
const LIST_LIMIT: u64 = 2 << 30;

/// The stanzas of all packages of the repositories, each with the address that its `Filename` is relative to.
///
/// # Errors
/// When a file can't be fetched, or isn't what a trusted key signed.
pub(super) fn packages(client: &Client<'_>, repositories: &Repositories) -> Result<Vec<(String, Paragraph)>, Error> {
    let mut found = Vec::new();
    for source in &repositories.sources {
        let Some(release) = release(client, repositories, source)? else { continue };
        let architecture = repositories.target.architecture.debian();
        for component in &source.components {
            for stanza in list(client, source, &release, &format!("{component}/binary-{architecture}/Packages"))? {
                found.push((source.uri.clone(), stanza));
            }
        }
    }
    Ok(found)
}

/// A repository's release file, nothing if it may be missing and is.
fn release(client: &Client<'_>, repositories: &Repositories, source: &Source) -> Result<Option<Paragraph>, Error> {
    let base = format!("{}/dists/{}", source.uri, source.suite);
    let signed = repositories.key_check && source.signed_by.is_some();
    let uri = format!("{base}/{}", if signed { "InRelease" } else { "Release" });
    let bytes = match client.get(&uri, RELEASE_LIMIT) {
        Ok(bytes) => bytes,
        Err(Trouble::NotThere) if source.optional => return Ok(None),
        Err(trouble) => return Err(failure(&uri, trouble)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let text = if signed {
        let keyring = keyring(repositories, source)?;
        verified(&text, &keyring).map_err(|why| Error::Signature { detail: format!("{uri}: {why}") })?
    } else {
        text.into_owned()
    };
    let release = deb822::parse(&text).into_iter().next().unwrap_or_default();
    // A file of another suite is genuine too.
    let is = |field: &str| release.get(field).is_some_and(|name| name.trim() == source.suite);
    if !(is("Suite") || is("Codename")) {
        let detail = format!("{uri} is the release file of another suite than {}", source.suite);
        return Err(Error::Sync { detail });
    }
    Ok(Some(release))
}

/// The keyring of the host, or else the one that is built in.
fn keyring(repositories: &Repositories, source: &Source) -> Result<Vec<u8>, Error> {
    let path = source.signed_by.clone().unwrap_or_default();
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(_) if repositories.target.distribution == Distribution::Debian => Ok(DEBIAN_KEYRING.to_vec()),
        Err(error) => Err(Error::io("could not read", &path)(error)),
    }
}

/// A package list, in the smallest form that there is.
fn list(client: &Client<'_>, source: &Source, release: &Paragraph, name: &str) -> Result<Vec<Paragraph>, Error> {
    let sums: Vec<(&str, u64, &str)> = release
        .get("SHA256")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.parse().ok()?, words.next()?))
        })
        .collect();
    let forms = [".xz", ".gz", ""];
    let of_form = |form: &&str| sums.iter().find(|(_, _, path)| path.strip_prefix(name) == Some(form));
    let Some((hash, size, path)) = forms.iter().find_map(of_form) else {
        let detail = format!("the release file of {} {} lists no {name}", source.uri, source.suite);
        return Err(Error::Sync { detail });
    };
    let base = format!("{}/dists/{}", source.uri, source.suite);
    // By its hash a list is there for some time after the next one, so that no race with an update is lost.
    let by_hash = release.get("Acquire-By-Hash").is_some_and(|value| value.trim() == "yes");
    let uri = match (by_hash, path.rsplit_once('/')) {
        (true, Some((directory, _))) => format!("{base}/{directory}/by-hash/SHA256/{hash}"),
        _ => format!("{base}/{path}"),
    };
    let bytes = client.get(&uri, *size).map_err(|trouble| failure(&uri, trouble))?;
    if hex(&Sha256::digest(&bytes)) != hash.to_ascii_lowercase() {
        return Err(Error::Sync {
            detail: format!("{uri} is not what the release file says: the mirror is being updated, or broken"),
        });
    }
    let mut text = Vec::new();
    let reader: Box<dyn Read> = match path.rsplit_once('.') {
        Some((_, "xz")) => Box::new(liblzma::read::XzDecoder::new(bytes.as_slice())),
        Some((_, "gz")) => Box::new(flate2::read::GzDecoder::new(bytes.as_slice())),
        _ => Box::new(bytes.as_slice()),
    };
    reader
        .take(LIST_LIMIT)
        .read_to_end(&mut text)
        .map_err(|error| Error::Sync { detail: format!("{uri} can't be unpacked: {error}") })?;
    Ok(deb822::parse(&String::from_utf8_lossy(&text)))
}

fn failure(uri: &str, trouble: Trouble) -> Error {
    match trouble {
        Trouble::NotThere => Error::Sync { detail: format!("{uri} does not exist") },
        Trouble::Cancelled => Error::Sandbox(crate::sandbox::Error::Cancelled),
        Trouble::Other(detail) => Error::Sync { detail },
    }
}
