//! Digests of a tree of host files: `store::Hasher` with an empty and with a warm stat cache, and `add_layer` on the
//! same tree, beside `b3sum` on the same files.
//!
//! `b3sum` is taken from `target/tools/bin` (`cargo install b3sum --root target/tools`) or `$PATH`. Without it the
//! blake3 crate's own way to read a file in parallel stands in for it, and the name of the series says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mkosi::store::{Hasher, Ingest, Store, TreeOptions};

/// Bytes of the whole tree, the sizes of whose files are those of an installed system: many small, few large.
const SIZES: &[(usize, usize)] = &[(4096, 2000), (65_536, 400), (1 << 20, 60), (32 << 20, 3)];

/// A tree of files with contents that have nothing in common, older than the stat cache doubts. `small` makes one
/// that is enough to see that everything works.
fn tree(dir: &Path, small: bool) -> (Vec<PathBuf>, u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut paths = Vec::new();
    let mut total = 0;
    for (size, count) in SIZES {
        for index in 0..if small { 2.min(*count) } else { *count } {
            let content: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .take(size / 8)
            .flatten()
            .collect();
            let path = dir.join(format!("{size}/{:02}/{index}", index % 32));
            fs::create_dir_all(path.parent().expect("has one")).expect("no directory");
            fs::write(&path, content).expect("not written");
            total += *size as u64;
            paths.push(path);
        }
    }
    (paths, total)
}

fn b3sum() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/b3sum");
    let works = |path: &PathBuf| {
        let status = Command::new(path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    [target, PathBuf::from("b3sum")].into_iter().find(works)
}

fn digest(criterion: &mut Criterion) {
    let small = std::env::args().any(|argument| argument == "--test");
    // On the file system that holds builds; /tmp may be in memory.
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = tempfile::tempdir_in(base).expect("no temporary directory");
    let files = dir.path().join("files");
    let (paths, total) = tree(&files, small);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut group = criterion.benchmark_group("digest");
    group.sample_size(10).throughput(Throughput::Bytes(total));
    let fresh = || {
        let place = tempfile::tempdir_in(dir.path()).expect("no temporary directory");
        let store = Store::open(&place.path().join("store")).expect("no store");
        (place, store)
    };
    let plain = TreeOptions::default();
    // Once for the page cache, before anything is measured.
    let (_place, store) = fresh();
    let hasher = Hasher::new(&store);
    let expected = hasher.tree(&files, &plain).expect("hashed");

    group.bench_function("hasher", |bencher| {
        bencher.iter_batched(
            fresh,
            |(_place, store)| assert_eq!(Hasher::new(&store).tree(&files, &plain).expect("hashed"), expected),
            criterion::BatchSize::PerIteration,
        );
    });
    match b3sum() {
        Some(program) => {
            group.bench_function("b3sum", |bencher| {
                bencher.iter(|| {
                    let status = Command::new(&program).args(&paths).stdout(Stdio::null()).status();
                    assert!(status.expect("b3sum starts").success());
                });
            });
        }
        None => {
            group.bench_function("blake3 crate, no b3sum here", |bencher| {
                bencher.iter(|| {
                    for path in &paths {
                        blake3::Hasher::new().update_mmap_rayon(path).expect("hashed").finalize();
                    }
                });
            });
        }
    }
    group.bench_function("hasher, stat cache warm", |bencher| {
        bencher.iter(|| assert_eq!(Hasher::new(&store).tree(&files, &plain).expect("hashed"), expected));
    });
    group.bench_function("add_layer", |bencher| {
        bencher.iter_batched(
            || {
                let (place, store) = fresh();
                let work = store.work_dir("bench").expect("no work directory");
                let upper = work.path().join("upper");
                let status = Command::new("cp").args(["-a", "--"]).arg(&files).arg(&upper).status();
                assert!(status.expect("cp starts").success());
                (place, store, work, upper)
            },
            |(place, store, work, upper)| {
                let ingest = Ingest { epoch: 0, started: std::time::SystemTime::now(), clamp: false, labels: false };
                store.add_layer(&upper, None, &ingest).expect("entered");
                // Removing is no part of what is measured.
                (place, store, work)
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
