//! The command line: from the arguments to a verb, its words, and assignments of settings.
//!
//! The options of settings are made from the settings table; nothing here knows what a setting means.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::arguments::{IGNORED, ONLY_BUILD, SHOW_TOOLS, command, setting_args};
use super::verbs::{Verb, Words};
use crate::config::table::SETTINGS;
use crate::config::{Diagnostic, OptionSetting};
use crate::types::suggest::nearest;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The verb.
    pub verb: Verb,
    /// The images that are named.
    pub images: Vec<String>,
    /// Where `mkosi shell` looks into the graph: `STAGE` or `before:STAGE`.
    pub at: Option<String>,
    /// The arguments for the verb, or for build scripts.
    pub arguments: Vec<String>,
    /// The directory of the project; none after `-C ''`.
    pub directory: Option<PathBuf>,
    /// The assignments of settings, in their order.
    pub settings: Vec<OptionSetting>,
    /// How often `-f` was given.
    pub force: u8,
    /// Show what is done in detail.
    pub debug: bool,
    /// Start a shell where a program in the image fails.
    pub debug_shell: bool,
    /// Keep the working files when something fails.
    pub debug_workspace: bool,
    /// Trace the sandbox.
    pub debug_sandbox: bool,
    /// Show how long each step took.
    pub debug_timing: bool,
    /// Don't page long output.
    pub no_pager: bool,
    /// Whether `store verify` removes what is damaged.
    pub repair: bool,
    /// The size that `store gc` comes down to.
    pub max_size: Option<String>,
    /// For how many days `store gc` keeps what was used.
    pub keep_days: String,
    /// Print JSON.
    pub json: bool,
    /// How `mkosi graph` prints: the value of its `--format`.
    pub graph_format: String,
    /// Use nothing of earlier builds.
    pub no_cache: bool,
    /// Read stored results in full before they are used.
    pub verify_cache: bool,
    /// Ask the mirrors for newer packages.
    pub refresh: bool,
    /// Build as a verb that runs an image does first, and don't run it.
    pub only_build: bool,
    /// Show the default tools tree to this process, as long as it lives, and do nothing else.
    pub show_tools: Option<u32>,
    /// Raise the version after the build.
    pub auto_bump: bool,
    /// Empty the build directory first.
    pub wipe_build_dir: bool,
    /// Run build scripts even where nothing changed.
    pub rerun_build_scripts: bool,
    /// How many days a made key is valid.
    pub genkey_valid_days: String,
    /// The common name of a made key.
    pub genkey_common_name: Option<String>,
    /// How the manual is shown.
    pub doc_format: String,
    /// What is no longer supported, and the like.
    pub warnings: Vec<Diagnostic>,
}

impl Invocation {
    /// Whether this process was started by another one of mkosi to do a part of its work.
    pub fn is_helper(&self) -> bool {
        self.only_build || self.show_tools.is_some()
    }

    /// Whether nothing but the default tools tree is of interest.
    pub fn only_tools(&self) -> bool {
        self.show_tools.is_some() || (self.only_build && !self.verb.builds_with_force())
    }
}

/// Why there is nothing to be done with a command line.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version was asked for: print it and succeed.
    Show(String),
    /// The arguments are wrong: print it and fail.
    Wrong(String),
}

/// Reads the arguments of the program, without its name. `here` is the current directory.
///
/// # Errors
/// When help or the version is asked for, or something is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, here: &Path) -> Result<Invocation, Stop> {
    let arguments = std::iter::once(OsString::from("mkosi")).chain(arguments);
    let matches = command().try_get_matches_from(arguments).map_err(|error| {
        let text = error.render().to_string();
        if error.use_stderr() { Stop::Wrong(text) } else { Stop::Show(text) }
    })?;
    let texts = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).map(|values| values.cloned().collect()).unwrap_or_default()
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let verb = match text("verb") {
        None => Verb::Build,
        Some(name) => Verb::find(&name).ok_or_else(|| unknown_verb(&name))?,
    };
    if verb == Verb::Help {
        return Err(Stop::Show(command().render_help().to_string()));
    }
    let directories = directories(&matches, here);
    let words = texts("words");
    let (mut images, mut arguments) = (texts("image"), Vec::new());
    let at = text("at");
    if at.is_some() && verb != Verb::Shell {
        return Err(Stop::Wrong(format!(
            "error: --at goes with `mkosi shell` alone, not with `mkosi {}`\n",
            verb.name()
        )));
    }
    match verb.words() {
        // With a place in the graph the command stands after `--`.
        _ if at.is_some() => images.extend(words),
        Words::Images => images.extend(words),
        Words::Arguments => arguments.extend(words),
        Words::Nothing => {
            if let Some(word) = words.first() {
                return Err(Stop::Wrong(format!("error: `mkosi {}` takes no `{word}` after it\n", verb.name())));
            }
        }
    }
    arguments.extend(texts("arguments"));
    let force = matches.get_count("force");
    if matches.get_flag("rerun-build-scripts") && force > 0 {
        return Err(Stop::Wrong("error: -f builds everything again: leave out --rerun-build-scripts\n".to_owned()));
    }
    let mut warnings: Vec<Diagnostic> = IGNORED
        .iter()
        .filter(|(name, value)| if *value { matches.contains_id(name) } else { matches.get_count(name) > 0 })
        .map(|(name, _)| Diagnostic::warning(format!("the option --{name} does nothing any more")))
        .collect();
    for setting in SETTINGS.iter() {
        let old = setting.old_options.iter().filter(|option| matches.contains_id(option.trim_start_matches('-')));
        let new = setting.options.first().copied().unwrap_or_default();
        warnings.extend(old.map(|old| Diagnostic::warning(format!("the option {old} is called {new} now"))));
    }
    let mut settings = settings(&matches, &directories, here);
    let graph_format = if verb == Verb::Graph { take_graph_format(&mut settings)? } else { None };
    Ok(Invocation {
        verb,
        images,
        at,
        arguments,
        settings,
        graph_format: graph_format.unwrap_or_else(|| "text".to_owned()),
        directory: directories.last().map_or(Some(here.to_owned()), |(_, directory)| directory.clone()),
        force,
        debug: matches.get_flag("debug"),
        debug_shell: matches.get_flag("debug-shell"),
        debug_workspace: matches.get_flag("debug-workspace"),
        debug_sandbox: matches.get_flag("debug-sandbox"),
        debug_timing: matches.get_flag("debug-timing"),
        no_pager: matches.get_flag("no-pager"),
        repair: matches.get_flag("repair"),
        max_size: text("max-size"),
        keep_days: text("keep-days").unwrap_or_default(),
        json: matches.get_flag("json"),
        no_cache: matches.get_flag("no-cache"),
        verify_cache: matches.get_flag("verify-cache"),
        refresh: matches.get_flag("refresh"),
        only_build: matches.get_flag(ONLY_BUILD),
        show_tools: text(SHOW_TOOLS).and_then(|pid| pid.parse().ok()),
        auto_bump: matches.get_flag("auto-bump"),
        wipe_build_dir: matches.get_flag("wipe-build-dir"),
        rerun_build_scripts: matches.get_flag("rerun-build-scripts"),
        genkey_valid_days: text("genkey-valid-days").unwrap_or_default(),
        genkey_common_name: text("genkey-common-name"),
        doc_format: text("doc-format").unwrap_or_default(),
        warnings,
    })
}

/// The forms in which `mkosi graph` prints. No image format has one of these names, so `--format` can mean either.
const GRAPH_FORMATS: [&str; 5] = ["text", "full", "json", "dot", "mermaid"];

/// Takes the `--format` that means how the graph is printed out of the assignments. One that means neither is told here: the
/// setting knows only formats of images.
fn take_graph_format(settings: &mut Vec<OptionSetting>) -> Result<Option<String>, Stop> {
    let formats = SETTINGS.iter().find(|setting| setting.name == "Format").and_then(|setting| setting.kind.accepted());
    let formats = formats.unwrap_or_default();
    let known = || GRAPH_FORMATS.into_iter().chain(formats.split(", "));
    let mut given = settings.iter().filter(|setting| setting.setting == "Format" && !setting.text.is_empty());
    if let Some(wrong) = given.find(|setting| known().all(|name| name != setting.text)) {
        let (text, forms) = (&wrong.text, GRAPH_FORMATS.join(", "));
        let near = nearest(text, known()).map(|near| format!("  hint: did you mean `{near}`?\n")).unwrap_or_default();
        return Err(Stop::Wrong(format!(
            "error: --format: `{text}` is no form of the graph, and no format of an image\n  accepted: {forms}; {formats}\n\
             {near}"
        )));
    }
    let is_graph = |s: &OptionSetting| s.setting == "Format" && GRAPH_FORMATS.contains(&s.text.as_str());
    let format = settings.iter().rev().find(|s| is_graph(s)).map(|s| s.text.clone());
    settings.retain(|s| !is_graph(s));
    Ok(format)
}

fn unknown_verb(name: &str) -> Stop {
    let known = Verb::ALL.iter().flat_map(|verb| std::iter::once(verb.name()).chain(verb.aliases().iter().copied()));
    let mut text = format!("error: there is no verb `{name}`\n");
    match nearest(name, known) {
        Some(near) => text.push_str(&format!("  hint: did you mean `mkosi {near}`?\n")),
        None => text.push_str(&format!("  hint: to build an image of that name: `mkosi build {name}`\n")),
    }
    Stop::Wrong(text)
}

/// The directories of `-C`, each seen from the one before, with their places on the command line. The empty one means
/// that no project is read.
fn directories(matches: &ArgMatches, here: &Path) -> Vec<(usize, Option<PathBuf>)> {
    let mut from = here.to_owned();
    let values = matches.get_many::<String>("directory").into_iter().flatten();
    let indices = matches.indices_of("directory").into_iter().flatten();
    indices
        .zip(values)
        .map(|(index, value)| {
            if value.is_empty() {
                return (index, None);
            }
            from = from.join(value);
            let clean = from.canonicalize().unwrap_or_else(|_| from.clone());
            from = clean.clone();
            (index, Some(clean))
        })
        .collect()
}

/// The assignments of settings, in the order in which they stand on the command line.
fn settings(matches: &ArgMatches, directories: &[(usize, Option<PathBuf>)], here: &Path) -> Vec<OptionSetting> {
    let mut found: Vec<(usize, OptionSetting)> = Vec::new();
    for setting in SETTINGS.iter() {
        for arg in setting_args(setting) {
            let id = arg.get_id().as_str().to_owned();
            let values = matches.get_many::<String>(&id).into_iter().flatten();
            let indices = matches.indices_of(&id).into_iter().flatten();
            let option = if id.starts_with('-') { id.clone() } else { format!("--{id}") };
            for (index, text) in indices.zip(values) {
                // A relative path is seen from where the -C options before it lead.
                let directory =
                    directories.iter().rev().find(|(at, _)| *at < index).and_then(|(_, path)| path.as_deref());
                found.push((
                    index,
                    OptionSetting {
                        setting: setting.name.to_owned(),
                        text: text.clone(),
                        option: option.clone(),
                        directory: directory.unwrap_or(here).to_owned(),
                    },
                ));
            }
        }
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, setting)| setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Invocation, Stop> {
        parse(arguments.iter().map(OsString::from), Path::new("/"))
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_option_of_the_table_reaches_its_setting() {
        for setting in SETTINGS.iter() {
            for option in setting.options.iter().chain(setting.old_options) {
                let alone = !option.starts_with("--") && setting.short_value.is_some();
                let arguments = if alone { vec![*option] } else { vec![*option, "x"] };
                let settings = parsed(&arguments).unwrap().settings;
                assert_eq!(settings.len(), 1, "{option}");
                assert_eq!(settings[0].setting, setting.name, "{option}");
                assert_eq!(settings[0].text, if alone { setting.short_value.unwrap() } else { "x" });
            }
        }
    }

    #[test]
    fn order_and_directories() {
        let invocation =
            parsed(&["--package=a", "-C", "tmp", "-p", "b", "--package=", "-ffi", "build", "base", "--", "-x"])
                .unwrap();
        let texts: Vec<&str> = invocation.settings.iter().map(|setting| setting.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "", "yes"]);
        assert_eq!(invocation.settings[0].directory, Path::new("/"));
        assert_eq!(invocation.settings[1].directory, Path::new("/tmp"));
        assert_eq!(invocation.directory.as_deref(), Some(Path::new("/tmp")));
        assert_eq!(
            (invocation.force, invocation.images, invocation.arguments),
            (2, vec!["base".to_owned()], vec!["-x".to_owned()])
        );
        assert_eq!(parsed(&["-C", ""]).unwrap().directory, None);
    }

    #[test]
    fn verbs() {
        assert_eq!(parsed(&["qemu", "x"]).unwrap().verb, Verb::Vm);
        assert_eq!(parsed(&["--image=a,b", "summary"]).unwrap().images, ["a", "b"]);
        assert_eq!(parsed(&["--preset", "a"]).unwrap().images, ["a"]);
        let Err(Stop::Wrong(text)) = parsed(&["sumary"]) else { panic!("accepted") };
        assert!(text.contains("did you mean `mkosi summary`"), "{text}");
        let Err(Stop::Wrong(text)) = parsed(&["--pakage=x"]) else { panic!("accepted") };
        assert!(text.contains("--package"), "{text}");
        assert_eq!(parsed(&["graph", "--format=json", "--format=tar"]).unwrap().graph_format, "json");
        let Err(Stop::Wrong(text)) = parsed(&["graph", "--format=jsn"]) else { panic!("accepted") };
        assert!(text.contains("did you mean `json`") && text.contains("mermaid; confext"), "{text}");
        assert!(matches!(parsed(&["--version"]), Err(Stop::Show(_))));
        assert_eq!(parsed(&["--default", "x"]).unwrap().warnings.len(), 1);
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(command().term_width(100).render_help());
    }
}
