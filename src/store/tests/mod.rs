//! Tests of the store as a whole.

mod copying;
mod failed;
mod labels;
mod layers;
mod merge;
mod upkeep;
mod whole;
