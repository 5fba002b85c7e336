//! The shell scripts that unpack and configure packages in a tree. Knows nothing of where they run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{BUILDROOT, DOCS, Work};
use crate::distro::configuration::dpkg_options;
use crate::distro::order::{paths, rounds};
use crate::distro::unpack::{ENTRY, Plan};
use crate::distro::{Error, Repositories};
use crate::sandbox::EXECUTABLE;

/// `policy-rc.d` keeps scripts from starting services (invoke-rc.d(8)).
pub(super) const PROLOGUE: &str = "set -eu
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
pub(super) const EPILOGUE: &str = r#"rm -f $R/usr/sbin/policy-rc.d $R/etc/systemd/system-generators/systemd-gpt-auto-generator
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

impl Work<'_> {
    /// Unpacks every package without running anything of it, several at once.
    pub(super) fn bootstrap_script(&self) -> String {
        let mut script = String::from("set -eu\numask 022\nR=/buildroot\n");
        for directory in self.links() {
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

    /// What debootstrap merges into /usr.
    pub(super) fn links(&self) -> Vec<String> {
        merged_usr(self.options.target.architecture.debian()).into_iter().map(str::to_owned).collect()
    }

    /// Unpacks and configures with dpkg. One package's script may need others to be configured before it is
    /// unpacked (`Pre-Depends`), so that this goes in as few rounds as that allows.
    pub(super) fn install_script(&self, base: bool) -> Result<String, Error> {
        let options = dpkg_options(&self.tree()).iter().map(|o| format!(" {}", quote(o))).collect::<String>();
        let root = if self.within { "" } else { BUILDROOT };
        let mut script = format!("{}dpkg_() {{ dpkg{options} \"$@\"; }}\n", PROLOGUE.replace(BUILDROOT, root));
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
            let path = quote(&format!("{root}/etc/apt/sources.list.d/{release}.sources"));
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
            first: None,
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
pub(in crate::distro) fn merged_usr(architecture: &str) -> Vec<&'static str> {
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
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quote("a'b"), "'a'\\''b'");
    }
}
