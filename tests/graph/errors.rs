//! What can't be compiled, how images use each other's outputs, and what a skipped stage leaves.

use mkosi::config::{Image, Value};
use mkosi::plan::{Declarations, Source, check, compile, unsupported};

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
    assert_eq!(node.sources["file/BaseTrees/00"], Source::Image);
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
