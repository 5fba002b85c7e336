//! The network of a machine.
//!
//! Knows nothing of the rest of it.

use super::machine;
use super::settings::{Network, Settings};

/// The arguments for QEMU.
pub fn qemu(settings: &Settings) -> Vec<String> {
    let card = match settings.network {
        Network::User => format!("user,model={}", machine::network_card(settings.architecture)),
        Network::Interface => {
            format!("tap,script=no,downscript=no,model={}", machine::network_card(settings.architecture))
        }
        Network::None => "none".to_owned(),
    };
    vec!["-nic".to_owned(), card]
}

/// The arguments for systemd-nspawn.
pub fn nspawn(settings: &Settings) -> Vec<String> {
    let arguments: &[&str] = match settings.network {
        Network::User => &["--resolv-conf=auto"],
        Network::Interface => &["--private-network", "--network-veth"],
        Network::None => &["--private-network"],
    };
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// The arguments for systemd-vmspawn.
pub fn vmspawn(settings: &Settings) -> Vec<String> {
    match settings.network {
        Network::User => vec!["--network-user-mode".to_owned()],
        Network::Interface => vec!["--network-tap".to_owned()],
        Network::None => Vec::new(),
    }
}
