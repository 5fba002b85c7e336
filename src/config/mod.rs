//! The configuration language: settings, files, command line, and the values that they give each image.
//!
//! Knows nothing of stages, stores, sandboxes or how an image is built.

mod image;
mod value;

pub use image::{Image, View, ViewError};
pub use value::{Origin, Sourced, Value};
