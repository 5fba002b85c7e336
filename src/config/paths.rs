//! Host paths as users write them: made absolute, with the home directory and variables put in.
//!
//! Knows nothing of settings.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::words::expand_variables;

/// The path that a text names, seen from `directory`, with links resolved as far as it exists.
pub fn absolute(text: &str, directory: &Path, environment: &BTreeMap<String, String>) -> PathBuf {
    resolve(&joined(text, directory, environment))
}

/// As [`absolute`], with links left in place.
pub fn joined(text: &str, directory: &Path, environment: &BTreeMap<String, String>) -> PathBuf {
    // Without `.` and doubled slashes.
    directory.join(expand(text, environment)).components().collect()
}

/// A path as written, with the home directory and variables put in.
pub fn expand(text: &str, environment: &BTreeMap<String, String>) -> PathBuf {
    expand_home(&expand_variables(text, environment), environment)
}

/// Resolves links and `..` in the part of a path that exists, and only `..` in the rest.
pub fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => resolve(parent).join(name),
        (Some(parent), Some(Component::ParentDir)) => {
            let resolved = resolve(parent);
            resolved.parent().map_or(resolved.clone(), Path::to_owned)
        }
        _ => path.to_owned(),
    }
}

/// A path in an image, without doubled slashes, `.` and a slash at the end.
pub fn tidy(text: &str) -> String {
    let tidy: PathBuf = Path::new(text).components().collect();
    tidy.to_string_lossy().into_owned()
}

fn expand_home(text: &str, environment: &BTreeMap<String, String>) -> PathBuf {
    let Some(rest) = text.strip_prefix('~') else { return PathBuf::from(text) };
    let (user, below) = rest.split_once('/').unwrap_or((rest, ""));
    let home = if user.is_empty() {
        environment.get("HOME").map(PathBuf::from)
    } else {
        nix::unistd::User::from_name(user).ok().flatten().map(|user| user.dir)
    };
    match home {
        Some(home) if below.is_empty() => home,
        Some(home) => home.join(below),
        None => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        assert_eq!(absolute("link/none/../x", &root, &environment), root.join("real/x"));
        assert_eq!(joined("link", &root, &environment), root.join("link"));
        assert_eq!(absolute("~/nowhere-at-all", &root, &environment), Path::new("/home/me/nowhere-at-all"));
        assert_eq!(tidy("/a//./b/"), "/a/b");
    }
}
