//! The arguments that the command line has, made from the settings table and the verbs.
//!
//! Knows nothing of what was given.

use clap::{Arg, ArgAction, Command};

use super::verbs::Verb;
use crate::config::LANGUAGE_VERSION;
use crate::config::table::{Kind, SETTINGS, Setting};

const PROGRAM: &str = "Program";

/// The command line, for parsing, for its help and for completions.
pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help).help_heading(PROGRAM)
    };
    let valued = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).help_heading(PROGRAM)
    };
    let command = Command::new("mkosi")
        .about("Builds images of operating systems")
        .version(format!("{} (configuration language {LANGUAGE_VERSION})", env!("CARGO_PKG_VERSION")))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .override_usage("mkosi [OPTION...] [VERB] [IMAGE...] [-- ARGUMENT...]")
        .help_template(format!("{{about}}\n\nUsage: {{usage}}\n\n{}\n\n{{all-args}}", verbs_help()))
        .arg(Arg::new("verb").index(1).hide(true))
        .arg(Arg::new("words").index(2).num_args(0..).hide(true))
        .arg(Arg::new("arguments").index(3).num_args(0..).last(true).allow_hyphen_values(true).hide(true))
        .arg(
            Arg::new("directory")
                .short('C')
                .long("directory")
                .value_name("DIR")
                .action(ArgAction::Append)
                .help("Go to this directory first; '' to read no configuration files")
                .help_heading(PROGRAM),
        )
        .arg(
            Arg::new("force")
                .short('f')
                .long("force")
                .action(ArgAction::Count)
                .help("Replace outputs that were not made here; -ff uses no layers of earlier builds, -fff no packages")
                .help_heading(PROGRAM),
        )
        .arg(
            Arg::new("image")
                .long("image")
                .visible_alias("preset")
                .value_name("IMAGE")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("Only this image and what it depends on")
                .help_heading(PROGRAM),
        )
        .arg(flag("no-cache", "Use no layers of earlier builds"))
        .arg(flag("verify-cache", "Read stored results in full before they are used"))
        .arg(flag("refresh", "Ask the mirrors for newer packages"))
        .arg(flag("repair", "Remove what `store verify` finds damaged"))
        .arg(valued("max-size", "SIZE", "The size that `store gc` comes down to: 500M, 10G"))
        .arg(valued("keep-days", "DAYS", "What `store gc` keeps whatever its size").default_value("7"))
        .arg(valued("at", "STAGE", "Where `shell` looks into the graph: after a stage, or before it with before:STAGE"))
        .arg(flag("json", "Print JSON"))
        .arg(flag("debug", "Show in detail what is done"))
        .arg(flag("debug-shell", "Start a shell where a program in the image fails"))
        .arg(flag("debug-workspace", "Keep the working files when something fails"))
        .arg(flag("debug-sandbox", "Trace the sandbox"))
        .arg(flag("debug-timing", "Show how long each step took"))
        .arg(flag("no-pager", "Don't page long output"))
        .arg(flag("auto-bump", "Raise the image's version after the build").short('B'))
        .arg(flag("wipe-build-dir", "Empty the build directory first").short('w'))
        .arg(flag("rerun-build-scripts", "Run build scripts even where nothing changed").short('R'))
        .arg(valued("genkey-valid-days", "DAYS", "How many days a made key is valid").default_value("730"))
        .arg(valued("genkey-common-name", "NAME", "The common name of a made key"))
        .arg(
            valued("doc-format", "FORMAT", "How the manual is shown")
                .value_parser(["auto", "markdown", "man", "pandoc", "system"])
                .hide_possible_values(true)
                .default_value("auto"),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::Version)
                .help("Show the version")
                .help_heading(PROGRAM),
        )
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(ArgAction::Help)
                .help("Show this help")
                .help_heading(PROGRAM),
        );
    let command = command
        .arg(Arg::new(ONLY_BUILD).long(ONLY_BUILD).action(ArgAction::SetTrue).hide(true))
        .arg(Arg::new(SHOW_TOOLS).long(SHOW_TOOLS).value_name("PID").hide(true));
    let ignored = IGNORED.iter().map(|(name, value)| {
        let action = if *value { ArgAction::Append } else { ArgAction::Count };
        Arg::new(*name).long(*name).action(action).hide(true)
    });
    command.args(ignored).args(SETTINGS.iter().flat_map(|setting| setting_args(setting)))
}

/// The hidden option with which the program starts itself to build what it then runs.
pub(super) const ONLY_BUILD: &str = "only-build";

/// The hidden option with which the program starts itself to find the default tools tree and keep it in the store.
pub(super) const SHOW_TOOLS: &str = "show-tools";

/// Options that did something once, and whether they take a value.
pub(super) const IGNORED: &[(&str, bool)] =
    &[("nspawn-keep-unit", false), ("default", true), ("cache", true), ("runtime-scratch", true)];

fn verbs_help() -> String {
    let mut text = "Verbs:\n".to_owned();
    for verb in Verb::ALL.iter() {
        text.push_str(&format!("  {:<13} {}\n", verb.name(), verb.help()));
    }
    text.pop();
    text
}

/// The options of one setting: the long one with its short one, the short one alone where it takes no value, and
/// those of older versions.
pub(super) fn setting_args(setting: &'static Setting) -> Vec<Arg> {
    let value = match (setting.metavar, setting.kind.accepted()) {
        ("", Some(_)) if setting.kind == Kind::Feature => "FEATURE",
        ("", _) => "BOOL",
        (metavar, _) => metavar,
    };
    let mut args = Vec::new();
    let mut longs = setting.options.iter().chain(setting.old_options).filter_map(|option| option.strip_prefix("--"));
    let short =
        setting.options.iter().filter(|option| !option.starts_with("--")).find_map(|option| option.chars().nth(1));
    if let Some(long) = longs.next() {
        let mut arg = Arg::new(long)
            .long(long)
            .value_name(value)
            .action(ArgAction::Append)
            .help(setting.help)
            .help_heading(format!("[{}]", setting.section));
        if long == "checksum" {
            // An old spelling in build services has no value.
            arg = arg.num_args(0..=1).default_missing_value("yes");
        }
        match (short, setting.short_value) {
            (Some(short), None) => arg = arg.short(short),
            (Some(short), Some(_)) => {
                let id = format!("-{short}");
                args.push(
                    Arg::new(id)
                        .short(short)
                        .action(ArgAction::Append)
                        .num_args(0)
                        .default_missing_value(setting.short_value.unwrap_or_default())
                        .help(format!("The same as --{long}={}", setting.short_value.unwrap_or_default()))
                        .help_heading(format!("[{}]", setting.section)),
                );
            }
            (None, _) => {}
        }
        args.insert(0, arg);
    }
    args.extend(longs.map(|long| Arg::new(long).long(long).value_name(value).action(ArgAction::Append).hide(true)));
    args
}
