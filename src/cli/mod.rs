//! The command line program: arguments, verbs, and what is printed for people.

pub mod arguments;
mod build;
pub mod cat_config;
mod clean;
pub mod options;
mod progress;
mod session;
mod store_words;
pub mod summary;
pub mod verbs;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{Diagnostics, HostFacts, LoadInput, Loaded, load};
use options::{Invocation, Stop};
use verbs::Verb;

/// Does what the arguments, without the program's name, ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let invocation = match options::parse(arguments, &here) {
        Ok(invocation) => invocation,
        Err(Stop::Show(text)) => return print(&text),
        Err(Stop::Wrong(text)) => {
            eprint!("{text}");
            return ExitCode::from(2);
        }
    };
    for warning in &invocation.warnings {
        eprintln!("{warning}");
    }
    if !invocation.verb.implemented() {
        eprintln!("error: this version can't do `mkosi {}` yet", invocation.verb.name());
        return ExitCode::FAILURE;
    }
    // The store of a user holds files of the user's subordinate ids, which only root of a namespace can read.
    if invocation.verb.uses_store()
        && let Err(error) = crate::sandbox::enter_user_namespace()
    {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let loaded = match load(&load_input(&invocation)) {
        Ok(loaded) => loaded,
        Err(Diagnostics(diagnostics)) => {
            for diagnostic in diagnostics {
                eprintln!("{}", diagnostic.relative_to(&here));
            }
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        eprintln!("{}", warning.clone().relative_to(&here));
    }
    show(&invocation, &loaded, &here)
}

/// What a configuration is loaded from, for this program on this host.
pub fn load_input(invocation: &Invocation) -> LoadInput {
    LoadInput {
        directory: invocation.directory.clone(),
        options: invocation.settings.clone(),
        images: invocation.images.clone(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        host: HostFacts::detect(Path::new("/")),
        resources: std::env::var_os("MKOSI_RESOURCES").map(PathBuf::from),
    }
}

fn show(invocation: &Invocation, loaded: &Loaded, here: &Path) -> ExitCode {
    match invocation.verb {
        Verb::Summary if invocation.json => print(&format!("{}\n", summary::json(loaded))),
        Verb::Summary => print(&summary::text(loaded, here, invocation.debug)),
        Verb::CatConfig => match cat_config::render(loaded, here) {
            Ok(text) => print(&text),
            Err(error) => {
                eprintln!("error: can't read a configuration file any more: {error}");
                ExitCode::FAILURE
            }
        },
        Verb::Build => finish(build::build(invocation, loaded, false)),
        Verb::Update => finish(build::build(invocation, loaded, true)),
        Verb::Clean => finish(clean::clean(invocation, loaded)),
        Verb::Graph => finish_with(build::graph(invocation, loaded)),
        Verb::Store => finish_with(clean::store(invocation, loaded)),
        verb => {
            eprintln!("error: this version can't do `mkosi {}` yet", verb.name());
            ExitCode::FAILURE
        }
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    finish_with(result.map(|()| String::new()))
}

fn finish_with(result: anyhow::Result<String>) -> ExitCode {
    match result {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output; a reader that went away is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
