//! What runs without a virtual machine: containers, drives, and what is said when there is nothing to run.

use std::path::Path;
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
    busybox(&image.join("bin"));
    std::fs::write(image.join("etc/os-release"), "ID=test\n").unwrap();
}

/// Puts a shell into a directory of programs.
fn busybox(directory: &Path) {
    std::fs::copy("/bin/busybox", directory.join("busybox"))
        .unwrap_or_else(|error| panic!("/bin/busybox: {error}: this test needs busybox-static"));
    std::os::unix::fs::symlink("busybox", directory.join("sh")).unwrap();
}

#[test]
fn a_shell_in_a_directory() {
    let project = project("directory");
    place(&project);
    project.write("shared/file", "from the host\n");
    project.write("source/file", "a source\n");
    project.write("mkosi.nspawn", "[Exec]\nEnvironment=SETTINGS=taken\n");
    std::fs::create_dir(project.path().join("mkosi.builddir")).unwrap();
    project.configure(
        "[Build]\nBuildSources=source:below\nBuildKey=&I-&d\n\
         [Runtime]\nRuntimeTrees=shared\n             shared:/elsewhere\nCredentials=my.credential=told\n\
         Machine=a_name\nRuntimeNetwork=none\nRuntimeBuildSources=yes\n",
    );
    project.write("mkosi.builddir/main-debian/object", "built\n");
    let script = "b=busybox; cd /root/src; $b cat file /elsewhere/file /work/src/below/file /work/build/object; \
                  $b cat /run/host/credentials/my.credential; echo; echo $SETTINGS; $b hostname; \
                  $b grep -c : /proc/net/dev; echo of the container > written; echo changed > /changed; exit 7";
    let run = |more: &[&str]| {
        let arguments = [more, &["shell", "--", "sh", "-c", script]].concat();
        let output = project.command(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{text}");
        let told = "from the host\nfrom the host\na source\nbuilt\ntold\ntaken\na-name\n1\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{text}");
        assert_eq!(project.read("shared/written"), "of the container\n");
    };
    // A user of the host is bound to a container with ids of its own, in which the image's files are root's all the same.
    assert!(project.fails(&["--bind-user=yes", "shell", "--", "true"]).text.contains("can't bind root"));
    let owners =
        "busybox stat -c %u:%g / /root/src/file /elsewhere/file; [ -e /run/host/userdb/games.user ] && echo bound";
    let mut command = project.command(&["--bind-user=yes", "shell", "--", "sh", "-c", owners]);
    let output = command.env("SUDO_USER", "games").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0:0\n0:0\n0:0\nbound\n", "{output:?}");
    let changed = project.output("image/changed");
    run(&["--ephemeral=yes"]);
    assert!(!changed.exists(), "the copy was changed");
    assert_eq!(std::fs::read_dir(project.output("")).unwrap().count(), 1, "the copy is gone");
    run(&[]);
    assert!(changed.exists());
}

/// A file or device as a loop device, as long as it lives.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        Self(tool(Command::new("losetup").args(["--find", "--show"]).arg(file)).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// The image on a drive that is larger: its partition table fits, and its contents are there.
#[test]
fn a_disk_is_written_to_a_drive() {
    let project = project("disk");
    std::fs::create_dir_all(project.output("")).unwrap();
    let image = project.output("image.raw");
    let make = |size: u64, path: &Path| std::fs::File::create(path).unwrap().set_len(size).unwrap();
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
    // A real drive, as far as the kernel knows.
    let other = project.path().join("other");
    std::fs::write(&other, vec![0xff; 16 << 20]).unwrap();
    let device = Loop::new(&other);
    project.done(&["burn", &device.0]);
    assert_eq!(std::fs::read(&device.0).unwrap(), bytes, "the same as in the file");
    // One that is in use.
    tool(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&device.0));
    let place = project.path().join("mounted");
    std::fs::create_dir(&place).unwrap();
    tool(Command::new("mount").arg(&device.0).arg(&place));
    let text = project.fails(&["burn", &device.0]).text;
    tool(Command::new("umount").arg(&place));
    assert!(text.contains("in use"), "{text}");
    assert!(tool(Command::new("fsck.ext4").arg("-n").arg(&device.0)).contains("clean"), "something was written");
    // Old versions grow nothing and are content.
    script(&project, "systemd-repart", "");
    let grow = ["--extra-search-path=programs", "--runtime-size=64M", "shell"];
    assert!(project.fails(&grow).text.contains("RuntimeSize="));
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
    assert!(project.fails(&["--compress-output=zstd", "journalctl"]).text.contains("CompressOutput=no"));
    assert!(project.fails(&["--ephemeral=yes", "journalctl"]).text.contains("--forward-journal="));
    let nowhere = ["--ephemeral=yes", "--forward-journal=nowhere", "coredumpctl"];
    assert!(project.fails(&nowhere).text.contains("/nowhere: No such file"));
    assert!(project.fails(&["ssh"]).text.contains("mkosi vm"));
    assert!(project.fails(&["sysupdate"]).text.contains("mkosi.sysupdate/"));
    assert!(project.fails(&["--format=tar", "boot"]).text.contains("directory and disk"));
    assert!(project.fails(&["--format=none", "vm"]).text.contains("nothing to run"));
    assert!(project.fails(&["--distribution=custom", "latest-snapshot"]).text.contains("no archive of snapshots"));
}

/// Writes a program of the host, which is found before others of its name.
fn script(project: &Project, name: &str, text: &str) {
    std::fs::create_dir_all(project.path().join("programs")).unwrap();
    project.script(&format!("programs/{name}"), text);
}

/// systemd-sysupdate of a tools tree looks at the host that it updates: its root device, and what it is.
#[test]
fn an_update_with_the_programs_of_a_tree_is_one_of_the_host() {
    let project = project("tar");
    std::fs::create_dir_all(project.output("")).unwrap();
    std::fs::write(project.output("image.tar"), "").unwrap();
    std::fs::create_dir(project.path().join("mkosi.sysupdate")).unwrap();
    let tree = project.path().join("tree/usr");
    for directory in ["bin", "lib/systemd"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    busybox(&tree.join("bin"));
    for name in ["bin", "lib"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), project.path().join("tree").join(name)).unwrap();
    }
    std::fs::write(tree.join("lib/os-release"), "ID=of-the-tree\n").unwrap();
    let sysupdate = |version: u32| {
        project.script(
            "tree/usr/lib/systemd/systemd-sysupdate",
            &format!(
                "[ \"$1\" = --version ] && {{ echo systemd {version}; exit; }}\n\
                 echo \"$@\"; busybox readlink /run/systemd/volatile-root || :; busybox cat /usr/lib/os-release; exit 3"
            ),
        );
    };
    script(&project, "bootctl", "[ \"$*\" = --print-root-device ] && [ -e /usr/bin/dpkg ] && echo /dev/of-the-host");
    let run = || {
        let programs = project.path().join("programs");
        let mut command = project.command(&["--compress-output=no", "--tools-tree=tree", "sysupdate", "--", "list"]);
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display())).output().unwrap()
    };
    sysupdate(256);
    assert!(String::from_utf8_lossy(&run().stderr).contains("it has version 256"));
    sysupdate(257);
    let output = run();
    let release = std::fs::read_to_string("/usr/lib/os-release").unwrap();
    let place = project.path().display();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "--definitions={place}/mkosi.sysupdate --transfer-source={place}/mkosi.output list\n/dev/of-the-host\n{release}"
        ),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(3));
    // An old one can't tell, but mounts do. Where nobody can, there is a note and the update goes on.
    script(&project, "bootctl", "exit 1");
    script(&project, "findmnt", "[ \"$*\" = '-nvo SOURCE /' ] && echo /dev/mounted");
    assert!(String::from_utf8_lossy(&run().stdout).contains("\n/dev/mounted\n"));
    script(&project, "findmnt", "echo overlay");
    let output = run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("Path=auto") && output.status.code() == Some(3), "{text}");
}

/// What a program that looks into the image is given.
#[test]
fn programs_have_the_variables_of_the_image() {
    let project = project("directory");
    place(&project);
    script(&project, "journalctl", "echo \"$@\" $IMAGE_ID $SYSTEMD_PAGER $http_proxy; exit 4");
    project.configure(
        "[Build]\nEnvironment=SYSTEMD_PAGER=none\nProxyUrl=http://proxy\nExtraSearchPaths=programs\n\
         [Output]\nImageId=os\nOutput=image\n",
    );
    let output = project.command(&["journalctl", "--", "--unit=x"]).output().unwrap();
    let image = project.output("image");
    let told = format!("--root {} --unit=x os none http://proxy\n", image.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{output:?}");
    assert_eq!(output.status.code(), Some(4));
}

/// The journal that a system left in its image, as a directory and as a disk, and one that it sent to the host.
#[test]
fn journals_are_read_where_they_are() {
    const ID: &str = "0123456789abcdef0123456789abcdef";
    let project = project("directory");
    place(&project);
    project.write(
        "exported",
        &format!(
            "__REALTIME_TIMESTAMP=1700000000000000\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID={ID}\n_MACHINE_ID={ID}\n\
             MESSAGE=said by the system\n\n"
        ),
    );
    let image = project.output("image");
    let journal = image.join(format!("var/log/journal/{ID}/system.journal"));
    std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
    std::fs::write(image.join("etc/machine-id"), ID).unwrap();
    let mut remote = Command::new("/usr/lib/systemd/systemd-journal-remote");
    tool(remote.arg(format!("--output={}", journal.display())).arg(project.path().join("exported")));
    std::fs::copy(&journal, project.path().join("sent.journal")).unwrap();
    let disk = project.output("image.raw");
    std::fs::File::create(&disk).unwrap().set_len(40 << 20).unwrap();
    let mut child = Command::new("sfdisk").arg("--quiet").arg(&disk).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"label: gpt\nstart=2048, size=73728\n").unwrap();
    assert!(child.wait().unwrap().success());
    let mut make = Command::new("mkfs.ext4");
    tool(make.args(["-q", "-E", "offset=1048576", "-d"]).arg(&image).arg(&disk).arg("36M"));
    for more in [&[][..], &["--format=disk"], &["--ephemeral=yes", "--forward-journal=sent.journal"]] {
        let text =
            project.done(&[more, &["journalctl", "--", "--quiet", "--no-pager", "--output=cat"]].concat()).stdout;
        assert_eq!(text, "said by the system\n", "{more:?}");
    }
}
