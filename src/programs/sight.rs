//! What a sandbox sees of the host, and where programs are in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::sandbox;

/// Where programs are looked for, in the engine and in every sandbox.
pub const TOOL_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The paths of a sandbox that runs the host's programs, and what they are on the host.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    /// The host's root directory, without links.
    root: &'a Path,
    /// Each directory of `ExtraSearchPaths=`: in the sandbox, on the host, and there without links.
    search: Vec<(PathBuf, PathBuf, PathBuf)>,
    shown: sandbox::Tools,
}

impl<'a> Sight<'a> {
    pub fn new(root: &'a Path, search: &[PathBuf]) -> Self {
        let shown = sandbox::Tools { search: search.to_vec(), ..sandbox::Tools::default() };
        let places = shown.search_paths().zip(search);
        let search = places.map(|(inside, path)| {
            let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            (inside, path.clone(), real)
        });
        Self { root, search: search.collect(), shown }
    }

    /// The path on the host of a path in the sandbox, if that is shown.
    pub fn on_host(&self, inside: &Path) -> Option<PathBuf> {
        for (place, on_host, _) in &self.search {
            if let Ok(rest) = inside.strip_prefix(place) {
                return Some(on_host.join(rest));
            }
        }
        // What is in `/run` and the like is made for each sandbox.
        let path = inside.strip_prefix("/").ok()?;
        self.shown.shows(inside).then(|| self.root.join(path))
    }

    /// A path of the sandbox without links, if it leads to something that is shown.
    pub fn real(&self, inside: &Path) -> Option<PathBuf> {
        let real = std::fs::canonicalize(self.on_host(inside)?).ok()?;
        for (place, _, on_host) in &self.search {
            if let Ok(rest) = real.strip_prefix(on_host) {
                return Some(place.join(rest));
            }
        }
        let inside = Path::new("/").join(real.strip_prefix(self.root).ok()?);
        self.shown.shows(&inside).then_some(inside)
    }

    /// The path of a program in the sandbox, links and all; of a path that path, if a program is there.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let search = self.search.iter().map(|(inside, _, _)| inside.as_path());
        let all = search.chain(TOOL_PATH.iter().map(Path::new));
        all.map(|directory| directory.join(name)).find(|path| {
            let program = |host: PathBuf| {
                host.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            };
            self.on_host(path).is_some_and(program) && self.real(path).is_some()
        })
    }
}

/// The path that a program of the host has in a sandbox in which programs are looked for in these directories first; of a
/// path that path, if a program is there. What leads to a place that a sandbox does not show is not there.
pub fn find(name: &str, search: &[PathBuf]) -> Option<PathBuf> {
    Sight::new(Path::new("/"), search).find(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_program_that_a_sandbox_shows_is_the_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for path in ["usr/bin/tool", "usr/bin/real", "opt/tool", "usr/lib/plain", "home/bin/own"] {
            program(&root.join(path));
        }
        std::fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        symlink("../../../opt/tool", root.join("usr/local/bin/tool")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("real", root.join("usr/bin/link")).unwrap();
        let search = [root.join("home/bin")];
        let sight = Sight::new(&root, &search);
        let found = |name: &str| sight.find(name).map(|path| path.display().to_string());
        assert_eq!(found("tool").as_deref(), Some("/usr/bin/tool"), "a link out of what is shown leads nowhere");
        assert_eq!(found("own").as_deref(), Some("/run/mkosi/search/0/own"));
        assert_eq!(found("/bin/real").as_deref(), Some("/bin/real"));
        assert_eq!(found("plain"), None);
        assert_eq!(sight.real(Path::new("/bin/link")), Some("/usr/bin/real".into()));
        assert_eq!(sight.real(Path::new("/run/mkosi/search/0/own")), Some("/run/mkosi/search/0/own".into()));
        assert_eq!(sight.on_host(Path::new("/home/bin/own")), None);
    }
}
