//! A first Debian tree made by this program alone, on a host that has neither apt nor dpkg: fetched over HTTP, checked
//! against the archive's keys and hashes, unpacked by ourselves, configured by the dpkg that is in it.
//!
//! The tree holds what the stages need that install packages, and nothing more: the tools tree is then built with it.
//! `docs/debian.md` describes the steps. Knows nothing of tools trees, graphs and stages.

mod closure;
mod forward;
mod http;
mod index;
mod release;
mod version;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use self::closure::Candidates;
use self::http::{Client, Trouble};
use super::deb822::Paragraph;
use super::proxy::Proxies;
use super::{Cx, Error, Package, Repositories, download, pool_path};

/// What the tree holds beside the essential packages: what the stages run that synchronise, resolve and install.
const WANTED: [&str; 4] = ["apt", "ca-certificates", "debian-archive-keyring", "gpgv"];

/// How many packages are fetched at once.
const AT_ONCE: usize = 4;

/// Finds the packages of the tree, each after what it needs.
///
/// # Errors
/// When the repositories can't be fetched or trusted, or lack a package.
pub fn seed_packages(cx: &mut Cx<'_>, repositories: &Repositories) -> Result<Vec<Package>, Error> {
    let client = client(cx, repositories)?;
    let stanzas = index::packages(&client, repositories)?;
    let candidates = Candidates::new(stanzas.iter().map(|(_, stanza)| stanza));
    let wanted: BTreeSet<&str> = candidates.essential().chain(WANTED).collect();
    let unsolvable = |detail| Error::Unsolvable { what: "the first tree".to_owned(), detail };
    let order = candidates.closure(&wanted).map_err(unsolvable)?;
    let address: BTreeMap<*const Paragraph, &str> =
        stanzas.iter().map(|(uri, stanza)| (std::ptr::from_ref(stanza), uri.as_str())).collect();
    order
        .into_iter()
        .map(|stanza| {
            let uri = address.get(&std::ptr::from_ref(stanza)).copied().unwrap_or_default();
            package(stanza, uri)
                .ok_or_else(|| unsolvable(format!("the stanza of {} is broken", stanza.get("Package").unwrap_or("?"))))
        })
        .collect()
}

/// Brings packages into a pool without apt, as [`super::download`] does with it.
///
/// # Errors
/// [`Error::Gone`] when the mirror no longer has a package, [`Error::Download`] for any other failure.
pub fn seed_download(
    cx: &mut Cx<'_>,
    packages: &[Package],
    repositories: &Repositories,
    pool: &Path,
) -> Result<(), Error> {
    std::fs::create_dir_all(pool).map_err(Error::io("could not make", pool))?;
    let scratch = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(pool)
        .map_err(Error::io("could not make a directory in", pool))?;
    let client = client(cx, repositories)?;
    let fetch = |package: &Package| -> Result<(), (String, Trouble)> {
        let (path, temporary) = (pool_path(pool, package), scratch.path().join(&package.sha256));
        if download::verified(&path, package) {
            return Ok(());
        }
        let trouble = |trouble| (package.filename.clone(), trouble);
        let hash = client.save(&package.uri, package.size, &temporary).map_err(trouble)?;
        if hash != package.sha256 {
            return Err(trouble(Trouble::Other(format!("{}: it is not the file that the mirror lists", package.uri))));
        }
        std::fs::rename(&temporary, &path)
            .map_err(|error| trouble(Trouble::Other(format!("{}: {error}", path.display()))))
    };
    // Not in the common pool of threads, whose number is that of the processors: these wait for the network.
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(AT_ONCE)
        .build()
        .map_err(|error| Error::Download { detail: error.to_string() })?;
    let failed: Vec<(String, Trouble)> =
        threads.install(|| packages.par_iter().filter_map(|package| fetch(package).err()).collect());
    if failed.is_empty() {
        return Ok(());
    }
    if failed.iter().any(|(_, trouble)| matches!(trouble, Trouble::Cancelled)) {
        return Err(Error::Sandbox(crate::sandbox::Error::Cancelled));
    }
    let gone = failed.iter().filter(|(_, trouble)| matches!(trouble, Trouble::NotThere));
    let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
    if !gone.is_empty() {
        return Err(Error::Gone { files: gone });
    }
    let words = failed.into_iter().filter_map(|(_, trouble)| match trouble {
        Trouble::Other(text) => Some(text),
        _ => None,
    });
    Err(Error::Download { detail: words.take(5).collect::<Vec<_>>().join("\n") })
}

fn client<'a>(cx: &Cx<'a>, repositories: &Repositories) -> Result<Client<'a>, Error> {
    let tls = http::tls(&repositories.proxy)?;
    Ok(Client::new(Proxies::new(&repositories.acquire, &repositories.proxy), tls, cx.cancel))
}

/// The package that a stanza of a package list describes.
fn package(stanza: &Paragraph, uri: &str) -> Option<Package> {
    let field = |name: &str| stanza.get(name).map(|value| value.trim().to_owned());
    let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
    let sha256 = field("SHA256")?.to_ascii_lowercase();
    let plain = |text: &str| !text.contains(['/', '\'', '\n']);
    if sha256.len() != 64
        || !sha256.bytes().all(|b| b.is_ascii_hexdigit())
        || ![&name, &version, &architecture].into_iter().all(|text| plain(text))
    {
        return None;
    }
    Some(Package {
        filename: format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")),
        size: field("Size")?.parse().ok()?,
        uri: format!("{uri}/{}", field("Filename")?),
        automatic: !WANTED.contains(&name.as_str()) && stanza.get("Essential") != Some("yes"),
        name,
        version,
        architecture,
        sha256,
    })
}
