//! `mkosi completion`: what a shell needs to complete command lines, made from the settings table and the verbs.
//!
//! Knows nothing of a project: images and profiles are not completed.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

use super::arguments::{command, setting_args};
use super::verbs::Verb;
use crate::config::table::{Item, Kind, SETTINGS};

/// The shells that completions are made for.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Why there is no completion.
#[derive(Debug, thiserror::Error)]
#[error("`mkosi completion` takes the name of a shell: {}{}", SHELLS.join(", "), .0)]
pub struct CompletionError(String);

/// The completion script for a shell.
///
/// # Errors
/// When the words don't name a shell.
pub fn script(words: &[String]) -> Result<String, CompletionError> {
    let shell = match words {
        [name] => match name.as_str() {
            "bash" => Shell::Bash,
            "zsh" => Shell::Zsh,
            "fish" => Shell::Fish,
            other => return Err(CompletionError(format!(", not `{other}`"))),
        },
        _ => return Err(CompletionError(String::new())),
    };
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut completed(), "mkosi", &mut bytes);
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Fish => text.push_str(&fish_verbs()),
        // The generator for zsh knows one list of words alone, and takes the last.
        Shell::Zsh => {
            let words = format!("words:word:({})", self::words().join(" "));
            let both = format!("'*:words: _alternative \"{words}\" \"files:file:_files\"'");
            text = text.replace("'*::arguments:_default'", &both);
        }
        _ => {}
    }
    Ok(text)
}

/// The generator for fish knows options alone: what it takes for the verbs and the words after them.
fn fish_verbs() -> String {
    let verbs: Vec<&Verb> = Verb::ALL.iter().collect();
    let names: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
    let none = format!("not __fish_seen_subcommand_from {}", names.join(" "));
    let mut text = String::new();
    for verb in verbs {
        let help = verb.help().replace('\\', "\\\\").replace('\'', "\\'");
        text.push_str(&format!("complete -c mkosi -n \"{none}\" -f -a {} -d '{help}'\n", verb.name()));
    }
    for (verb, words) in WORDS {
        let words = words().join(" ");
        text.push_str(&format!("complete -c mkosi -n \"__fish_seen_subcommand_from {verb}\" -f -a \"{words}\"\n"));
    }
    text
}

/// The words of all verbs, where a shell has one list for them.
fn words() -> Vec<&'static str> {
    WORDS.iter().flat_map(|(_, words)| words()).collect()
}

/// The words that can stand after a verb.
type Words = fn() -> Vec<&'static str>;
const WORDS: [(&str, Words); 3] = [
    ("completion", || SHELLS.to_vec()),
    ("documentation", super::documentation::names),
    ("store", || vec!["du", "gc", "verify"]),
];

/// The command line with the values that can be listed, and what others are: files, directories.
fn completed() -> Command {
    let verbs = Verb::ALL.iter();
    let verbs: Vec<PossibleValue> =
        verbs.map(|verb| PossibleValue::new(verb.name()).help(verb.help()).aliases(verb.aliases())).collect();
    let mut command = command()
        .mut_arg("verb", |arg| arg.hide(false).value_parser(PossibleValuesParser::new(verbs)).help("What to do"))
        .mut_arg("words", |arg| arg.hide(false).value_parser(PossibleValuesParser::new(words())))
        .mut_arg("directory", |arg| arg.value_hint(ValueHint::DirPath))
        .mut_arg("doc-format", |arg| arg.hide_possible_values(false));
    for setting in SETTINGS.iter() {
        for arg in setting_args(setting) {
            if arg.get_long().is_some() && !arg.is_hide_set() {
                command = command.mut_arg(arg.get_id().as_str(), |arg| with_values(arg, setting.kind));
            }
        }
    }
    command
}

fn with_values(arg: Arg, kind: Kind) -> Arg {
    let listed = |arg: Arg, names: &[&'static str]| arg.value_parser(PossibleValuesParser::new(names.iter().copied()));
    match kind {
        Kind::Bool => listed(arg, &["yes", "no"]),
        Kind::Feature => listed(arg, &["auto", "yes", "no"]),
        Kind::Enum(choices) | Kind::Artifacts(choices) | Kind::List { item: Item::Choice(choices), .. } => {
            listed(arg, choices.names)
        }
        Kind::Path(_) | Kind::KeyFile | Kind::Scripts | Kind::List { item: Item::Path(_) | Item::Tree { .. }, .. } => {
            arg.value_hint(ValueHint::AnyPath)
        }
        _ => arg.value_hint(ValueHint::Other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;

    fn of(shell: &str) -> String {
        script(&[shell.to_owned()]).unwrap()
    }

    #[test]
    fn the_shells_can_read_it() {
        for (shell, arguments) in [("bash", vec!["-n"]), ("zsh", vec!["-n"]), ("fish", vec!["--no-execute"])] {
            let mut child = Process::new(shell)
                .args(arguments)
                .args((shell != "bash").then_some("/dev/stdin"))
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{shell}: {error}"));
            child.stdin.take().unwrap().write_all(of(shell).as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    #[test]
    fn bash_completes_verbs_options_and_values() {
        let complete = |words: &str, at: usize| {
            let script = format!(
                "{}\nCOMP_WORDS=(mkosi {words}); COMP_CWORD={at}; _mkosi mkosi \"${{COMP_WORDS[at]}}\" \
                 \"${{COMP_WORDS[{}]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                of("bash"),
                at - 1
            )
            .replace("${COMP_WORDS[at]}", &format!("${{COMP_WORDS[{at}]}}"));
            let output = Process::new("bash").args(["-c", &script]).output().expect("bash");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(complete("--packa", 1).contains("--package\n"));
        assert!(complete("--format t", 2).contains("tar"));
        assert!(complete("su", 1).contains("summary"));
    }

    #[test]
    fn fish_completes_verbs_options_and_values() {
        let complete = |line: &str| {
            let script = format!("{}\ncomplete -C '{line}'", of("fish"));
            let output = Process::new("fish").args(["--no-config", "-c", &script]).output().expect("fish");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(complete("mkosi su").contains("summary"));
        assert!(complete("mkosi --packa").contains("--package"));
        assert!(complete("mkosi --format=t").contains("tar"));
        assert!(complete("mkosi completion z").contains("zsh"));
    }

    #[test]
    fn shells_that_are_not_known() {
        assert!(script(&[]).unwrap_err().to_string().contains("bash, zsh, fish"));
        assert!(script(&["csh".to_owned()]).unwrap_err().to_string().contains("`csh`"));
    }
}
