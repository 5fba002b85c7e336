//! What a run tells whoever watches it.

use std::time::Duration;

use crate::plan::{NodeId, Reason};

/// How a node ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The store had its result.
    Cached,
    /// What it publishes was right already.
    Current,
    /// It ran.
    Ran {
        /// For how long.
        duration: Duration,
        /// Whether it gave the same result as its last run.
        same: bool,
    },
    /// It failed; the run's error has the details.
    Failed,
    /// It was stopped on the user's wish.
    Stopped,
}

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The run begins; this many nodes are wanted.
    Begin {
        /// How many.
        nodes: usize,
    },
    /// A node runs now.
    Started {
        /// The node.
        id: NodeId,
        /// Why.
        reasons: &'a [Reason],
    },
    /// A node ended.
    Finished {
        /// The node.
        id: NodeId,
        /// How.
        outcome: Outcome,
    },
    /// A node's command printed a line.
    Line {
        /// The node.
        id: NodeId,
        /// The line without its end.
        line: &'a str,
    },
    /// Something the user should know.
    Note {
        /// The node that it is about.
        id: NodeId,
        /// The text.
        text: &'a str,
    },
}

/// Watches a run. Called from several threads.
pub trait Observer: Sync {
    /// Takes an event.
    fn event(&self, event: Event<'_>);
}

/// Watches nothing.
impl Observer for () {
    fn event(&self, _: Event<'_>) {}
}
