//! Fetches packages into a pool that is named by content, with apt's own acquire methods.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::apt::{Apt, NOT_THERE};
use super::{Cx, Error, Package, Repositories};
use crate::sandbox::Mount;

/// Where a pool keeps a package.
pub fn pool_path(pool: &Path, package: &Package) -> PathBuf {
    pool.join(format!("{}.deb", package.sha256))
}

/// Whether the pool has a package, whole.
pub fn is_in_pool(pool: &Path, package: &Package) -> bool {
    verified(&pool_path(pool, package), package)
}

/// Fetches the packages that the pool lacks, several at once. A package enters the pool by a rename after its
/// SHA-256 was verified, so that any number of processes may share a pool and a stopped download loses only the
/// files that were not complete. Packages that are there are verified too; a damaged one is fetched again.
///
/// # Errors
/// [`Error::Gone`] when the mirror no longer has a package, [`Error::Download`] for any other failure.
pub fn download(cx: &mut Cx<'_>, packages: &[Package], repositories: &Repositories, pool: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(pool).map_err(Error::io("could not make", pool))?;
    let wanted: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.sha256.as_str(), p)).collect();
    let wanted: Vec<&Package> = wanted.into_values().collect();
    let missing = rayon_filter(&wanted, |p| !verified(&pool_path(pool, p), p));
    if missing.is_empty() {
        return Ok(());
    }
    let scratch = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(pool)
        .map_err(Error::io("could not make a directory in", pool))?;
    let printed = fetch(cx, &missing, repositories, scratch.path())?;
    let left = rayon_filter(&missing, |p| {
        let file = scratch.path().join(&p.sha256);
        !(verified(&file, p) && std::fs::rename(&file, pool_path(pool, p)).is_ok())
    });
    if left.is_empty() {
        return Ok(());
    }
    let gone: Vec<String> = left.iter().filter(|p| is_gone(&printed.1, p)).map(|p| p.filename.clone()).collect();
    if gone.is_empty() { Err(Error::Download { detail: printed.0 }) } else { Err(Error::Gone { files: gone }) }
}

/// Runs the helper on all packages: one connection per host, requests in a pipeline. Gives back apt's errors and
/// all that it printed.
fn fetch(
    cx: &mut Cx<'_>,
    missing: &[&Package],
    repositories: &Repositories,
    scratch: &Path,
) -> Result<(String, String), Error> {
    let mut repositories = repositories.clone();
    repositories.mounts.push(Mount::Bind {
        source: scratch.to_owned(),
        target: PathBuf::from("/apt/fetch"),
        read_only: false,
        optional: false,
    });
    let cache = tempfile::tempdir_in(&cx.work).map_err(Error::io("could not make a directory in", &cx.work))?;
    let apt = Apt {
        repositories: &repositories,
        sources: "",
        lists: cache.path(),
        update: true,
        cache: cache.path(),
        status: "",
        recommends: false,
    };
    let mut errors = (String::new(), String::new());
    // The kernel limits the length of a command line; 500 packages take some 150 KiB.
    for some in missing.chunks(500) {
        let mut argv = vec!["/usr/lib/apt/apt-helper".to_owned(), "download-file".to_owned()];
        for package in some {
            // The file method leaves a file where it is; copy makes one of our own.
            let uri = match package.uri.strip_prefix("file:") {
                Some(path) => format!("copy:{path}"),
                None => package.uri.clone(),
            };
            argv.extend([uri, format!("/apt/fetch/{}", package.sha256), format!("SHA256:{}", package.sha256)]);
        }
        let printed = apt.run(cx, &argv)?;
        if !printed.exit.success() {
            errors.0.push_str(&printed.errors());
            errors.1.push_str(&printed.stderr);
        }
    }
    Ok(errors)
}

/// Whether apt said that this package is not on the mirror: `E: Failed to fetch URI  404  Not Found [IP: …]` of the
/// http method, `… File not found` of the file and copy methods.
fn is_gone(stderr: &str, package: &Package) -> bool {
    let path = package.uri.split_once(':').map_or(package.uri.as_str(), |(_, path)| path);
    stderr.lines().any(|line| line.contains(path) && NOT_THERE.iter().any(|sign| line.contains(sign)))
}

/// Whether a file is the package: the size first, which costs nothing.
fn verified(path: &Path, package: &Package) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    if !file.metadata().is_ok_and(|m| m.is_file() && m.len() == package.size) {
        return false;
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex == package.sha256
}

/// Those that a test picks, in their order, tested in parallel.
fn rayon_filter<'p>(packages: &[&'p Package], test: impl Fn(&Package) -> bool + Sync) -> Vec<&'p Package> {
    use rayon::prelude::*;
    packages.par_iter().copied().filter(|p| test(p)).collect()
}
