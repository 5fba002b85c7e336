//! Shells where a script failed, and at places of the graph.

use crate::project::Project;

#[test]
fn a_shell_opens_where_a_script_failed() {
    use std::io::Write;
    for (script, expected) in [
        ("mkosi.postinst", "/work/src /buildroot got here\n"),
        ("mkosi.postinst.chroot", "/work/src in-image got here\n"),
    ] {
        let project = Project::new();
        project.script(script, "echo got here >/tmp/x; echo got here >${BUILDROOT-}/left; exit 3");
        let mut command = project.command(&["--debug-shell"]);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut shell = child.stdin.take().unwrap();
        shell.write_all(b"echo $PWD ${BUILDROOT-in-image} $(cat ${BUILDROOT-}/left)\n").unwrap();
        drop(shell);
        let ran = child.wait_with_output().unwrap();
        assert!(!ran.status.success());
        assert_eq!(String::from_utf8_lossy(&ran.stdout), expected);
        assert!(String::from_utf8_lossy(&ran.stderr).contains("status 3"));
    }
}

#[test]
fn a_shell_looks_into_any_place_of_the_graph() {
    let project = Project::new();
    let look = |at: &str, command: &str| project.done(&["shell", "--at", at, "--", "sh", "-c", command]);
    project.script("mkosi.build", "mkdir -p $DESTDIR/usr; echo built >$DESTDIR/usr/built; echo handed >$ARTIFACTDIR/a");
    project.script(
        "mkosi.postinst",
        "echo left >$BUILDROOT/etc/left; rm $BUILDROOT/usr/bin/pwd; echo o >$OUTPUTDIR/o; exit 3",
    );
    let text = project.fails(&["shell", "--at", "postinst"]);
    assert!(text.contains("main/postinst was not built yet"), "{text}");
    let text = project.fails(&[]);
    assert!(text.contains("mkosi shell --at postinst") && !text.contains("--at postinst main"), "{text}");
    // What the script left when it failed, in its own sandbox.
    let left = "cat $BUILDROOT/etc/left /work/out/o /work/artifacts/a $SRCDIR/code; test ! -e $BUILDROOT/usr/bin/pwd
         test -x $SCRIPT; pwd; echo changed >$BUILDROOT/etc/left; echo changed >$SRCDIR/code; echo changed >/work/out/o";
    for _ in 0..2 {
        let text = look("postinst", left);
        assert!(text.contains("left\no\nhanded\nthe code\n/work/src\n"), "{text}");
        assert!(text.contains("`postinst` left when it failed") && text.contains("status 3"), "{text}");
    }
    let before = look("before:postinst", "cat $BUILDROOT/usr/built; ls /work/out; test ! -e $BUILDROOT/etc/left");
    assert_eq!(before, "built\n");
    assert_eq!(look("build", "cat $DESTDIR/usr/built; test ! -e $BUILDROOT/usr/built"), "built\n");
    // A stage without scripts: in the image.
    assert_eq!(look("extra", "cat /usr/built; echo $container ${BUILDROOT-none}"), "built\nmkosi none\n");
    let (_, text) =
        project.run(&["shell", "--at", "before:extra", "main", "--", "sh", "-c", "test ! -e /usr/built; exit 5"]);
    assert_eq!(text, "");
    let ended = project.command(&["shell", "--at", "base", "--", "sh", "-c", "exit 5"]).status().unwrap();
    assert_eq!(ended.code(), Some(5));
    let ended = project.command(&["shell", "--at", "base", "--", "sh", "-c", "kill -TERM $$"]).status().unwrap();
    assert_eq!(ended.code(), Some(128 + 15));
    for (at, said) in [
        ("postint", "did you mean `postinst`"),
        ("prepare", "no part of the image"),
        ("publish", "main/kernel was not built yet"),
        ("before:base", "works on no tree"),
        ("during:base", "neither `before:` nor `after:`"),
    ] {
        let text = project.fails(&["shell", "--at", at]);
        assert!(text.contains(said), "{at}: {text}");
    }
    // A success takes the place of a failure.
    project.script("mkosi.postinst", "echo right >$BUILDROOT/etc/right");
    project.done(&[]);
    assert_eq!(look("postinst", "ls $BUILDROOT/etc"), "right\n");
    project.script("mkosi.postinst", "echo other >$BUILDROOT/etc/right");
    let text = look("postinst", "cat $BUILDROOT/etc/right");
    assert!(text.contains("have changed since") && text.contains("right\n"), "{text}");
}
