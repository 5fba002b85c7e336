//! Runs the stages that change files of the host which are inputs of others: `mkosi.sync` scripts. Knows nothing of what
//! such a stage does.

use super::scheduler::execute_nodes;
use super::{ExecError, Observer, Options, Shared};
use crate::plan::Plan;
use crate::sandbox::Cancel;
use crate::store::Store;

/// Runs the nodes that are to run before the graph is compiled, one after the other, with what they need (a tools
/// tree). Tells whether any ran: then inputs may be others now, and the graph is to be compiled again, and this to be
/// called again.
///
/// # Errors
/// The first node that fails.
pub fn run_ahead(
    plan: &Plan,
    store: &Store,
    options: &Options,
    observer: &dyn Observer,
    cancel: &Cancel,
    shared: &Shared,
) -> Result<bool, ExecError> {
    let mut ran = false;
    for id in plan.ahead() {
        let wanted = plan.closure([id]);
        // What it needs may be made of files that a script has changed just now.
        if ran && wanted.len() > 1 {
            return Ok(true);
        }
        let summary = execute_nodes(plan, wanted, store, options, observer, cancel, shared)?;
        ran |= summary.ran.contains(&id);
    }
    Ok(ran)
}
