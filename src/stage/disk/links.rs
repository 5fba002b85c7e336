//! Links among the definitions of partitions. Knows nothing of what definitions say.

use std::path::{Component, Path};

use super::StageError;

/// What a definition is linked to so that it counts for nothing: there everywhere, and empty.
const MASK: &str = "/dev/null";

/// Refuses links that lead out of a directory of definitions. There is nothing behind them in the sandbox, and the key has
/// their text alone.
///
/// # Errors
/// When there is one, or the directory can't be listed.
pub fn check(directory: &Path) -> Result<(), StageError> {
    let root = directory.canonicalize().map_err(StageError::io("look up", directory))?;
    below(&root, directory, 0)
}

/// `depth` is that of `directory` below `root`.
fn below(root: &Path, directory: &Path, depth: usize) -> Result<(), StageError> {
    for entry in std::fs::read_dir(directory).map_err(StageError::io("list", directory))? {
        let entry = entry.map_err(StageError::io("list", directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(StageError::io("look at", &path))?;
        if kind.is_dir() {
            below(root, &path, depth + 1)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).map_err(StageError::io("read the link", &path))?;
            let outside = leaves(&target, depth) || path.canonicalize().is_ok_and(|found| !found.starts_with(root));
            if outside && target != Path::new(MASK) {
                return Err(StageError::Other(format!(
                    "the link {} leads to {}, which is not in its directory of RepartDirectories=: put the file itself there",
                    path.display(),
                    target.display()
                )));
            }
        }
    }
    Ok(())
}

/// Whether a link's text leads out of the directory that the link lies `depth` directories below.
fn leaves(target: &Path, mut depth: usize) -> bool {
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_in_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let repart = dir.path().join("mkosi.repart");
        std::fs::create_dir_all(repart.join("10-root.conf.d")).unwrap();
        std::fs::write(repart.join("10-root.conf"), "[Partition]\n").unwrap();
        std::fs::write(dir.path().join("outside.conf"), "[Partition]\n").unwrap();
        let link = |target: &Path, name: &str| symlink(target, repart.join(name)).unwrap();
        for (target, name) in [
            ("10-root.conf", "20-copy.conf"),
            ("../10-root.conf", "10-root.conf.d/same.conf"),
            ("/dev/null", "30-masked.conf"),
            ("user@host.1:2", ".#10-root.conf"),
        ] {
            link(Path::new(target), name);
        }
        check(&repart).unwrap();
        let inside = repart.join("10-root.conf");
        let outside = dir.path().join("outside.conf");
        for (target, name) in [
            (Path::new("../outside.conf"), "out.conf"),
            (Path::new("../mkosi.repart/10-root.conf"), "back.conf"),
            (Path::new("../../nothing.conf"), "10-root.conf.d/out.conf"),
            (&outside, "absolute.conf"),
            (&inside, "absolute-inside.conf"),
        ] {
            link(target, name);
            let error = check(&repart).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(target.to_str().unwrap()), "{error}");
            std::fs::remove_file(repart.join(name)).unwrap();
        }
    }
}
