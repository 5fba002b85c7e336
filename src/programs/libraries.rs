//! Which libraries a program is started with, and which it may load later: where ld.so(8) looks for them.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::closure::{Closure, names};
use super::elf::{Elf, Kind};
use super::facts::Facts;
use super::table::Program;
use super::{Loadable, locked};
use crate::store::StoreError;

/// Where ld.so(8) and musl's loader look at last, beside the directory that the loader itself lies in: that is the one
/// for its architecture.
const DEFAULTS: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// What a search for a library that no file says the place of depends on: which kind of file it is, where the loader
/// lies, and the name.
pub(super) type Wanted = (Kind, Option<PathBuf>, String);

/// A library that was found: its path in the sandbox, and what it is.
pub(super) type Found = (PathBuf, Loadable);

/// A program or a library that is loaded, and the one that asked for it.
struct Object {
    /// In the sandbox.
    path: PathBuf,
    elf: Arc<Facts>,
    parent: Option<usize>,
}

impl Object {
    fn elf(&self) -> Option<&Elf> {
        match self.elf.as_ref() {
            Facts::Elf(elf) => Some(elf),
            Facts::Script(..) | Facts::Other => None,
        }
    }
}

/// What is loaded into one process, by the names under which it was asked for: what is there is not looked for again.
pub(super) struct Objects {
    all: Vec<Object>,
    names: HashMap<String, Option<usize>>,
    /// The directory of the loader, in which libraries are looked for too.
    loader: Option<PathBuf>,
}

impl Objects {
    pub fn new(path: PathBuf, elf: Arc<Facts>) -> Self {
        let main = Object { path, elf, parent: None };
        Self { all: vec![main], names: HashMap::new(), loader: None }
    }

    /// Goes through all that the first one needs, breadth first as ld.so does, and then through what may be loaded later.
    pub fn load_all(&mut self, closure: &mut Closure<'_>, known: Option<&Program>) -> Result<(), StoreError> {
        let interpreter = self.all.first().and_then(Object::elf).and_then(|elf| elf.interpreter.clone());
        if let Some(path) = interpreter.map(PathBuf::from) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(real) = closure.programs.loader(closure.sight, &path) {
                self.loader = real.parent().map(Path::to_path_buf);
                if let Some(file) = closure.file(&real)? {
                    self.add(closure, name, (real, file), 0);
                }
            }
        }
        let (mut done, mut asked) = (0, 0);
        let mut first = known.map(|known| known.loads).unwrap_or_default().iter();
        let mut plugins = known.map(|known| known.plugins).unwrap_or_default().iter();
        loop {
            while let Some(elf) = self.all.get(done).map(|object| Arc::clone(&object.elf)) {
                if let Facts::Elf(elf) = elf.as_ref() {
                    for name in &elf.needed {
                        self.need(closure, done, name)?;
                    }
                }
                done += 1;
            }
            if let Some(name) = first.next() {
                self.need(closure, 0, name)?;
            } else if let Some(elf) = self.all.get(asked).map(|object| Arc::clone(&object.elf)) {
                if let Facts::Elf(elf) = elf.as_ref() {
                    for names in &elf.later {
                        for name in names {
                            if self.need(closure, asked, name)? {
                                break;
                            }
                        }
                    }
                }
                asked += 1;
            } else if let Some((library, plugin)) = plugins.next() {
                self.plugins(closure, library, plugin)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Loads what is asked for by its name, and tells whether it is there.
    fn need(&mut self, closure: &mut Closure<'_>, by: usize, name: &str) -> Result<bool, StoreError> {
        if let Some(known) = self.names.get(name) {
            return Ok(known.is_some());
        }
        let Some(found) = self.find(closure, by, name)? else {
            self.names.insert(name.to_owned(), None);
            return Ok(false);
        };
        // A name may be a path, which is nobody's business.
        let short = name.rsplit('/').next().unwrap_or(name).to_owned();
        self.names.insert(name.to_owned(), Some(self.all.len()));
        self.add(closure, short, found, by);
        Ok(true)
    }

    fn add(&mut self, closure: &mut Closure<'_>, name: String, found: Found, by: usize) {
        let (path, file) = found;
        closure.add(&format!("library/{name}"), file.digest);
        self.names.insert(name, Some(self.all.len()));
        self.all.push(Object { path, elf: file.facts, parent: Some(by) });
    }

    /// What a library loads of a place beside it.
    fn plugins(&mut self, closure: &mut Closure<'_>, library: &str, plugin: &str) -> Result<(), StoreError> {
        let Some(&Some(index)) = self.names.get(library) else { return Ok(()) };
        let real = self.all.get(index).and_then(|object| closure.sight.real(&object.path));
        let Some(place) = real.as_deref().and_then(Path::parent).map(|directory| directory.join(plugin)) else {
            return Ok(());
        };
        let inner = names(closure.sight, &place).into_iter().map(|name| (format!("{plugin}/{name}"), place.join(name)));
        for (name, path) in std::iter::once((plugin.to_owned(), place.clone())).chain(inner) {
            if let Some(file) = closure.file(&path)? {
                closure.add(&format!("plugin/{name}"), file.digest);
                self.all.push(Object { path, elf: file.facts, parent: Some(index) });
            }
        }
        Ok(())
    }

    /// The library that ld.so(8) finds for one that asks for it by this name.
    fn find(&self, closure: &Closure<'_>, by: usize, name: &str) -> Result<Option<Found>, StoreError> {
        let Some(kind) = self.all.first().and_then(Object::elf).map(|elf| elf.kind) else { return Ok(None) };
        let first = |paths: &mut dyn Iterator<Item = PathBuf>| -> Result<Option<Found>, StoreError> {
            for path in paths {
                let file = closure.file(&path)?;
                if let Some(file) =
                    file.filter(|file| matches!(file.facts.as_ref(), Facts::Elf(elf) if elf.kind == kind))
                {
                    return Ok(Some((path, file)));
                }
            }
            Ok(None)
        };
        if name.contains('/') {
            return first(&mut self.all.get(by).and_then(|object| expand(name, &object.path)).into_iter());
        }
        let own = first(&mut self.own_paths(by).into_iter().map(|directory| directory.join(name)))?;
        if own.is_some() {
            return Ok(own);
        }
        // The same for all programs.
        let wanted = (kind, self.loader.clone(), name.to_owned());
        if let Some(known) = locked(&closure.programs.found).get(&wanted) {
            return Ok(known.clone());
        }
        let cached = closure.programs.cached(closure.sight, name).iter().map(PathBuf::from);
        let defaults = self.loader.iter().map(PathBuf::as_path).chain(DEFAULTS.iter().map(Path::new));
        let found = first(&mut cached.chain(defaults.map(|directory| directory.join(name))))?;
        locked(&closure.programs.found).insert(wanted, found.clone());
        Ok(found)
    }

    /// The directories that the files themselves name: DT_RUNPATH of the one that asks, or else DT_RPATH of it, of those
    /// that asked for it, and of the program.
    fn own_paths(&self, by: usize) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut add = |object: &Object, list: &[String]| {
            paths.extend(list.iter().filter_map(|path| expand(path, &object.path)));
        };
        let Some(object) = self.all.get(by) else { return paths };
        if let Some(elf) = object.elf().filter(|elf| !elf.runpath.is_empty()) {
            add(object, &elf.runpath);
            return paths;
        }
        let mut next = Some(by);
        while let Some(object) = next.and_then(|index| self.all.get(index)) {
            add(object, object.elf().map(|elf| elf.rpath.as_slice()).unwrap_or_default());
            next = object.parent;
        }
        paths
    }
}

/// A path in which `$ORIGIN` stands for the directory of the file that names it. Other words depend on the machine, and
/// an empty path is the current directory, where no stage has libraries.
fn expand(path: &str, by: &Path) -> Option<PathBuf> {
    let origin = by.parent()?.to_str()?;
    let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    if !path.starts_with('/') || path.contains('$') {
        return None;
    }
    // What is above a directory of `ExtraSearchPaths=` is not the same in a sandbox.
    let mut plain = PathBuf::new();
    for component in Path::new(&path).components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    Some(plain)
}
