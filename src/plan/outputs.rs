//! Where images' outputs lie: which image an input comes from, and what among the sources is no source.
//!
//! Knows nothing of what the outputs hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::inputs::{Digests, FileInput, file_inputs};
use super::{Hidden, StageDecl};
use crate::config::{DEFAULT_INITRD, Image};
use crate::output::{Compression, OutputNames};
use crate::types::Digest;

/// Which file of an image's output a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPart {
    /// The image, whatever its compression: what follows the output's name before that (`.raw`). All files where the image
    /// is a directory of files.
    Image(String),
    /// A file beside the image, by what follows the output's name (`.root-x86-64.raw`).
    Beside(String),
}

impl OutputPart {
    /// What `rest`, which follows the output's name in a path, names of `image`.
    fn new(rest: &str, image: &Image) -> Self {
        let extension = match image.text("OutputExtension").unwrap_or_default() {
            "" => String::new(),
            extension => format!(".{extension}"),
        };
        match rest.strip_prefix(&extension).is_some_and(is_compression) || rest.is_empty() {
            true => Self::Image(extension),
            false => Self::Beside(rest.to_owned()),
        }
    }

    /// The stages of an image that make a file beside it, in the order in which they are asked, and the output that holds
    /// the file. None where it is the stage of the image itself.
    pub(super) fn makers(&self) -> &'static [(&'static str, &'static str)] {
        let Self::Beside(suffix) = self else { return &[] };
        match suffix.as_str() {
            ".SHA256SUMS" => &[("checksum", "files")],
            ".SHA256SUMS.gpg" => &[("sign", "files")],
            ".manifest" => &[("manifest", "files")],
            ".nspawn" => &[("nspawn", "files")],
            ".kernel-modules-initrd" => &[("modules-initrd", "split")],
            ".efi" | ".initrd" | ".osrelease" | ".pcrs" | ".vmlinuz" => &[
                ("kernel", "files"),
                ("artifacts", "files"),
                ("esp-kernel", "files"),
                ("uki", "files"),
                ("addon", "files"),
            ],
            suffix if suffix.strip_prefix(".tar").is_some_and(is_compression) => &[("tar", "files")],
            _ => &[],
        }
    }

    /// The name of the file, of an image with this output name, without what may follow for its compression.
    pub fn of(&self, output: &str) -> String {
        let (Self::Image(name) | Self::Beside(name)) = self;
        format!("{output}{name}")
    }

    /// The part of a stage's files: one file, or all of an image that is a directory.
    pub fn select(&self, files: &BTreeMap<String, Digest>) -> BTreeMap<String, Digest> {
        let (Self::Image(name) | Self::Beside(name)) = self;
        let rest = |file: &str| file.strip_prefix(name.as_str()).map(str::to_owned);
        let exact = files.iter().filter(|(file, _)| *file == name);
        let packed = files.iter().filter(|(file, _)| rest(file).is_some_and(|rest| is_compression(&rest)));
        if let Some((file, digest)) = exact.chain(packed).next() {
            return BTreeMap::from([(file.clone(), *digest)]);
        }
        let inside = files.iter().filter(|(file, _)| rest(file).is_some_and(|rest| rest.starts_with('/')));
        inside.map(|(file, digest)| (file.clone(), *digest)).collect()
    }
}

/// Whether this, at the end of a name, says how the file is compressed.
fn is_compression(end: &str) -> bool {
    let extensions = [Compression::Gzip, Compression::Xz, Compression::Zstd].map(Compression::extension);
    end.is_empty() || extensions.into_iter().flatten().any(|extension| end.strip_prefix('.') == Some(extension))
}

/// Where each image's outputs lie: a thousand images ask for every path that they read.
pub(super) struct Outputs {
    /// By the path of the output without an extension: the images, in their order.
    images: HashMap<PathBuf, Vec<usize>>,
    /// The paths that are directories.
    directories: BTreeSet<PathBuf>,
    /// By output directory: the base names and extensions of what images put there.
    places: BTreeMap<PathBuf, BTreeSet<(String, String)>>,
    /// By output directory that lies among sources: what else was published there.
    published: BTreeMap<PathBuf, BTreeSet<String>>,
    /// By name: the images that settings name by a word.
    named: HashMap<&'static str, usize>,
    /// By source and what is hidden of it anyhow: that with the outputs.
    hidden: Mutex<HashMap<(PathBuf, Hidden), Hidden>>,
}

impl Outputs {
    /// The outputs of `images`.
    pub fn of(images: &[Arc<Image>]) -> Self {
        let mut outputs = Self {
            images: HashMap::new(),
            directories: BTreeSet::new(),
            places: BTreeMap::new(),
            published: BTreeMap::new(),
            named: HashMap::new(),
            hidden: Mutex::default(),
        };
        for (index, image) in images.iter().enumerate() {
            if image.name == DEFAULT_INITRD {
                outputs.named.insert(DEFAULT_INITRD, index);
            }
            let directory = image.path("OutputDirectory").unwrap_or(&image.project);
            let base = image.text("Output").unwrap_or(&image.name);
            let extension = image.text("OutputExtension").unwrap_or_default();
            let names = (base.to_owned(), extension.to_owned());
            outputs.places.entry(directory.to_path_buf()).or_default().insert(names);
            let path = directory.join(base);
            if matches!(image.text("Format").unwrap_or("directory"), "directory" | "oci") {
                outputs.directories.insert(path.clone());
            }
            outputs.images.entry(path).or_default().push(index);
        }
        outputs
    }

    /// Asks what was published in the output directories that lie among sources.
    pub fn look_up(&mut self, images: &[Arc<Image>], digests: &dyn Digests) {
        for (directory, names) in &self.places {
            let among = |image: &Arc<Image>| {
                let hides = |path: &Path| {
                    let own = image.path("OutputDirectory").unwrap_or(&image.project);
                    own != path && own.starts_with(path) && directory.starts_with(own)
                };
                image.get("BuildSources").paths().into_iter().any(|path| directory.starts_with(path) && !hides(path))
            };
            if images.iter().any(among) {
                let published = names.iter().flat_map(|(base, _)| digests.published(directory, base)).collect();
                self.published.insert(directory.clone(), published);
            }
        }
    }

    /// The file inputs of a stage. Outputs that lie among the sources themselves are hidden there, as output directories
    /// are: what the last build published is no change of the sources.
    pub fn file_inputs(&self, image: &Image, decl: &StageDecl) -> Vec<FileInput> {
        let mut inputs = file_inputs(image, decl);
        for input in inputs.iter_mut().filter(|input| input.setting == "BuildSources") {
            let place = (input.path.clone(), input.hidden.clone());
            let mut known = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
            input.hidden = known.entry(place).or_insert_with_key(|(path, own)| self.hidden_of(path, own)).clone();
        }
        inputs
    }

    /// What is hidden of a source besides `own`: what images publish there.
    fn hidden_of(&self, source: &Path, own: &Hidden) -> Hidden {
        let mut hidden = own.to_vec();
        for (directory, bases) in &self.places {
            if directory.starts_with(source) && !own.iter().any(|path| directory.starts_with(path)) {
                let names = bases.iter().flat_map(|(base, extension)| OutputNames::possible(base, extension));
                let names = names.chain(self.published.get(directory).into_iter().flatten().cloned());
                hidden.extend(names.map(|name| directory.join(name)).filter(|path| path != source));
            }
        }
        Hidden::new(hidden)
    }

    /// What an input names of the output of `image`, whose output it is.
    pub fn part_of(&self, input: &FileInput, image: &Image) -> OutputPart {
        let name = input.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(image.text("Output").unwrap_or(&image.name)).unwrap_or_default();
        OutputPart::new(if input.image.is_some() { "" } else { rest }, image)
    }

    /// The image, other than image `own`, whose output an input is.
    pub fn producer_of(&self, input: &FileInput, own: usize) -> Option<usize> {
        match input.image {
            Some(name) => self.named.get(name).copied().filter(|index| *index != own),
            None => self.producer(&input.path, own),
        }
    }

    /// The image, other than image `own`, whose output lies at `path`.
    pub fn producer(&self, path: &Path, own: usize) -> Option<usize> {
        let name = path.file_name()?.to_str()?;
        let dots = name.match_indices('.').map(|(at, _)| at);
        let mut ends: Vec<usize> = dots.chain([name.len()]).collect();
        // `base.v2` is the output of that name before it is a file of `base`.
        ends.reverse();
        let images = ends.into_iter().find_map(|end| self.images.get(&path.with_file_name(&name[..end])))?;
        // Of images that share an output name the first counts, unless one of them asks.
        if images.contains(&own) { None } else { images.first().copied() }
    }

    /// The image, other than image `own`, inside whose output directory tree `path` lies. What is there now is from
    /// an earlier run, so that it must not be hashed.
    pub fn around(&self, path: &Path, own: usize) -> Option<usize> {
        let whole = path.ancestors().skip(1).find(|above| self.directories.contains(*above))?;
        self.producer(whole, own)
    }
}
