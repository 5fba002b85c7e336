//! Ends a sandbox that takes the machine: one with more processes, or more memory, than any build needs. A process of
//! its own, outside the sandbox and beside its outer process, that looks every now and then. Knows nothing of what runs
//! there.
//!
//! Control groups would do this too, but whether there is one to be had depends on who runs mkosi where: under systemd a
//! user's session has none to give away, and containers have none that can be written. `RLIMIT_NPROC` does not hold for
//! root. What is read here (proc(5)) is there for everyone.

use std::collections::HashMap;
use std::time::Duration;

use super::memory;
use super::sys::{self, Fork};
use super::wire::{Message, Status};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after a look that found many processes, and they were others'.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// What a sandbox may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How many processes and threads at once.
    pub(super) processes: u64,
    /// How much memory in bytes; none for half of the machine's once that has hardly any left.
    pub(super) memory: Option<u64>,
}

/// Starts watching over what the calling process will start. Gives the watching process, which is to be killed when all is
/// over; it ends with the caller in any case.
pub(super) fn start(bounds: Bounds, status: &Status) -> Option<i32> {
    let outer = i32::try_from(std::process::id()).ok()?;
    match sys::fork().ok()? {
        Fork::Parent(warden) => Some(warden),
        Fork::Child => {
            // Ctrl-C is for the command.
            sys::block_signals();
            // What can't be released can't be watched: others wait for the ends of these streams.
            if super::init::die_with_parent().is_ok() && super::init::release_streams().is_ok() {
                watch(outer, bounds, status);
            }
            std::process::exit(0)
        }
    }
}

fn watch(outer: i32, bounds: Bounds, status: &Status) {
    // Half of all numbers that there are stays for the others.
    let numbers = number("/proc/sys/kernel/pid_max").unwrap_or(u64::MAX);
    let most = bounds.processes.min(numbers / 2);
    let before = threads().unwrap_or(0);
    loop {
        std::thread::sleep(PAUSE);
        let Some(now) = threads() else { return };
        // The one number tells whether there is anything to count.
        let many = now.saturating_sub(before) > most;
        let short = short_of_memory();
        if !many && !short && bounds.memory.is_none() {
            continue;
        }
        let taken = descendants(outer);
        let what = if taken.threads > most {
            format!("it had more than {most} processes at once")
        } else if bounds.memory.is_some_and(|limit| taken.memory > limit) || (short && taken.memory > total() / 2) {
            format!("it took {} MiB of memory, and the machine would soon have none left", taken.memory >> 20)
        } else {
            if many {
                std::thread::sleep(LONG_PAUSE);
            }
            continue;
        };
        status.send(&Message::Fault(format!("{what}, so that all of it was ended")));
        // See `reap::Quit`: kills all that is in the sandbox.
        sys::kill(outer, libc::SIGQUIT);
        return;
    }
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// All threads of the machine: the second number of the pair in `/proc/loadavg`.
fn threads() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn total() -> u64 {
    memory::number("MemTotal").unwrap_or(u64::MAX)
}

/// Whether the machine has less than a fiftieth of its memory left.
fn short_of_memory() -> bool {
    memory::number("MemAvailable").is_some_and(|left| left < total() / 50)
}

/// What processes take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    threads: u64,
    memory: u64,
}

/// What all processes below `root` take. In a sandbox they stay below it whatever they do: orphans go to its process 1.
fn descendants(root: i32) -> Taken {
    let mut children: HashMap<i32, Vec<(i32, Taken)>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that is gone by now counts no more.
        if let Some((parent, taken)) =
            std::fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| parse(&text))
        {
            children.entry(parent).or_default().push((pid, taken));
        }
    }
    let mut sum = Taken::default();
    let mut pending = vec![root];
    while let Some(pid) = pending.pop() {
        for (child, taken) in children.remove(&pid).unwrap_or_default() {
            sum.threads += taken.threads;
            sum.memory += taken.memory;
            pending.push(child);
        }
    }
    sum
}

/// The parent, the threads and the resident memory in a line of `/proc/PID/stat` (proc_pid_stat(5)). The name, which may
/// hold anything, ends with the last parenthesis.
fn parse(text: &str) -> Option<(i32, Taken)> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let page = rustix::param::page_size() as u64;
    Some((fields.get(1)?.parse().ok()?, Taken { threads: field(17)?, memory: field(21)?.saturating_mul(page) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line() {
        let line = "7 (a b) (c)) S 3 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 5 0 100 1000 25 184467 1 1 0";
        let page = rustix::param::page_size() as u64;
        assert_eq!(parse(line), Some((3, Taken { threads: 5, memory: 25 * page })));
        for text in ["", "7", "7 (x", "7 (x) S", "7 (x) S x 1 1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn finds_itself_below_its_parent() {
        let own = descendants(std::os::unix::process::parent_id() as i32);
        assert!(own.threads >= 1 && own.memory > 0, "{own:?}");
        assert!(threads().unwrap() >= own.threads && total() > own.memory);
    }
}
