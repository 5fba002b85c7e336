//! The same tree in a container, to the target that a system normally reaches.

use crate::machine::turn;
use crate::support::tools;
use crate::system::{STATUS, project};

const FORWARDED: &str = "--forward-journal=journal/proof.journal";

#[test]
fn a_container_boots_to_its_target_and_ends_with_a_status() {
    let _turn = turn();
    let project = project(tools::cache(), "");
    project.reconfigure("Format=disk", "Format=directory");
    project.reconfigure("Bootable=yes", "Bootable=no");
    let units = "mkosi.extra/usr/lib/systemd/system";
    let late = "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\n";
    project.write(&format!("{units}/proof.service.d/late.conf"), late);
    // Where the system finds this directory, it keeps its journal there.
    project.write("mkosi.extra/var/log/journal/.keep", "");
    project.build();
    let mut command = project.command(&[
        "--tools-tree=",
        "--ephemeral=no",
        "--kernel-command-line-extra=systemd.unit=proof.target",
        FORWARDED,
        "boot",
    ]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(STATUS)), "{text}");
    for said in ["proof: begin", "proof: system debian 13", "proof: credential told", "proof: end"] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
    let journal = ["--tools-tree=", "--ephemeral=no", "journalctl", "--", "--no-pager", "--output=cat"];
    let text = project.done(&[&journal[..], &["--unit=proof.service"]].concat()).stdout;
    assert!(text.contains("Tell what the system runs on"), "{text}");
    // What it sent to the host, to its last word: of a machine that runs on a copy there is nothing else.
    let journal = ["--tools-tree=", FORWARDED, "journalctl", "--", "--no-pager", "--output=cat"];
    let text = project.done(&journal).stdout;
    assert!(text.contains("Tell what the system runs on") && text.trim_end().ends_with("Journal stopped"), "{text}");
}
