//! The `mkosi` command; everything it does is in the library.

fn main() -> std::process::ExitCode {
    // Before anything else: a process that enters a sandbox must have no second thread.
    mkosi::sandbox::hidden_entry();
    mkosi::distro::hidden_entry();
    if let Some(status) = mkosi::run::ssh::proxy_entry(std::env::args_os()) {
        return status;
    }
    if let Some(status) = mkosi::stage::apply::multi_call(&std::env::args().next().unwrap_or_default()) {
        return status;
    }
    mkosi::cli::run(std::env::args_os().skip(1))
}
