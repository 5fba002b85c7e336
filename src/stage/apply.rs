//! Changes to a tree that our own code makes, run in a sandbox so that they see the mounted tree and nothing else.
//!
//! A stage hands over a list of steps; our executable runs them there under the name `mkosi-apply`, one after the
//! other. One sandbox for all steps of a stage: starting one costs more than most steps do.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use super::context::BUILDROOT;
use super::{Context, Outputs, StageError, find_tool};
use crate::rootfs::{CopyOptions, Ownership, Root};
use crate::sandbox::{BIN, Input, Output, Spec};
use crate::types::without_pins;

/// The name under which our executable runs steps.
pub const APPLY: &str = "mkosi-apply";

/// One change to the tree at `/buildroot`. Paths are relative to it and never lead out of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Copies a file, a directory or an archive of the sandbox.
    Copy {
        /// Where it is in the sandbox.
        from: PathBuf,
        /// Where it goes.
        to: String,
        /// Whether owners are kept; else everything belongs to root.
        owners: bool,
        /// The modification time that copies get; the source's if there is none.
        epoch: Option<i64>,
    },
    /// Writes a file.
    Write {
        /// Where.
        path: String,
        /// The contents.
        contents: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Whether a file that is there already is left as it is.
        keep: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// Removes what a pattern matches.
    Remove {
        /// The pattern.
        pattern: String,
    },
    /// Removes these very paths, with all that directories hold.
    RemovePaths {
        /// The paths.
        paths: Vec<String>,
    },
    /// Removes directories that hold nothing, or nothing but such directories.
    RemoveEmpty {
        /// Those that stay.
        keep: BTreeSet<PathBuf>,
    },
    /// Sets variables of an os-release file (os-release(5)), if the tree has it.
    OsRelease {
        /// Name and value.
        fields: Vec<(String, String)>,
    },
    /// Runs a program on the tree. One that the sandbox lacks is looked for in the tree and runs there, with
    /// `--root=/buildroot` left out.
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Statuses that are as good as 0.
        accept: Vec<i32>,
        /// Variables.
        env: Vec<(String, String)>,
    },
    /// Makes a directory and the missing ones above it.
    Directory {
        /// Where.
        path: String,
        /// The mode of those that are made.
        mode: u32,
    },
    /// Copies one file of the sandbox and gives it a mode.
    Place {
        /// Where it is in the sandbox.
        from: PathBuf,
        /// Where it goes.
        to: String,
        /// Its mode.
        mode: u32,
        /// Its modification time.
        epoch: i64,
    },
    /// Sets the mode of a file.
    Mode {
        /// The file.
        path: String,
        /// The mode.
        mode: u32,
    },
    /// Adds text to the end of a file, which is made if it is not there.
    Append {
        /// Where.
        path: String,
        /// The text.
        text: String,
        /// The mode of a file that is made.
        mode: u32,
    },
    /// Runs a program of the sandbox, by its path there; what it prints on standard output goes to a file of the sandbox.
    RunTo {
        /// The program and its arguments.
        argv: Vec<String>,
        /// The file.
        stdout: PathBuf,
        /// Variables.
        env: Vec<(String, String)>,
    },
    /// Sets the day on which the password of a user was changed last (shadow(5)), if the tree has one. Day 0 is left out,
    /// since it would mean that it has to be changed at once.
    LastChange {
        /// The user.
        user: String,
        /// Days since the start of 1970.
        day: i64,
    },
    /// Generates the locales that `/etc/locale.gen` names, in the tree, if it names any.
    LocaleGen,
}

/// The stage's tree with these steps run on it; as it was where there are none.
///
/// # Errors
/// As [`apply`].
pub fn changed_by(cx: &mut Context<'_>, steps: &[Step]) -> Result<Outputs, StageError> {
    if steps.is_empty() {
        return Ok(super::hwdb::unchanged(cx));
    }
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    apply(cx, spec, steps)?;
    cx.close_tree(tree)
}

/// Runs steps on the tree that `spec` mounts.
///
/// # Errors
/// When the sandbox can't be made or a step fails; the log has what it said.
pub fn apply(cx: &mut Context<'_>, mut spec: Spec, steps: &[Step]) -> Result<(), StageError> {
    let request = serde_json::to_vec(steps).map_err(StageError::other)?;
    spec.argv = vec![format!("{BIN}/{APPLY}")];
    let mut said = Vec::new();
    let exit = spec.run(Input::Bytes(&request), Output::Merged(&mut said), cx.cancel)?;
    let text = without_pins(&String::from_utf8_lossy(&said));
    cx.note(text.trim_end());
    if exit.success() {
        return Ok(());
    }
    // The last line is the step's own account of what failed.
    Err(StageError::Other(text.lines().last().unwrap_or("a step failed without a word").to_owned()))
}

/// Runs the steps on standard input: what `mkosi-apply` does in the sandbox.
pub fn main() -> ExitCode {
    let mut request = Vec::new();
    let steps: Result<Vec<Step>, String> = std::io::stdin()
        .read_to_end(&mut request)
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_slice(&request).map_err(|error| error.to_string()));
    let result = steps.and_then(|steps| {
        let root = Root::open(BUILDROOT).map_err(|error| error.to_string())?;
        steps.iter().try_for_each(|step| run_step(&root, step))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            crate::tell!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run_step(root: &Root, step: &Step) -> Result<(), String> {
    let words = |error: crate::rootfs::Error| error.to_string();
    match step {
        Step::Copy { from, to, owners, epoch } => {
            let owner = if *owners { Ownership::Source } else { Ownership::Root };
            root.copy_tree(from, to, &CopyOptions { owner, epoch: *epoch, ..CopyOptions::default() }).map_err(words)
        }
        Step::Write { path, contents, mode, keep } => {
            if *keep && root.exists(path).map_err(words)? {
                return Ok(());
            }
            root.write_file(path, contents, *mode).map_err(words)
        }
        Step::Symlink { path, target } => root.symlink(target, path).map_err(words),
        Step::Remove { pattern } => root.remove(pattern).map(drop).map_err(words),
        Step::RemovePaths { paths } => paths.iter().try_for_each(|path| root.remove_path(path)).map_err(words),
        Step::RemoveEmpty { keep } => root.remove_empty(keep).map_err(words),
        Step::OsRelease { fields } => os_release(root, fields),
        Step::Run { argv, accept, env } => run_program(root, argv, accept, env),
        Step::Directory { path, mode } => root.create_dir_all(path, *mode).map(drop).map_err(words),
        Step::Place { from, to, mode, epoch } => {
            let options = CopyOptions { owner: Ownership::Root, epoch: Some(*epoch), ..CopyOptions::default() };
            root.copy_tree(from, to, &options).and_then(|()| root.set_mode(to, *mode)).map_err(words)
        }
        Step::Mode { path, mode } => root.set_mode(path, *mode).map_err(words),
        Step::Append { path, text, mode } => {
            let mut contents = match root.read_file(path) {
                Ok(contents) => contents,
                Err(error) if error.is_not_found() => Vec::new(),
                Err(error) => return Err(words(error)),
            };
            contents.extend(text.as_bytes());
            root.write_file(path, &contents, *mode).map_err(words)
        }
        Step::RunTo { argv, stdout, env } => run_to(argv, stdout, env),
        Step::LastChange { user, day } => last_change(root, user, *day),
        Step::LocaleGen => locale_gen(root),
    }
}

fn os_release(root: &Root, fields: &[(String, String)]) -> Result<(), String> {
    for path in ["usr/lib/os-release", "usr/lib/initrd-release", "etc/os-release"] {
        // A link leads to one of the others.
        if root.read_link(path).ok().flatten().is_some() || !root.exists(path).map_err(|e| e.to_string())? {
            continue;
        }
        let old = root.read_file(path).map_err(|error| error.to_string())?;
        let new = with_fields(&String::from_utf8_lossy(&old), fields);
        if new.as_bytes() != old.as_slice() {
            root.write_file(path, new.as_bytes(), 0o644).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// An os-release file with these fields set: in place where they stand, else at the end.
fn with_fields(text: &str, fields: &[(String, String)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (name, value) in fields {
        let line = format!("{name}=\"{}\"", value.replace(['\\', '"', '$', '`'], ""));
        let place = lines.iter().position(|old| old.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('=')));
        match place {
            Some(place) => lines[place] = line,
            None => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

fn last_change(root: &Root, user: &str, day: i64) -> Result<(), String> {
    const SHADOW: &str = "etc/shadow";
    let old = match root.read_file(SHADOW) {
        Ok(old) => old,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let new = with_last_change(&String::from_utf8_lossy(&old), user, day);
    if new.as_bytes() == old.as_slice() {
        return Ok(());
    }
    root.rewrite_file(SHADOW, new.as_bytes()).map_err(|error| error.to_string())
}

/// A shadow file with this day in the third field of a user's line.
fn with_last_change(text: &str, user: &str, day: i64) -> String {
    let line = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        let day = if day > 0 { day.to_string() } else { String::new() };
        if let [name, _, changed, ..] = fields.as_mut_slice()
            && *name == user
        {
            *changed = &day;
            return fields.join(":") + "\n";
        }
        format!("{line}\n")
    };
    text.lines().map(line).collect()
}

fn run_program(root: &Root, argv: &[String], accept: &[i32], env: &[(String, String)]) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let mut command = match find_tool(program) {
        Some(path) => {
            let mut command = Command::new(path);
            command.args(arguments);
            command
        }
        None => {
            let inside = ["usr/bin", "usr/sbin", "bin", "sbin"].iter().map(|dir| format!("{dir}/{program}"));
            let Some(path) = inside.into_iter().find(|path| root.exists(path).unwrap_or(false)) else {
                println!("neither the host nor the image has {program}: passed over");
                return Ok(());
            };
            let mut command = Command::new(format!("{BIN}/mkosi-chroot"));
            command.arg(format!("/{path}"));
            command.args(arguments.iter().filter(|argument| *argument != "--root=/buildroot"));
            command.env("BUILDROOT", BUILDROOT);
            command
        }
    };
    command.envs(env.iter().map(|(name, value)| (name, value)));
    println!("running {}", argv.join(" "));
    let status = command.status().map_err(|error| format!("can't start {program}: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if accept.contains(&code) => Ok(()),
        _ => Err(format!("`{}` failed: {status}", argv.join(" "))),
    }
}

fn run_to(argv: &[String], stdout: &Path, env: &[(String, String)]) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    println!("running {}", argv.join(" "));
    let file = std::fs::File::create(stdout).map_err(|error| format!("can't make {}: {error}", stdout.display()))?;
    let status = Command::new(program)
        .args(arguments)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(file)
        .status()
        .map_err(|error| format!("can't start {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", argv.join(" "))) }
}

fn locale_gen(root: &Root) -> Result<(), String> {
    let wanted = match root.read_file("etc/locale.gen") {
        Ok(text) => String::from_utf8_lossy(&text).lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        }),
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error.to_string()),
    };
    if !wanted {
        return Ok(());
    }
    let status = Command::new(format!("{BIN}/mkosi-chroot"))
        .arg("locale-gen")
        .env("BUILDROOT", BUILDROOT)
        .status()
        .map_err(|error| format!("can't start mkosi-chroot: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`locale-gen` failed in the image: {status}")) }
}

/// Becomes the program of this name if it is one that our executable has within sandboxes; else returns.
pub fn multi_call(name: &str) -> Option<ExitCode> {
    if Path::new(name).file_name()? == APPLY { Some(main()) } else { super::disk::multi_call(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_a_password_is_replaced() {
        let text = "root:$6$a$b:20784::::::\nrooty:!*:1:::::1:\n";
        assert_eq!(with_last_change(text, "root", 9), "root:$6$a$b:9::::::\nrooty:!*:1:::::1:\n");
        assert_eq!(with_last_change(text, "root", 0), "root:$6$a$b:::::::\nrooty:!*:1:::::1:\n");
        assert_eq!(with_last_change("root\n", "root", 1), "root\n");
    }

    #[test]
    fn os_release_fields_are_replaced_or_added() {
        let fields = [("IMAGE_ID".to_owned(), "x".to_owned()), ("IMAGE_VERSION".to_owned(), "1\"2".to_owned())];
        assert_eq!(
            with_fields("ID=debian\nIMAGE_ID=old\nIMAGE_IDX=1\n", &fields),
            "ID=debian\nIMAGE_ID=\"x\"\nIMAGE_IDX=1\nIMAGE_VERSION=\"12\"\n"
        );
    }
}
