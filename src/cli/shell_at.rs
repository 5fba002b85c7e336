//! `mkosi shell --at STAGE [IMAGE] [-- COMMAND...]`: a look into the tree at any place of the graph.

use std::process::ExitCode;

use anyhow::bail;

use super::build::choose_backend;
use super::options::Invocation;
use super::session::Session;
use crate::config::Loaded;
use crate::exec::{Place, look};
use crate::sandbox::{Exit, on_interrupt};

/// Opens the shell, or runs the command, and ends as that ended.
///
/// # Errors
/// When there is no such place, it was not built, or its sandbox can't be made.
pub fn shell(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let place = place(invocation, loaded)?;
    let session = Session::open(invocation, loaded, false)?;
    choose_backend(&session.store);
    // Ctrl-C is for what runs in the shell.
    on_interrupt(|_| {});
    let mut say = |text: &str| crate::tell!("{text}");
    let exit = look(&session.plan, &session.store, &place, &invocation.arguments, &mut say)?;
    Ok(match exit {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        // As shells report it.
        Exit::Signal(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)),
    })
}

fn place(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<Place> {
    let at = invocation.at.as_deref().unwrap_or_default();
    let (before, stage) = match at.split_once(':') {
        None => (false, at),
        Some(("before", stage)) => (true, stage),
        Some(("after", stage)) => (false, stage),
        Some((word, _)) => bail!("--at={at}: `{word}:` is neither `before:` nor `after:`"),
    };
    let image = match invocation.images.as_slice() {
        [image] => image.clone(),
        [] if loaded.image("main").is_some() => "main".to_owned(),
        [] => bail!("there are several images: name one after the stage, `mkosi shell --at {at} IMAGE`"),
        [_, word, ..] => bail!("`{word}`: there is one image for a shell; a command stands after `--`"),
    };
    Ok(Place { image, stage: stage.to_owned(), before })
}
