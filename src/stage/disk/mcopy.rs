//! `mcopy` as systemd-repart calls it, with a sorted tree.
//!
//! mcopy(1) reads directories in the order in which the host's file system lists them, and the entries of a FAT directory
//! come out in that order. So our executable stands before it under its name: it makes the directories, then copies the
//! files of each, both sorted. Everything else that mcopy can do goes to it unchanged.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::super::find_tool;

/// The name under which it stands in the sandbox.
pub const NAME: &str = "mcopy";

/// Becomes `mcopy` if that is the name.
pub fn multi_call(name: &str) -> Option<ExitCode> {
    (Path::new(name).file_name()? == NAME).then(|| {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                crate::tell!("{NAME}: {text}");
                ExitCode::FAILURE
            }
        }
    })
}

/// The call of a whole tree: options, the file system, what to copy.
struct Call {
    image: OsString,
    paths: Vec<PathBuf>,
}

impl Call {
    /// `-s -p -Q -m -i IMAGE PATH... ::`, in any order of the options.
    fn parse(arguments: &[OsString]) -> Option<Self> {
        let (target, rest) = arguments.split_last()?;
        let (mut image, mut paths, mut recursive) = (None, Vec::new(), false);
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("-s") => recursive = true,
                Some("-p" | "-Q" | "-m") if paths.is_empty() => {}
                Some("-i") if paths.is_empty() => image = words.next().cloned(),
                Some(word) if word.starts_with('-') => return None,
                _ => paths.push(PathBuf::from(word)),
            }
        }
        (target == "::" && recursive).then_some(Self { image: image?, paths })
    }
}

fn run(arguments: &[OsString]) -> Result<(), String> {
    let real = find_tool(NAME).ok_or("there is no such program")?;
    let Some(call) = Call::parse(arguments) else {
        return Err(format!("can't start {}: {}", real.display(), Command::new(&real).args(arguments).exec()));
    };
    let mut directories = Vec::new();
    let mut files = vec![(String::new(), Vec::new())];
    for path in &call.paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match kind(path)? {
            Some(true) => collect(path, &format!("/{name}"), &mut directories, &mut files)?,
            Some(false) => files.iter_mut().take(1).for_each(|(_, files)| files.push(path.clone())),
            None => {}
        }
    }
    if !directories.is_empty() {
        let targets = directories.iter().map(|directory| format!("::{directory}"));
        start(Command::new(real.with_file_name("mmd")).arg("-i").arg(&call.image).args(targets))?;
    }
    for (directory, files) in files.iter().filter(|(_, files)| !files.is_empty()) {
        let options = ["-p", "-Q", "-m", "-i"];
        let target = format!("::{directory}/");
        start(Command::new(&real).args(options).arg(&call.image).args(files).arg(target))?;
    }
    Ok(())
}

/// Whether it is a directory, or a file; nothing for what FAT can't hold.
fn kind(path: &Path) -> Result<Option<bool>, String> {
    let meta = path.symlink_metadata().map_err(|error| format!("can't look at {}: {error}", path.display()))?;
    Ok(if meta.is_dir() { Some(true) } else { meta.is_file().then_some(false) })
}

/// Adds a directory, and what is in it, each level sorted.
fn collect(
    directory: &Path,
    target: &str,
    directories: &mut Vec<String>,
    files: &mut Vec<(String, Vec<PathBuf>)>,
) -> Result<(), String> {
    directories.push(target.to_owned());
    let fail = |error: std::io::Error| format!("can't list {}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut own = Vec::new();
    let mut below = Vec::new();
    for path in paths {
        match kind(&path)? {
            Some(true) => below.push(path),
            Some(false) => own.push(path),
            None => {}
        }
    }
    files.push((target.to_owned(), own));
    for path in below {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        collect(&path, &format!("{target}/{name}"), directories, files)?;
    }
    Ok(())
}

fn start(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("can't start {:?}: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?} failed: {status}", command.get_program())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<(OsString, Vec<PathBuf>)> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Call::parse(&words).map(|call| (call.image, call.paths))
    }

    #[test]
    fn only_the_copy_of_a_whole_tree_is_taken_over() {
        let (image, paths) = parse(&["-s", "-p", "-Q", "-m", "-i", "/x.img", "/r/EFI", "/r/loader", "::"]).unwrap();
        assert_eq!(image, "/x.img");
        assert_eq!(paths, ["/r/EFI", "/r/loader"].map(PathBuf::from));
        for other in [
            &["-i", "/x.img", "a", "::"][..],
            &["-s", "-i", "/x.img", "::", "a"],
            &["-s", "-b", "-i", "/x.img", "a", "::"],
            &["-s", "a", "::"],
            &[],
        ] {
            assert!(parse(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn each_level_is_sorted() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b/2", "b/1", "b/c/x", "b/a/y"] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("1", root.path().join("b/link")).unwrap();
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        collect(&root.path().join("b"), "/b", &mut directories, &mut files).unwrap();
        assert_eq!(directories, ["/b", "/b/a", "/b/c"]);
        let named: Vec<(&str, usize)> = files.iter().map(|(name, files)| (name.as_str(), files.len())).collect();
        assert_eq!(named, [("/b", 2), ("/b/a", 1), ("/b/c", 1)]);
        assert!(files[0].1[0].ends_with("b/1"));
    }
}
