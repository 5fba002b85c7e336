//! Values of settings and conditions on them. The input is a setting's number, a value, and a condition on the next
//! line.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (setting, text) = input;
    let (value, condition) = text.split_once('\n').unwrap_or((text, ""));
    mkosi::config::fuzzing::condition(setting, value, condition);
});
