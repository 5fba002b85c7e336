//! A build-graph engine for operating-system images that reads mkosi configuration.
//!
//! `config` reads what the user wrote, `plan` compiles it to a graph of content-hashed nodes, `exec` runs the nodes
//! in sandboxes and keeps what they make in the `store`. `docs/architecture.md` has the picture.

/// Writes a line to standard error. Somebody who has stopped reading there (`mkosi 2>&1 | head`) ends no build:
/// `eprintln!` would panic.
#[macro_export]
macro_rules! tell {
    ($($word:tt)*) => {
        $crate::tell_part!("{}\n", format_args!($($word)*))
    };
}

/// As [`tell!`], without the end of the line.
#[macro_export]
macro_rules! tell_part {
    ($($word:tt)*) => {{
        let _ = ::std::io::Write::write_fmt(&mut ::std::io::stderr(), format_args!($($word)*));
    }};
}

pub mod boot;
pub mod cli;
pub mod config;
pub mod distro;
pub mod exec;
pub mod output;
pub mod plan;
pub mod programs;
pub mod reads;
pub mod rootfs;
pub mod run;
pub mod sandbox;
pub mod stage;
pub mod store;
pub mod types;
