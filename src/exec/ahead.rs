//! Runs the stages that change files of the host which are inputs of others: `mkosi.sync` scripts. Knows nothing of what
//! such a stage does.

use std::collections::BTreeMap;

use super::node::{Job, Made};
use super::{Event, ExecError, Observer, Options, Outcome};
use crate::plan::Plan;
use crate::sandbox::Cancel;
use crate::store::{Hasher, Store};

/// Runs the nodes that are to run before the graph is compiled, one after the other. Tells whether any ran: then inputs
/// may be others now, and the graph is to be compiled again.
///
/// # Errors
/// The first node that fails.
pub fn run_ahead(
    plan: &Plan,
    store: &Store,
    options: &Options,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<bool, ExecError> {
    let (mut ran, made, hasher) = (false, Made::default(), Hasher::new(store));
    for id in plan.ahead() {
        let node = &plan.graph[id];
        let forced = options.force.reason(node);
        let needs = BTreeMap::new();
        let job = Job { store, hasher: &hasher, options, observer, cancel, id, node, needs, forced, made: &made };
        let outcome = match job.cached() {
            Some(done) => done.outcome,
            None => match job.run() {
                Ok(done) => done.outcome,
                Err(error) => {
                    let stopped = matches!(error, ExecError::Cancelled);
                    let outcome = if stopped { Outcome::Stopped } else { Outcome::Failed };
                    observer.event(Event::Finished { id, outcome });
                    return Err(error);
                }
            },
        };
        ran |= matches!(outcome, Outcome::Ran { .. });
        observer.event(Event::Finished { id, outcome });
    }
    Ok(ran)
}
