//! One kernel's modules in a tree.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::info::{self, Info, module_name};
use super::{MODULES, ModulesError, follow};
use crate::store::{Kind, MergedEntry, MergedTree};

/// What depmod(8) makes. A kernel with all of them has its dependencies.
const INDEXES: [&str; 4] = ["modules.dep", "modules.dep.bin", "modules.symbols", "modules.symbols.bin"];

/// The modules of one kernel.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// Its version.
    pub version: String,
    /// Its directory.
    pub dir: Vec<u8>,
    tree: &'a MergedTree,
    /// Its modules by the path below its directory.
    pub(super) modules: BTreeMap<String, &'a MergedEntry>,
    /// The paths of modules by their normalised names: `updates/` may have another one of a name.
    by_name: BTreeMap<String, Vec<String>>,
}

/// The versions of the kernels that have something in `/usr/lib/modules`, sorted. A directory with `updates/` alone is
/// what is left of one.
pub fn versions(tree: &MergedTree) -> Vec<String> {
    let mut names: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
    for merged in tree.below(MODULES) {
        let Some(rest) = merged.entry.path.get(MODULES.len() + 1..) else { continue };
        let mut parts = rest.splitn(3, |byte| *byte == b'/');
        if let (Some(version), Some(child)) = (parts.next(), parts.next())
            && let Ok(version) = std::str::from_utf8(version)
        {
            names.entry(version).or_default().insert(child);
        }
    }
    names.retain(|_, children| children.iter().any(|child| *child != b"updates"));
    names.into_keys().map(str::to_owned).collect()
}

impl<'a> Kernel<'a> {
    /// The modules of the kernel of a version.
    pub fn new(tree: &'a MergedTree, version: &str) -> Self {
        let dir = [MODULES, b"/", version.as_bytes()].concat();
        let mut modules = BTreeMap::new();
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for merged in tree.below(&dir) {
            let file = matches!(merged.entry.kind, Kind::File { .. } | Kind::Symlink { .. });
            let rest = merged.entry.path.get(dir.len() + 1..).and_then(|rest| std::str::from_utf8(rest).ok());
            if let Some(rest) = rest.filter(|_| file)
                && let Some(name) = module_name(rest)
            {
                modules.insert(rest.to_owned(), merged);
                by_name.entry(name).or_default().push(rest.to_owned());
            }
        }
        Self { version: version.to_owned(), dir, tree, modules, by_name }
    }

    /// How many modules it has.
    pub fn count(&self) -> usize {
        self.modules.len()
    }

    /// The paths of the modules of a normalised name.
    pub fn named(&self, name: &str) -> &[String] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether modules are packed one by one, all of them.
    pub fn is_packed(&self) -> bool {
        self.modules.keys().all(|path| !path.ends_with(".ko"))
    }

    /// What a module needs.
    ///
    /// # Errors
    /// When it can't be read. A link that leads nowhere needs nothing.
    pub fn info(&self, path: &str) -> Result<Info, ModulesError> {
        let Some(merged) = self.modules.get(path) else { return Ok(Info::default()) };
        let Some(end) = follow(self.tree, &merged.entry.path).end else { return Ok(Info::default()) };
        info::read(&end.source, &String::from_utf8_lossy(&end.entry.path))
    }

    /// What built-in modules need, by their normalised names.
    ///
    /// # Errors
    /// When the files about them can't be read.
    pub fn builtin(&self) -> Result<BTreeMap<String, Info>, ModulesError> {
        let mut all = match self.read("modules.builtin.modinfo")? {
            Some(data) => info::parse_builtin(&data),
            None => BTreeMap::new(),
        };
        // Older kernels have their names alone.
        let list = self.read("modules.builtin")?.unwrap_or_default();
        for name in String::from_utf8_lossy(&list).lines().filter_map(module_name) {
            all.entry(name).or_default();
        }
        Ok(all)
    }

    /// What modules go by besides their names: the normalised names of modules by that name. From the list that
    /// depmod(8) makes, or from the modules where it did not run.
    ///
    /// # Errors
    /// When the list or a module can't be read.
    pub fn aliases(&self) -> Result<BTreeMap<String, Vec<String>>, ModulesError> {
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let Some(list) = self.read("modules.alias")? else {
            let paths: Vec<&String> = self.modules.keys().collect();
            let infos = paths.par_iter().map(|path| Ok((*path, self.info(path)?)));
            let infos = infos.collect::<Result<Vec<_>, ModulesError>>()?;
            for (path, info) in infos {
                for alias in info.aliases {
                    aliases.entry(alias).or_default().extend(module_name(path));
                }
            }
            return Ok(aliases);
        };
        for line in String::from_utf8_lossy(&list).lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(alias), Some(module)) = (words.next(), words.next(), words.next())
                && let Some(alias) = info::plain_alias(alias)
            {
                aliases.entry(alias).or_default().push(info::normalise(module));
            }
        }
        Ok(aliases)
    }

    /// Whether depmod(8) has to run: an index is missing, older than a module, or lists others than there are.
    /// `layer` tells how high above the lowest layer a file lies.
    ///
    /// # Errors
    /// When the list of dependencies can't be read.
    pub fn is_stale(&self, layer: impl Fn(&MergedEntry) -> usize) -> Result<bool, ModulesError> {
        if self.modules.is_empty() {
            return Ok(false);
        }
        let indexes: Vec<&MergedEntry> = INDEXES.iter().filter_map(|name| self.entry(name)).collect();
        let Some(oldest) = indexes.iter().map(|index| layer(index)).min().filter(|_| indexes.len() == INDEXES.len())
        else {
            return Ok(true);
        };
        if self.modules.values().any(|module| layer(module) > oldest) {
            return Ok(true);
        }
        let list = self.read("modules.dep")?.unwrap_or_default();
        let text = String::from_utf8_lossy(&list);
        let mut listed: Vec<&str> =
            text.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path).collect();
        listed.sort_unstable();
        // Of two modules of one name depmod lists the one that is loaded.
        let shadowed = |path: &&String| module_name(path).is_some_and(|name| self.named(&name).len() > 1);
        let known =
            self.modules.keys().filter(|path| !shadowed(path)).all(|path| listed.binary_search(&path.as_str()).is_ok());
        Ok(!known || !listed.iter().all(|path| self.modules.contains_key(*path)))
    }

    /// The entry of a file of the kernel's directory.
    pub fn entry(&self, name: &str) -> Option<&'a MergedEntry> {
        self.tree.lookup(&super::links::join(&self.dir, name.as_bytes()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ModulesError> {
        match self.entry(name) {
            Some(merged) if matches!(merged.entry.kind, Kind::File { .. }) => std::fs::read(&merged.source)
                .map(Some)
                .map_err(|source| ModulesError::Read { path: merged.source.clone(), source }),
            _ => Ok(None),
        }
    }
}
