//! Not a test: the program once more, which `tests/bare.rs` has linked with a static C library. As a test it shares all
//! that the tests are built with, so that only the linking is done again.

fn main() -> std::process::ExitCode {
    mkosi::cli::main(cfg!(target_feature = "crt-static"))
}
