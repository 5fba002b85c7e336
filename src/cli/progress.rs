//! A run on the terminal: a line for every node that ran, and one with a spinner for each that runs.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::echo::NoControls;
use crate::exec::{Event, Observer, Outcome};
use crate::plan::{NodeId, Plan};
use crate::types::human;

/// Shows a run on standard error.
pub struct Terminal<'a> {
    plan: &'a Plan,
    bars: MultiProgress,
    running: Mutex<HashMap<NodeId, (ProgressBar, String)>>,
    terminal: bool,
    echo: Mutex<Option<NoControls>>,
    debug: bool,
    /// How long each node ran that has run.
    times: Mutex<Vec<(String, Duration)>>,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl<'a> Terminal<'a> {
    /// Shows a run of `plan`; with `debug` also everything that commands print and nodes that were cached.
    pub fn new(plan: &'a Plan, debug: bool) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        // It draws nothing on a terminal that can't move its cursor (`TERM=dumb`) either.
        let terminal = std::io::stderr().is_terminal() && !target.is_hidden();
        let target = if terminal { target } else { ProgressDrawTarget::hidden() };
        Self {
            plan,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
            terminal,
            echo: Mutex::new(terminal.then(NoControls::new)),
            debug,
            times: Mutex::default(),
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        }
    }

    /// Takes the spinners away.
    pub fn finish(&self) {
        if let Ok(mut running) = self.running.lock() {
            running.clear();
        }
        let _ = self.bars.clear();
        if let Ok(mut echo) = self.echo.lock() {
            *echo = None;
        }
    }

    /// How long each node ran, the longest first.
    pub fn times(&self) -> Vec<(String, Duration)> {
        let mut times = self.times.lock().map(|times| times.clone()).unwrap_or_default();
        times.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        times
    }

    fn say(&self, text: &str) {
        if self.terminal {
            // A terminal that has gone away must not end a build.
            let _ = self.bars.println(text);
        } else {
            crate::tell!("{text}");
        }
    }

    /// `image/stage`, or `stage (3 images)` for one that is shared.
    fn name(&self, id: NodeId) -> String {
        let node = &self.plan.graph[id];
        match node.images.len() {
            1 => node.name(),
            count => format!("{} ({count} images)", node.stage),
        }
    }

    fn started(&self, id: NodeId, why: String) {
        let name = self.name(id);
        if self.terminal {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("  {spinner} {prefix:<28} {elapsed:>4}  {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(name);
            bar.set_message(why.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            if let Ok(mut running) = self.running.lock() {
                running.insert(id, (bar, why));
            }
        } else {
            self.say(&format!("  {name:<28} runs: {why}"));
            if let Ok(mut running) = self.running.lock() {
                running.insert(id, (ProgressBar::hidden(), why));
            }
        }
    }

    fn finished(&self, id: NodeId, outcome: &Outcome) {
        let bar = self.running.lock().ok().and_then(|mut running| running.remove(&id));
        let why = bar.map(|(bar, why)| {
            bar.finish_and_clear();
            why
        });
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.load(Ordering::Relaxed);
        let name = self.name(id);
        match outcome {
            Outcome::Ran { duration, same } => {
                if let Ok(mut times) = self.times.lock() {
                    times.push((name.clone(), *duration));
                }
                let time = human::duration(*duration);
                // Elsewhere the reasons were said when it started.
                let why = why.filter(|why| self.terminal && !why.is_empty());
                let why: Vec<&str> =
                    why.as_deref().into_iter().chain(same.then_some("same result as before")).collect();
                let line = format!("  {name:<28} {time:>9}  [{done}/{total}] {}", why.join(", "));
                self.say(line.trim_end());
            }
            Outcome::Stopped => self.say(&format!("  {name:<28}   stopped")),
            Outcome::Failed => self.say(&format!("  {name:<28}    failed")),
            Outcome::Cached | Outcome::Current if self.debug => self.say(&format!("  {name:<28}    cached")),
            Outcome::Cached | Outcome::Current => {}
        }
    }
}

impl Observer for Terminal<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Begin { nodes } => self.total.store(nodes, Ordering::Relaxed),
            Event::Started { id, reasons } => {
                let mut words: Vec<String> = reasons.iter().take(3).map(ToString::to_string).collect();
                if reasons.len() > 3 {
                    words.push(format!("{} more", reasons.len() - 3));
                }
                self.started(id, words.join("; "));
            }
            Event::Finished { id, outcome } => self.finished(id, &outcome),
            Event::Line { id, line } => {
                if self.debug {
                    self.say(&format!("  {:<28} | {line}", self.name(id)));
                } else if let Ok(running) = self.running.lock()
                    && let Some((bar, why)) = running.get(&id)
                {
                    let line: String = line.chars().filter(|c| !c.is_control()).collect();
                    bar.set_message(if line.is_empty() { why.clone() } else { line });
                }
            }
            Event::Note { id, text } => self.say(&format!("  {:<28} {text}", self.name(id))),
        }
    }
}
