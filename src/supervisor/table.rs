//! The processes by id, and which of them changed since the journal was last told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ProcId;
use super::process::Process;

/// All processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table {
    processes: BTreeMap<ProcId, Process>,
    #[serde(skip)]
    changed: BTreeSet<ProcId>,
}

impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        self.processes == other.processes
    }
}

impl Table {
    /// One process.
    pub fn get(&self, id: &ProcId) -> Option<&Process> {
        self.processes.get(id)
    }

    /// One process, which counts as changed.
    pub fn get_mut(&mut self, id: &ProcId) -> Option<&mut Process> {
        let process = self.processes.get_mut(id)?;
        self.changed.insert(*id);
        Some(process)
    }

    /// Adds a process.
    pub fn insert(&mut self, id: ProcId, process: Process) {
        self.changed.insert(id);
        self.processes.insert(id, process);
    }

    /// Removes a process.
    pub fn remove(&mut self, id: &ProcId) {
        self.changed.insert(*id);
        self.processes.remove(id);
    }

    /// All, by id.
    pub fn values(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// All ids.
    pub fn keys(&self) -> impl Iterator<Item = &ProcId> {
        self.processes.keys()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Whether any was added, changed or removed since [`Self::take_changed`].
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Those that were added, changed or removed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<ProcId> {
        std::mem::take(&mut self.changed)
    }
}
