//! `mkosi build`, `mkosi update` and `mkosi graph`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::options::Invocation;
use super::progress::Terminal;
use super::session::{self, Session};
use crate::config::{Loaded, build_subdirectory};
use crate::exec::{ExecError, Options, Shared, execute, run_ahead};
use crate::plan::{Format, Plan, render};
use crate::sandbox::{Cancel, on_interrupt};
use crate::store::{Backend, Store};
use crate::types::human;

/// Metadata that is older than this is mentioned.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Brings the outputs up to date.
///
/// # Errors
/// When the graph can't be compiled or a node fails.
pub fn build(invocation: &Invocation, loaded: &Loaded, refresh: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut session = Session::open(invocation, loaded, refresh)?;
    for line in session::unsupported(loaded)? {
        crate::tell!("warning: {line}");
    }
    if crate::sandbox::has_single_id() {
        crate::tell!(
            "note: you have no subordinate ids, so that everything in what is built belongs to root (docs/sandbox.md)"
        );
    }
    let cancel = Cancel::default();
    let on_signal = cancel.clone();
    on_interrupt(move |_| on_signal.cancel());
    if invocation.force >= 3 {
        session.store.empty_pool()?;
    }
    if invocation.wipe_build_dir {
        for image in session.plan.goals.iter().filter_map(|name| loaded.image(name)) {
            if let Some(directory) = build_subdirectory(image) {
                session::empty(&directory)?;
            }
        }
    }
    choose_backend(&session.store);
    let options = Options {
        force: session.force.clone(),
        verify_cache: invocation.verify_cache,
        jobs: 0,
        debug_shell: invocation.debug_shell,
        debug_sandbox: invocation.debug_sandbox,
        debug_workspace: invocation.debug_workspace,
    };
    let shared = Shared::default();
    while !session.plan.ahead().is_empty() {
        let terminal = Terminal::new(&session.plan, invocation.debug);
        let result = run_ahead(&session.plan, &session.store, &options, &terminal, &cancel, &shared);
        terminal.finish();
        if !result.map_err(|error| failed(error, invocation.debug))? {
            break;
        }
        session = Session::open(invocation, loaded, refresh)?;
        choose_backend(&session.store);
    }
    let terminal = Terminal::new(&session.plan, invocation.debug);
    let result = execute(&session.plan, &session.store, &options, &terminal, &cancel, &shared);
    terminal.finish();
    if invocation.debug_timing {
        for (name, duration) in terminal.times() {
            crate::tell!("{:>9}  {name}", human::duration(duration));
        }
    }
    let summary = result.map_err(|error| failed(error, invocation.debug))?;
    metadata_age(&session);
    let time = human::duration(begun.elapsed());
    if summary.ran.is_empty() {
        crate::tell!("up to date ({}, {time})", human::count(summary.cached, "node"));
    } else {
        session.store.settle()?;
        crate::tell!("done in {time}: {} ran, {} cached", human::count(summary.ran.len(), "node"), summary.cached);
    }
    Ok(())
}

/// Prints the graph that a build would run now.
///
/// # Errors
/// When the graph can't be compiled, or the format is unknown.
pub fn graph(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<String> {
    let format: Format =
        if invocation.json { "json" } else { &invocation.graph_format }.parse().map_err(anyhow::Error::msg)?;
    let session = Session::open(invocation, loaded, false)?;
    let nodes = session.preview(matches!(format, Format::Text | Format::Full | Format::Json));
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let width = terminal.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    Ok(render(&session.plan, &nodes, format, width.map(|columns| columns.max(40))))
}

/// Finds out whether overlays can be mounted on the store's file system, and tells when they can't.
pub fn choose_backend(store: &Store) {
    if let Err(reason) = crate::sandbox::probe_overlay(store.dir()) {
        crate::tell!("note: trees are copied, which is slow: no overlay can be mounted on the store ({reason})");
        store.set_backend(Backend::Copy { reason });
    }
}

/// A failed run in words: which node, why, the last lines that it printed, and where the rest is.
fn failed(error: ExecError, debug: bool) -> anyhow::Error {
    let ExecError::Node { node, tail, log, left, .. } = &error else { return error.into() };
    let mut text = error.to_string();
    if !debug && !tail.is_empty() {
        let lines: String = tail.iter().map(|line| format!("  | {line}\n")).collect();
        text.push_str(&format!("\n{lines}  whole output: {}", log.display()));
    }
    if *left {
        let (image, stage) = node.split_once('/').unwrap_or(("main", node));
        let image = if image == "main" { String::new() } else { format!(" {image}") };
        text.push_str(&format!("\n  to look into what it left: mkosi shell --at {stage}{image}"));
    }
    anyhow::Error::msg(text)
}

/// Tells how old the repository metadata is, if it is old.
fn metadata_age(session: &Session) {
    let plan: &Plan = &session.plan;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let oldest = plan
        .wanted()
        .into_iter()
        .filter(|id| plan.graph[*id].decl.volatile)
        .filter_map(|id| session.store.last(&plan.graph[id].slot()).ok().flatten())
        .map(|record| now.saturating_sub(Duration::from_secs(record.finished)))
        .max();
    if let Some(age) = oldest.filter(|age| *age > OLD) {
        crate::tell!("note: the repository metadata is {} old; `mkosi update` refreshes it", human::duration(age));
    }
}
