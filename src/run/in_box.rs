//! `mkosi box`: becomes a program, or a shell, that sees the tools tree's programs and configuration, and otherwise the
//! host: its files, network, devices, processes and terminal.
//!
//! What it runs with is a function of the surroundings. Knows nothing of images.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::become_program;
use super::tools::Tools;
use crate::sandbox::OVER_EXECUTABLE;

/// What the host is, for programs in the box that look for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host<'a> {
    /// Its distribution.
    pub distribution: Option<&'a str>,
    /// Its release.
    pub release: Option<&'a str>,
}

/// Directories that are always in the search path.
const PATH: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
/// What shells put before their prompt (`environment.d`, systemd's `profile.d` script).
const PROMPT: &str = "SHELL_PROMPT_PREFIX";
/// Set in a box.
const INSIDE: &str = "MKOSI_IN_BOX";

/// The variables that are set, on top of the user's environment, which `outside` gives. `tree` is the tools tree where
/// it is one directory.
pub fn environment(
    tools: &Tools,
    host: &Host<'_>,
    tree: Option<&Path>,
    outside: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, OsString)> {
    let mut set: Vec<(&'static str, OsString)> = vec![(INSIDE, "1".into())];
    let text = |name: &str| outside(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
    let nested = matches!(text(INSIDE).as_str(), "1" | "yes" | "true" | "on");
    set.push((PROMPT, prompt(&text(PROMPT), nested).into()));
    for (name, value) in [("MKOSI_HOST_DISTRIBUTION", host.distribution), ("MKOSI_HOST_RELEASE", host.release)] {
        set.extend(value.map(|value| (name, value.into())));
    }
    set.extend(tree.map(|tree| ("MKOSI_DEFAULT_TOOLS_TREE_PATH", tree.into())));
    if !tools.extra().is_empty() {
        let old = outside("PYTHONPATH").filter(|old| !old.is_empty());
        set.push(("PYTHONPATH", joined(tools.extra().iter().cloned().chain(old.map(PathBuf::from)))));
    }
    set.push(("PATH", search_path(tools, &outside("PATH").unwrap_or_default())));
    set
}

/// The user's search path without directories of the host's `/usr`, which are not there; first mkosi itself and
/// `ExtraSearchPaths=`.
fn search_path(tools: &Tools, old: &OsStr) -> OsString {
    let own = if tools.are_of_host() { None } else { Path::new(OVER_EXECUTABLE).parent() };
    let first = own.map(Path::to_owned).into_iter().chain(tools.extra().iter().cloned());
    let usual = |path: &Path| PATH.iter().any(|usual| Path::new(usual) == path);
    let old = std::env::split_paths(old).filter(|path| tools.are_of_host() || usual(path) || !path.starts_with("/usr"));
    let mut all: Vec<PathBuf> = Vec::new();
    for path in first.chain(old).chain(PATH.iter().map(PathBuf::from)) {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    joined(all)
}

fn joined(paths: impl IntoIterator<Item = PathBuf>) -> OsString {
    let words: Vec<OsString> = paths.into_iter().map(PathBuf::into_os_string).collect();
    words.join(OsStr::new(":"))
}

/// `(box)` before the prompt, `(box:2)` in a box within a box.
fn prompt(old: &str, nested: bool) -> String {
    let found = old.find("(box").filter(|_| nested).and_then(|start| {
        let rest = old.get(start + "(box".len()..)?;
        let (level, after) = rest.split_once(')')?;
        let level: u32 = match level.strip_prefix(':') {
            Some(number) => number.parse().ok()?,
            None if level.is_empty() => 1,
            None => return None,
        };
        Some(format!("{}(box:{}){after}", old.get(..start)?, level.saturating_add(1)))
    });
    found.unwrap_or_else(|| format!("(box){old}"))
}

/// The program and its arguments: the words, or the user's shell where the tools have it.
fn command<'a>(tools: &Tools, words: &'a [String], shell: &str) -> (PathBuf, &'a [String]) {
    if let Some((program, rest)) = words.split_first() {
        return (program.into(), rest);
    }
    let name = Path::new(shell).file_name().and_then(OsStr::to_str).unwrap_or_default();
    // One that is not below the directories of programs is seen where it is.
    let own = Some(PathBuf::from(shell)).filter(|path| path.is_absolute() && tools.are_of_host() && path.exists());
    let found = own.or_else(|| {
        let names: Vec<&str> = [name, "bash", "sh"].into_iter().filter(|name| !name.is_empty()).collect();
        tools.find(&names)
    });
    (found.unwrap_or_else(|| "sh".into()), &[])
}

/// Becomes the program, in `directory`. `tree` is the tools tree where it is one directory.
///
/// # Errors
/// When it can't be started; otherwise it does not return.
pub fn run(tools: &Tools, host: &Host<'_>, tree: Option<&Path>, directory: &Path, words: &[String]) -> Result<u8> {
    let shell = std::env::var("SHELL").unwrap_or_default();
    let (program, arguments) = command(tools, words, &shell);
    std::env::set_current_dir(directory).map_err(RunError::io("enter", directory))?;
    let mut command = tools.command_with_etc(&program);
    command.args(arguments).envs(environment(tools, host, tree, |name| std::env::var_os(name)));
    Err(become_program(&mut command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tools: &Tools, outside: &[(&str, &str)]) -> String {
        let host = Host { distribution: Some("debian"), release: None };
        let value = |name: &str| outside.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        let words = environment(tools, &host, None, value);
        words.iter().map(|(name, value)| format!("{name}={}", value.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_environment() {
        let of_host = Tools::new(Vec::new());
        assert_eq!(
            set(&of_host, &[("PATH", "/home/me/bin:/usr/games")]),
            "MKOSI_IN_BOX=1 SHELL_PROMPT_PREFIX=(box) MKOSI_HOST_DISTRIBUTION=debian \
             PATH=/home/me/bin:/usr/games:/usr/bin:/usr/sbin:/usr/local/bin"
        );
        let of_tree = Tools::new(vec!["/extra".into()]).of_tree(vec!["/a".into(), "/b".into()]);
        assert_eq!(
            set(&of_tree, &[("PATH", "/home/me/bin:/usr/games:/usr/sbin"), ("PYTHONPATH", "/py")]),
            "MKOSI_IN_BOX=1 SHELL_PROMPT_PREFIX=(box) MKOSI_HOST_DISTRIBUTION=debian PYTHONPATH=/extra:/py \
             PATH=/mkosi:/extra:/home/me/bin:/usr/sbin:/usr/bin:/usr/local/bin"
        );
    }

    #[test]
    fn prompts_tell_how_deep_it_is() {
        for (old, nested, new) in [
            ("", false, "(box)"),
            ("(x) ", false, "(box)(x) "),
            ("(box) ", true, "(box:2) "),
            ("a(box:2)b", true, "a(box:3)b"),
            ("(box:x)", true, "(box)(box:x)"),
            ("(box)", false, "(box)(box)"),
        ] {
            assert_eq!(prompt(old, nested), new, "{old}");
        }
    }

    #[test]
    fn a_shell_where_no_command_is_given() {
        let tree = tempfile::tempdir().unwrap();
        let bash = tree.path().join("usr/bin/bash");
        std::fs::create_dir_all(bash.parent().unwrap()).unwrap();
        std::fs::write(&bash, "").unwrap();
        std::fs::set_permissions(&bash, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let tools = Tools::new(Vec::new()).of_tree(vec![tree.path().to_owned()]);
        assert_eq!(command(&tools, &[], "/bin/zsh").0, Path::new("/usr/bin/bash"), "the tree has no zsh");
        assert_eq!(command(&tools, &[], "").0, Path::new("/usr/bin/bash"));
        let words = ["ls".to_owned(), "-l".to_owned()];
        assert_eq!(command(&tools, &words, "/bin/zsh"), (PathBuf::from("ls"), &words[1..]));
        assert_eq!(command(&Tools::new(Vec::new()), &[], "/bin/sh").0, Path::new("/bin/sh"));
    }
}
