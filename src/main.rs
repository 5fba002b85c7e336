//! The `mkosi` command; everything it does is in the library.

fn main() {
    mkosi::sandbox::hidden_entry();
    mkosi::distro::hidden_entry();
}
