//! Fetches and verifies repository metadata (`apt-get update`).

use std::collections::BTreeSet;
use std::path::Path;

use super::apt::{Apt, NOT_THERE};
use super::{Cx, Error, Repositories};

/// What a synchronisation left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncInfo {
    /// What should be told to the user: suites that the mirror doesn't carry.
    pub warnings: Vec<String>,
}

/// Fetches the metadata of the repositories into `out`: `out/lists` holds the signed release files and the package
/// lists, `out/mkosi.sources` names the repositories that are in them. The content depends on the repositories
/// alone: no times, locks or partial downloads.
///
/// # Errors
/// When a signature doesn't verify, a suite that isn't optional can't be fetched, or apt can't be run.
pub fn sync(cx: &mut Cx<'_>, repositories: &Repositories, out: &Path) -> Result<SyncInfo, Error> {
    let lists = out.join("lists");
    std::fs::create_dir_all(lists.join("partial")).map_err(Error::io("could not make", &lists))?;
    let cache = tempfile::tempdir_in(&cx.work).map_err(Error::io("could not make a directory in", &cx.work))?;
    let mut wanted = repositories.clone();
    let mut warnings = Vec::new();
    loop {
        let sources = wanted.text();
        let apt = Apt {
            repositories: &wanted,
            sources: &sources,
            lists: &lists,
            update: true,
            cache: cache.path(),
            status: "",
            recommends: false,
        };
        let printed = apt.run(cx, &["apt-get", "update", "--error-on=any"])?;
        if printed.exit.success() {
            break;
        }
        let missing = missing_suites(&printed.stderr, &wanted);
        if missing.is_empty() {
            return Err(failure(&printed.stderr, printed.errors()));
        }
        for index in missing.into_iter().rev() {
            let source = wanted.sources.remove(index);
            let text =
                format!("the mirror {} does not carry the suite {}: going on without it", source.uri, source.suite);
            cx.note(&text);
            warnings.push(text);
        }
    }
    tidy(&lists)?;
    let path = out.join("mkosi.sources");
    std::fs::write(&path, wanted.text()).map_err(Error::io("could not write", &path))?;
    Ok(SyncInfo { warnings })
}

/// The optional suites that the mirror doesn't have. apt says so in one line per suite, `E: The repository 'URI SUITE
/// Release' does not have a Release file.`, or, where no signature is asked for, by the lists that it can't fetch.
fn missing_suites(stderr: &str, repositories: &Repositories) -> BTreeSet<usize> {
    let lacks = |uri: &str, suite: &str| {
        let (named, below) = (format!("'{uri} {suite} "), format!("Failed to fetch {uri}/dists/{suite}/"));
        stderr.lines().any(|line| {
            let release = line.contains(&named) && line.contains("does not have a Release file");
            release || (line.contains(&below) && NOT_THERE.iter().any(|sign| line.contains(sign)))
        })
    };
    let sources = repositories.sources.iter().enumerate();
    sources.filter(|(_, s)| s.optional && lacks(&s.uri, &s.suite)).map(|(index, _)| index).collect()
}

/// Tells a signature that is missing or wrong from the rest.
fn failure(stderr: &str, detail: String) -> Error {
    const SIGNS: [&str; 8] = [
        "is not signed",
        "NO_PUBKEY",
        "BADSIG",
        "EXPKEYSIG",
        "REVKEYSIG",
        "signatures couldn't be verified",
        "signatures were invalid",
        "Clearsigned file isn't valid",
    ];
    if SIGNS.iter().any(|sign| stderr.contains(sign)) {
        let lines = stderr.lines().filter(|l| SIGNS.iter().any(|s| l.contains(s))).map(str::trim);
        let lines: BTreeSet<&str> = lines.collect();
        return Error::Signature { detail: lines.into_iter().collect::<Vec<_>>().join("\n") };
    }
    Error::Sync { detail }
}

/// Removes what apt keeps beside the lists for its own use.
fn tidy(lists: &Path) -> Result<(), Error> {
    for name in ["partial", "auxfiles"] {
        let path = lists.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("could not remove", &path)(e)),
            _ => {}
        }
    }
    let lock = lists.join("lock");
    match std::fs::remove_file(&lock) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("could not remove", &lock)(e)),
        _ => Ok(()),
    }
}
