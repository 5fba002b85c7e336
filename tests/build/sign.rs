//! Signatures of checksums, checked by the programs that people check them with.

use std::path::Path;
use std::process::Command;

use crate::support::stores::directory;
use crate::support::{Project, tool, tools};

const CONFIGURATION: &str = "\
[Distribution]
Distribution=custom

[Output]
Format=tar
Output=image
OutputDirectory=mkosi.output

[Content]
ExtraTrees=tree
CleanPackageMetadata=no

[Validation]
Sign=yes
";

fn project() -> Project {
    let project = Project::empty(&directory("cache-"));
    project.write("mkosi.conf", CONFIGURATION);
    project.write("tree/etc/word", "one\n");
    project
}

fn shell(directory: &Path, script: &str) -> String {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(directory))
}

/// A directory of GnuPG with a key of each name and no passphrase. The sockets in it need a short path.
fn home(names: &[&str]) -> tempfile::TempDir {
    let home = tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp").unwrap();
    for name in names {
        add_key(home.path(), name);
    }
    home
}

fn add_key(home: &Path, name: &str) {
    let script = "export GNUPGHOME=$PWD; gpg --batch --quiet --passphrase '' --quick-gen-key \"$0\" ed25519 sign never; \
                  gpgconf --kill gpg-agent; gpg --batch --export > keys";
    tool(Command::new("bash").args(["-euc", script, name]).current_dir(home));
}

/// Checks the sums and their signature; tells who made it.
fn verified(project: &Project, home: &Path) -> String {
    let keys = home.join("keys").display().to_string();
    let script = "sha256sum --quiet --strict --check image.SHA256SUMS; \
                  gpgv --keyring \"$0\" image.SHA256SUMS.gpg image.SHA256SUMS 2>&1 | grep Good";
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", script, &keys]).current_dir(project.output("")))
}

fn signature(project: &Project) -> Vec<u8> {
    std::fs::read(project.output("image.SHA256SUMS.gpg")).unwrap()
}

#[test]
fn a_key_of_the_users_keyring_signs_what_changed() {
    let project = project();
    project.fails(&[]).says("gpg --quick-gen-key");
    let home = home(&["first@example.org"]);
    project.configure(&format!("[Build]\nEnvironment=GNUPGHOME={}\n", home.path().display()));
    project.build();
    assert!(verified(&project, home.path()).contains("first@example.org"));

    // The same image keeps its signature, also when it is published again.
    let first = signature(&project);
    std::fs::remove_file(project.output("image.SHA256SUMS.gpg")).unwrap();
    project.done(&[]).assert(&["publish"]);
    assert!(signature(&project) == first);
    project.write("tree/etc/word", "two\n");
    project.build();
    assert!(signature(&project) != first);
    verified(&project, home.path());
    project.write("tree/etc/word", "one\n");
    project.build();
    assert!(signature(&project) == first, "what was signed once is not signed again");

    // Another key signs again.
    add_key(home.path(), "second@example.org");
    let print = "GNUPGHOME=$PWD gpg --list-keys --with-colons second | awk -F: '/^fpr/{print $10; exit}'";
    let print = shell(home.path(), print).trim().to_owned();
    for key in ["second@example.org", &print] {
        let ran = project.done(&["--key", key]);
        ran.assert(&["sign", "publish"]);
        assert!(verified(&project, home.path()).contains("second@example.org"));
    }
    // Who is named by a whole fingerprint is known whatever else the keyring has.
    add_key(home.path(), "third@example.org");
    project.done(&["--key", &print]).assert(&[]);

    let failed = project.fails(&["--key=nobody@example.org"]);
    failed.says("nobody@example.org");
    failed.says("No secret key");
    project.fails(&["--key=nobody@example.org", "--openpgp-tool=no-such-tool"]).says("no-such-tool");

    // Nothing of the secret keys is in the store.
    let secrets = "! grep -rqaF -e \"$(cat private-keys-v1.d/*.key | grep -ao '(d #[0-9A-F]*' | head -c 40)\" \"$0\"";
    tool(Command::new("bash").args(["-euc", secrets]).arg(&project.cache).current_dir(home.path()));
}

#[test]
fn the_default_tools_tree_has_what_signs() {
    let project = Project::empty(tools::cache());
    let home = home(&["me@example.org"]);
    let home_variable = format!("Environment=GNUPGHOME={}\n", home.path().display());
    project.write("mkosi.conf", &format!("{CONFIGURATION}{}{home_variable}", tools::CONFIGURATION));
    project.write("tree/etc/word", "one\n");
    project.build();
    assert!(verified(&project, home.path()).contains("me@example.org"));
}

#[test]
fn a_program_of_the_stateless_interface_signs_with_a_key_in_a_file() {
    let project = project();
    project.configure("[Validation]\nOpenPGPTool=sqop\n");
    project.fails(&[]).says("Key=");
    project.fails(&["--key=absent.pgp"]).says("absent.pgp");
    shell(project.path(), "sqop generate-key me@example.org > key.pgp; sqop extract-cert < key.pgp > cert.pgp");
    project.configure("[Validation]\nKey=key.pgp\n");
    project.build();
    let check = "sqop verify mkosi.output/image.SHA256SUMS.gpg cert.pgp < mkosi.output/image.SHA256SUMS";
    shell(project.path(), check);
    // The key is the same one in another place, and another one in the same.
    shell(project.path(), "mv key.pgp moved.pgp");
    project.reconfigure("Key=key.pgp", "Key=moved.pgp");
    project.done(&[]).assert(&[]);
    shell(project.path(), "sqop generate-key me@example.org > moved.pgp");
    project.done(&[]).assert(&["sign", "publish"]);
}
