//! Scripts of every kind, run for real on images without packages. These tests need root.

#[path = "scripts/project.rs"]
mod project;
#[path = "scripts/shell.rs"]
mod shell;

use std::collections::{BTreeMap, BTreeSet};

use mkosi::stage::script::{Kind, TABLE};
use project::Project;

/// The kinds, and the scripts that stand for them.
const KINDS: [(Kind, &str); 7] = [
    (Kind::Sync, "mkosi.sync"),
    (Kind::Prepare, "mkosi.prepare"),
    (Kind::Build, "mkosi.build"),
    (Kind::PostInstallation, "mkosi.postinst"),
    (Kind::Finalize, "mkosi.finalize"),
    (Kind::PostOutput, "mkosi.postoutput"),
    (Kind::Clean, "mkosi.clean"),
];

/// What `env` printed.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn each_kind_gets_the_variables_of_the_table() {
    let project = Project::new();
    project.configure(
        "[Output]\nImageId=appliance\nImageVersion=7\n[Content]\nSourceDateEpoch=1700000000\n\
         [Config]\nProfiles=one,two\n[Build]\nBuildDirectory=mkosi.builddir\nWithTests=no\n\
         Environment=OWN=mine WITH_DOCS=user\n",
    );
    project.write("mkosi.env", "FROM_FILE=file\nOWN=file\n");
    std::fs::create_dir(project.path().join("mkosi.builddir")).unwrap();
    for (kind, name) in KINDS {
        // What each kind can write to and outlives it.
        let to = match kind {
            Kind::Sync => "$SRCDIR/env-sync",
            Kind::Prepare => "$ARTIFACTDIR/prepare-$1",
            Kind::Clean => "$SRCDIR/env-clean",
            _ => "$OUTPUTDIR/${0##*/}",
        };
        let more = match kind {
            Kind::Finalize => "cp $ARTIFACTDIR/prepare-* $OUTPUTDIR",
            _ => "",
        };
        project.script(name, &format!("env >{to}\n{more}"));
    }
    project.done(&[]);
    assert_eq!(project.output("prepare-build"), project.output("prepare-final"));
    for (kind, _) in KINDS {
        if kind == Kind::Clean {
            project.done(&["clean"]);
        }
        let name = match kind {
            Kind::Sync => "src/env-sync",
            Kind::Clean => "src/env-clean",
            Kind::Prepare => "mkosi.output/prepare-final",
            Kind::Build => "mkosi.output/build-script",
            Kind::PostInstallation => "mkosi.output/postinst",
            Kind::Finalize => "mkosi.output/finalize",
            Kind::PostOutput => "mkosi.output/postoutput",
        };
        let variables = variables(&project.read(name));
        let set: BTreeSet<&str> = variables.keys().map(String::as_str).collect();
        let general = [
            "PATH",
            "LANG",
            "LC_ALL",
            "TZ",
            "HOME",
            "TMPDIR",
            "PWD",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "GIT_CONFIG_VALUE_0",
            "OWN",
            "FROM_FILE",
            "WITH_DOCS",
            "_",
            "SHLVL",
            "OLDPWD",
        ];
        let expected: BTreeSet<&str> =
            TABLE.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(name, _)| *name).collect();
        let missing: Vec<_> = expected.difference(&set).collect();
        assert!(missing.is_empty(), "{kind:?} lacks {missing:?}");
        let more: Vec<_> = set.iter().filter(|n| !expected.contains(*n) && !general.contains(n)).collect();
        assert!(more.is_empty(), "{kind:?} has {more:?}");
        let is = |name: &str, value: &str| assert_eq!(variables.get(name).map(String::as_str), Some(value), "{kind:?}");
        is("OWN", "mine");
        is("FROM_FILE", "file");
        is("WITH_DOCS", "user");
        is("SRCDIR", "/work/src");
        is("IMAGE_ID", "appliance");
        is("IMAGE_VERSION", "7");
        is("DISTRIBUTION", "custom");
        is("MKOSI_CONFIG", "/work/config.json");
        if kind.has("WITH_TESTS") {
            is("WITH_TESTS", "0");
        }
        if kind.has("PROFILES") {
            is("PROFILES", "one two");
        }
        if kind.has("SOURCE_DATE_EPOCH") {
            is("SOURCE_DATE_EPOCH", "1700000000");
        }
        if kind == Kind::Sync {
            is("CACHED", "0");
        }
    }
}

#[test]
fn environment_files_count_by_what_they_say() {
    let project = Project::new();
    project.write("mkosi.env", "# a comment\n\nA = one \nHOME\nNOWHERE\nQ=\"q\"\n");
    project.script("mkosi.postinst", "echo \"$A $HOME ${NOWHERE-unset} $Q\" >$BUILDROOT/said");
    project.done(&[]);
    assert_eq!(project.output("image/said"), format!("one {}  \"q\"\n", project.path().display()));
    let text = project.done(&["graph"]);
    assert!(!text.contains("would run"), "{text}");
    project.write("other.env", &project.read("mkosi.env").replace("one", "two"));
    std::fs::rename(project.path().join("other.env"), project.path().join("mkosi.env")).unwrap();
    project.done(&[]);
    assert!(project.output("image/said").starts_with("two "));
    project.write("mkosi.env", "A=1\n =nothing\n");
    let text = project.fails(&[]);
    assert!(text.contains("mkosi.env:2: `=nothing`"), "{text}");
}

#[test]
fn scripts_of_a_directory_run_in_order_and_in_the_image_by_their_suffix() {
    let project = Project::new();
    project.script("mkosi.postinst.d/20-b", "echo b $1 $(cat $BUILDROOT/log) >$BUILDROOT/log");
    project.script("mkosi.postinst.d/10-a.chroot", "echo a $1 ${BUILDROOT-inside} $container $SCRIPT $0 >/log");
    project.script("mkosi.postinst.d/30-c.chroot", "cat /log $SRCDIR/code >/etc/log; test -f $MKOSI_CONFIG");
    project.done(&[]);
    assert_eq!(
        project.output("image/etc/log"),
        "b final a final inside mkosi /work/postinst /work/postinst\nthe code\n"
    );
    assert!(!project.exists("mkosi.output/image/work"));
}

#[test]
fn an_old_script_enters_the_image_by_itself() {
    let project = Project::new();
    project.script(
        "mkosi.postinst",
        "if [ -z \"${inside-}\" ] && [ \"$container\" = mkosi ] && [ -n \"${BUILDROOT-}\" ]; then\n\
         exec mkosi-chroot $SCRIPT \"$@\"\nfi\necho \"$1 $SCRIPT ${BUILDROOT-none}\" >/entered",
    );
    project.done(&[]);
    assert_eq!(project.output("image/entered"), "final /work/postinst none\n");
}

#[test]
fn outputs_packages_and_artifacts_are_handed_on() {
    let project = Project::new();
    project.configure("[Content]\nPackageDirectories=debs\n");
    project.write("debs/given.deb", "given");
    project.write("debs/readme", "no package");
    project.script("mkosi.prepare", "echo $1 >>$ARTIFACTDIR/prepared; ls $PACKAGEDIR >$BUILDROOT/seen-$1");
    project.script(
        "mkosi.build",
        "mkdir -p $ARTIFACTDIR/local.x; echo art >$ARTIFACTDIR/local.x/a; chmod 755 $ARTIFACTDIR/local.x/a
         echo out >$OUTPUTDIR/built; echo gone >$OUTPUTDIR/gone; echo deb >$PACKAGEDIR/own.deb; mkdir -p $DESTDIR/usr
         cp $SRCDIR/code $DESTDIR/usr/code; test ! -e $BUILDROOT/usr/code",
    );
    project.script(
        "mkosi.postinst",
        "test -x $ARTIFACTDIR/local.x/a; cat $ARTIFACTDIR/prepared >$OUTPUTDIR/prepared
         ls $PACKAGEDIR >$OUTPUTDIR/packages; echo more >>$OUTPUTDIR/built; cat $BUILDROOT/usr/code",
    );
    project.script("mkosi.finalize", "rm $OUTPUTDIR/gone; test -x $ARTIFACTDIR/local.x/a; cat $OUTPUTDIR/built");
    project.done(&[]);
    assert_eq!(project.output("image/seen-final"), "given.deb\n");
    assert!(!project.exists("mkosi.output/image/seen-build"));
    assert_eq!(project.output("prepared"), "final\nbuild\n");
    assert_eq!(project.output("packages"), "given.deb\nown.deb\n");
    assert_eq!(project.output("built"), "out\nmore\n");
    assert!(!project.exists("mkosi.output/gone"));
    assert!(project.done(&[]).contains("up to date"));
}

#[test]
fn postoutput_scripts_have_the_last_word_on_the_outputs() {
    let project = Project::new();
    project.script("mkosi.build", "echo one >$OUTPUTDIR/one; echo two >$OUTPUTDIR/two");
    project.script(
        "mkosi.postoutput",
        "cd $OUTPUTDIR; ls; cp one three; rm two; test -x image/usr/bin/sh; ! touch image/x 2>/dev/null",
    );
    project.done(&[]);
    assert_eq!(project.output("three"), "one\n");
    assert!(project.exists("mkosi.output/one") && !project.exists("mkosi.output/two"));
    assert!(project.exists("mkosi.output/image/usr/bin/sh") && !project.exists("mkosi.output/image/x"));
}

#[test]
fn sync_scripts_change_the_sources_before_they_are_hashed() {
    let project = Project::new();
    project.script("mkosi.sync", "echo \"fetched $CACHED\" >>fetched; ls /work >&2");
    project.script("mkosi.build", "cp $SRCDIR/fetched $OUTPUTDIR");
    project.done(&[]);
    assert_eq!(project.output("fetched"), "fetched 0\n");
    // Kept until a refresh, like the metadata of repositories.
    assert!(project.done(&[]).contains("up to date"));
    project.done(&["update"]);
    assert_eq!(project.output("fetched"), "fetched 0\nfetched 1\n");
    project.script("mkosi.sync", "echo broken; exit 4");
    let text = project.fails(&["update"]);
    assert!(text.contains("mkosi.sync final") && text.contains("status 4") && text.contains("broken"), "{text}");
}

#[test]
fn clean_scripts_see_the_output_directory() {
    let project = Project::new();
    project.script("mkosi.clean", "rm -f $OUTPUTDIR/left $SRCDIR/made; test ! -e $OUTPUTDIR/image");
    project.done(&[]);
    project.write("mkosi.output/left", "");
    project.write("src/made", "");
    project.done(&["clean"]);
    assert!(
        !project.exists("mkosi.output/left") && !project.exists("src/made") && !project.exists("mkosi.output/image")
    );
    project.script("mkosi.clean", "exit 3");
    let text = project.fails(&["clean"]);
    assert!(text.contains("mkosi.clean") && text.contains("status 3"), "{text}");
}

#[test]
fn changes_to_the_sources_are_thrown_away() {
    for mode in ["no", "yes"] {
        let project = Project::new();
        project.configure(&format!("[Build]\nBuildSourcesEphemeral={mode}\n"));
        let change =
            "test -e $SRCDIR/code; rm $SRCDIR/code; echo x >$SRCDIR/new; mkdir $SRCDIR/dir; echo y >>$SRCDIR/kept";
        project.write("src/kept", "kept\n");
        for script in ["mkosi.prepare", "mkosi.build", "mkosi.postinst", "mkosi.finalize", "mkosi.postoutput"] {
            project.script(script, change);
        }
        project.done(&[]);
        assert_eq!((project.read("src/code").as_str(), project.read("src/kept").as_str()), ("the code\n", "kept\n"));
        assert!(!project.exists("src/new") && !project.exists("src/dir"), "{mode}");
    }
}

#[test]
fn the_build_cache_keeps_changes_for_the_next_build() {
    let project = Project::new();
    project.configure("[Build]\nBuildSourcesEphemeral=buildcache\n");
    project.script("mkosi.build", "echo run >>$SRCDIR/object; cp $SRCDIR/object $OUTPUTDIR");
    let text = project.fails(&[]);
    assert!(text.contains("BuildDirectory="), "{text}");
    project.configure("[Build]\nBuildDirectory=mkosi.builddir\n");
    project.done(&[]);
    assert_eq!(project.output("object"), "run\n");
    project.write("src/code", "changed\n");
    project.done(&[]);
    assert_eq!(project.output("object"), "run\nrun\n");
    assert!(!project.exists("src/object"));
}

#[test]
fn inner_sources_lie_above_outer_ones_and_own_files_are_hidden() {
    let project = Project::new();
    let conf = project.read("mkosi.conf").replace("BuildSources=src", "BuildSources=inner:a/b outer:a .");
    project.write("mkosi.conf", &conf);
    project.write("inner/file", "inner\n");
    project.write("outer/b/file", "outer\n");
    project.write("outer/file", "outer\n");
    project.script("mkosi.build", "cd $SRCDIR; cat a/b/file a/file src/code >$OUTPUTDIR/read; ls >$OUTPUTDIR/listing");
    project.done(&[]);
    assert_eq!(project.output("read"), "inner\nouter\nthe code\n");
    let listing = project.output("listing");
    // The base is a name that mkosi doesn't know.
    assert_eq!(listing, "a\ninner\nmkosi.base\nouter\nsrc\n");
}

#[test]
fn a_build_directory_is_kept_and_only_read_later() {
    let project = Project::new();
    project.configure("[Build]\nBuildDirectory=mkosi.builddir\n");
    project.script("mkosi.build", "echo object >$BUILDDIR/object");
    project.script("mkosi.postinst", "cat $BUILDDIR/object >$OUTPUTDIR/object; ! touch $BUILDDIR/x 2>/dev/null");
    project.done(&[]);
    assert_eq!(project.output("object"), "object\n");
}

#[test]
fn the_configuration_is_what_the_stage_declares() {
    let project = Project::new();
    project.script("mkosi.postinst", "cp $MKOSI_CONFIG $OUTPUTDIR/config");
    project.done(&[]);
    let config: serde_json::Value = serde_json::from_str(&project.output("config")).unwrap();
    assert_eq!(config["Distribution"], "custom");
    assert_eq!(config["PostInstallationScripts"], serde_json::json!(["mkosi.postinst"]));
    assert!(config.get("Format").is_none(), "{config}");
    assert!(!config.to_string().contains(&*project.path().to_string_lossy()), "{config}");
}

#[test]
fn users_are_made_in_the_image_and_git_trusts_the_sources() {
    let project = Project::new();
    project.write("mkosi.base/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    project.write("mkosi.base/etc/group", "root:x:0:\n");
    project.script(
        "mkosi.postinst",
        "groupadd --system --gid 950 staffs; useradd --system --uid 951 --gid 950 --no-create-home worker
         git config --get-all safe.directory >$OUTPUTDIR/git",
    );
    project.done(&[]);
    assert!(project.output("image/etc/passwd").contains("worker:!:951:950:"));
    assert!(project.output("image/etc/group").contains("staffs:x:950:"));
    assert_eq!(project.output("git"), "*\n");
}

#[test]
fn package_commands_act_on_the_image() {
    let project = Project::new();
    let conf = project.read("mkosi.conf").replace("Distribution=custom", "Distribution=debian\nRelease=trixie");
    project.write("mkosi.conf", &conf);
    project.configure(&format!("[Distribution]\nLocalMirror={}\n", project.path().join("mirror").display()));
    project.write("mkosi.base/var/lib/dpkg/status", "");
    project.write("mkosi.base/etc/passwd", "root:x:0:0::/:/bin/sh\nours:x:4711:4711::/:/bin/sh\n");
    project.write("mkosi.base/etc/group", "root:x:0:\nours:x:4711:\n");
    let mirror = project.path().join("mirror");
    let run = |script: &str| {
        let ran = std::process::Command::new("sh").args(["-euc", script]).current_dir(project.path()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    // A mirror with two packages, one of which needs the other.
    run("a=$(dpkg --print-architecture)
         for p in needed wanted; do
             mkdir -p deb/DEBIAN deb/usr/share/$p; echo $p >deb/usr/share/$p/file
             printf 'Package: %s\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' $p >deb/DEBIAN/control
             [ $p = needed ] || echo 'Depends: needed' >>deb/DEBIAN/control
             mkdir -p mirror/pool; dpkg-deb -b --root-owner-group deb mirror/pool/$p.deb >/dev/null; rm -r deb
         done
         cd mirror; mkdir -p dists/trixie/main/binary-$a
         for f in pool/*.deb; do dpkg-deb -f $f; echo Filename: $f; echo Size: $(stat -c %s $f)
             echo SHA256: $(sha256sum $f | cut -d' ' -f1); echo; done >dists/trixie/main/binary-$a/Packages
         cd dists/trixie
         { echo Suite: trixie; echo Codename: trixie; echo Components: main; echo Architectures: $a all; echo SHA256:
           f=main/binary-$a/Packages; echo \" $(sha256sum $f | cut -d' ' -f1) $(stat -c %s $f) $f\"; } >Release");
    assert!(mirror.join("pool/wanted.deb").exists());
    project.script(
        "mkosi.prepare",
        "[ $1 = final ] || exit 0; mkosi-install wanted; dpkg-query -W >$ARTIFACTDIR/list
         apt-mark showmanual >$ARTIFACTDIR/manual; apt-cache policy wanted >$ARTIFACTDIR/policy",
    );
    project.script(
        "mkosi.build",
        "mkdir -p /tmp/deb/DEBIAN /tmp/deb/etc
         printf 'Package: own\\nVersion: 2\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\nDepends: needed\\n' \
             >/tmp/deb/DEBIAN/control
         printf '#!/bin/sh\\nls /proc/self/stat /dev/null /run/host >/etc/postinst-ran; cat /etc/passwd >>/etc/postinst-ran\\n' \
             >/tmp/deb/DEBIAN/postinst; chmod 755 /tmp/deb/DEBIAN/postinst
         echo own >/tmp/deb/etc/own; chown 4711:4711 /tmp/deb/etc/own
         dpkg-deb -b /tmp/deb $PACKAGEDIR/own.deb",
    );
    project.script(
        "mkosi.postinst",
        "cp $ARTIFACTDIR/* $OUTPUTDIR; mkosi-install own; mkosi-remove wanted; dpkg-query -W >$OUTPUTDIR/list2
         apt-get install ours-unknown && exit 1; test ! -e /var/lib/dpkg/status",
    );
    project.done(&[]);
    assert_eq!(project.output("list"), "needed\t1\nwanted\t1\n");
    assert_eq!(project.output("manual"), "wanted\n");
    assert!(project.output("policy").contains("Installed: 1"));
    assert_eq!(project.output("list2"), "needed\t1\nown\t2\n");
    assert_eq!(project.output("image/etc/own"), "own\n");
    let ran = project.output("image/etc/postinst-ran");
    assert!(ran.contains("/proc/self/stat") && ran.contains("/run/host") && ran.contains("ours:x:4711"), "{ran}");
    assert!(!project.exists("mkosi.output/image/usr/share/wanted"));
    for left in ["usr/sbin/policy-rc.d", "var/lib/dpkg/lock", "var/log/dpkg.log", "work", "var/lib/dpkg/status-old"] {
        assert!(!project.exists(&format!("mkosi.output/image/{left}")), "{left}");
    }
    assert!(project.done(&[]).contains("up to date"));
}

#[test]
fn arguments_reach_build_scripts_and_their_key() {
    let project = Project::new();
    project.script(
        "mkosi.build",
        "for a in \"$@\"; do echo \"<$a>\"; done >$OUTPUTDIR/arguments; grep -v arguments $MKOSI_CONFIG",
    );
    project.script("mkosi.postinst", "echo \"$@\" >$OUTPUTDIR/postinst");
    project.done(&[]);
    assert_eq!(project.output("arguments"), "");
    let graph = project.done(&["graph", "--", "one"]);
    assert!(graph.contains("what stands after `--` is new"), "{graph}");
    project.done(&["build", "--", "one", "two words", "-f"]);
    assert_eq!(project.output("arguments"), "<one>\n<two words>\n<-f>\n");
    assert_eq!(project.output("postinst"), "final\n");
    assert!(project.done(&["--", "one", "two words", "-f"]).contains("up to date"));
    project.done(&[]);
    assert_eq!(project.output("arguments"), "");
}

#[test]
fn sync_scripts_have_the_agent_and_no_secret() {
    let project = Project::new();
    let socket = project.path().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    project.write(".gitconfig", "[user]\nname = Somebody\n");
    project.write(".ssh/known_hosts", "host\n");
    project.write(".ssh/id_rsa", "secret\n");
    project.script(
        "mkosi.sync",
        "test -S $SSH_AUTH_SOCK; git config user.name >seen; cat ~/.ssh/known_hosts >>seen
         test ! -e ~/.ssh/id_rsa; ! (: >>~/.ssh/known_hosts) 2>/dev/null; ls ~root/.ssh >>seen",
    );
    let text = project.done(&["graph"]);
    assert!(text.contains("sync-scripts") && text.contains("never built"), "{text}");
    let ran = project.command(&[]).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(project.read("src/seen"), "Somebody\nhost\nknown_hosts\n");
    let text = project.done(&["graph"]);
    assert!(text.lines().any(|line| line.contains("sync-scripts") && line.contains("cached")), "{text}");
}

#[test]
fn a_build_goes_on_when_nobody_reads_what_it_says() {
    let project = Project::new();
    project.script("mkosi.postinst", "echo here >$BUILDROOT/made");
    let mut child = project.command(&[]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert!(project.exists("mkosi.output/image/made"));
}

#[test]
fn a_failed_script_is_named_with_its_end() {
    let project = Project::new();
    project.script("mkosi.postinst.d/10-fails", "echo last words; exit 9");
    let text = project.fails(&[]);
    assert!(text.contains("10-fails final") && text.contains("status 9") && text.contains("last words"), "{text}");
    project.script("mkosi.postinst.d/10-fails", "kill -SEGV $$");
    let text = project.fails(&[]);
    assert!(text.contains("10-fails final") && text.contains("SIGSEGV"), "{text}");
}
