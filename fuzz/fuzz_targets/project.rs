//! A whole project of one file: loaded, told of, and shown.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use mkosi::config::{HostFacts, LoadInput, load};
use mkosi::types::Architecture;

static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // In memory where that is possible: the file is written anew for each input.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
});

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    // Paths out of the project lead to whatever the host has.
    if text.contains(&b'/') || text.contains(&b'~') || text.contains(&b'$') || text.windows(2).any(|two| two == b"..") {
        return;
    }
    std::fs::write(DIRECTORY.path().join("mkosi.conf"), text).expect("written");
    let input = LoadInput {
        directory: Some(DIRECTORY.path().to_owned()),
        options: Vec::new(),
        images: Vec::new(),
        environment: BTreeMap::new(),
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64).with_systemd("257"),
        resources: None,
    };
    match load(&input) {
        Ok(loaded) => {
            let _ = loaded.to_json().to_string();
            let _ = mkosi::summary::text(&loaded, DIRECTORY.path(), true);
        }
        Err(diagnostics) => assert!(!diagnostics.to_string().is_empty()),
    }
});
