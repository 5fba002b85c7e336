//! The configuration language: settings, files, command line, and the values that they give each image.
//!
//! Knows nothing of stages, stores, sandboxes or how an image is built.

mod assignments;
mod conditions;
mod context;
mod defaults;
mod derive;
mod diagnostic;
mod environment;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod image;
mod json;
mod lists;
mod load;
mod loader;
mod matching;
mod order;
mod paths;
mod read;
mod refusal;
mod scalars;
mod specifier;
mod syntax;
pub mod table;
mod value;
mod version;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use environment::{EnvironmentError, environment};
pub use host::{HostFacts, default_release, filesystem, is_kernel_package};
pub use image::{Image, View, ViewError};
pub use json::{JsonError, apply_answer, below as build_directory_below, build_subdirectory, expand_key};
pub use load::{DEFAULT_INITRD, LoadInput, Loaded, OptionSetting, load, project_directory};
pub use read::LANGUAGE_VERSION;
pub use specifier::expand_delayed;
pub use value::{Origin, Sourced, Value};
pub use version::{compare as compare_versions, satisfies as version_satisfies};
