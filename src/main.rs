//! The `mkosi` command; everything it does is in the library.

fn main() -> std::process::ExitCode {
    mkosi::cli::run(std::env::args_os().skip(1))
}
