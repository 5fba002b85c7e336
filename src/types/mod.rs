//! Small shared types: digests, the canonical encoding that keys are made of, architectures, words for people.
//!
//! Knows nothing of configuration, stores, sandboxes or images. Every other module may use it.

mod arch;
mod digest;
mod encode;
pub mod human;
mod password;
mod pin;
pub mod suggest;

pub use arch::Architecture;
pub use digest::{Digest, DigestParseError};
pub use encode::Encoder;
pub use password::sha512_crypt;
pub use pin::{files_of_uri, key_of_uri, without_pins};
