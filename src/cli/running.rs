//! The verbs that run an image: builds first where that is asked for, and hands over to `run`.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use super::arguments::ONLY_BUILD;
use super::options::Invocation;
use super::verbs::Verb;
use crate::config::{Image, Loaded, Value};
use crate::run::{Settings, Tools, burn, container, latest, process, serve, ssh, systemd, vm};

/// Does what a verb that runs an image asks for.
pub fn run(invocation: &Invocation, loaded: &Loaded) -> ExitCode {
    match start(invocation, loaded) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<u8> {
    let image = image(loaded)?;
    if invocation.verb == Verb::LatestSnapshot {
        println!("{}", latest::latest_snapshot(image, &tools(image))?);
        return Ok(0);
    }
    if image.text("Format") == Some("none") {
        bail!("the image `{}` has Format=none: there is nothing to run", image.name);
    }
    let settings = Settings::new(image)?;
    if invocation.force > 0
        && invocation.verb.builds_with_force()
        && let Some(status) = build()?
    {
        return Ok(status);
    }
    let tools = tools(image);
    let words = invocation.arguments.as_slice();
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
        verb => bail!("`mkosi {}` runs no image", verb.name()),
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

fn tools(image: &Image) -> Tools {
    let extra = image.get("ExtraSearchPaths").items().iter().filter_map(Value::as_path);
    let tools = Tools::new(extra.map(std::path::Path::to_owned).collect());
    if let Some(tree) = image.path("ToolsTree") {
        return tools.of_tree(tree.to_owned());
    }
    if image.text("ToolsTree").is_some_and(|tree| !tree.is_empty()) {
        eprintln!("note: the image is run with the host's programs: the default tools tree is for builds alone yet");
    }
    tools
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
