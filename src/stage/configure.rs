//! What makes an installed tree an image of its own: os-release, users, volatile files, locales, presets,
//! first-boot settings.

use std::path::Path;

use super::apply::{Step, apply};
use super::context::BUILDROOT;
use super::derived::{of_tree, uuid};
use super::{Context, Outputs, StageError};
use crate::boot::kernels::misplaced;
use crate::boot::look::Look;
use crate::config::Value;
use crate::sandbox::Mount;
use crate::types::{Digest, Encoder, sha512_crypt};

/// Where systemd-firstboot finds the password in its sandbox: whoever is on the host can read its arguments.
const CREDENTIALS: &str = "/work/credentials";

/// The credential with the hash of root's password (systemd-firstboot(1)).
const PASSWORD: &str = "passwd.hashed-password.root";

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Runs the steps, all in one sandbox.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    // systemd-sysusers notes it as the day on which a password was changed last. Day 0 would mean that it has to be
    // changed now (shadow(5)).
    spec.env.insert("SOURCE_DATE_EPOCH".to_owned(), cx.epoch().max(DAY).to_string());
    let mut steps = Vec::new();
    kernels(cx, &mut steps);
    autologin(cx, &mut steps);
    os_release(cx, &mut steps);
    initrd(cx, &mut steps);
    ssh(cx, &mut steps);
    mount_points(cx, &mut steps);
    if cx.merged().lookup(b"usr/lib/systemd").is_some() {
        systemd(&mut steps);
    }
    if let Some(id) = machine_id(cx.view.get("MachineId"), &of_tree(cx, "mkosi.machine-id")) {
        steps.push(write("etc/machine-id", &id, 0o444));
    }
    steps.push(Step::LocaleGen);
    first_boot(cx, &mut spec.mounts, &mut steps);
    apply(cx, spec, &steps)?;
    cx.close_tree(tree)
}

fn write(path: impl Into<String>, contents: &str, mode: u32) -> Step {
    Step::Write { path: path.into(), contents: contents.as_bytes().to_vec(), mode, keep: false }
}

fn program(argv: &[&str]) -> Step {
    Step::Run { argv: argv.iter().map(|word| (*word).to_owned()).collect(), accept: Vec::new(), env: Vec::new() }
}

/// Kernels in `/boot` get to their modules, where everything later looks for them.
fn kernels(cx: &Context<'_>, steps: &mut Vec<Step>) {
    for (from, to) in misplaced(&Look::new(&cx.merged())) {
        let from = format!("{BUILDROOT}/{from}").into();
        steps.push(Step::Place { from, to, mode: 0o644, epoch: cx.epoch() });
    }
}

/// Root logs in by itself on the console, the first virtual terminal and the first serial line.
fn autologin(cx: &Context<'_>, steps: &mut Vec<Step>) {
    if !cx.view.bool("Autologin") {
        return;
    }
    let units = [
        ("console-getty.service", "--noclear --keep-baud console 115200,38400,9600"),
        ("getty@tty1.service", "--noclear -"),
        ("serial-getty@hvc0.service", "--keep-baud 115200,57600,38400,9600 -"),
    ];
    for (unit, options) in units {
        let text = format!(
            "[Service]\nExecStart=\nExecStart=-agetty -o '-f -p -- \\\\u' --autologin root {options} $TERM\n\
             StandardInput=tty\nStandardOutput=tty\n"
        );
        steps.push(write(format!("usr/lib/systemd/system/{unit}.d/autologin.conf"), &text, 0o644));
    }
}

fn os_release(cx: &Context<'_>, steps: &mut Vec<Step>) {
    let names = [("IMAGE_ID", "ImageId"), ("IMAGE_VERSION", "ImageVersion"), ("DEFAULT_HOSTNAME", "Hostname")];
    let fields: Vec<(String, String)> = names
        .iter()
        .filter_map(|(field, setting)| cx.view.text(setting).map(|text| ((*field).to_owned(), text.to_owned())))
        .collect();
    if !fields.is_empty() {
        steps.push(Step::OsRelease { fields });
    }
}

/// What the kernel starts when the image is its initrd, and what tells systemd that it is one (initrd-release(5)).
fn initrd(cx: &Context<'_>, steps: &mut Vec<Step>) {
    if cx.view.test("Format=portable") {
        return;
    }
    let merged = cx.merged();
    let has = |path: &str| merged.lookup(path.as_bytes()).is_some();
    let link = |path: &str, target: &str| Step::Symlink { path: path.to_owned(), target: target.to_owned() };
    if !has("init") && has("usr/lib/systemd/systemd") {
        steps.push(link("init", "/usr/lib/systemd/systemd"));
    }
    if cx.view.bool("MakeInitrd") && !has("etc/initrd-release") {
        steps.push(link("etc/initrd-release", "/etc/os-release"));
    }
}

/// A server for `mkosi ssh`, started for each connection over vsock. Newer versions of systemd make such units when the
/// machine starts (systemd-ssh-generator(8)).
fn ssh(cx: &Context<'_>, steps: &mut Vec<Step>) {
    let merged = cx.merged();
    let has = |path: &str| merged.lookup(path.as_bytes()).is_some();
    let wanted = match cx.view.text("Ssh") {
        Some("always") => true,
        Some("auto") => {
            !has("usr/lib/systemd/system-generators/systemd-ssh-generator")
                && ["usr/sbin/sshd", "usr/bin/sshd"].into_iter().any(has)
        }
        _ => false,
    };
    if !wanted {
        return;
    }
    steps.push(write("usr/lib/systemd/system/ssh.socket", SSH_SOCKET, 0o644));
    steps.push(write("usr/lib/systemd/system/ssh@.service", SSH_SERVICE, 0o644));
    steps.push(write("usr/lib/systemd/system-preset/80-mkosi-ssh.preset", "enable ssh.socket\n", 0o644));
}

const SSH_SOCKET: &str = "\
[Unit]
Description=SSH over vsock for mkosi
ConditionVirtualization=!container
Wants=sshd-keygen.target

[Socket]
ListenStream=vsock::22
Accept=yes

[Install]
WantedBy=sockets.target
";

const SSH_SERVICE: &str = "\
[Unit]
Description=SSH connection over vsock for mkosi
After=sshd-keygen.target

[Service]
# PAM would look up the name of a peer that has none, and wait for it.
ExecStart=sshd -i -o UsePAM=no
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
# The server's status when a client goes.
SuccessExitStatus=255
";

/// Files of a portable service that the host's are mounted on.
fn mount_points(cx: &Context<'_>, steps: &mut Vec<Step>) {
    if !cx.view.test("Format=portable") {
        return;
    }
    let names = ["passwd", "group", "shadow", "gshadow", "nsswitch.conf", "resolv.conf", "machine-id"];
    let merged = cx.merged();
    for path in names.map(|name| format!("etc/{name}")) {
        if merged.lookup(path.as_bytes()).is_none() {
            let mode = if path.ends_with("shadow") { 0o600 } else { 0o644 };
            steps.push(write(path, "", mode));
        }
    }
}

fn systemd(steps: &mut Vec<Step>) {
    // Its modification time is the earliest that the clock of the booted image shows.
    steps.push(write("usr/lib/clock-epoch", "", 0o644));
    steps.push(program(&["systemd-sysusers", "--root=/buildroot"]));
    let mut argv: Vec<String> =
        ["systemd-tmpfiles", "--root=/buildroot", "--boot", "--create", "--remove"].map(str::to_owned).to_vec();
    argv.extend(["/tmp", "/var/tmp", "/run", "/proc", "/sys", "/dev"].map(|dir| format!("--exclude-prefix={dir}")));
    // tmpfiles gives these two where a line could not be done; its own unit counts them as success.
    steps.push(Step::Run {
        argv,
        accept: vec![65, 73],
        env: vec![("SYSTEMD_TMPFILES_FORCE_SUBVOL".to_owned(), "0".to_owned())],
    });
    steps.push(program(&["systemctl", "--root=/buildroot", "preset-all"]));
    steps.push(program(&["systemctl", "--root=/buildroot", "--global", "preset-all"]));
}

/// The contents of machine-id(5), where `MachineId=` is set.
fn machine_id(set: &Value, derived: &Digest) -> Option<String> {
    let id = match set.as_text()? {
        "random" => uuid(derived),
        id => id.to_owned(),
    };
    Some(id.replace('-', "") + "\n")
}

/// Settings that systemd-firstboot(1) writes, and the credentials that give them to an image without `/etc`.
fn first_boot(cx: &Context<'_>, mounts: &mut Vec<Mount>, steps: &mut Vec<Step>) {
    if cx.view.test("Format=portable") {
        return;
    }
    let settings = [
        ("--locale", Some("firstboot.locale"), "Locale"),
        ("--locale-messages", Some("firstboot.locale-messages"), "LocaleMessages"),
        ("--keymap", Some("firstboot.keymap"), "Keymap"),
        ("--timezone", Some("firstboot.timezone"), "Timezone"),
        ("--hostname", None, "Hostname"),
        ("--root-shell", Some("passwd.shell.root"), "RootShell"),
    ];
    let mut argv = vec!["systemd-firstboot".to_owned(), "--root=/buildroot".to_owned(), "--force".to_owned()];
    let mut credentials = Vec::new();
    for (option, credential, setting) in settings {
        if let Some(text) = cx.view.text(setting) {
            argv.push(format!("{option}={text}"));
            credentials.extend(credential.map(|name| (name, text.to_owned())));
        }
    }
    let mut env = Vec::new();
    let hashed = root_password(cx);
    if let Some(hashed) = &hashed {
        // It asks only if there is no such credential.
        argv.push("--prompt-root-password".to_owned());
        let target = Path::new(CREDENTIALS).join(PASSWORD);
        mounts.push(Mount::File { target, contents: hashed.as_bytes().to_vec(), mode: 0o600 });
        env.push(("CREDENTIALS_DIRECTORY".to_owned(), CREDENTIALS.to_owned()));
        credentials.push((PASSWORD, hashed.clone()));
    }
    if argv.len() == 3 {
        return;
    }
    steps.push(Step::Run { argv, accept: Vec::new(), env });
    if hashed.is_some() || cx.view.text("RootShell").is_some() {
        // systemd-firstboot writes the day on which it runs.
        steps.push(Step::LastChange { user: "root".to_owned(), day: cx.epoch() / DAY });
    }
    // An initrd has `/etc`, and what reads these runs in the system.
    if cx.view.bool("MakeInitrd") && cx.view.test("Format=cpio") {
        return;
    }
    for (name, value) in credentials {
        let mode = if name == PASSWORD { 0o600 } else { 0o644 };
        steps.push(write(format!("usr/lib/credstore/{name}"), &value, mode));
    }
}

/// The root password in the form of crypt(5). An empty one stays empty.
fn root_password(cx: &Context<'_>) -> Option<String> {
    let text = match cx.view.get("RootPassword") {
        Value::Text(text) => text.clone(),
        other => {
            let password = other.field("password").and_then(Value::as_text)?.to_owned();
            let hashed = other.field("hashed").and_then(Value::as_bool).unwrap_or(false);
            if hashed { format!("hashed:{password}") } else { password }
        }
    };
    Some(match text.strip_prefix("hashed:") {
        Some(hashed) => hashed.to_owned(),
        None if text.is_empty() => text,
        None => sha512_crypt(&text, &salt(cx)),
    })
}

/// The salt of the password's hash (crypt(5)): not drawn, so that equal configurations give equal images. Nothing of the
/// password is in it, which is not for those who have the image to test guesses with.
fn salt(cx: &Context<'_>) -> String {
    let name = cx.view.text("ImageId").unwrap_or_default();
    let digest = Encoder::new("mkosi.salt", 1).str(name).digest(&of_tree(cx, "mkosi.salt.tree")).finish();
    digest.hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_machine_id_is_that_of_the_tree() {
        let derived = Digest::of(b"tree");
        let id = machine_id(&Value::text("random"), &derived).unwrap();
        assert!(id.len() == 33 && id.ends_with('\n'), "{id}");
        assert!(id.trim_end().chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()), "{id}");
        assert_eq!(machine_id(&Value::text("random"), &derived).as_ref(), Some(&id));
        assert_ne!(machine_id(&Value::text("random"), &Digest::of(b"other")), Some(id));
        let set = Value::text("0e9a6fe0-68f6-408c-be13-136054d20445");
        assert_eq!(machine_id(&set, &derived).as_deref(), Some("0e9a6fe068f6408cbe13136054d20445\n"));
        assert_eq!(machine_id(&Value::None, &derived), None);
    }
}
