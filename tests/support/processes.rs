//! What a run leaves behind on the machine: processes and mounts.

use std::path::Path;
use std::time::{Duration, Instant};

/// A variable in the environment of every run, by which its processes are told from others.
pub const MARK: &str = "MKOSI_TEST_PROJECT";

/// Whether something of the project is still there: a process that was started with its mark, or one in whose mounts
/// its directories stand.
fn left(paths: &[&Path]) -> Vec<String> {
    let mut found = Vec::new();
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ends meanwhile can't be read.
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (environment, mounts) = (read("environ"), read("mountinfo"));
        let state = String::from_utf8_lossy(&read("stat")).rsplit(") ").next().and_then(|s| s.chars().next());
        if matches!(state, None | Some('Z')) {
            continue;
        }
        for path in paths {
            let path = path.to_str().unwrap().as_bytes();
            let has = |bytes: &[u8]| bytes.windows(path.len()).any(|window| window == path);
            if has(&mounts) || (id != own && has(&environment)) {
                found.push(format!("{id}: {}", String::from_utf8_lossy(&read("cmdline")).replace('\0', " ")));
            }
        }
    }
    found
}

/// Waits until nothing of the project is left; fails after ten seconds.
#[track_caller]
pub fn assert_nothing_left(paths: &[&Path]) {
    let begun = Instant::now();
    loop {
        let found = left(paths);
        if found.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "still there: {found:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
