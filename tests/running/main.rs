//! The verbs that run an image: their command lines, and what can be run here.

mod commands;
mod host;
