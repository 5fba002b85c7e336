//! What runs without a virtual machine: containers, drives, and what is said when there is nothing to run.

use std::process::{Command, Stdio};

use crate::support::{Project, stores, tool};

/// A project with an image that only has a shell.
fn project(format: &str) -> Project {
    let project = Project::empty(&stores::scratch().join("no-cache"));
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=debian\nRelease=trixie\n\
             [Output]\nFormat={format}\nOutputDirectory=mkosi.output\n"
        ),
    );
    project
}

/// Puts a tree with a shell where a build would have put the image.
fn place(project: &Project) {
    let image = project.output("image");
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
        std::fs::create_dir_all(image.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", image.join("bin/sh"))
        .unwrap_or_else(|error| panic!("/bin/busybox: {error}: this test needs busybox-static"));
    std::fs::write(image.join("etc/os-release"), "ID=test\n").unwrap();
}

#[test]
fn a_shell_in_a_directory() {
    let project = project("directory");
    place(&project);
    project.write("shared/file", "from the host");
    project.write(
        "mkosi.conf",
        &format!("{}\n[Runtime]\nRuntimeTrees=shared\nCredentials=my.credential=told\n", project.read("mkosi.conf")),
    );
    let script = "read line < /root/src/file; echo $line; read line < /run/host/credentials/my.credential; echo $line; \
                  echo changed > /changed; exit 7";
    let run = |more: &[&str]| {
        let arguments = [more, &["shell", "--", "sh", "-c", script]].concat();
        let output = project.command(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "from the host\ntold\n", "{text}");
    };
    let changed = project.output("image/changed");
    run(&["--ephemeral=yes"]);
    assert!(!changed.exists(), "the copy was changed");
    assert_eq!(std::fs::read_dir(project.output("")).unwrap().count(), 1, "the copy is gone");
    run(&[]);
    assert!(changed.exists());
}

/// The image on a drive that is larger: its partition table fits, and its contents are there.
#[test]
fn a_disk_is_written_to_a_drive() {
    let project = project("disk");
    std::fs::create_dir_all(project.output("")).unwrap();
    let image = project.output("image.raw");
    let make = |size: u64, path: &std::path::Path| std::fs::File::create(path).unwrap().set_len(size).unwrap();
    make(8 << 20, &image);
    let mut child = Command::new("sfdisk").arg("--quiet").arg(&image).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"label: gpt\nstart=2048, size=4096\n").unwrap();
    assert!(child.wait().unwrap().success());
    let drive = project.path().join("drive");
    make(4 << 20, &drive);
    let name = drive.to_string_lossy().into_owned();
    assert!(project.fails(&["burn", &name]).text.contains("take a larger one"));
    std::fs::write(&drive, vec![0xff; 16 << 20]).unwrap();
    project.done(&["burn", &name]);
    let bytes = std::fs::read(&drive).unwrap();
    assert_eq!(bytes[1 << 20..3 << 20], std::fs::read(&image).unwrap()[1 << 20..3 << 20]);
    assert_eq!(&bytes[(16 << 20) - 512..][..8], b"EFI PART", "the copy of the table is at the end");
    let verified = tool(Command::new("sfdisk").arg("--verify").arg(&drive));
    assert!(verified.contains("No errors detected"), "{verified}");
    for (words, text) in [
        (&["burn"][..], "needs one drive"),
        (&["burn", "a", "b"], "needs one drive"),
        (&["burn", "/nowhere"], "/nowhere"),
    ] {
        assert!(project.fails(words).text.contains(text), "{words:?}");
    }
}

/// What a machine fetches from the host: an output, whole and in part, until a signal ends it.
#[test]
fn outputs_are_served() {
    let project = project("tar");
    std::fs::create_dir_all(project.output("")).unwrap();
    std::fs::write(project.output("image.tar"), "an archive").unwrap();
    let mut child = project.command(&["--compress-output=none", "serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("http://localhost:8081/") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended");
    }
    let get = |request: &str| {
        let mut stream = std::net::TcpStream::connect(("localhost", 8081)).unwrap();
        let text = format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    let whole = get("GET /image.tar HTTP/1.1");
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n\r\nan archive"), "{whole}");
    let part = get("GET /image.tar HTTP/1.1\r\nRange: bytes=3-5");
    assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\narc"), "{part}");
    assert!(get("GET /../mkosi.conf HTTP/1.1").starts_with("HTTP/1.1 4"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_not_built_is_not_run() {
    let project = project("disk");
    for verb in ["vm", "shell", "boot", "serve", "journalctl", "coredumpctl"] {
        let text = project.fails(&[verb]).text;
        assert!(text.contains("is not built") && text.contains("mkosi build"), "{verb}: {text}");
    }
    assert!(project.fails(&["ssh"]).text.contains("mkosi vm"));
    assert!(project.fails(&["sysupdate"]).text.contains("mkosi.sysupdate/"));
    assert!(project.fails(&["--format=tar", "boot"]).text.contains("directory and disk"));
    assert!(project.fails(&["--format=none", "vm"]).text.contains("nothing to run"));
    assert!(project.fails(&["--distribution=custom", "latest-snapshot"]).text.contains("no archive of snapshots"));
}
