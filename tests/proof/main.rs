//! Images that really boot: built by the program, and run by `mkosi vm` and `mkosi boot` to a unit that tells on the
//! console what it runs on.
//!
//! Needs root, apt, QEMU, UEFI firmware and systemd-nspawn. Machines are emulated: on many hosts, CI's among them,
//! `/dev/kvm` opens and a guest with firmware dies under it. Those that take minutes are ignored: `make test-boot`.

mod acceleration;
mod containers;
mod loaders;
mod machine;
mod machines;
#[path = "../support/mod.rs"]
mod support;
mod system;
