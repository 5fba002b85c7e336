//! The `mkosi` command; everything it does is in the library.

fn main() -> std::process::ExitCode {
    mkosi::cli::main(cfg!(target_feature = "crt-static"))
}
