//! Compiling and previewing graphs of 10, 100 and 1,000 images, with digests that cost nothing and a store that has
//! nothing: the time that a build spends before it looks at the disk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mkosi::config::{HostFacts, Image, LoadInput, load, table};
use mkosi::plan::{Declarations, Digests, Lookup, NodeId, Plan, compile, preview};
use mkosi::programs::{Identity, Parts};
use mkosi::store::{Artifact, Record, Slot};
use mkosi::types::{Architecture, Digest};

/// A host whose files have digests made of their names.
struct Names;

impl Digests for Names {
    fn path(&self, path: &Path, _: &[PathBuf]) -> Result<Digest, String> {
        Ok(Digest::of(path.as_os_str().as_encoded_bytes()))
    }

    fn tool(&self, name: &str, _: &[PathBuf]) -> Result<Option<Arc<Identity>>, String> {
        Ok(Some(Arc::new(Identity { digest: Digest::of(name.as_bytes()), parts: Parts::new() })))
    }
}

/// A store without a record.
struct Empty;

impl Lookup for Empty {
    fn record(&self, _: &Digest) -> Option<Record> {
        None
    }

    fn last(&self, _: &Slot) -> Option<Record> {
        None
    }

    fn unpublished(&self, _: &Plan, _: NodeId, _: &BTreeMap<String, Artifact>) -> Option<String> {
        Some("nothing lies there".to_owned())
    }

    fn forced(&self, _: &Plan, _: NodeId) -> Option<String> {
        None
    }
}

/// `count` images: packages of their own, one base for ten, a postinst script each.
fn images(count: usize) -> Vec<Image> {
    let project = tempfile::tempdir().expect("no temporary directory");
    let write = |name: &str, text: &str| {
        let path = project.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("no directory");
        std::fs::write(path, text).expect("not written");
    };
    write("mkosi.conf", "[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=none\n");
    for index in 0..count {
        let mut text =
            format!("[Output]\nFormat=tar\n[Content]\nHostname=host{index}\nPackages=systemd package{index}\n");
        if index % 10 != 0 {
            let _ = writeln!(text, "BaseTrees=%O/image{:04}", index - index % 10);
        } else {
            text = text.replace("Format=tar", "Format=directory");
        }
        write(&format!("mkosi.images/image{index:04}/mkosi.conf"), &text);
        write(&format!("mkosi.images/image{index:04}/mkosi.postinst"), "#!/bin/sh\n");
    }
    let input = LoadInput {
        directory: Some(project.path().to_owned()),
        options: Vec::new(),
        images: Vec::new(),
        environment: BTreeMap::new(),
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
        resources: None,
    };
    load(&input).unwrap_or_else(|errors| panic!("{:?}", errors.0)).images
}

fn graph(criterion: &mut Criterion) {
    let known: Vec<&str> = table::SETTINGS.iter().map(|setting| setting.name).collect();
    let declarations = Declarations::built_in(&known).expect("the declarations are sound");
    criterion.bench_function("declarations", |bencher| {
        bencher.iter(|| Declarations::built_in(black_box(&known)).expect("the declarations are sound"));
    });
    let mut group = criterion.benchmark_group("graph");
    group.sample_size(10);
    for count in [10, 100, 1000] {
        let images = images(count);
        assert_eq!(images.len(), count + 1);
        let goals: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
        let compiled = || compile(&declarations, &images, &goals, &Names).expect("the images compile");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::new("compile", count), &count, |bencher, _| bencher.iter(compiled));
        let plan = compiled();
        let wanted = plan.wanted();
        group.bench_with_input(BenchmarkId::new("preview", count), &count, |bencher, _| {
            bencher.iter(|| preview(&plan, &wanted, &Empty));
        });
    }
    group.finish();
}

criterion_group!(benches, graph);
criterion_main!(benches);
