//! Where images' outputs lie: which image an input comes from, and what among the sources is no source.
//!
//! Knows nothing of what the outputs hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StageDecl;
use super::inputs::{FileInput, file_inputs};
use crate::config::{DEFAULT_INITRD, Image};
use crate::output::OutputNames;

/// Where each image's outputs lie: a thousand images ask for every path that they read.
pub(super) struct Outputs {
    /// By the path of the output without an extension: the images, in their order.
    images: HashMap<PathBuf, Vec<usize>>,
    /// The paths that are directories.
    directories: BTreeSet<PathBuf>,
    /// By output directory: the base names of what images put there.
    places: BTreeMap<PathBuf, BTreeSet<String>>,
    /// By name: the images that settings name by a word.
    named: HashMap<&'static str, usize>,
}

impl Outputs {
    /// The outputs of `images`.
    pub fn of(images: &[Arc<Image>]) -> Self {
        let mut outputs = Self {
            images: HashMap::new(),
            directories: BTreeSet::new(),
            places: BTreeMap::new(),
            named: HashMap::new(),
        };
        for (index, image) in images.iter().enumerate() {
            if image.name == DEFAULT_INITRD {
                outputs.named.insert(DEFAULT_INITRD, index);
            }
            let directory = image.path("OutputDirectory").unwrap_or(&image.project);
            let base = image.text("Output").unwrap_or(&image.name);
            outputs.places.entry(directory.to_path_buf()).or_default().insert(base.to_owned());
            let path = directory.join(base);
            if matches!(image.text("Format").unwrap_or("directory"), "directory" | "oci") {
                outputs.directories.insert(path.clone());
            }
            outputs.images.entry(path).or_default().push(index);
        }
        outputs
    }

    /// The file inputs of a stage. Outputs that lie among the sources themselves are hidden there, as output directories
    /// are: what the last build published is no change of the sources.
    pub fn file_inputs(&self, image: &Image, decl: &StageDecl) -> Vec<FileInput> {
        let mut inputs = file_inputs(image, decl);
        for input in inputs.iter_mut().filter(|input| input.setting == "BuildSources") {
            let mut published = Vec::new();
            for (directory, bases) in &self.places {
                if directory.starts_with(&input.path) && !input.hidden.iter().any(|path| directory.starts_with(path)) {
                    let names = bases.iter().flat_map(|base| OutputNames::possible(base));
                    published.extend(names.map(|name| directory.join(name)).filter(|path| *path != input.path));
                }
            }
            input.hidden.extend(published);
            input.hidden.sort();
            input.hidden.dedup();
        }
        inputs
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
