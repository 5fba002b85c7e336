//! What a command read of a directory: names, listings, contents, link targets; and the directory as it was shown.
//!
//! A *shape* tells what was looked at and nothing of what was there, so it can be asked of another state of the same
//! directory. Knows nothing of how reading is noticed, of stages or the store.

mod recorder;
mod shape;
mod view;

pub use recorder::{Recorder, Recording};
pub use shape::{Access, Aspect, Difference, Seen, Shape, Sighting};
pub use view::{Kind, Look, Stamp, View};
