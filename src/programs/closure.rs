//! All that decides what a program does: which files a start of it in a sandbox comes to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::Facts;
use super::libraries::Objects;
use super::sight::Sight;
use super::table::Program;
use super::{Loadable, Parts, Programs};
use crate::store::StoreError;
use crate::types::{Digest, Encoder};

/// How many interpreters of interpreters the kernel goes through (execve(2)), with one more for `env`.
const DEPTH: usize = 6;

/// The parts of the program at a path of the sandbox.
pub(super) fn parts(
    programs: &Programs<'_>,
    sight: &Sight<'_>,
    path: &Path,
    known: Option<&Program>,
) -> Result<Parts, StoreError> {
    let mut closure = Closure { programs, sight, parts: Parts::new() };
    closure.program("program".to_owned(), path, known, DEPTH)?;
    // One that may be executed and not read: without its content it can't be told from another.
    if closure.parts.is_empty()
        && let Some(path) = sight.on_host(path)
    {
        closure.add("program", programs.hasher.file(&path)?);
    }
    for run in known.map(|known| known.runs).unwrap_or_default() {
        let run = Path::new(run);
        if !run.is_absolute() {
            if let Some(path) = sight.find(&run.to_string_lossy()) {
                closure.program(format!("runs/{}", run.display()), &path, None, DEPTH)?;
            }
            continue;
        }
        // Two directories may have programs of one name.
        let within = run.file_name().unwrap_or_default().to_string_lossy();
        for name in names(sight, run) {
            closure.program(format!("runs/{within}/{name}"), &run.join(&name), None, DEPTH)?;
        }
    }
    Ok(closure.parts)
}

/// The names of what is in a directory of the sandbox, sorted; none where it can't be listed.
pub(super) fn names(sight: &Sight<'_>, directory: &Path) -> Vec<String> {
    let entries = sight.on_host(directory).and_then(|path| fs::read_dir(path).ok()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What was found of one program.
pub(super) struct Closure<'a> {
    pub programs: &'a Programs<'a>,
    pub sight: &'a Sight<'a>,
    parts: Parts,
}

impl Closure<'_> {
    /// Two files of one name are two parts.
    pub fn add(&mut self, name: &str, digest: Digest) {
        let names = (1..).map(|number| if number == 1 { name.to_owned() } else { format!("{name} ({number})") });
        for name in names {
            match self.parts.get(&name) {
                Some(other) if *other != digest => continue,
                _ => drop(self.parts.insert(name, digest)),
            }
            break;
        }
    }

    /// A file by its path in the sandbox.
    pub fn file(&self, inside: &Path) -> Result<Option<Loadable>, StoreError> {
        match self.sight.on_host(inside) {
            Some(path) => self.programs.file(&path),
            None => Ok(None),
        }
    }

    fn program(&mut self, name: String, path: &Path, known: Option<&Program>, depth: usize) -> Result<(), StoreError> {
        let Some(real) = self.sight.real(path).filter(|_| depth > 0) else { return Ok(()) };
        let Some(file) = self.file(&real)? else { return Ok(()) };
        self.add(&name, file.digest);
        match file.facts.as_ref() {
            Facts::Elf(_) => {
                let mut objects = Objects::new(real, file.facts);
                objects.load_all(self, known)
            }
            Facts::Script(interpreter, argument) => {
                self.interpreter(Path::new(interpreter), known, depth)?;
                if Path::new(interpreter).file_name().is_some_and(|name| name == "env")
                    && let Some(program) = argument.as_deref().and_then(program_of_env)
                    && let Some(path) = self.sight.find(program)
                {
                    self.interpreter(&path, known, depth.saturating_sub(1))?;
                }
                Ok(())
            }
            Facts::Other => Ok(()),
        }
    }

    fn interpreter(&mut self, path: &Path, known: Option<&Program>, depth: usize) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.program(format!("interpreter/{name}"), path, None, depth.saturating_sub(1))?;
        if let Some(real) = self.sight.real(path).filter(|_| name.starts_with("python")) {
            for module in known.map(|known| known.modules).unwrap_or_default() {
                self.module(&real, module)?;
            }
        }
        Ok(())
    }

    /// A module of Python that is no part of Python itself (whose modules are built together with the interpreter, which
    /// has the time of that in it).
    fn module(&mut self, interpreter: &Path, module: &str) -> Result<(), StoreError> {
        // `/usr/bin/python3.13`: <https://docs.python.org/3/library/site.html>, and Debian's dist-packages.
        let version = interpreter.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = interpreter.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
        let mut places = Vec::new();
        for prefix in [Path::new("/usr/local"), prefix] {
            for lib in ["lib", "lib64"] {
                places.push(prefix.join(lib).join(&version).join("site-packages"));
                places.push(prefix.join(lib).join(&version).join("dist-packages"));
                places.push(prefix.join(lib).join("python3/dist-packages"));
            }
        }
        for place in places {
            let mut files = Parts::new();
            let mut libraries = Vec::new();
            let own = [format!("{module}.py"), format!("{module}.")];
            for name in names(self.sight, &place) {
                let compiled = name.starts_with(&own[1]) && name.ends_with(".so");
                if name == module || name == own[0] || compiled {
                    self.module_files(&place.join(&name), &name, &mut files, &mut libraries)?;
                }
            }
            if files.is_empty() {
                continue;
            }
            self.add(&format!("module/{module}"), Encoder::new("mkosi.tool.module", 1).map(&files).finish());
            for (path, facts) in libraries {
                Objects::new(path, facts).load_all(self, None)?;
            }
            break;
        }
        Ok(())
    }

    /// The sources and libraries at a path. What Python keeps of sources in `__pycache__` follows from them.
    fn module_files(
        &self,
        path: &Path,
        name: &str,
        files: &mut Parts,
        libraries: &mut Vec<(PathBuf, Arc<Facts>)>,
    ) -> Result<(), StoreError> {
        let Some(on_host) = self.sight.on_host(path) else { return Ok(()) };
        if on_host.is_dir() && !name.ends_with("__pycache__") {
            for inner in names(self.sight, path) {
                self.module_files(&path.join(&inner), &format!("{name}/{inner}"), files, libraries)?;
            }
        } else if name.ends_with(".py") && on_host.is_file() {
            files.insert(name.to_owned(), self.programs.hasher.file(&on_host)?);
        } else if name.ends_with(".so")
            && let Some(file) = self.programs.file(&on_host)?
        {
            files.insert(name.to_owned(), file.digest);
            libraries.push((path.to_owned(), file.facts));
        }
        Ok(())
    }
}

/// The program that `env` is to run, by its argument in a script's first line (env(1)).
fn program_of_env(argument: &str) -> Option<&str> {
    argument.split_whitespace().find(|word| !word.starts_with('-') && !word.contains('='))
}
