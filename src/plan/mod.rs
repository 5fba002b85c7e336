//! From images to one graph of stage nodes: the declarations in `graphs/`, the compiler, keys and explanations.
//!
//! Knows what a stage declares, never what its code does. Runs nothing.

mod compile;
mod condition;
mod decl;
mod declarations;
mod detail;
mod error;
mod explain;
mod graph;
mod inputs;
mod key;
mod need;
mod outputs;
mod preview;
mod render;
mod sources;
mod unclaimed;

pub use compile::{NodeId, Source, compile};
pub use condition::Condition;
pub use decl::{ARGUMENTS, Network, Pool, Programs, RootAccess, SandboxProfile, Sources, StageDecl};
pub use declarations::Declarations;
pub use detail::in_detail;
pub use error::PlanError;
pub use explain::{Change, ReadChange, Reason, explain, explain_read, input_in_words};
pub use graph::{Edge, Node, Plan};
pub use inputs::{Digests, TOOLS_IMAGE, ToolsTree};
pub use key::{TREE, key_of, node_inputs, pre_key_of};
pub use need::{Need, Parsed};
pub use outputs::OutputPart;
pub use preview::{Lookup, Preview, State, preview};
pub use render::{Format, render};
pub use sources::{Hidden, hidden_paths};
pub use unclaimed::{WITHOUT_STAGE, check, unclaimed, unsupported};
