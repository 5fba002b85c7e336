//! Commands that stand first in the `PATH` of a script and act on the image instead of the sandbox: the package
//! manager's, `mkosi-install` and its kin, `useradd` and `groupadd`. Knows nothing of which script calls them.
//!
//! They are small shell scripts. apt gets a configuration, lists and a cache of its own, as everywhere in this program;
//! the image's state is where it reads and writes what is installed.

use crate::distro::{Configuration, Repositories, Tree, local_preferences};
use crate::sandbox::{BIN, Mount, Spec};
use crate::stage::context::BUILDROOT;
use crate::stage::{Context, StageError, debian};
use crate::store::Artifact;

/// Where apt's files are in the sandbox.
const APT: &str = "/run/mkosi/apt";
/// Programs of apt that act on the image.
const APT_PROGRAMS: [&str; 9] = [
    "apt",
    "apt-cache",
    "apt-cdrom",
    "apt-config",
    "apt-extracttemplates",
    "apt-get",
    "apt-key",
    "apt-mark",
    "apt-sortpkgs",
];
/// Programs of dpkg that do.
const DPKG_PROGRAMS: [&str; 5] = ["dpkg", "dpkg-divert", "dpkg-query", "dpkg-statoverride", "dpkg-trigger"];
/// Our own names for what every package manager can do.
const OWN: [(&str, &str); 4] = [
    ("mkosi-install", "apt-get install"),
    ("mkosi-reinstall", "apt-get install --reinstall"),
    ("mkosi-remove", "apt-get purge"),
    ("mkosi-upgrade", "apt-get upgrade"),
];
/// Makers of users, which know their own way into a root directory.
const USERS: [&str; 2] = ["groupadd", "useradd"];

/// Adds the commands to a specification that has the image at [`BUILDROOT`].
pub fn add(cx: &Context<'_>, spec: &mut Spec) -> Result<(), StageError> {
    for name in USERS {
        if let Some(path) = cx.tools.find(name) {
            command(spec, name, &format!("exec {} --root \"${{BUILDROOT:-{BUILDROOT}}}\" \"$@\"", path.display()));
        }
    }
    if matches!(cx.view.text("Distribution"), Some("debian" | "ubuntu")) && cx.tools.find("apt-get").is_some() {
        apt(cx, spec)?;
    }
    Ok(())
}

fn script(spec: &mut Spec, path: &str, text: &str) {
    let contents = format!("#!/bin/sh\n{text}\n").into_bytes();
    spec.mounts.push(Mount::File { target: path.into(), contents, mode: 0o755 });
}

fn command(spec: &mut Spec, name: &str, text: &str) {
    script(spec, &format!("{BIN}/{name}"), text);
}

fn apt(cx: &Context<'_>, spec: &mut Spec) -> Result<(), StageError> {
    let repositories = debian::repositories(cx)?;
    spec.mounts.extend(repositories.mounts.iter().cloned());
    spec.mounts.extend(repositories.etc(&format!("{APT}/etc")));
    spec.mounts.push(Mount::Directory { target: format!("{APT}/local").into(), mode: 0o755 });
    let mut file = |path: &str, contents: &[u8]| {
        let target = format!("{APT}/{path}").into();
        spec.mounts.push(Mount::File { target, contents: contents.to_vec(), mode: 0o644 });
    };
    file("local.sources", LOCAL.as_bytes());
    file("etc/preferences.d/mkosi-local.pref", local_preferences().as_bytes());
    file("apt.conf", configuration(cx, &repositories).as_bytes());

    // Which suites the mirror has, and what is in them, stands in the metadata that the stage `sync` fetched.
    let target = format!("{APT}/metadata").into();
    spec.mounts.push(match cx.needs.get("sync.lists") {
        // `apt-get update` in a script is fine, and what it fetches is forgotten.
        Some(Artifact::Tree { layers }) if !layers.is_empty() => {
            let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
            cx.throwaway("apt-metadata", &layers, target)?
        }
        _ => {
            let upper = cx.scratch("apt-metadata")?;
            cx.scratch("apt-metadata/lists/partial")?;
            let path = upper.join("mkosi.sources");
            std::fs::write(&path, repositories.text()).map_err(StageError::io("write", &path))?;
            Mount::Bind { source: upper, target, read_only: false, optional: false }
        }
    });
    if !repositories.files.contains_key("sources.list.d/mkosi.sources") {
        spec.mounts.push(Mount::Symlink {
            target: format!("{APT}/etc/sources.list.d/mkosi.sources").into(),
            points_to: format!("{APT}/metadata/mkosi.sources").into(),
        });
    }
    cx.scratch("apt-cache/archives/partial")?;
    let (source, target) = (cx.scratch("apt-cache")?, format!("{APT}/cache").into());
    spec.mounts.push(Mount::Bind { source, target, read_only: false, optional: false });

    let run = format!("{APT}/run");
    script(spec, &run, &RUN.replace("@APT@", APT));
    for name in APT_PROGRAMS.into_iter().chain(DPKG_PROGRAMS) {
        if cx.tools.find(name).is_none() {
            continue;
        }
        // What changes the image needs its /proc and so on, and its users instead of the sandbox's.
        let within = if matches!(name, "apt" | "apt-get" | "dpkg") { "mkosi-within " } else { "" };
        command(spec, name, &format!("exec {within}{run} {name} \"$@\""));
    }
    for (name, operation) in OWN {
        command(spec, name, &format!("exec mkosi-within {run} {operation} \"$@\""));
    }
    Ok(())
}

/// The repository of what lies in `$PACKAGEDIR`.
const LOCAL: &str = "Types: deb\nURIs: file:/run/mkosi/apt/local\nSuites: ./\nTrusted: yes\n";

fn configuration(cx: &Context<'_>, repositories: &Repositories) -> String {
    Configuration {
        architecture: repositories.target.architecture.debian(),
        directory: APT,
        lists: &format!("{APT}/metadata/lists"),
        recommends: cx.view.bool("WithRecommends"),
        key_check: repositories.key_check,
        acquire: &repositories.acquire,
        tree: Some(Tree { root: BUILDROOT, docs: cx.view.bool("WithDocs") }),
    }
    .text()
}

/// Runs a program on the image: its name, then its arguments. Packages in `$PACKAGEDIR` become a repository first.
/// `policy-rc.d` keeps scripts from starting services (invoke-rc.d(8)); what differs between two runs (locks, backups,
/// caches, logs) is taken away afterwards, like after the engine's own installations.
const RUN: &str = r#"program=$1; shift
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
APT_CONFIG=@APT@/apt.conf
DEBIAN_FRONTEND=noninteractive DEBCONF_INTERACTIVE_SEEN=true PERL_HASH_SEED=0
export PATH APT_CONFIG DEBIAN_FRONTEND DEBCONF_INTERACTIVE_SEEN PERL_HASH_SEED
R=${BUILDROOT:-/buildroot}
case $program in
dpkg) set -- --root="$R" --log=/dev/null --force-unsafe-io --force-architecture --no-debsig "$@" ;;
dpkg-*) exec "$program" --root="$R" "$@" ;;
apt-mark) mkdir -p "$R/var/lib/apt" ;;
esac
case $program in
apt|apt-get|dpkg) ;;
*) exec "$program" "$@" ;;
esac
umask 022
for directory in var/lib/apt var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers; do mkdir -p "$R/$directory"; done
for file in status available; do [ -e "$R/var/lib/dpkg/$file" ] || : >"$R/var/lib/dpkg/$file"; done
local=@APT@/local
for deb in /work/packages/*.deb; do
    [ "$program" != dpkg ] && [ -e "$deb" ] || break
    [ -n "${indexed-}" ] || rm -f $local/*
    indexed=yes
    ln -s "$deb" $local/
    { dpkg-deb -f "$deb" || exit 1
      printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d ' ' -f 1)"
    } >>$local/Packages
done
if [ -n "${indexed-}" ]; then
    list=$local/Packages
    { echo "Origin: mkosi-local"; echo "SHA256:"
      echo " $(sha256sum <$list | cut -d ' ' -f 1) $(stat -c %s $list) Packages"; } >$local/Release
    ln -sf @APT@/local.sources @APT@/etc/sources.list.d/local.sources
    mkdir -p @APT@/only
    ln -sf @APT@/local.sources @APT@/only/local.sources
    apt-get -qq -o Dir::Etc::sourceparts=@APT@/only -o APT::Get::List-Cleanup=false update || exit
fi
policy=
if [ ! -e "$R/usr/sbin/policy-rc.d" ] && [ -d "$R/usr/sbin" ]; then
    policy=$R/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
"$program" "$@"
status=$?
[ -z "$policy" ] || rm -f "$policy"
cd "$R/var" 2>/dev/null || exit $status
rm -f log/alternatives.log log/dpkg.log log/fontconfig.log cache/ldconfig/aux-cache cache/debconf/*-old
rm -f lib/dpkg/*-old lib/dpkg/lock lib/dpkg/lock-frontend lib/dpkg/triggers/Lock
cd "$R/etc" 2>/dev/null || exit $status
rm -f .pwd.lock passwd- group- shadow- gshadow- subuid- subgid-
exit $status
"#;
