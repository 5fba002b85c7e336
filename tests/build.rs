//! Whole builds: the program on projects with real Debian packages from the mirror that this host's apt uses.
//!
//! Needs root, apt, and programs of systemd. The first run downloads some 90 MB and keeps them below `target/`.

mod support;

#[path = "build/changes.rs"]
mod changes;
#[path = "build/copying.rs"]
mod copying;
#[path = "build/damage.rs"]
mod damage;
#[path = "build/forced.rs"]
mod forced;
#[path = "build/images.rs"]
mod images;
#[path = "build/initrd.rs"]
mod initrd;
#[path = "build/local.rs"]
mod local;
#[path = "build/mirror.rs"]
mod mirror;
#[path = "build/oci.rs"]
mod oci;
#[path = "build/outputs.rs"]
mod outputs;
#[path = "build/safety.rs"]
mod safety;
#[path = "build/sign.rs"]
mod sign;
#[path = "build/stopped.rs"]
mod stopped;
#[path = "build/together.rs"]
mod together;
#[path = "build/user.rs"]
mod user;
