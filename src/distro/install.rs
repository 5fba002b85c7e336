//! Installs and removes packages in a tree with the host's dpkg and apt, which run the packages' own scripts in a
//! chroot of the tree.
//!
//! The minimal tree can't be installed by dpkg alone: the first scripts would find no shell. So its packages are
//! unpacked first without scripts, as debootstrap does, and then installed over themselves. Nothing here has the
//! network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::apt::{Printed, environment, file, run_logged, tools};
use super::configuration::{Configuration, Tree, dpkg_options};
use super::deb::Deb;
use super::order::{paths, rounds};
use super::unpack::{ENTRY, Plan};
use super::{Cx, Error, Package, Repositories, Target, pool_path};
use crate::sandbox::{EXECUTABLE, Mount, Spec};

/// How packages are installed.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// What is built.
    pub target: Target,
    /// `WithDocs=`: whether documentation is unpacked. Copyright files always are.
    pub docs: bool,
    /// `SOURCE_DATE_EPOCH` of the packages' scripts (the day of the last password change stands in /etc/shadow for
    /// one); without it, the time at which the newest of the packages was built.
    pub epoch: Option<u64>,
    /// More variables for the packages' scripts.
    pub environment: BTreeMap<String, String>,
    /// Components for the sources file of an image that gets apt: those of `Repositories=`.
    pub components: Vec<String>,
}

impl InstallOptions {
    /// The defaults for a target.
    pub fn new(target: &Target) -> Self {
        let (environment, components) = (BTreeMap::new(), Vec::new());
        Self { target: target.clone(), docs: true, epoch: None, environment, components }
    }
}

/// What `WithDocs=no` leaves out, but for copyright files.
pub(super) const DOCS: [&str; 5] =
    ["usr/share/doc/*", "usr/share/man/*", "usr/share/groff/*", "usr/share/gtk-doc/*", "usr/share/info/*"];

/// Makes the minimal tree: `root` is a mount at `/buildroot` that takes the changes, on nothing or on trees that
/// are to lie below (skeleton trees). `packages` is [`super::Resolution::base`].
///
/// # Errors
/// When a package is missing in the pool, or dpkg or a script fails.
pub fn install_base(
    cx: &mut Cx<'_>,
    root: Mount,
    pool: &Path,
    packages: &[Package],
    options: &InstallOptions,
) -> Result<(), Error> {
    let work = Work::new(cx, root, pool, packages, options)?;
    work.run(cx, "unpacking the base", &work.bootstrap_script(), Kernel::Partly)?;
    work.run(cx, "installing the base", &work.install_script(true)?, Kernel::Whole)
}

/// Installs packages on a tree, as [`super::Resolution::packages`] or `build` has them.
///
/// # Errors
/// As [`install_base`].
pub fn install(
    cx: &mut Cx<'_>,
    root: Mount,
    pool: &Path,
    packages: &[Package],
    options: &InstallOptions,
) -> Result<(), Error> {
    if packages.is_empty() {
        return Ok(());
    }
    let work = Work::new(cx, root, pool, packages, options)?;
    work.run(cx, "installing packages", &work.install_script(false)?, Kernel::Whole)
}

/// Purges packages from a tree, and with them the automatically installed ones that nothing needs any more.
///
/// # Errors
/// When a package is unknown, or apt, dpkg or a script fails.
pub fn remove(cx: &mut Cx<'_>, root: Mount, names: &[String], options: &InstallOptions) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let work = Work { root, debs: Vec::new(), packages: &[], options, parallel: false };
    let names: BTreeSet<&String> = names.iter().collect();
    let names: Vec<String> = names.into_iter().map(|n| quote(n)).collect();
    let configuration = Configuration {
        architecture: options.target.architecture.debian(),
        directory: "/apt",
        lists: "/apt/lists",
        recommends: false,
        key_check: true,
        acquire: &[],
        tree: Some(work.tree()),
    };
    let script = format!(
        "{PROLOGUE}mkdir -p /tmp/apt/archives/partial $R/var/lib/apt\n\
         printf %s {} >/tmp/apt.conf\n\
         APT_CONFIG=/tmp/apt.conf apt-get -o Dir::Cache=/tmp/apt purge -- {}\n\
         {EPILOGUE}",
        quote(&configuration.text()),
        names.join(" ")
    );
    work.run(cx, "removing packages", &script, Kernel::Whole)
}

/// One change of a tree.
struct Work<'a> {
    root: Mount,
    /// The packages' files as the sandbox sees them, and what is in them.
    debs: Vec<(PathBuf, Deb)>,
    packages: &'a [Package],
    options: &'a InstallOptions,
    parallel: bool,
}

/// Which of the kernel's file systems are mounted in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// `/proc` and `/dev`: `/tmp` and `/run` themselves are being unpacked.
    Partly,
    /// `/tmp` and `/run` too.
    Whole,
}

/// `policy-rc.d` keeps scripts from starting services (invoke-rc.d(8)).
const PROLOGUE: &str = "set -eu
umask 022
R=/buildroot
mkdir -p $R/usr/sbin
printf '#!/bin/sh\\nexit 101\\n' >$R/usr/sbin/policy-rc.d
chmod 755 $R/usr/sbin/policy-rc.d
had_id=; if [ -s $R/etc/machine-id ]; then had_id=yes; fi
";

/// After the helper: go on with dpkg if it declined, or can't be run on these tools, and give up if it failed.
const DECLINED_OR_EXIT: &str = "case $code in 75|126|127) ;; *) exit $code ;; esac\n";

/// Takes away what differs between two runs or belongs to the machine that built: logs, caches, locks, backups of
/// databases, and an identity that a script made. Ubuntu ships a link that turns off systemd's partition discovery,
/// which images need.
const EPILOGUE: &str = r#"rm -f $R/usr/sbin/policy-rc.d $R/etc/systemd/system-generators/systemd-gpt-auto-generator
cd $R/var
rm -f log/alternatives.log log/dpkg.log log/bootstrap.log log/fontconfig.log cache/ldconfig/aux-cache
rm -f cache/debconf/*-old lib/dpkg/*-old lib/dpkg/lock lib/dpkg/lock-frontend lib/dpkg/triggers/Lock
rm -rf log/apt
cd $R/etc
rm -f .pwd.lock passwd- group- shadow- gshadow- subuid- subgid-
if [ -z "$had_id" ] && [ -s machine-id ]; then
    rm -f machine-id ../var/lib/dbus/machine-id
    echo uninitialized >machine-id
    chmod 444 machine-id
fi
"#;

impl<'a> Work<'a> {
    fn new(
        cx: &Cx<'_>,
        root: Mount,
        pool: &Path,
        packages: &'a [Package],
        options: &'a InstallOptions,
    ) -> Result<Self, Error> {
        use rayon::prelude::*;
        let open = |package: &Package| {
            let path = pool_path(pool, package);
            if !path.exists() {
                let why = "it is not there".to_owned();
                return Err(Error::Pool { path, package: package.filename.clone(), why });
            }
            Ok((Path::new("/apt/pool").join(&package.filename), Deb::open(&path)?))
        };
        let debs = packages.par_iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { root, debs, packages, options, parallel: cx.parallel })
    }

    /// Runs a shell script with the tree at `/buildroot`.
    fn run(&self, cx: &mut Cx<'_>, what: &str, script: &str, kernel: Kernel) -> Result<(), Error> {
        // dpkg looks up the owners of files in the users of the system that it runs on: the tree's, not the tools'.
        let users =
            ["passwd", "group"].map(|name| (Path::new("/etc").join(name), Path::new("/buildroot/etc").join(name)));
        let is_users =
            |mount: &Mount| matches!(mount, Mount::File { target, .. } if users.iter().any(|(own, _)| own == target));
        let mut mounts = tools(cx, false);
        mounts.retain(|mount| !is_users(mount));
        mounts.extend(users.clone().map(|(target, points_to)| Mount::Symlink { target, points_to }));
        for directory in
            ["/apt/etc/apt.conf.d", "/apt/etc/sources.list.d", "/apt/etc/preferences.d", "/apt/lists", "/apt/pool"]
        {
            mounts.push(Mount::Directory { target: PathBuf::from(directory), mode: 0o755 });
        }
        for (target, deb) in &self.debs {
            let (source, target) = (deb.path.clone(), target.clone());
            mounts.push(Mount::Bind { source, target, read_only: true, optional: false });
        }
        mounts.push(self.root.clone());
        let path = |name: &str| Path::new("/buildroot").join(name);
        mounts.push(Mount::Proc { target: path("proc") });
        mounts.push(Mount::Dev { target: path("dev") });
        if kernel == Kernel::Whole {
            mounts.push(Mount::Tmpfs { target: path("tmp"), mode: 0o1777 });
            mounts.push(Mount::Tmpfs { target: path("run"), mode: 0o755 });
        }
        mounts.push(file("/apt/script", script.as_bytes()));
        let mut env = environment(cx);
        // debconf writes what it has in hashes in their own order, which perl changes with every process otherwise.
        env.insert("PERL_HASH_SEED".to_owned(), "0".to_owned());
        let newest = self.debs.iter().map(|(_, deb)| deb.timestamp).max();
        if let Some(epoch) = self.options.epoch.or(newest) {
            env.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
        }
        env.extend(self.options.environment.clone());
        let argv = vec!["sh".to_owned(), "/apt/script".to_owned()];
        let spec = Spec { argv, env, mounts, ..Spec::default() };
        let printed = run_logged(cx, &spec)?;
        if printed.exit.success() { Ok(()) } else { Err(failure(what, &printed)) }
    }

    fn tree(&self) -> Tree<'_> {
        Tree { root: "/buildroot", docs: self.options.docs }
    }

    /// Unpacks every package without running anything of it, several at once.
    fn bootstrap_script(&self) -> String {
        let mut script = String::from("set -eu\numask 022\nR=/buildroot\n");
        // What debootstrap merges into /usr.
        for directory in merged_usr(self.options.target.architecture.debian()) {
            script.push_str(&format!(
                "mkdir -p $R/usr/{directory}\n[ -e $R/{directory} ] || ln -s usr/{directory} $R/{directory}\n"
            ));
        }
        let excludes: String = match self.options.docs {
            true => String::new(),
            false => DOCS.iter().map(|glob| format!(" --exclude=./{glob}")).collect(),
        };
        script.push_str(
            "mkdir -p $R/var/lib/dpkg/info $R/var/lib/dpkg/updates $R/var/lib/dpkg/triggers\n\
             for f in status available; do [ -e $R/var/lib/dpkg/$f ] || : >$R/var/lib/dpkg/$f; done\n",
        );
        let all: Vec<&Path> = self.debs.iter().map(|(path, _)| path.as_path()).collect();
        // With the helper the packages are unpacked for good, without it so that their scripts can run.
        if let Some(helper) = self.unpack_with_helper(&all, true) {
            script.push_str(&format!("{helper} && exit 0\n{DECLINED_OR_EXIT}"));
        }
        let unpack = format!(
            "dpkg-deb --fsys-tarfile \"$0\" | tar -C /buildroot -xpf - --keep-directory-symlink --numeric-owner \
             --exclude=./proc --exclude=./dev{excludes}"
        );
        script.push_str(&format!("xargs -P \"$(nproc)\" -n 1 sh -euc {} <<'END'\n", quote(&unpack)));
        for (path, _) in &self.debs {
            script.push_str(&format!("{}\n", path.display()));
        }
        script.push_str("END\n");
        script
    }

    /// Unpacks and configures with dpkg. One package's script may need others to be configured before it is
    /// unpacked (`Pre-Depends`), so that this goes in as few rounds as that allows.
    fn install_script(&self, base: bool) -> Result<String, Error> {
        let options = dpkg_options(&self.tree()).iter().map(|o| format!(" {}", quote(o))).collect::<String>();
        let mut script = format!("{PROLOGUE}dpkg_() {{ dpkg{options} \"$@\"; }}\n");
        let dpkg = |paths: &[&Path]| {
            let paths: String = paths.iter().map(|path| format!(" {}", quote(&path.display().to_string()))).collect();
            // The order is right already, and what a script needs is configured; dpkg would insist on more.
            format!("dpkg_ --force-depends --no-triggers --unpack{paths}")
        };
        for round in rounds(&self.debs, base) {
            if base {
                // Not if the helper has unpacked them already.
                script.push_str(&format!("[ -s $R/var/lib/dpkg/status ] || {}\n", dpkg(&paths(&round))));
            } else {
                let (scripted, plain): (Vec<_>, Vec<_>) =
                    round.into_iter().partition(|(_, deb)| deb.files.contains_key("preinst"));
                let (scripted, plain) = (paths(&scripted), paths(&plain));
                match self.unpack_with_helper(&plain, false) {
                    Some(helper) if plain.len() > 1 => {
                        script.push_str(&format!("{helper} || {{\n{DECLINED_OR_EXIT}{}\n}}\n", dpkg(&plain)))
                    }
                    _ if !plain.is_empty() => script.push_str(&format!("{}\n", dpkg(&plain))),
                    _ => {}
                }
                if !scripted.is_empty() {
                    script.push_str(&format!("{}\n", dpkg(&scripted)));
                }
            }
            // What depends on a package of a later round waits for the end, where a failure is one.
            script.push_str("dpkg_ --no-triggers --configure --pending || :\n");
        }
        script.push_str("dpkg_ --configure --pending\n");
        script.push_str(&self.apt_state());
        if self.packages.iter().any(|p| p.name == "apt") {
            let release = &self.options.target.release;
            let text = Repositories::image_text(&self.options.target, &self.options.components)?;
            let path = quote(&format!("/buildroot/etc/apt/sources.list.d/{release}.sources"));
            script.push_str(&format!(
                "mkdir -p $R/etc/apt/sources.list.d\n[ -e {path} ] || printf %s {} >{path}\n",
                quote(&text)
            ));
        }
        script.push_str(EPILOGUE);
        Ok(script)
    }

    /// The command that unpacks packages several at once.
    fn unpack_with_helper(&self, debs: &[&Path], base: bool) -> Option<String> {
        if !self.parallel {
            return None;
        }
        let plan = Plan {
            root: PathBuf::from("/buildroot"),
            debs: debs.iter().map(|path| path.to_path_buf()).collect(),
            docs: self.options.docs,
            base,
        };
        let json = serde_json::to_string(&plan).ok()?;
        Some(format!(
            "printf %s {} >/tmp/plan\ncode=0\n{EXECUTABLE} {ENTRY} /tmp/plan || code=$?\n[ $code = 0 ]",
            quote(&json)
        ))
    }

    /// Notes which packages came in as dependencies, where apt looks for it.
    fn apt_state(&self) -> String {
        let automatic = self.packages.iter().filter(|p| p.automatic);
        let stanzas: BTreeMap<(&str, &str), String> = automatic
            .map(|p| {
                let native = self.options.target.architecture.debian();
                let architecture = if p.architecture == "all" { native } else { p.architecture.as_str() };
                let text = format!("Package: {}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n", p.name);
                ((p.name.as_str(), architecture), text)
            })
            .collect();
        if stanzas.is_empty() {
            return String::new();
        }
        let text: String = stanzas.into_values().collect();
        format!("mkdir -p $R/var/lib/apt\nprintf %s {} >>$R/var/lib/apt/extended_states\n", quote(&text))
    }
}

/// The directories that debootstrap makes links of: `bin`, `sbin`, `lib`, and those of other word sizes.
pub(super) fn merged_usr(architecture: &str) -> Vec<&'static str> {
    let more: &[&str] = match architecture {
        "amd64" => &["lib32", "lib64", "libx32"],
        "i386" => &["lib64", "libx32"],
        "loong64" | "mipsel" | "ppc64" => &["lib32", "lib64"],
        "mips64el" => &["lib32", "lib64", "libo32"],
        "powerpc" | "ppc64el" => &["lib64"],
        "s390x" => &["lib32"],
        _ => &[],
    };
    ["bin", "sbin", "lib"].iter().chain(more).copied().collect()
}

/// Quotes a word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The lines that say why: dpkg's and apt's errors with the line before each, or else the end of the output.
fn failure(what: &str, printed: &Printed) -> Error {
    let lines: Vec<&str> = printed.stderr.lines().collect();
    let is_error = |l: &str| l.starts_with("dpkg: error") || l.starts_with("E: ") || l.contains("error processing");
    let mut picked = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if is_error(line) {
            let from = at.saturating_sub(3);
            picked.extend(lines.get(from..(at + 2).min(lines.len())).unwrap_or_default());
        }
    }
    picked.dedup();
    if picked.is_empty() {
        picked = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().iter().collect();
    }
    let detail = picked.iter().take(40).map(|l| **l).collect::<Vec<_>>().join("\n");
    Error::Install { what: what.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quote("a'b"), "'a'\\''b'");
    }
}
