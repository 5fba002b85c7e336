//! OCI images, opened with the programs that people use for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::stores::directory;
use crate::support::{Project, tool};

const CONFIGURATION: &str = "\
[Distribution]
Distribution=custom

[Output]
Format=oci
Output=image
OutputDirectory=mkosi.output
ImageId=os
ImageVersion=7
OciLabels=org.example.team=os quote=\"a b\"
OciAnnotations=org.example.kind=test

[Content]
BaseTrees=tree
KernelCommandLine=systemd.unit=x.target
CleanPackageMetadata=no
SourceDateEpoch=1700000000

[Validation]
Checksum=yes
";

/// A project with a tree of every kind of file.
fn project() -> Project {
    let project = Project::empty(&directory("cache-"));
    fill(&project);
    project
}

fn fill(project: &Project) {
    project.write("mkosi.conf", CONFIGURATION);
    project.write("tree/usr/lib/os-release", "ID=custom\n");
    project.write(&format!("tree/usr/{}/{}", "l".repeat(120), "m".repeat(130)), "long\n");
    shell(
        &project.path().join("tree"),
        "mkdir dev etc run; echo x > run/gone; echo x > etc/hostname; ln etc/hostname etc/name; ln -s ../etc usr/link; \
         mknod etc/null c 1 3; mkfifo etc/pipe; echo y > etc/setuid; chmod 4755 etc/setuid; echo z > etc/owned; \
         chown 1000:3000000 etc/owned; setfattr -n user.note -v word etc/owned; touch -d @1600000000 etc/owned",
    );
}

fn shell(directory: &Path, script: &str) -> String {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(directory))
}

/// What there is below a directory, with all that an image keeps of it.
fn listing(directory: &Path) -> String {
    shell(
        directory,
        "find . -mindepth 1 \\( -path ./run/gone -prune -o -name os-release -o -type d -printf '%P %y %m %U:%G\\n' \
         -o -printf '%P %y %m %U:%G %s %n %l\\n' \\) | LC_ALL=C sort; stat -c '%t:%T' etc/null; \
         getfattr -R -d --absolute-names etc; cat etc/name",
    )
}

/// Every file of the layout with its bytes.
fn files(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let names = shell(&project.output("image"), "find . -type f | LC_ALL=C sort");
    names.lines().map(|name| (name.to_owned(), std::fs::read(project.output("image").join(name)).unwrap())).collect()
}

fn skopeo(project: &Project, arguments: &[&str]) -> Value {
    let output = project.path().join("mkosi.output");
    serde_json::from_str(&tool(Command::new("skopeo").args(arguments).current_dir(output))).unwrap()
}

/// The names in the one layer, as GNU tar lists them.
fn members(project: &Project) -> Vec<String> {
    let layer = "jq() { python3 -c \"import json,sys; print(json.load(open(sys.argv[1]))$1[7:])\" \"$2\"; }; \
                 manifest=blobs/sha256/$(jq \"['manifests'][0]['digest']\" index.json); \
                 tar -tf blobs/sha256/$(jq \"['layers'][0]['digest']\" $manifest)";
    shell(&project.output("image"), layer).lines().map(str::to_owned).collect()
}

#[test]
fn programs_for_containers_read_an_image_and_unpack_the_tree() {
    let project = project();
    project.build();
    let inspected = skopeo(&project, &["inspect", "oci:image:os"]);
    assert_eq!(inspected["Labels"], serde_json::json!({ "org.example.team": "os", "quote": "a b" }));
    assert_eq!((inspected["Architecture"].as_str(), inspected["Os"].as_str()), (Some("amd64"), Some("linux")));
    assert_eq!(inspected["Created"], "2023-11-14T22:13:20Z");
    let config = skopeo(&project, &["inspect", "--config", "oci:image"]);
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["/sbin/init", "systemd.unit=x.target"]));
    let manifest = skopeo(&project, &["inspect", "--raw", "oci:image"]);
    let annotations = &manifest["annotations"];
    assert_eq!(
        (&annotations["org.example.kind"], &annotations["org.opencontainers.image.version"]),
        (&"test".into(), &"7".into())
    );
    assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with(".tar+gzip"), "{manifest}");
    shell(project.path(), "umoci unpack --image mkosi.output/image:os bundle");
    assert_eq!(listing(&project.path().join("bundle/rootfs")), listing(&project.path().join("tree")));
    assert_eq!(shell(&project.path().join("bundle/rootfs/etc"), "stat -c %Y hostname owned"), "1700000000\n".repeat(2));
    shell(&project.path().join("mkosi.output"), "sha256sum --strict --check image.SHA256SUMS");
    assert_eq!(project.read("mkosi.output/image.SHA256SUMS").lines().count(), 5);

    // Another store makes the same bytes.
    let other = self::project();
    other.build();
    assert_eq!(files(&project), files(&other));

    // Other compressions; programs check each digest on the way.
    for (compression, kind) in [("zstd", ".tar+zstd"), ("none", ".tar")] {
        let option = format!("--compress-output={compression}");
        project.done(&[&option]);
        let manifest = skopeo(&project, &["inspect", "--raw", "oci:image"]);
        assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with(kind), "{manifest}");
        assert_eq!(files(&project).len(), 5, "blobs of earlier builds are left");
        shell(project.path(), "rm -rf copy; skopeo copy --quiet --dest-decompress oci:mkosi.output/image:os dir:copy");
        let unpacked = "find copy -size +9k | head -n 1 | xargs tar -tf | grep -c etc/setuid";
        assert_eq!(shell(project.path(), unpacked), "1\n");
    }
    project.fails(&["--compress-output=xz"]).says("CompressOutput=xz");
}

#[test]
fn an_overlay_is_the_difference_and_what_it_removes() {
    let project = project();
    project.configure("[Output]\nOverlay=yes\n[Content]\nRemoveFiles=/etc/name\n");
    project.script("mkosi.postinst", "cd \"$BUILDROOT\"; rm -r usr/l*; mkdir usr/link; echo new > etc/new");
    project.build();
    let members = members(&project);
    let has = |name: &str| members.iter().any(|member| member == name);
    for name in ["./etc/new", "./etc/.wh.name", "./usr/.wh.lib", "./usr/link/"] {
        assert!(has(name), "{name} of {members:?}");
    }
    assert!(!members.iter().any(|name| name.contains("os-release") || name.ends_with(".wh.link")), "{members:?}");

    // Other formats have what overlayfs has: a device 0:0. A script that looks at a directory sees it too.
    project.script("mkosi.postoutput", "cd \"$OUTPUTDIR\"; ! test -d image || stat -c %F image/etc/name > seen");
    for (format, look) in [
        ("tar", "mkdir unpacked; tar -C unpacked -xf mkosi.output/image.tar; cd unpacked"),
        ("directory", "cd mkosi.output/image; grep -q 'character special file' ../seen"),
    ] {
        project.done(&["--format", format, "--compress-output=none"]);
        let look = format!(
            "{look}; find . -name 'lll*' -o -type c -printf '%p ' -exec stat -c %t:%T {{}} \\; -o -type f -print | sort"
        );
        assert_eq!(shell(project.path(), &look), "./etc/name 0:0\n./etc/new\n./usr/lib 0:0\n", "{format}");
    }
}

/// A format takes the place that another had.
#[test]
fn formats_take_each_others_place() {
    let project = project();
    let exists = |name: &str| project.output(name).symlink_metadata().is_ok();
    for _ in 0..2 {
        project.done(&["--format=directory"]);
        assert!(exists("image/usr/lib/os-release") && !exists("image/oci-layout"));
        project.done(&["--format=oci"]);
        assert!(exists("image/oci-layout") && !exists("image/usr"));
        project.done(&["--format=tar", "--compress-output=none"]);
        assert_eq!(std::fs::read_link(project.output("image")).unwrap(), Path::new("image.tar"));
        project.done(&["--format=oci"]);
        project.done(&["--format=oci"]).assert(&[]);
        assert!(exists("image/oci-layout"));
    }
    // What lies in a directory that is not ours is kept, and a blob that was touched is put right.
    std::fs::write(project.output("image/index.json"), "{}").unwrap();
    project.done(&[]).assert(&["publish"]);
    skopeo(&project, &["inspect", "oci:image"]);
    let records = || std::fs::read_dir(project.cache.join("store/outputs")).unwrap().count();
    assert!(records() > 0);
    project.done(&["clean"]);
    assert!(!exists("image") && records() == 0);
    project.write("mkosi.output/image/mine", "mine");
    project.fails(&[]).says("-f");
    assert_eq!(project.read("mkosi.output/image/mine"), "mine");
    project.done(&["-f"]);
    assert!(!exists("image/mine") && exists("image/oci-layout"));
}

/// An image that holds another's layout, as one for a host of containers does, and what is in the archive of a third.
#[test]
fn a_layout_goes_into_another_image_as_a_directory() {
    let project = project();
    project.write(
        "mkosi.images/container.conf",
        "[Output]\nFormat=oci\n[Content]\nBaseTrees=tree\nCleanPackageMetadata=no\n",
    );
    project.write(
        "mkosi.images/archive.conf",
        "[Output]\nFormat=tar\nManifestFormat=json\n[Content]\nBaseTrees=tree\nCleanPackageMetadata=no\n",
    );
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=custom\n[Output]\nFormat=directory\nOutput=image\nOutputDirectory=mkosi.output\n\
         [Config]\nDependencies=container,archive\n[Content]\nCleanPackageMetadata=no\n\
         ExtraTrees=%O/container:/var/lib/container,%O/archive.tar:/unpacked,%O/archive.manifest\n",
    );
    project.build();
    let inside = project.output("image/var/lib/container");
    assert!(inside.join("oci-layout").is_file() && inside.join("blobs/sha256").is_dir());
    skopeo(&project, &["inspect", "oci:image/var/lib/container"]);
    assert_eq!(project.read("mkosi.output/image/unpacked/usr/lib/os-release"), "ID=custom\n");
    assert!(project.read("mkosi.output/image/archive.manifest").contains("manifest_version"));
    project.write("tree/etc/hostname", "another\n");
    project.build();
    shell(&project.path().join("mkosi.output"), "diff -r container image/var/lib/container");
}
