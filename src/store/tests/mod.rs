//! Tests of the store as a whole.

mod copying;
mod layers;
mod merge;
mod upkeep;
mod whole;
