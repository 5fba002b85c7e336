//! The verbs that run an image, or programs beside it: builds first where that is asked for, and hands over to `run`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use super::arguments::ONLY_BUILD;
use super::options::Invocation;
use super::session::outside;
use super::tools_tree;
use super::verbs::Verb;
use crate::config::{DEFAULT_INITRD, HostFacts, Image, Loaded, Value};
use crate::plan::ToolsTree;
use crate::run::{Settings, Tools, burn, container, environment, in_box, latest, process, serve, ssh, systemd, vm};

/// Does what a verb that runs something asks for. `here` is the current directory.
pub fn run(invocation: &Invocation, loaded: &Loaded, here: &Path) -> ExitCode {
    match start(invocation, loaded, here) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            crate::tell!("error: {}", super::in_words(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(invocation: &Invocation, loaded: &Loaded, here: &Path) -> anyhow::Result<u8> {
    let image = image(loaded)?;
    let runs_image = !matches!(invocation.verb, Verb::Box | Verb::LatestSnapshot);
    if runs_image && image.text("Format") == Some("none") {
        bail!("the image `{}` has Format=none: there is nothing to run", image.name);
    }
    let settings = if runs_image { Some(Settings::new(image, loaded.image(DEFAULT_INITRD))?) } else { None };
    let has_tools = ToolsTree::of(image) == ToolsTree::Default;
    if invocation.force > 0
        && (invocation.verb.builds_with_force() || has_tools)
        && let Some(status) = build()?
    {
        return Ok(status);
    }
    let Some(tools) = tools(invocation, image)? else { return Ok(1) };
    let tools = tools.with_environment(environment::variables(image, &outside())?);
    let words = invocation.arguments.as_slice();
    let Some(settings) = settings else {
        if invocation.verb == Verb::LatestSnapshot {
            println!("{}", latest::latest_snapshot(image, &tools)?);
            return Ok(0);
        }
        let facts = HostFacts::detect(Path::new("/"));
        let host = in_box::Host { distribution: facts.distribution.as_deref(), release: facts.release.as_deref() };
        return Ok(in_box::run(
            &tools,
            &host,
            image.path("ToolsTree"),
            invocation.directory.as_deref().unwrap_or(here),
            words,
        )?);
    };
    Ok(match invocation.verb {
        Verb::Vm => vm::run(&settings, &tools, words)?,
        Verb::Shell => container::run(&settings, &tools, false, words)?,
        Verb::Boot => container::run(&settings, &tools, true, words)?,
        Verb::Ssh => ssh::run(&settings, &tools, words)?,
        Verb::Journalctl => systemd::inspect(&settings, &tools, "journalctl", words)?,
        Verb::Coredumpctl => systemd::inspect(&settings, &tools, "coredumpctl", words)?,
        Verb::Sysupdate => systemd::sysupdate(&settings, &tools, words)?,
        Verb::Serve => serve::run(&settings, &tools)?,
        Verb::Burn => burn::run(&settings, &tools, words)?,
        verb => bail!("`mkosi {}` runs nothing", verb.name()),
    })
}

/// The image that is run: the one that was asked for, or the main image.
fn image(loaded: &Loaded) -> anyhow::Result<&Image> {
    let name = loaded.selected.last().map_or("main", String::as_str);
    let image = loaded.image(name).with_context(|| format!("there is no image `{name}`"))?;
    if loaded.selected.len() > 1 {
        bail!("only one image can be run: choose one of {} with --image=", loaded.selected.join(", "));
    }
    Ok(image)
}

/// The programs to run things with. Nothing when there are none to be had: that has been said already.
fn tools(invocation: &Invocation, image: &Image) -> anyhow::Result<Option<Tools>> {
    let extra = image.get("ExtraSearchPaths").items().iter().filter_map(Value::as_path);
    let tools = Tools::new(extra.map(Path::to_owned).collect());
    Ok(match ToolsTree::of(image) {
        // A question to an archive needs no tree where the host can ask it.
        ToolsTree::Default if invocation.verb == Verb::LatestSnapshot && tools.find(&["curl"]).is_some() => Some(tools),
        ToolsTree::Default => tools_tree::ask()?.map(|directories| tools.of_tree(directories)),
        ToolsTree::Path(tree) => Some(tools.of_tree(vec![tree.to_owned()])),
        ToolsTree::Host | ToolsTree::Seed => Some(tools),
    })
}

/// Builds in a process of its own: it may have to become root of a user namespace for that, and what runs the image
/// must stay the user. Gives the status to end with when it fails.
fn build() -> anyhow::Result<Option<u8>> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.insert(0, format!("--{ONLY_BUILD}").into());
    process::pass_signals_on();
    let mut child =
        Command::new("/proc/self/exe").args(arguments).spawn().context("can't start mkosi again to build")?;
    let status = process::wait(&mut child).context("can't wait for the build")?;
    Ok((!status.success()).then(|| process::status_of(status)))
}
