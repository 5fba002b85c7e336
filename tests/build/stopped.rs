//! Builds that are killed or interrupted at any moment.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::processes::assert_nothing_left;
use crate::support::stores::{fill, fresh, reference, shared};
use crate::support::{Project, tool};

/// How many builds are killed.
const KILLS: usize = 12;

/// Waits longer than this are a hang; how fast a machine is does not matter.
const HANG: Duration = Duration::from_secs(300);

/// Numbers that look random and come again with the same seed (splitmix64).
struct Random(u64);

impl Random {
    /// Below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Starts a build in a process group of its own.
fn start(project: &Project) -> Child {
    let none: [&str; 0] = [];
    let mut command = project.command(&none);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    tool(std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]));
}

#[test]
fn a_killed_build_goes_on_where_it_was() {
    let seed = match std::env::var("MKOSI_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    };
    println!("MKOSI_TEST_SEED={seed}");
    let mut random = Random(seed);
    let time = reference().time;
    let mut project = Project::new(&fresh());
    // `MKOSI_TEST_KILLS=50` for a longer run.
    let wanted = std::env::var("MKOSI_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut kills = 0;
    while kills < wanted {
        let mut child = start(&project);
        let wait = time.mul_f64(random.next() * 0.5);
        std::thread::sleep(wait);
        let ended = child.try_wait().unwrap();
        let Some(status) = ended else {
            println!("killed after {wait:?}");
            // The program alone: what it started has to go with it.
            child.kill().unwrap();
            child.wait().unwrap();
            assert_nothing_left(&[project.path(), &project.cache]);
            kills += 1;
            continue;
        };
        // It was done before. The next is killed in an earlier stage again, with what the kills left below `tmp/`.
        assert!(status.success(), "seed {seed}: {status}");
        assert!(project.tar() == reference().tar, "seed {seed}: another archive");
        let cache = project.cache.clone();
        for name in ["records", "layers", "files"] {
            std::fs::remove_dir_all(cache.join("store").join(name)).unwrap();
        }
        fill(&cache);
        project = Project::new(&cache);
    }
    let verified = project.run(&["store", "verify"]);
    assert!(verified.success, "seed {seed}: {}", verified.text);
    project.build();
    assert!(project.tar() == reference().tar, "seed {seed}: another archive");
    let left: Vec<_> = std::fs::read_dir(project.cache.join("store/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "seed {seed}: {left:?}");
    let output: Vec<_> = std::fs::read_dir(project.output("")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(output.len(), 3, "seed {seed}: {output:?}");
}

#[test]
fn an_interrupted_build_ends_at_once_and_tidily() {
    let project = shared();
    // Also what a script leaves in the background ends.
    project.script("mkosi.build", "sleep 86399 &\necho started\nsleep 86398");
    for (name, number) in [("INT", libc::SIGINT), ("TERM", libc::SIGTERM)] {
        let child = start(&project);
        let begun = Instant::now();
        let log = || {
            let logs = std::fs::read_dir(project.cache.join("store/logs")).unwrap().flatten();
            logs.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).any(|text| text.contains("\nstarted"))
        };
        while !log() {
            assert!(begun.elapsed() < HANG, "the script did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let begun = Instant::now();
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < HANG, "{:?}", begun.elapsed());
        // A shell that runs a script stops then too.
        assert_eq!(output.status.signal(), Some(number), "{text}");
        assert!(text.contains("interrupted"), "{text}");
        assert_nothing_left(&[project.path()]);
        for entry in std::fs::read_dir(project.cache.join("store/logs")).unwrap().flatten() {
            if std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("\nstarted")) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    project.fill();
    project.build().assert(&[]);
}

#[test]
fn one_that_waits_for_another_can_be_interrupted() {
    let project = shared();
    project.script("mkosi.build", "sleep 86397");
    let first = start(&project);
    std::thread::sleep(Duration::from_secs(2));
    let second = start(&project);
    std::thread::sleep(Duration::from_secs(1));
    for child in [second, first] {
        signal(&child, "INT");
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < HANG && !output.status.success(), "{text}");
        assert!(text.contains("interrupted"), "{text}");
    }
    assert_nothing_left(&[project.path()]);
}
