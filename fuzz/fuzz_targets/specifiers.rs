//! Specifiers in values and keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| mkosi::config::fuzzing::specifiers(text));
