//! The parser of configuration files.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| mkosi::config::fuzzing::file(text));
