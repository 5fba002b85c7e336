//! forced
