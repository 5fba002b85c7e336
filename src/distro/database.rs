//! The part of dpkg's database that unpacking changes: `status`, `info/`, `triggers/` below /var/lib/dpkg.
//!
//! The formats are dpkg's own and described in its source (`lib/dpkg/dbdir.c`, `trigdeferred.c`, `triglib.c`); dpkg
//! writes `status` anew when it configures, in its own order of fields.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::deb::Deb;
use super::deb822::{self, Paragraph};
use super::extract::Claims;
use super::unpack::Stop;

const DIRECTORY: &str = "/var/lib/dpkg";

/// A package whose files are in place, and their names.
pub(super) struct Unpacked<'a> {
    pub deb: &'a Deb,
    pub paths: Vec<String>,
}

/// The database as it was before.
pub(super) struct Database {
    base: bool,
    status: String,
    names: BTreeSet<String>,
    paths: BTreeSet<String>,
}

impl Database {
    /// Reads the tree's database; what is missing is empty.
    pub fn read(base: bool) -> Result<Self, Stop> {
        let status = read(&Path::new(DIRECTORY).join("status"))?;
        let names = deb822::parse(&status).iter().filter_map(|s| s.get("Package").map(str::to_owned)).collect();
        let mut paths = BTreeSet::new();
        for entry in std::fs::read_dir(Path::new(DIRECTORY).join("info")).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "list") {
                paths.extend(read(&path)?.lines().map(str::to_owned));
            }
        }
        let pending = std::fs::read_dir(Path::new(DIRECTORY).join("updates"));
        if pending.is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Stop::Declined("dpkg's database has changes that are not merged yet".to_owned()));
        }
        Ok(Self { base, status, names, paths })
    }

    /// The paths of the installed packages, directories too, without those that are directories: a package that
    /// brings a file at one of these is a case for dpkg.
    pub fn paths(&self) -> BTreeSet<String> {
        self.paths.iter().filter(|path| !Path::new(path).is_dir()).cloned().collect()
    }

    /// Whether these packages are new and plain.
    pub fn accept(&self, debs: &[Deb]) -> Result<(), Stop> {
        let declined = |deb: &Deb, why: &str| Err(Stop::Declined(format!("{} {why}", deb.path.display())));
        for deb in debs {
            let control = deb.control();
            let Some(name) = control.get("Package") else { return declined(deb, "has no name") };
            if self.names.contains(name) {
                return declined(deb, "is known to dpkg already");
            }
            if !deb.files.contains_key("md5sums") {
                return declined(deb, "has no list of checksums");
            }
            if deb.text("conffiles").lines().any(|l| !l.is_empty() && !l.starts_with('/')) {
                return declined(deb, "has configuration files with flags");
            }
            if !self.base && deb.files.contains_key("preinst") {
                return declined(deb, "has a preinst script");
            }
        }
        Ok(())
    }

    /// Whether no diversion or override concerns what was unpacked. dpkg compares names as they are: in a tree with
    /// merged /usr, packages have `/usr/lib64/x`, and diversions of `/lib64/x` guard against those that don't.
    pub fn accept_diversions(&self, claims: &Claims, debs: &[Deb]) -> Result<(), Stop> {
        let directory = Path::new(DIRECTORY);
        let concerned = |path: &str, but: &str| {
            let owner = |index: usize| debs.get(index).map(|deb| deb.control().get("Package") == Some(but));
            claims.literal(path).any(|index| owner(index) != Some(true))
        };
        let declined = |path: &str| Err(Stop::Declined(format!("{path} is diverted or has an override")));
        // Three lines each: from, to, the package whose own file is not diverted.
        let diversions = read(&directory.join("diversions"))?;
        let lines: Vec<&str> = diversions.lines().collect();
        for diversion in lines.chunks(3) {
            let [from, to, owner] = diversion else { return declined("something") };
            if concerned(from, owner) || concerned(to, "") {
                return declined(from);
            }
        }
        let overrides = read(&directory.join("statoverride"))?;
        for path in overrides.lines().filter_map(|line| line.splitn(4, ' ').nth(3)) {
            if concerned(path, "") {
                return declined(path);
            }
        }
        Ok(())
    }

    /// Writes that these packages are unpacked.
    pub fn write(&self, packages: &[Unpacked<'_>]) -> Result<(), Stop> {
        let directory = Path::new(DIRECTORY);
        for name in ["info", "triggers", "updates"] {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).map_err(Stop::io("could not make", &path))?;
        }
        put(&directory.join("info/format"), b"1\n", 0o644)?;
        let mut status = self.status.clone();
        if !status.is_empty() && !status.ends_with("\n\n") {
            status.push('\n');
        }
        let mut triggers = Triggers::read(directory)?;
        for package in packages {
            let control = package.deb.control();
            let name = info_name(&control);
            let info = |kind: &str| directory.join("info").join(format!("{name}.{kind}"));
            for (kind, file) in package.deb.files.iter().filter(|(kind, _)| *kind != "control") {
                put(&info(kind), &file.contents, file.mode)?;
            }
            let list: String = package.paths.iter().map(|path| format!("{path}\n")).collect();
            put(&info("list"), list.as_bytes(), 0o644)?;
            stanza(control, &package.deb.text("conffiles")).write_to(&mut status);
            triggers.add(&name, &package.deb.text("triggers"));
        }
        if !self.base {
            packages.iter().for_each(|package| triggers.activate_by_files(&package.paths));
        } else {
            // Nothing is configured yet, so that nobody waits for a trigger.
            triggers.activated.clear();
        }
        triggers.write(directory)?;
        // Last: from here on dpkg knows of the packages.
        put(&directory.join("status"), status.as_bytes(), 0o644)
    }
}

/// The name under which `info/` has a package's files.
fn info_name(control: &Paragraph) -> String {
    let field = |name: &str| control.get(name).unwrap_or_default();
    if field("Multi-Arch") == "same" {
        format!("{}:{}", field("Package"), field("Architecture"))
    } else {
        field("Package").to_owned()
    }
}

/// What `status` says of an unpacked package.
fn stanza(mut control: Paragraph, conffiles: &str) -> Paragraph {
    control.set("Status", "install ok unpacked");
    let lines: String =
        conffiles.lines().filter(|l| !l.is_empty()).map(|l| format!("\n{} newconffile", l.trim_end())).collect();
    if !lines.is_empty() {
        control.set("Conffiles", lines);
    }
    control
}

/// Who is interested in which trigger, and what was activated (deb-triggers(5)).
struct Triggers {
    /// Lines of `triggers/File`: a path and the package.
    files: Vec<String>,
    /// Lines of `triggers/NAME`.
    named: BTreeMap<String, Vec<String>>,
    activated: BTreeSet<String>,
}

impl Triggers {
    fn read(directory: &Path) -> Result<Self, Stop> {
        let files = read(&directory.join("triggers/File"))?.lines().map(str::to_owned).collect();
        Ok(Self { files, named: BTreeMap::new(), activated: BTreeSet::new() })
    }

    fn add(&mut self, package: &str, directives: &str) {
        for line in directives.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
            let interested = match directive {
                "interest" | "interest-await" => package.to_owned(),
                "interest-noawait" => format!("{package}/noawait"),
                _ => {
                    self.activated.insert(trigger.to_owned());
                    continue;
                }
            };
            if trigger.starts_with('/') {
                self.files.push(format!("{trigger} {interested}"));
            } else {
                self.named.entry(trigger.to_owned()).or_default().push(interested);
            }
        }
    }

    fn activate_by_files(&mut self, paths: &[String]) {
        let triggers: BTreeSet<&str> = self.files.iter().filter_map(|line| line.split(' ').next()).collect();
        let below = |path: &str, trigger: &str| {
            path.strip_prefix(trigger).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let hit = |trigger: &&&str| paths.iter().any(|path| below(path, trigger));
        let hits: Vec<String> = triggers.iter().filter(hit).map(|t| (*t).to_owned()).collect();
        self.activated.extend(hits);
    }

    fn write(&self, directory: &Path) -> Result<(), Stop> {
        let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        if !self.files.is_empty() {
            put(&directory.join("triggers/File"), lines(&self.files).as_bytes(), 0o644)?;
        }
        for (name, interested) in &self.named {
            let path = directory.join("triggers").join(name);
            let text = format!("{}{}", read(&path)?, lines(interested));
            put(&path, text.as_bytes(), 0o644)?;
        }
        // Written in any case: without this file dpkg activates every trigger that there is.
        let path = directory.join("triggers/Unincorp");
        let activated: String = self.activated.iter().map(|trigger| format!("{trigger} -\n")).collect();
        put(&path, format!("{}{activated}", read(&path)?).as_bytes(), 0o644)
    }
}

fn read(path: &Path) -> Result<String, Stop> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(Stop::io("could not read", path)),
    }
}

/// Writes a file, but not one that has these contents already: a layer is to hold what changed.
fn put(path: &Path, contents: &[u8], mode: u32) -> Result<(), Stop> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if std::fs::read(path).is_ok_and(|old| old == contents) && path.metadata().is_ok_and(|m| m.mode() & 0o777 == mode) {
        return Ok(());
    }
    let temporary = PathBuf::from(format!("{}.mkosi-new", path.display()));
    let what = || Stop::io("could not write", path);
    std::fs::write(&temporary, contents).map_err(what())?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode)).map_err(what())?;
    std::fs::rename(&temporary, path).map_err(what())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_stanza() {
        let control =
            deb822::parse("Package: a\nArchitecture: amd64\nMulti-Arch: same\nDescription: x\n y\n").remove(0);
        assert_eq!(info_name(&control), "a:amd64");
        insta::assert_snapshot!(stanza(control, "/etc/a\n/etc/b\n").to_string());
    }

    #[test]
    fn triggers_are_noted() {
        let (files, named) = (vec!["/usr/lib/b old".to_owned()], BTreeMap::new());
        let mut triggers = Triggers { files, named, activated: BTreeSet::new() };
        triggers.add("a", "# c\ninterest-noawait /usr/share/a\ninterest ldconfig\nactivate-noawait x # y\n");
        triggers.activate_by_files(&["/usr/lib/b/c".to_owned(), "/usr/share/ab".to_owned()]);
        assert_eq!(triggers.files, ["/usr/lib/b old", "/usr/share/a a/noawait"]);
        assert_eq!(triggers.named.get("ldconfig").unwrap(), &["a"]);
        assert_eq!(triggers.activated.into_iter().collect::<Vec<_>>(), ["/usr/lib/b", "x"]);
    }
}
