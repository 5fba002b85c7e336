//! What can't be compiled, how images use each other's outputs, and what a skipped stage leaves.

use std::collections::{BTreeMap, BTreeSet};

use mkosi::config::{Image, Value};
use mkosi::plan::{Declarations, OutputPart, Source, check, compile, unsupported};
use mkosi::types::Digest;

use super::support::{Project, declarations, edges, four, keys_by_stage, rich, with};

fn error(project: &Project, images: &[Image]) -> String {
    let error = compile(&declarations(), images, &[], &project.digests()).unwrap_err().to_string();
    error.replace(project.root().to_str().unwrap(), "PROJECT")
}

fn image<'a>(images: &'a [Image], name: &str) -> &'a Image {
    images.iter().find(|image| image.name == name).unwrap()
}

#[test]
fn images_in_a_circle_are_both_named() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n"),
        ("mkosi.images/left.conf", "[Output]\nFormat=directory\n[Content]\nBaseTrees=%O/right\n"),
        ("mkosi.images/right.conf", "[Output]\nFormat=directory\n[Content]\nBaseTrees=%O/left\n"),
    ]);
    let error = error(&project, &project.images());
    assert!(error.contains("left") && error.contains("right") && error.contains("circle"), "{error}");
}

/// A path that no stage reads makes no image wait for another, so it makes no circle either.
#[test]
fn only_what_a_stage_reads_is_a_dependency() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=directory\nOutputDirectory=out\n[Runtime]\nRuntimeTrees=%O/app\n"),
        ("mkosi.images/app.conf", "[Output]\nFormat=directory\n[Content]\nBaseTrees=%O/image\n"),
    ]);
    let plan = project.compile(&project.images());
    let need = ("file/BaseTrees/00".to_owned(), "main/hwdb".to_owned(), "tree".to_owned());
    assert!(edges(&plan, "app", "base").iter().any(|(input, _, _)| *input == need.0));
}

#[test]
fn an_output_of_another_image_is_an_edge() {
    let project = four();
    let plan = project.compile(&project.images());
    let node = &plan.graph[plan.nodes["app"]["base"]];
    let part = OutputPart::Image(String::new());
    assert_eq!(node.sources["file/BaseTrees/00"], Source::Image { output: "base".to_owned(), part });
    assert!(!node.inputs.contains_key("file/BaseTrees/00"), "what lies there now is not what counts");
    // The tree of `base` is that of its topmost stage which changes something.
    let need = edges(&plan, "app", "base").into_iter().find(|edge| edge.0 == "file/BaseTrees/00").unwrap();
    assert_eq!((need.1.as_str(), need.2.as_str()), ("base/kernel", "tree"));
    // Asking for the one image brings the other along.
    let goals = ["app".to_owned()];
    let plan = compile(&declarations(), &project.images(), &goals, &project.digests()).unwrap();
    let wanted = plan.wanted();
    assert!(wanted.contains(&plan.nodes["base"]["configure"]));
    assert!(!wanted.contains(&plan.nodes["base"]["publish"]) && !wanted.contains(&plan.nodes["two"]["tar"]));
}

#[test]
fn an_archive_of_another_image_is_an_edge() {
    let project = four();
    let mut images = project.images();
    let tree = |path: &str| {
        let path = Value::Path(project.root().join(path));
        Value::List(vec![Value::Map([("source".to_owned(), path), ("target".to_owned(), Value::None)].into())])
    };
    let app = with(image(&images, "app"), "ExtraTrees", tree("out/one.tar.zst"));
    images.retain(|image| image.name != "app");
    images.push(app);
    let plan = project.compile(&images);
    let need = edges(&plan, "app", "extra").into_iter().find(|edge| edge.0 == "file/ExtraTrees/00").unwrap();
    assert_eq!((need.1.as_str(), need.2.as_str()), ("one/tar", "files"));
    // Outputs lie in the output directory: the same name elsewhere is a file like others.
    let app = with(image(&images, "app"), "ExtraTrees", tree("elsewhere/one.tar.zst"));
    let plan = project.compile(&[app, image(&images, "base").clone(), image(&images, "one").clone()]);
    assert!(plan.graph[plan.nodes["app"]["extra"]].inputs.contains_key("file/ExtraTrees/00"));
}

/// A disk with its partitions beside it is several files, and not all of them come from one stage.
#[test]
fn a_path_names_one_file_of_an_output() {
    let compiled = |setting: &str, path: &str| {
        let app = format!("[Output]\nFormat=directory\n[Content]\n{setting}={path}\n");
        let project = Project::new(&[
            ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n"),
            ("mkosi.images/app.conf", &app),
            ("mkosi.images/os.conf", "[Output]\nFormat=disk\nSplitArtifacts=partitions,tar\nManifestFormat=json\n"),
        ]);
        let plan = project.compile(&project.images());
        let (stage, input) = if setting == "BaseTrees" { ("base", "00") } else { ("extra", "00") };
        let input = format!("file/{setting}/{input}");
        let node = &plan.graph[plan.nodes["app"][stage]];
        let (_, need, output) = edges(&plan, "app", stage).into_iter().find(|edge| edge.0 == input).unwrap();
        let Source::Image { part, .. } = node.sources[&input].clone() else { panic!("{path} is a file of the host") };
        (format!("{need}.{output}"), part, node.inputs.get(&format!("name/{input}")).copied())
    };
    let image = |extension: &str| OutputPart::Image(extension.to_owned());
    let beside = |suffix: &str| OutputPart::Beside(suffix.to_owned());
    let mut names = BTreeSet::new();
    for (path, from, part) in [
        ("os.raw", "os/disk.files", image(".raw")),
        ("os.root-x86-64.raw", "os/disk.files", beside(".root-x86-64.raw")),
        ("os.root-x86-64-verity.raw", "os/disk.files", beside(".root-x86-64-verity.raw")),
        ("os.manifest", "os/manifest.files", beside(".manifest")),
        ("os.tar", "os/tar.files", beside(".tar")),
    ] {
        let (need, found, name) = compiled("ExtraTrees", &format!("%O/{path}"));
        assert_eq!((need.as_str(), found), (from, part), "{path}");
        assert!(names.insert(name.unwrap()), "{path} has another key than the others");
    }
    for path in ["os", "os.raw.zst"] {
        assert_eq!(compiled("ExtraTrees", &format!("%O/{path}")), compiled("ExtraTrees", "%O/os.raw"));
    }
    // A disk as a base is the tree that it was made of.
    let (need, _, name) = compiled("BaseTrees", "%O/os.raw");
    assert!(need.ends_with(".tree") && name.is_none(), "{need}");
}

#[test]
fn a_file_is_told_from_those_beside_it() {
    let files = |names: &[&str]| -> BTreeMap<String, Digest> {
        names.iter().map(|name| ((*name).to_owned(), Digest::of(name.as_bytes()))).collect()
    };
    let names = |part: OutputPart, made: &[&str]| part.select(&files(made)).into_keys().collect::<Vec<_>>();
    let disk = [".esp.raw", ".raw", ".repart.d/10-root.conf", ".root-x86-64.raw", ".roothash"];
    assert_eq!(names(OutputPart::Image(".raw".to_owned()), &disk), [".raw"]);
    assert_eq!(names(OutputPart::Beside(".root-x86-64.raw".to_owned()), &disk), [".root-x86-64.raw"]);
    assert_eq!(names(OutputPart::Beside(".repart.d".to_owned()), &disk), [".repart.d/10-root.conf"]);
    assert_eq!(names(OutputPart::Beside(".root".to_owned()), &disk), [""; 0]);
    let packed = [".esp.raw.zst", ".raw.zst", ".roothash"];
    assert_eq!(names(OutputPart::Image(".raw".to_owned()), &packed), [".raw.zst"]);
    assert_eq!(names(OutputPart::Beside(".esp.raw".to_owned()), &packed), [".esp.raw.zst"]);
    let oci = ["/blobs/sha256/00", "/index.json", "/oci-layout"];
    assert_eq!(names(OutputPart::Image(String::new()), &oci), oci);
}

/// `base.v2` is the output of an image of that name, whichever comes first, and not a file of `base`.
#[test]
fn the_longest_output_name_counts() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n"),
        ("mkosi.images/app.conf", "[Output]\nFormat=directory\n[Content]\nBaseTrees=%O/base.v2\n"),
        ("mkosi.images/base.conf", "[Output]\nFormat=directory\n"),
        ("mkosi.images/base.v2.conf", "[Output]\nFormat=directory\nImageVersion=7\nOutput=base.v2\n"),
    ]);
    let mut images = project.images();
    for _ in 0..2 {
        let plan = project.compile(&images);
        let need = edges(&plan, "app", "base").into_iter().find(|edge| edge.0 == "file/BaseTrees/00").unwrap();
        assert_eq!(need.1, "base.v2/kernel");
        images.reverse();
    }
}

/// Without an error the key of `app` would not know what it is built on.
#[test]
fn an_output_that_no_stage_makes_is_an_error() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n"),
        ("mkosi.images/app.conf", "[Output]\nFormat=directory\n[Content]\nExtraTrees=%O/kernel.img\n"),
        ("mkosi.images/kernel.conf", "[Output]\nFormat=none\n"),
    ]);
    insta::assert_snapshot!(error(&project, &project.images()));
}

/// What lies there now is what an earlier run made.
#[test]
fn a_part_of_an_output_is_an_error() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n"),
        ("mkosi.images/app.conf", "[Output]\nFormat=directory\n[Content]\nExtraTrees=%O/base/usr/share:/usr/share\n"),
        ("mkosi.images/base.conf", "[Output]\nFormat=directory\n"),
    ]);
    insta::assert_snapshot!(error(&project, &project.images()));
    // Where no image of that name is built, it is a directory like others.
    let mut images = project.images();
    images.retain(|image| image.name != "base");
    let plan = project.compile(&images);
    assert!(plan.graph[plan.nodes["app"]["extra"]].inputs.contains_key("file/ExtraTrees/00"));
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let project = rich();
    let mut digests = project.digests();
    digests.missing.insert("mkosi.postinst".to_owned());
    let error = compile(&declarations(), &project.images(), &[], &digests).unwrap_err().to_string();
    assert!(error.contains("PostInstallationScripts=") && error.contains("mkosi.postinst"), "{error}");
}

#[test]
fn needs_fall_through_skipped_stages() {
    let text = "[Output]\nFormat=tar\n[Content]\nBootable=no\nCleanPackageMetadata=no\nSELinuxRelabel=no\n";
    let project = Project::new(&[("mkosi.conf", text)]);
    let plan = project.compile(&project.images());
    let tree = |stage: &str| edges(&plan, "main", stage).into_iter().find(|edge| edge.0 == "tree").map(|edge| edge.1);
    assert_eq!(tree("hwdb").as_deref(), Some("main/base"));
    assert_eq!(tree("configure").as_deref(), Some("main/hwdb"));
    assert_eq!(tree("tar").as_deref(), Some("main/modules"));
    // The build overlay stands on the image without the hardware database.
    let rich = rich();
    let plan = rich.compile(&rich.images());
    let need = |stage: &str, input: &str| edges(&plan, "main", stage).into_iter().find(|edge| edge.0 == input);
    assert_eq!(need("build", "tree").unwrap().1, "main/prepare-build");
    assert_eq!(need("volatile-packages", "tree").unwrap().1, "main/hwdb");
    assert_eq!(need("extra", "tree").unwrap().1, "main/volatile-packages");
    assert_eq!(need("extra", "need/build.dest").unwrap().1, "main/build");
}

#[test]
fn packages_of_other_images_are_needed_where_volatile_packages_are() {
    let image = |rest: &str| format!("[Output]\nFormat=directory\n{rest}");
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n[Distribution]\nDistribution=debian\n"),
        ("mkosi.images/a.conf", &image("[Config]\nDependencies=z\n[Content]\nVolatilePackages=own\n")),
        ("mkosi.images/b.conf", &image("[Config]\nDependencies=z\n")),
        ("mkosi.images/z/mkosi.conf", &image("")),
        ("mkosi.images/z/mkosi.build", ""),
        ("mkosi.images/z/mkosi.prepare", ""),
    ]);
    let plan = project.compile(&project.images());
    let need = |image: &str| {
        let found = edges(&plan, image, "resolve-volatile").into_iter();
        found.filter(|edge| edge.0.starts_with("need/dependency.")).collect::<Vec<_>>()
    };
    let edge = need("a").pop().unwrap();
    assert_eq!((edge.0.as_str(), edge.1.as_str()), ("need/dependency.z", "z/build"));
    assert!(need("b").is_empty());
}

#[test]
fn a_custom_distribution_needs_no_packages() {
    let project = Project::new(&[
        ("mkosi.conf", "[Distribution]\nDistribution=custom\n[Output]\nFormat=directory\n[Content]\nBaseTrees=lower\n"),
        ("lower/", ""),
        ("mkosi.skeleton/", ""),
        ("mkosi.postinst", ""),
    ]);
    let image = project.image();
    check(&image, &declarations()).unwrap();
    assert_eq!(unsupported(&image, &declarations()), []);
    let plan = project.compile(&[image]);
    for stage in ["sync", "resolve", "download", "packages"] {
        assert!(plan.graph[plan.nodes["main"][stage]].skipped.is_some(), "{stage}");
    }
    assert_eq!(edges(&plan, "main", "base"), []);
    let base = &plan.graph[plan.nodes["main"]["base"]];
    assert!(base.skipped.is_none() && base.inputs.contains_key("file/SkeletonTrees/00"));
    assert!(keys_by_stage(&plan).contains_key(&("main".to_owned(), "publish".to_owned())));
}

#[test]
fn a_format_that_can_not_be_made_is_refused_with_its_line() {
    let project = Project::new(&[("mkosi.conf", "[Distribution]\nDistribution=debian\n\n[Output]\nFormat=oci\n")]);
    let text = "[stage.tar]\nabout = \"\"\nversion = 1\npool = \"cpu\"\nsandbox = {}\n";
    let one = Declarations::parse(&[("one.toml", text)], &[]).unwrap();
    let error = check(&project.image(), &one).unwrap_err().to_string();
    assert!(error.contains("Format=oci") && error.contains("mkosi.conf:5"), "{error}");
    assert!(error.ends_with("what works is directory, none, tar"), "{error}");
}

#[test]
fn a_setting_without_effect_is_told_with_its_line() {
    let project = Project::new(&[("mkosi.conf", "[Output]\nFormat=tar\n[Content]\nSELinuxRelabel=yes\n")]);
    assert_eq!(unsupported(&project.image(), &declarations()), []);
    // As long as no stage knows it.
    let stage = "[stage.tar]\nabout = \"x\"\nversion = 1\npool = \"cpu\"\nsettings = [\"Format\"]\nsandbox = {}\n";
    let few = Declarations::parse(&[("few.toml", stage)], &["Format"]).unwrap();
    let told = unsupported(&project.image(), &few);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "SELinuxRelabel");
    assert!(told[0].1.to_string().ends_with("mkosi.conf:4"), "{}", told[0].1);
}
