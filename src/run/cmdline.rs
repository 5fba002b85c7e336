//! What the kernel is told when an image is run, beside what the image says itself.
//!
//! Knows nothing of how it gets there.

use super::settings::{Console, Settings};
use super::terminal::Terminal;

/// The options for a container, in the order in which they count.
pub fn container(settings: &Settings) -> Vec<String> {
    let mut options = common(settings);
    options.extend(settings.command_line_extra.iter().map(|option| quoted(option)));
    options
}

/// The options for a virtual machine, in the order in which they count. `own_console` is whether QEMU's virtio console
/// is there, with a terminal behind it.
pub fn machine(settings: &Settings, terminal: &Terminal) -> Vec<String> {
    let given = |name: &str| settings.command_line_extra.iter().any(|option| option.starts_with(name));
    let Terminal { columns, lines, term } = terminal;
    let mut options = common(settings);
    // Another hypervisor's module would take the place of virtio's sockets.
    options.extend(["rw", "module_blacklist=vmw_vmci"].map(str::to_owned));
    let own = !settings.vmspawn;
    if own {
        options.extend([
            format!("systemd.tty.columns.hvc0={columns}"),
            format!("systemd.tty.rows.hvc0={lines}"),
            format!("systemd.tty.term.hvc0={term}"),
        ]);
    }
    if !given("ip=") {
        options.extend(["ip=enc0:any", "ip=enp0s1:any", "ip=enp0s2:any", "ip=host0:any", "ip=none"].map(str::to_owned));
    }
    if !given("loglevel=") {
        options.push("loglevel=4".to_owned());
    }
    match settings.console {
        Console::Headless => {}
        Console::Gui if super::machine::is_arm(settings.architecture) => options.push("console=tty0".to_owned()),
        Console::Gui => {}
        _ if own => options.extend([
            format!("systemd.tty.term.console={term}"),
            format!("systemd.tty.columns.console={columns}"),
            format!("systemd.tty.rows.console={lines}"),
            "console=hvc0".to_owned(),
            format!("TERM={term}"),
        ]),
        _ => {}
    }
    options.extend(settings.command_line_extra.iter().map(|option| quoted(option)));
    options
}

fn common(settings: &Settings) -> Vec<String> {
    let mut options = vec!["systemd.wants=network.target".to_owned()];
    if !settings.command_line_extra.iter().any(|option| option.starts_with("SYSTEMD_SULOGIN_FORCE=")) {
        // A machine under test has no password for root.
        options.push("SYSTEMD_SULOGIN_FORCE=1".to_owned());
    }
    options
}

/// An option as the kernel reads it: a value with a space in it stands in quotes.
fn quoted(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) if value.contains(' ') => format!("{name}=\"{value}\""),
        _ => option.to_owned(),
    }
}
