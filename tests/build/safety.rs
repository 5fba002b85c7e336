//! What an image must not do to the host, and what it must be itself.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::stores::{directory, shared};
use crate::support::tool;

#[test]
fn links_lead_nowhere_but_into_the_image() {
    let project = shared();
    let outside = directory("outside-");
    std::fs::write(outside.join("file"), "untouched\n").unwrap();
    let before = tool(Command::new("find").arg(&outside).args(["-printf", "%p %y %s %m %T@ %C@\\n"]));
    let place = outside.to_str().unwrap();
    // A link in the first tree; the second has a directory, a file and another link of the same names.
    let first = project.path().join("first");
    std::fs::create_dir_all(first.join("srv")).unwrap();
    symlink(place, first.join("srv/absolute")).unwrap();
    symlink(format!("../../../../../../../../../../../..{place}"), first.join("srv/relative")).unwrap();
    symlink(format!("{place}/file"), first.join("srv/target")).unwrap();
    project.write("second/srv/absolute/new", "new\n");
    project.write("second/srv/relative/new", "new\n");
    project.write("second/srv/target", "new\n");
    project.reconfigure(
        "[Content]\n",
        "[Content]\nExtraTrees=first\n           second\n           mkosi.extra:/srv/absolute/below\n\
         RemoveFiles=/srv/absolute/file\n            /srv/relative/f*\n",
    );
    // Links that the image's own scripts make, which later stages write through.
    project.script(
        "mkosi.postinst.chroot",
        &format!("rm -f /etc/locale.conf /etc/machine-id\nln -s {place}/file /etc/locale.conf\nln -s {place}/id /etc/machine-id"),
    );
    project.configure("[Content]\nLocale=C.UTF-8\nHostname=escapes\nAutologin=yes\n");
    project.reconfigure("Format=tar", "Format=directory");
    // Whether it succeeds is not the point here; that nothing outside was touched is.
    let ran = project.run(&[]);
    let after = tool(Command::new("find").arg(&outside).args(["-printf", "%p %y %s %m %T@ %C@\\n"]));
    assert_eq!(before, after, "{}", ran.text);
    assert!(ran.success, "{}", ran.text);
    // The links were followed inside the image.
    let inside = project.output("image").join(place.trim_start_matches('/'));
    assert_eq!(std::fs::read_to_string(inside.join("new")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(inside.join("below/etc/extra")).unwrap(), "extra\n");
}

#[test]
fn scripts_change_nothing_but_the_image() {
    let project = shared();
    let outside = directory("outside-");
    let place = outside.display();
    project.write("src/source", "as it was\n");
    let attempts = format!(
        "echo changed > \"$SRCDIR/source\"\nfor dir in {place} /etc /usr /work/src /proc/1/root{place}; do\n\
         echo escaped > $dir/mkosi-escaped 2>/dev/null || true\ndone\n"
    );
    let install = "install -D -m 0755 \"$SRCDIR/hello.sh\" \"$DESTDIR/usr/bin/hello\"\n";
    project.script("mkosi.build", &format!("{install}{attempts}"));
    project.script("mkosi.postinst", &attempts);
    project.done(&[]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    for path in ["/etc/mkosi-escaped", "/usr/mkosi-escaped"] {
        assert!(!std::path::Path::new(path).exists(), "{path}");
    }
    assert_eq!(project.read("src/source"), "as it was\n");
    assert!(!project.path().join("src/mkosi-escaped").exists());
}

#[test]
fn the_package_manager_finds_the_image_in_order() {
    let project = shared();
    // Without what the project itself puts there.
    project.write("mkosi.extra/etc/extra", "of no package\n");
    project.reconfigure("Format=tar", "Format=directory");
    project.build();
    let root = project.output("image");
    let chroot = |command: &[&str]| tool(Command::new("chroot").arg(&root).args(command));
    assert_eq!(chroot(&["dpkg", "--audit"]), "");
    assert_eq!(chroot(&["dpkg", "--verify"]), "");
    assert!(chroot(&["dpkg-query", "-W", "systemd"]).starts_with("systemd"));
    assert_eq!(chroot(&["cat", "/usr/share/greeting"]), "hello\n");
}
