//! Signals that ask this program to end: Ctrl-C, SIGTERM, and SIGHUP where it isn't ignored (nohup(1)).
//!
//! Knows nothing of what is tidied up before the end.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::sys;

/// The first of them that came; 0 for none.
static FIRST: AtomicI32 = AtomicI32::new(0);

/// From here on these signals don't end the program by themselves: `handler` is called with each of them, in a thread of
/// its own. Only the first call counts.
pub fn on_interrupt(handler: impl Fn(i32) + Send + 'static) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hangup = Some(SIGHUP).filter(|signal| !is_ignored(*signal));
        // Where that fails, they end the program at once, which the store survives.
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup)) else { return };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let _ = FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                handler(signal);
            }
        });
    });
}

/// Ends the program by the signal that came, as one without a handler ends, so that a shell that runs a script stops too.
/// Returns when none came.
pub fn end_if_interrupted() {
    match FIRST.load(Ordering::SeqCst) {
        0 => {}
        signal => sys::die_by(signal),
    }
}

/// Whether whoever started this program has a signal ignored (proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask.checked_shr(u32::try_from(signal - 1).unwrap_or(u32::MAX)).is_some_and(|mask| mask & 1 == 1)
}
