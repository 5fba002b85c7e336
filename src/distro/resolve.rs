//! Turns names into exact packages with apt's own solver, without the network.
//!
//! The solver runs once per list: the base on an empty dpkg status, `Packages=` on a status in which the base is
//! installed, `BuildPackages=` on one in which both are. So a list can't change those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::apt::{Apt, Printed};
use super::local::{Local, local_preferences};
use super::{Cx, Error, Package, Repositories, deb822};
use crate::types::suggest;

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Whether the distribution's minimal tree is wanted: every essential package and what it depends on.
    pub base: bool,
    /// dpkg's status file of a tree that is there already and takes the place of the base.
    pub status: Option<String>,
    /// `Packages=`: names, `name=version`, `name/suite`, `name:architecture`, or apt's patterns.
    pub packages: Vec<String>,
    /// `BuildPackages=`, on top of the others.
    pub build_packages: Vec<String>,
    /// `WithRecommends=`.
    pub recommends: bool,
    /// Package files that lie at hand.
    pub local: Local,
}

/// Three lists of exact packages that have nothing in common, each in an order that satisfies `Pre-Depends`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The minimal tree.
    pub base: Vec<Package>,
    /// What `Packages=` adds.
    pub packages: Vec<Package>,
    /// What `BuildPackages=` adds.
    pub build: Vec<Package>,
}

/// Makes apt's cache of the metadata in `synced`, for any number of [`resolve`] calls on it: they take half the time.
/// `cache` is an empty directory. Its bytes are apt's own affair and nothing to compare.
///
/// # Errors
/// When apt can't read the metadata.
pub fn prepare_cache(cx: &mut Cx<'_>, repositories: &Repositories, synced: &Path, cache: &Path) -> Result<(), Error> {
    let path = synced.join("mkosi.sources");
    let sources = std::fs::read_to_string(&path).map_err(Error::io("could not read", &path))?;
    let lists = synced.join("lists");
    let (update, recommends) = (false, false);
    let apt = Apt { repositories, sources: &sources, lists: &lists, update, cache, status: "", recommends };
    let printed = apt.run(cx, &["apt-cache", "gencaches"])?;
    if !printed.exit.success() {
        return Err(Error::Sync { detail: printed.errors() });
    }
    // The other cache is one of the installed packages as well and differs from call to call.
    for entry in std::fs::read_dir(cache).map_err(Error::io("could not list", cache))? {
        let path = entry.map_err(Error::io("could not list", cache))?.path();
        if path.is_file() && !path.ends_with(CACHE) {
            std::fs::remove_file(&path).map_err(Error::io("could not remove", &path))?;
        }
    }
    Ok(())
}

/// The file of apt's cache that depends on the metadata alone.
const CACHE: &str = "srcpkgcache.bin";

/// Resolves a request on the metadata that [`super::sync`] left in `synced`, with what [`prepare_cache`] made of it.
///
/// # Errors
/// When a package, version or release is unknown, or no set of packages satisfies the request.
pub fn resolve(
    cx: &mut Cx<'_>,
    repositories: &Repositories,
    synced: &Path,
    prepared: Option<&Path>,
    request: &Request,
) -> Result<Resolution, Error> {
    let path = synced.join("mkosi.sources");
    let mut sources = std::fs::read_to_string(&path).map_err(Error::io("could not read", &path))?;
    // The lists hold no `partial` directory, and apt wants to see one.
    let cache = tempfile::tempdir_in(&cx.work).map_err(Error::io("could not make a directory in", &cx.work))?;
    let lists = synced.join("lists");
    let mut with_local = repositories.clone();
    let (lists, repositories, _kept) = if request.local.is_empty() {
        (lists, repositories, None)
    } else {
        let (both, mount, more) = request.local.lists(cx, &lists)?;
        sources.push_str(&more);
        with_local.mounts.push(mount);
        with_local.files.insert("preferences.d/mkosi-local.pref".to_owned(), local_preferences().into_bytes());
        (both.path().to_owned(), &with_local, Some(both))
    };
    if let Some(prepared) = prepared.map(|dir| dir.join(CACHE)).filter(|path| path.is_file()) {
        // apt checks that it fits the lists, and makes another where it doesn't.
        std::fs::copy(&prepared, cache.path().join(CACHE)).map_err(Error::io("could not copy", &prepared))?;
    }
    let mut solver = Solver {
        repositories,
        sources: &sources,
        lists: &lists,
        cache: cache.path(),
        recommends: request.recommends,
        status: request.status.clone().unwrap_or_default(),
    };
    let mut resolution = Resolution::default();
    if request.base {
        let architecture = repositories.target.architecture.debian();
        let essential = [format!("?essential ?architecture({architecture})"), "base-files".to_owned()];
        // Nothing of the minimal tree is there for another package's sake.
        resolution.base = solver.solve(cx, "the base", &essential, false, false)?;
    }
    resolution.packages = solver.extend(cx, &resolution.base, "Packages=", &request.packages)?;
    if !request.build_packages.is_empty() {
        resolution.build = solver.extend(cx, &resolution.packages, "BuildPackages=", &request.build_packages)?;
    }
    Ok(resolution)
}

struct Solver<'a> {
    repositories: &'a Repositories,
    sources: &'a str,
    lists: &'a Path,
    cache: &'a Path,
    recommends: bool,
    status: String,
}

impl Solver<'_> {
    /// Marks what was chosen before as installed, and resolves the next list.
    fn extend(
        &mut self,
        cx: &mut Cx<'_>,
        chosen: &[Package],
        what: &str,
        specs: &[String],
    ) -> Result<Vec<Package>, Error> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        if !chosen.is_empty() {
            let more = self.stanzas(cx, chosen)?;
            self.status.push_str(&more);
        }
        self.solve(cx, what, specs, self.recommends, true)
    }

    fn run<S: AsRef<str>>(&self, cx: &mut Cx<'_>, recommends: bool, argv: &[S]) -> Result<Printed, Error> {
        let apt = Apt {
            repositories: self.repositories,
            sources: self.sources,
            lists: self.lists,
            update: false,
            cache: self.cache,
            status: &self.status,
            recommends,
        };
        apt.run(cx, argv)
    }

    /// Resolves one list. With `marks` it finds out which packages came in for another one's sake.
    fn solve(
        &self,
        cx: &mut Cx<'_>,
        what: &str,
        specs: &[String],
        recommends: bool,
        marks: bool,
    ) -> Result<Vec<Package>, Error> {
        let sorted: BTreeSet<&str> = specs.iter().map(String::as_str).collect();
        // What is chosen for one list may not throw out what the lists before it brought in: that would make their
        // layers wrong.
        let mut argv = vec!["apt-get", "install", "--print-uris", "--no-remove", "--allow-downgrades", "--"];
        argv.extend(sorted.iter());
        let printed = self.run(cx, recommends, &argv)?;
        if !printed.exit.success() {
            // What it says of unmet dependencies it says only when it simulates.
            let simulate: Vec<&str> =
                argv.iter().map(|a| if *a == "--print-uris" { "--simulate" } else { a }).collect();
            let told = Printed { stdout: self.run(cx, recommends, &simulate)?.stdout, ..printed };
            return Err(self.failure(cx, what, &told)?);
        }
        let mut named: BTreeSet<String> = sorted.iter().map(|s| plain(s).to_owned()).collect();
        let mut packages = Vec::new();
        for line in printed.stdout.lines().filter(|l| l.starts_with('\'')) {
            let package = parse_line(line).ok_or_else(|| Error::Unsolvable {
                what: what.to_owned(),
                detail: format!("apt printed a line that can't be read: {line}"),
            })?;
            packages.push(package);
        }
        if !marks {
            packages.iter_mut().for_each(|p| p.automatic = false);
            return Ok(packages);
        }
        if named.iter().any(|name| !packages.iter().any(|p| p.name == *name)) {
            // A virtual package or a pattern: only apt knows what it stands for.
            argv.splice(2..2, ["-o", "Debug::pkgDepCache::Marker=1"]);
            let mut silent = std::io::sink();
            let mut cx = Cx {
                cancel: cx.cancel,
                log: &mut silent,
                tools: cx.tools.clone(),
                work: cx.work.clone(),
                parallel: false,
            };
            named.extend(marked_for_user(&self.run(&mut cx, recommends, &argv)?.stderr));
        }
        packages.iter_mut().for_each(|p| p.automatic = !named.contains(&p.name));
        Ok(packages)
    }

    /// The stanzas of dpkg's status file for packages that are taken to be installed.
    fn stanzas(&self, cx: &mut Cx<'_>, packages: &[Package]) -> Result<String, Error> {
        let native = self.repositories.target.architecture.debian();
        let mut argv = vec!["apt-cache".to_owned(), "show".to_owned(), "--".to_owned()];
        for package in packages {
            let foreign = package.architecture != "all" && package.architecture != native;
            let arch = if foreign { format!(":{}", package.architecture) } else { String::new() };
            argv.push(format!("{}{arch}={}", package.name, package.version));
        }
        let printed = self.run(cx, false, &argv)?;
        if !printed.exit.success() {
            let (what, detail) = ("the status of packages".to_owned(), printed.errors());
            return Err(Error::Unsolvable { what, detail });
        }
        let by_hash: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.sha256.as_str(), p)).collect();
        let mut done = BTreeSet::new();
        let mut text = String::new();
        for mut stanza in deb822::parse(&printed.stdout) {
            let hash = stanza.get("SHA256").unwrap_or_default().to_owned();
            if by_hash.contains_key(hash.as_str()) && done.insert(hash) {
                stanza.set("Status", "install ok installed");
                stanza.write_to(&mut text);
            }
        }
        if done.len() != by_hash.len() {
            let lost = by_hash.iter().filter(|(h, _)| !done.contains(**h)).map(|(_, p)| p.name.as_str());
            let detail = format!("the lists have no entry for {}", lost.collect::<Vec<_>>().join(", "));
            return Err(Error::Unsolvable { what: "the status of packages".to_owned(), detail });
        }
        Ok(text)
    }

    /// Tells the kinds of failure apart by apt's words (`LC_ALL=C.UTF-8` keeps them English).
    fn failure(&self, cx: &mut Cx<'_>, what: &str, printed: &Printed) -> Result<Error, Error> {
        for line in printed.stderr.lines() {
            let line = line.trim_start_matches("E: ").trim();
            let unknown = line
                .strip_prefix("Unable to locate package ")
                .or_else(|| quoted(line.strip_prefix("Package ")?, "has no installation candidate"))
                .or_else(|| quoted(line.strip_prefix("Couldn't find any package by regex ")?, ""));
            if let Some(name) = unknown {
                let lines = printed.stdout.lines();
                let providers = lines.skip_while(|l| !l.contains("is a virtual package provided by")).skip(1);
                let providers = providers.map_while(|l| l.trim().split(' ').next().filter(|name| !name.is_empty()));
                let providers: BTreeSet<&str> = providers.collect();
                if !providers.is_empty() {
                    let providers = providers.into_iter().collect::<Vec<_>>().join(", ");
                    return Ok(Error::VirtualPackage { name: name.to_owned(), providers });
                }
                let known = self.run(cx, false, &["apt-cache", "pkgnames"])?.stdout;
                let nearest = suggest::nearest(name, known.lines()).filter(|n| *n != name).map(str::to_owned);
                return Ok(Error::UnknownPackage { name: name.to_owned(), nearest });
            }
            if let Some((wanted, name)) = version_not_found(line) {
                let policy = self.run(cx, false, &["apt-cache", "madison", "--", &name])?.stdout;
                let versions = policy.lines().filter_map(|l| Some(l.split('|').nth(1)?.trim()));
                let versions: BTreeSet<&str> = versions.collect();
                let available = versions.into_iter().collect::<Vec<_>>().join(", ");
                return Ok(Error::UnknownVersion { name, wanted, available });
            }
        }
        let unmet = printed.stdout.lines().skip_while(|l| !l.contains("unmet dependencies") && !l.contains("REMOVED"));
        let mut detail: Vec<&str> = unmet.filter(|l| !l.starts_with('\'')).collect();
        let errors = printed.errors();
        detail.push(&errors);
        Ok(Error::Unsolvable { what: what.to_owned(), detail: detail.join("\n") })
    }
}

/// `'NAME' rest` → NAME, if the rest holds these words.
fn quoted<'a>(text: &'a str, rest: &str) -> Option<&'a str> {
    let (name, after) = text.strip_prefix('\'')?.split_once('\'')?;
    after.contains(rest).then_some(name)
}

/// `Version '1' for 'x' was not found`, `Release 'y' for 'x' was not found` → what was wanted, the package.
fn version_not_found(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("Version ").or_else(|| line.strip_prefix("Release "))?;
    let (wanted, rest) = rest.strip_prefix('\'')?.split_once("' for '")?;
    let (name, rest) = rest.split_once('\'')?;
    rest.contains("not found").then(|| (wanted.to_owned(), name.to_owned()))
}

/// The package that a specification names, if it names one: without version, suite and architecture.
fn plain(spec: &str) -> &str {
    spec.split(['=', '/', ':']).next().unwrap_or_default()
}

/// The packages that were marked for the user's sake and no other's, from apt's trace of its marks:
/// `  MarkInstall NAME:ARCH < none -> VERSION @un puN Ib > FU=1`.
fn marked_for_user(trace: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let rest = line.trim_start().strip_prefix("MarkInstall ")?;
        let name = rest.split([':', ' ']).next()?;
        rest.ends_with("FU=1").then(|| name.to_owned())
    };
    trace.lines().filter_map(name).collect()
}

/// A line of `apt-get --print-uris`: `'URI' name_version_arch.deb SIZE SHA256:HASH`. In the name, apt writes the
/// characters `_`, `:` and `%` of a version as `%5f`, `%3a` and `%25`.
fn parse_line(line: &str) -> Option<Package> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once('\'')?;
    let mut words = rest.split_whitespace();
    let (filename, size, hash) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) || filename.contains('/') {
        return None;
    }
    let mut parts = filename.strip_suffix(".deb").or_else(|| filename.strip_suffix(".ddeb"))?.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    let version = version.replace("%3a", ":").replace("%5f", "_").replace("%25", "%");
    Some(Package {
        name: name.to_owned(),
        version,
        architecture: architecture.to_owned(),
        sha256,
        size,
        uri: uri.to_owned(),
        filename: filename.to_owned(),
        automatic: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_line() {
        let hash = "ee6c50ebac79aa9795e8bf9aa01d94c99984d09d22598c66be0f8ba917b62179";
        let line =
            format!("'http://m.example/p/bsd_1%3a2.38-1%2b_amd64.deb' bsdutils_1%3a2.38-1_amd64.deb 89 SHA256:{hash}");
        let package = parse_line(&line).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("bsdutils", "1:2.38-1"));
        assert_eq!((package.architecture.as_str(), package.size), ("amd64", 89));
        assert_eq!(parse_line(&line.replace("SHA256", "MD5Sum")), None);
    }

    #[test]
    fn reads_what_apt_says() {
        assert_eq!(version_not_found("Version '1' for 'x' was not found"), Some(("1".to_owned(), "x".to_owned())));
        let trace =
            "  MarkInstall exim4:amd64 < none -> 4.9 @un puN Ib > FU=1\n    MarkInstall a:amd64 < none > FU=0\n";
        assert_eq!(marked_for_user(trace), BTreeSet::from(["exim4".to_owned()]));
        assert_eq!(plain("b:i386=1"), "b");
    }

    proptest! {
        #[test]
        fn never_panics(text in "['A-Za-z0-9_:/%. ]*|\\PC*") {
            parse_line(&text);
            version_not_found(&text);
            quoted(&text, "");
        }
    }
}
