//! The command line program: arguments, verbs, and what is printed for people.

pub mod arguments;
mod build;
pub mod bump;
pub mod cat_config;
mod clean;
pub mod completion;
pub mod configure;
pub mod dependencies;
pub mod documentation;
mod echo;
pub mod genkey;
pub mod history;
pub mod init;
mod known_here;
pub mod options;
pub mod pager;
mod progress;
pub mod resources;
pub mod roff;
mod running;
mod session;
mod shell_at;
mod store_words;
pub mod summary;
mod tools_tree;
pub mod verbs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{
    Diagnostic, Diagnostics, HostFacts, LoadInput, Loaded, OptionSetting, Origin, load, project_directory,
};
use options::{Invocation, Stop};
use pager::print;
use verbs::Verb;

/// The whole program. `linked_statically` tells whether it has its own C library, which only the crate of the
/// executable knows.
pub fn main(linked_statically: bool) -> ExitCode {
    if linked_statically {
        crate::sandbox::own_name_services();
    }
    // Before anything else: a process that enters a sandbox must have no second thread.
    crate::sandbox::hidden_entry();
    crate::distro::hidden_entry();
    if let Some(status) = crate::run::ssh::proxy_entry(std::env::args_os()) {
        return status;
    }
    if let Some(status) = crate::stage::apply::multi_call(&std::env::args().next().unwrap_or_default()) {
        return status;
    }
    let status = run(std::env::args_os().skip(1));
    // Everything is tidied up. One that a signal could not stop any more succeeded all the same, and a machine that ended
    // with a status of its own keeps that.
    if [ExitCode::FAILURE, ExitCode::from(crate::run::process::INTERRUPTED)].contains(&status) {
        crate::sandbox::end_if_interrupted();
    }
    status
}

/// Does what the arguments, without the program's name, ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut invocation = match options::parse(arguments, &here) {
        Ok(invocation) => invocation,
        Err(Stop::Show(text)) => return print(&text),
        Err(Stop::Wrong(text)) => {
            crate::tell_part!("{text}");
            return ExitCode::from(2);
        }
    };
    let project = project_directory(invocation.directory.as_deref());
    if let Some(project) = &project {
        history::recall(&mut invocation, project);
    }
    if invocation.verb.needs_no_configuration() {
        say(&invocation.warnings);
        return without_configuration(&invocation, &here);
    }
    // The store of a user holds files of the user's subordinate ids, which only root of a namespace can read.
    if (invocation.verb.uses_store() || invocation.is_helper() || invocation.at.is_some())
        && let Err(error) = crate::sandbox::enter_user_namespace()
    {
        crate::tell!("error: {error}");
        return ExitCode::FAILURE;
    }
    // Only now: outside the namespace this program starts once more. Whoever starts a helper has said it.
    if !invocation.is_helper() {
        say(&invocation.warnings);
    }
    let bumps = invocation.verb == Verb::Bump
        || (invocation.auto_bump && matches!(invocation.verb, Verb::Build | Verb::Update));
    let given = invocation.settings.clone();
    // A version on the command line is the next one.
    if bumps && !invocation.settings.iter().any(|setting| setting.setting == "ImageVersion") {
        let version = project.as_deref().ok_or(bump::BumpError::NoDirectory).and_then(bump::next);
        match version {
            Ok(text) => invocation.settings.push(OptionSetting {
                setting: "ImageVersion".to_owned(),
                text,
                option: "--image-version".to_owned(),
                directory: here.clone(),
            }),
            Err(error) => return finish(Err(error.into())),
        }
    }
    // Kept to the end: what it holds may be copied into images.
    let built_in = match resources::resources(resources::runtime_directory().as_deref()) {
        Ok(built_in) => built_in,
        Err(error) => {
            crate::tell!("error: can't write the built-in configurations into a temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let input = load_input(&invocation, &built_in.path);
    let mut loaded = match load(&input) {
        Ok(loaded) => loaded,
        Err(Diagnostics(diagnostics)) => {
            for diagnostic in diagnostics {
                crate::tell!("{}", diagnostic.relative_to(&here));
            }
            return ExitCode::FAILURE;
        }
    };
    for warning in loaded.warnings.iter().filter(|_| !invocation.is_helper()) {
        crate::tell!("{}", warning.clone().relative_to(&here));
    }
    if (matches!(invocation.verb, Verb::Build | Verb::Update | Verb::Graph) || invocation.verb.builds_with_force())
        && !is_configured(&loaded)
    {
        crate::tell!(
            "error: there is no configuration in {}\n  hint: go to a directory with a mkosi.conf, name it with -C, or \
             write a first one with `mkosi init`",
            loaded.project.display()
        );
        return ExitCode::FAILURE;
    }
    if let Some(user) = invocation.show_tools {
        // It is no image that a configure script changes.
        return finish(tools_tree::show(&invocation, &loaded, user));
    }
    // What runs an image stays the user, but its configure scripts need a sandbox.
    if invocation.verb.needs_configure_scripts()
        && loaded.images.iter().any(|image| !image.get("ConfigureScripts").is_empty())
        && let Err(error) = crate::sandbox::enter_user_namespace()
    {
        crate::tell!("error: {error}");
        return ExitCode::FAILURE;
    }
    // What becomes another program would leave it behind where it is temporary.
    let becomes = invocation.verb.runs() && !invocation.only_build && invocation.at.is_none();
    let _built_in = Some(built_in).filter(|_| !becomes);
    // As in systemd's mkosi, only what builds runs them: the summary shows what the files say.
    if invocation.verb.needs_configure_scripts()
        && let Err(error) = configure::run(&mut loaded, &input.environment, invocation.debug)
    {
        crate::tell!("error: {error}");
        return ExitCode::FAILURE;
    }
    if loaded.image("main").is_some_and(|main| main.bool("History"))
        && history::is_new(&invocation)
        && let Err(error) = history::keep(&given, &loaded.project)
    {
        crate::tell!("warning: the options of this build can't be kept for later: {error}");
    }
    match show(&invocation, &loaded, &here) {
        status if status == ExitCode::SUCCESS && bumps => finish(write_version(&loaded)),
        status => status,
    }
}

/// Whether a file or an option says anything of what is to be built.
fn is_configured(loaded: &Loaded) -> bool {
    loaded.images.iter().any(|image| image.values.values().any(|value| value.origin != Origin::Default))
}

fn say(warnings: &[Diagnostic]) {
    for warning in warnings {
        crate::tell!("{warning}");
    }
}

/// Writes the version that was built, or asked for, into the project.
fn write_version(loaded: &Loaded) -> anyhow::Result<()> {
    if let Some(version) = loaded.image("main").and_then(|main| main.text("ImageVersion")) {
        bump::write(&loaded.project, version)?;
        crate::tell!("the version of the image is {version} now");
    }
    Ok(())
}

fn without_configuration(invocation: &Invocation, here: &Path) -> ExitCode {
    match invocation.verb {
        Verb::Init => {
            finish_with(init::init(invocation, &HostFacts::detect(Path::new("/")), here).map_err(anyhow::Error::from))
        }
        Verb::Completion => finish_with(completion::script(&invocation.arguments).map_err(anyhow::Error::from)),
        Verb::Dependencies => finish_with(dependencies::list(&invocation.arguments, here)),
        Verb::Genkey => {
            let project = project_directory(invocation.directory.as_deref());
            finish_with(genkey::genkey(invocation, project.as_deref()).map_err(anyhow::Error::from))
        }
        Verb::Documentation => {
            let terminal = pager::on_terminal();
            match documentation::render(&invocation.arguments, &invocation.doc_format, terminal) {
                Ok(text) => pager::show(&text, invocation.no_pager),
                Err(error) => finish(Err(error.into())),
            }
        }
        verb => misplaced(verb),
    }
}

fn misplaced(verb: Verb) -> ExitCode {
    crate::tell!("error: `mkosi {}` can't be done in this way", verb.name());
    ExitCode::FAILURE
}

/// What a configuration is loaded from, for this program on this host. `built_in` is the directory of the built-in
/// configurations, which `$MKOSI_RESOURCES` can overrule.
pub fn load_input(invocation: &Invocation, built_in: &Path) -> LoadInput {
    LoadInput {
        directory: invocation.directory.clone(),
        options: invocation.settings.clone(),
        images: invocation.images.clone(),
        environment: session::outside(),
        host: HostFacts::detect(Path::new("/")),
        resources: Some(std::env::var_os("MKOSI_RESOURCES").map_or_else(|| built_in.to_owned(), PathBuf::from)),
    }
}

fn show(invocation: &Invocation, loaded: &Loaded, here: &Path) -> ExitCode {
    match invocation.verb {
        Verb::Summary if invocation.json => pager::show(&format!("{}\n", summary::json(loaded)), invocation.no_pager),
        Verb::Summary => pager::show(&summary::text(loaded, here, invocation.debug), invocation.no_pager),
        Verb::CatConfig => match cat_config::render(loaded, here) {
            Ok(text) => pager::show(&text, invocation.no_pager),
            Err(error) => {
                crate::tell!("error: can't read a configuration file any more: {error}");
                ExitCode::FAILURE
            }
        },
        Verb::Build => finish(build::build(invocation, loaded, false)),
        Verb::Update => finish(build::build(invocation, loaded, true)),
        Verb::Clean => finish(clean::clean(invocation, loaded).and_then(|()| Ok(history::forget(&loaded.project)?))),
        // The version is written when all else went well.
        Verb::Bump => ExitCode::SUCCESS,
        Verb::Graph => finish_with(build::graph(invocation, loaded)),
        Verb::Shell if invocation.at.is_some() => {
            shell_at::shell(invocation, loaded).unwrap_or_else(|error| finish(Err(error)))
        }
        verb if verb.runs() && invocation.only_build => finish(build::build(invocation, loaded, false)),
        verb if verb.runs() => running::run(invocation, loaded, here),
        Verb::Store => finish_with(clean::store(invocation, loaded)),
        verb => misplaced(verb),
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    finish_with(result.map(|()| String::new()))
}

fn finish_with(result: anyhow::Result<String>) -> ExitCode {
    match result {
        Ok(text) => print(&text),
        Err(error) => {
            crate::tell!("error: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Those of our own say what caused them themselves, others leave it to who prints them.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let own = || crate::output::Error::io("open", "/out/image", denied());
        let outer = crate::exec::ExecError::Node {
            node: "main/publish".to_owned(),
            left: false,
            error: Box::new(crate::stage::StageError::other(own())),
            tail: Vec::new(),
            log: PathBuf::new(),
        };
        let told = [
            anyhow::Error::from(own()),
            anyhow::Error::from(own()).context("can't clean the output"),
            anyhow::Error::from(outer),
            Err::<(), _>(denied()).context("can't remove /out").unwrap_err().context("can't clean the output"),
            anyhow::Error::from(crate::stage::StageError::from(crate::store::StoreError::Io {
                what: "read",
                path: "/store/lock".into(),
                source: denied(),
            })),
        ];
        insta::assert_snapshot!(told.map(|error| in_words(&error)).join("\n"));
    }
}
