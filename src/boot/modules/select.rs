//! Which modules and firmware of a kernel the settings keep, with all that these need.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::firmware::{Firmware, WithLinks};
use super::info::{Info, normalise, without_suffix};
use super::kernel::Kernel;
use super::links::join;
use super::pattern::{Patterns, Verdict};
use super::{ModulesError, PatternError, follow};
use crate::store::MergedTree;

/// What the settings wish.
#[derive(Debug)]
pub struct Wishes {
    /// Modules to keep.
    include: Patterns,
    /// Modules to leave out.
    exclude: Patterns,
    /// Firmware to keep besides what modules need.
    firmware: Patterns,
    /// Firmware to leave out.
    firmware_exclude: Patterns,
}

impl Wishes {
    /// Reads the lists of the settings.
    ///
    /// # Errors
    /// A pattern that can't be read.
    pub fn new(
        include: &[String],
        exclude: &[String],
        firmware: &[String],
        firmware_exclude: &[String],
    ) -> Result<Self, PatternError> {
        Ok(Self {
            include: Patterns::new(include, true)?,
            exclude: Patterns::new(exclude, true)?,
            firmware: Patterns::new(firmware, false)?,
            firmware_exclude: Patterns::new(firmware_exclude, false)?,
        })
    }

    /// Whether nothing is wished.
    pub fn is_empty(&self) -> bool {
        let all = [&self.include, &self.exclude, &self.firmware, &self.firmware_exclude];
        all.into_iter().all(Patterns::is_empty)
    }

    fn keeps(&self, path: &str) -> bool {
        // Regular expressions are from a time when paths began below the first directory, `kernel/`.
        let rest = path.split_once('/').map_or("", |(_, rest)| rest);
        let wanted =
            || self.include.regexes(rest) || self.include.globs(&normalise(without_suffix(path))) == Verdict::Wanted;
        if !self.exclude.is_empty() {
            return !self.exclude.regexes(rest) || wanted();
        }
        self.include.is_empty() || wanted()
    }
}

/// The modules and firmware of a kernel that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The modules, below the root.
    pub modules: BTreeSet<Vec<u8>>,
    /// The firmware, with links.
    pub firmware: WithLinks,
    /// Whether all modules of the kernel are kept.
    pub whole: bool,
    /// What was looked for and isn't there, for people.
    pub missing: Vec<String>,
}

/// Chooses modules and firmware of a kernel.
///
/// # Errors
/// A module or list of modules that can't be read.
pub fn select(tree: &MergedTree, kernel: &Kernel<'_>, wishes: &Wishes) -> Result<Selection, ModulesError> {
    let firmware = Firmware::new(tree);
    let mut selection = Selection::default();
    let mut found = BTreeSet::new();
    let everything = wishes.include.is_empty() && wishes.exclude.is_empty();
    let chosen: BTreeSet<&str> = kernel.modules.keys().map(String::as_str).filter(|path| wishes.keeps(path)).collect();
    let kept = if everything && firmware.is_empty() {
        chosen
    } else {
        closure(kernel, &firmware, chosen, &mut found, &mut selection.missing)?
    };
    firmware.choose(&mut found, &wishes.firmware, &wishes.firmware_exclude);
    selection.whole = kept.len() == kernel.modules.len();
    selection.firmware = firmware.with_links(&found);
    for path in kept {
        let path = join(&kernel.dir, path.as_bytes());
        let followed = follow(tree, &path);
        // A link in `weak-updates/` leads to another kernel's directory.
        selection.modules.extend(followed.end.map(|end| end.entry.path.clone()));
        selection.modules.insert(path);
    }
    Ok(selection)
}

/// The modules with all modules that they need, and the firmware that these need. What built-in modules need is needed
/// whatever is chosen.
fn closure<'k>(
    kernel: &'k Kernel<'_>,
    firmware: &Firmware<'_>,
    chosen: BTreeSet<&'k str>,
    found: &mut BTreeSet<Vec<u8>>,
    missing: &mut Vec<String>,
) -> Result<BTreeSet<&'k str>, ModulesError> {
    let aliases = kernel.aliases()?;
    let builtin = kernel.builtin()?;
    let mut kept = BTreeSet::new();
    let mut next = chosen;
    // Built-in modules first: they are there.
    let mut infos: Vec<(String, Info)> = builtin.clone().into_iter().collect();
    loop {
        for (name, info) in infos {
            for wish in &info.firmware {
                found.extend(firmware.wanted(wish));
            }
            for needed in &info.modules {
                let paths = paths_of(kernel, &aliases, needed);
                if paths.is_empty() && !builtin.contains_key(needed) {
                    missing.push(format!("{name} can use the module {needed}, which is not installed"));
                }
                next.extend(paths.into_iter().filter(|path| !kept.contains(path)));
            }
        }
        kept.extend(next.iter().copied());
        if next.is_empty() {
            return Ok(kept);
        }
        let round: Vec<&str> = std::mem::take(&mut next).into_iter().collect();
        infos = round
            .par_iter()
            .map(|path| Ok((without_suffix(path).rsplit('/').next().unwrap_or(path).to_owned(), kernel.info(path)?)))
            .collect::<Result<Vec<_>, ModulesError>>()?;
    }
}

/// The paths of the modules that are meant by a name, which may be an alias.
fn paths_of<'k>(kernel: &'k Kernel<'_>, aliases: &BTreeMap<String, Vec<String>>, name: &str) -> Vec<&'k str> {
    let named = kernel.named(name);
    if !named.is_empty() {
        return named.iter().map(String::as_str).collect();
    }
    let modules = aliases.get(name).into_iter().flatten();
    modules.flat_map(|module| kernel.named(module)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{elf, tree_in};
    use super::super::{initrd_entries, leftovers};
    use super::*;
    use crate::store::MergedEntry;

    const VERSION: &str = "6.1-x";

    fn lists(include: &[&str], exclude: &[&str], firmware: &[&str]) -> Wishes {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Wishes::new(&list(include), &list(exclude), &list(firmware), &[]).unwrap()
    }

    /// Modules `(path, .modinfo)` below `kernel/`, and other files.
    fn made_up(dir: &std::path::Path, modules: &[(&str, &str)], others: &[(&str, &[u8])]) -> MergedTree {
        let base = format!("usr/lib/modules/{VERSION}");
        let mut files: Vec<(String, Vec<u8>)> =
            modules.iter().map(|(path, info)| (format!("{base}/kernel/{path}"), elf(info))).collect();
        files.extend(others.iter().map(|(path, bytes)| (path.replace('@', &base), bytes.to_vec())));
        tree_in(dir, &files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    }

    fn names(selection: &Selection) -> Vec<String> {
        let name = |path: &Vec<u8>| String::from_utf8_lossy(path.rsplit(|b| *b == b'/').next().unwrap()).into_owned();
        selection.modules.iter().chain(&selection.firmware.paths).map(name).collect()
    }

    fn ext4(dir: &std::path::Path) -> MergedTree {
        made_up(
            dir,
            &[
                ("crypto/crc32c_generic.ko", "name=crc32c_generic\0"),
                ("drivers/net/nic.ko", "name=nic\0firmware=nic.bin\0depends=gone\0"),
                ("fs/ext4/ext4.ko", "name=ext4\0depends=jbd2,mbcache\0softdep=pre: crc32c\0"),
                ("fs/jbd2/jbd2.ko", "name=jbd2\0"),
                ("fs/mb_cache.ko", "name=mb_cache\0"),
                ("fs/mbcache.ko", "name=mbcache\0"),
            ],
            &[
                ("@/modules.alias", b"alias crc32c crc32c_generic\nalias pci:v* nic\n"),
                ("@/modules.builtin", b"kernel/drivers/gpu/fb.ko\n"),
                ("@/modules.builtin.modinfo", b"fb.firmware=fb.bin\0"),
                ("@/modules.dep", b""),
                ("@/vdso/vdso64.so", b"x"),
                ("@/build/Makefile", b"x"),
                ("usr/lib/firmware/fb.bin.xz", b"x"),
                ("usr/lib/firmware/nic.bin", b"x"),
                ("usr/lib/firmware/other/other.bin", b"x"),
                ("usr/lib/firmware/intel-ucode/06-01-01", b"x"),
            ],
        )
    }

    #[test]
    fn what_is_kept_comes_with_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let tree = ext4(dir.path());
        let kernel = Kernel::new(&tree, VERSION);
        let chosen = |wishes: &Wishes| select(&tree, &kernel, wishes).unwrap();
        let kept = |wishes: &Wishes| names(&chosen(wishes));
        let only = chosen(&lists(&["/fs/ext4/"], &[], &[]));
        assert_eq!(names(&only), ["crc32c_generic.ko", "ext4.ko", "jbd2.ko", "mbcache.ko", "fb.bin.xz"]);
        assert!(!only.whole && only.missing.is_empty(), "{only:?}");
        let nic = chosen(&lists(&["n?c"], &[], &["other.bin"]));
        assert_eq!(names(&nic), ["nic.ko", "fb.bin.xz", "nic.bin", "other.bin"]);
        assert_eq!(nic.missing, ["nic can use the module gone, which is not installed"]);
        // What is wanted stays although it is excluded, and so does what others need.
        assert_eq!(
            kept(&lists(&["re:^fs/jbd2"], &["re:^fs/", "re:nic"], &[])),
            ["crc32c_generic.ko", "jbd2.ko", "fb.bin.xz"]
        );
        let all = chosen(&lists(&[], &[], &["-nic.bin"]));
        assert!(all.whole && all.modules.len() == 6);
        assert_eq!(names(&all)[6..], ["fb.bin.xz"]);
    }

    #[test]
    fn the_rest_goes_with_empty_directories() {
        let dir = tempfile::tempdir().unwrap();
        let tree = ext4(dir.path());
        let kernel = Kernel::new(&tree, VERSION);
        let selection = select(&tree, &kernel, &lists(&["jbd2"], &[], &[])).unwrap();
        let gone: Vec<String> = leftovers(&tree, &[(&kernel, &selection)])
            .iter()
            .map(|path| {
                String::from_utf8_lossy(path).replace("usr/lib/", "").replace(&format!("modules/{VERSION}/"), "@")
            })
            .collect();
        let expected = [
            "@kernel/fs/mbcache.ko",
            "@kernel/fs/mb_cache.ko",
            "@kernel/fs/ext4/ext4.ko",
            "@kernel/fs/ext4",
            "@kernel/drivers/net/nic.ko",
            "@kernel/drivers/net",
            "@kernel/drivers",
            "@kernel/crypto/crc32c_generic.ko",
            "@kernel/crypto",
            "firmware/other/other.bin",
            "firmware/other",
            "firmware/nic.bin",
        ];
        assert_eq!(gone, expected);
    }

    #[test]
    fn an_initrd_has_what_is_about_modules_too() {
        let dir = tempfile::tempdir().unwrap();
        let tree = ext4(dir.path());
        let kernel = Kernel::new(&tree, VERSION);
        let selection = select(&tree, &kernel, &lists(&["jbd2"], &[], &["-fb.bin"])).unwrap();
        let paths: Vec<String> = initrd_entries(&tree, &kernel, &selection)
            .iter()
            .map(|merged| {
                String::from_utf8_lossy(&merged.entry.path).replace(&format!("usr/lib/modules/{VERSION}"), "@")
            })
            .collect();
        let expected = [
            "usr",
            "usr/lib",
            "usr/lib/modules",
            "@",
            "@/kernel",
            "@/kernel/fs",
            "@/kernel/fs/jbd2",
            "@/kernel/fs/jbd2/jbd2.ko",
            "@/modules.alias",
            "@/modules.builtin",
            "@/modules.builtin.modinfo",
            "@/modules.dep",
            "@/vdso",
            "@/vdso/vdso64.so",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn dependencies_are_stale_when_they_list_other_modules() {
        let dir = tempfile::tempdir().unwrap();
        let modules = [("a.ko", "name=a\0"), ("b.ko", "name=b\0")];
        let with = |list: &[u8]| {
            let rest = [("@/modules.dep.bin", &b"x"[..]), ("@/modules.symbols", b"x"), ("@/modules.symbols.bin", b"x")];
            made_up(dir.path(), &modules, &[&[("@/modules.dep", list)][..], &rest].concat())
        };
        let stale =
            |tree: &MergedTree, layer: fn(&MergedEntry) -> usize| Kernel::new(tree, VERSION).is_stale(layer).unwrap();
        let both = with(b"kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n");
        assert!(!stale(&both, |_| 0));
        // A module of a later layer.
        assert!(stale(&both, |entry| usize::from(entry.entry.path.ends_with(b"b.ko"))));
        assert!(stale(&with(b"kernel/a.ko:\n"), |_| 0));
        assert!(stale(&with(b"kernel/a.ko:\nkernel/b.ko:\nkernel/c.ko:\n"), |_| 0));
        assert!(stale(&made_up(&dir.path().join("bare"), &modules, &[]), |_| 0));
        assert_eq!(super::super::versions(&both), [VERSION]);
        assert!(super::super::versions(&tree_in(dir.path(), &[("usr/lib/modules/1/updates/a.ko", b"x")])).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever modules need of each other and whatever is wished: what is kept has all that it needs, and
        /// nothing is kept that is neither wished nor needed.
        #[test]
        fn what_is_kept_is_closed(needs in proptest::collection::vec(proptest::collection::vec(0..8_usize, 0..3), 8), wished in proptest::collection::vec(any::<bool>(), 8)) {
            let dir = tempfile::tempdir().unwrap();
            let infos: Vec<(String, String)> = needs
                .iter()
                .enumerate()
                .map(|(at, needs)| {
                    let names: Vec<String> = needs.iter().map(|n| format!("m_{n}")).collect();
                    (format!("d/m_{at}.ko"), format!("name=m_{at}\0depends={}\0", names.join(",")))
                })
                .collect();
            let infos: Vec<(&str, &str)> = infos.iter().map(|(path, info)| (path.as_str(), info.as_str())).collect();
            let tree = made_up(dir.path(), &infos, &[]);
            let kernel = Kernel::new(&tree, VERSION);
            let names: Vec<String> = (0..8).filter(|at| wished[*at]).map(|at| format!("m-{at}")).collect();
            prop_assume!(!names.is_empty());
            let wishes = Wishes::new(&names, &[], &[], &[]).unwrap();
            let selection = select(&tree, &kernel, &wishes).unwrap();
            let mut expected: BTreeSet<usize> = (0..8).filter(|at| wished[*at]).collect();
            loop {
                let more: BTreeSet<usize> = expected.iter().flat_map(|at| needs[*at].iter().copied()).collect();
                let before = expected.len();
                expected.extend(more);
                if expected.len() == before {
                    break;
                }
            }
            let expected: BTreeSet<Vec<u8>> =
                expected.iter().map(|at| format!("usr/lib/modules/{VERSION}/kernel/d/m_{at}.ko").into_bytes()).collect();
            prop_assert_eq!(&selection.modules, &expected);
            prop_assert!(selection.missing.is_empty());
            let gone = leftovers(&tree, &[(&kernel, &selection)]);
            let left = tree.entries.iter().filter(|e| e.entry.path.ends_with(b".ko") && !gone.contains(&e.entry.path));
            prop_assert_eq!(left.map(|e| e.entry.path.clone()).collect::<BTreeSet<_>>(), expected);
        }
    }
}
