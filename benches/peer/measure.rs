//! Runs a command with its wall-clock and processor time, and prints tables of medians.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What a run took, in seconds.
#[derive(Clone, Copy)]
pub struct Time {
    pub wall: f64,
    pub processor: f64,
}

fn processor() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_or(0.0, |usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// Runs a command to its end; what it prints is in the error if it fails.
pub fn run(mut command: Command, dir: &Path) -> Result<Time, String> {
    let path = dir.join("output");
    let log = File::create(&path).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // What the run before has left to be written would be written at the cost of this one.
    nix::unistd::sync();
    let (begun, before) = (Instant::now(), processor());
    let status = command.status().map_err(|error| format!("can't start {command:?}: {error}"))?;
    let time = Time { wall: begun.elapsed().as_secs_f64(), processor: processor() - before };
    if status.success() {
        return Ok(time);
    }
    let text = fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Err(format!("{command:?} failed ({status}):\n{}", lines[lines.len().saturating_sub(15)..].join("\n")))
}

/// Times by what was done, in the order of their first run, and by who did it.
#[derive(Default)]
pub struct Table {
    rows: Vec<&'static str>,
    times: BTreeMap<(&'static str, &'static str), Vec<Time>>,
}

fn median(times: &[Time], of: impl Fn(&Time) -> f64) -> f64 {
    let mut values: Vec<f64> = times.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Table {
    pub fn add(&mut self, what: &'static str, who: &'static str, time: Time) {
        if !self.rows.contains(&what) {
            self.rows.push(what);
        }
        self.times.entry((what, who)).or_default().push(time);
    }

    fn of(&self, what: &'static str, who: &'static str) -> Option<(f64, f64)> {
        let times = self.times.get(&(what, who))?;
        Some((median(times, |time| time.wall), median(times, |time| time.processor)))
    }

    /// The table in Markdown. The ratios are those of `own` to each of the others.
    pub fn text(&self, own: &'static str) -> String {
        let mut text = "| what | who | runs | wall clock | processor | ratio of wall clocks | of processor times |\n\
                        | --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for what in &self.rows {
            let ours = self.of(what, own);
            let mut who: Vec<&'static str> =
                self.times.keys().filter(|(row, _)| row == what).map(|(_, who)| *who).collect();
            who.sort_by_key(|name| *name != own);
            for name in who {
                let Some((wall, processor)) = self.of(what, name) else { continue };
                let runs = self.times.get(&(*what, name)).map_or(0, Vec::len);
                let ratios = match ours.filter(|_| name != own) {
                    Some(ours) => format!("{:.3} | {:.3}", ours.0 / wall, ours.1 / processor),
                    None => " | ".to_owned(),
                };
                text.push_str(&format!("| {what} | {name} | {runs} | {wall:.3} s | {processor:.3} s | {ratios} |\n"));
            }
        }
        text
    }

    /// Prints how one of our rows stands to another.
    pub fn ratio(&self, name: &str, what: &'static str, to: &'static str, who: &'static str) {
        if let (Some(a), Some(b)) = (self.of(what, who), self.of(to, who)) {
            println!("{name}: {:.2} of the wall clock, {:.2} of the processor", a.0 / b.0, a.1 / b.1);
        }
    }
}
