//! The processes by id and by the names of their apps, and which of them changed since the journal was last told.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::ProcId;
use super::process::Process;

/// All processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table {
    /// Boxed: a map's nodes are half empty.
    processes: BTreeMap<ProcId, Box<Process>>,
    #[serde(skip)]
    changed: BTreeSet<ProcId>,
    #[serde(skip)]
    names: Names,
}

/// The processes by hashes of the names of their apps: among thousands, who looks for a name cannot look at all.
#[derive(Clone, Debug, Default)]
struct Names {
    ids: BTreeSet<(u64, ProcId)>,
    hashes: BTreeMap<ProcId, u64>,
    /// Those that may have another name by now.
    stale: BTreeSet<ProcId>,
    /// False as long as nothing was entered.
    is_complete: bool,
}

impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        self.processes == other.processes
    }
}

impl Table {
    /// One process.
    pub fn get(&self, id: &ProcId) -> Option<&Process> {
        self.processes.get(id).map(Box::as_ref)
    }

    /// One process, which counts as changed.
    pub fn get_mut(&mut self, id: &ProcId) -> Option<&mut Process> {
        let process = self.processes.get_mut(id)?;
        self.changed.insert(*id);
        self.names.stale.insert(*id);
        Some(process)
    }

    /// Adds a process.
    pub fn insert(&mut self, id: ProcId, process: Process) {
        self.changed.insert(id);
        self.names.stale.insert(id);
        self.processes.insert(id, Box::new(process));
    }

    /// Removes a process.
    pub fn remove(&mut self, id: &ProcId) {
        self.changed.insert(*id);
        self.names.stale.insert(*id);
        self.processes.remove(id);
    }

    /// Those whose app has this name, by id.
    pub fn named<'a>(&'a mut self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Process> {
        self.enter_names();
        let hash = hash(name);
        let ids = self.names.ids.range((hash, ProcId(0))..=(hash, ProcId(u32::MAX)));
        let named = ids.filter_map(|(_, id)| self.processes.get(id).map(Box::as_ref));
        named.filter(move |process| process.app.name == name)
    }

    /// Has every process under its name.
    fn enter_names(&mut self) {
        let names = &mut self.names;
        if !names.is_complete {
            names.stale.extend(self.processes.keys());
            names.is_complete = true;
        }
        while let Some(id) = names.stale.pop_first() {
            let new = self.processes.get(&id).map(|process| hash(&process.app.name));
            let old = match new {
                Some(new) => names.hashes.insert(id, new),
                None => names.hashes.remove(&id),
            };
            if old != new {
                old.map(|old| names.ids.remove(&(old, id)));
                new.map(|new| names.ids.insert((new, id)));
            }
        }
    }

    /// All, by id.
    pub fn values(&self) -> impl Iterator<Item = &Process> {
        self.processes.values().map(Box::as_ref)
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

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Desired, State};
    use super::*;
    use crate::app::App;

    fn process(id: u32, name: &str) -> Process {
        let text = serde_json::json!({
            "id": id, "app": App { name: name.to_string(), ..App::default() }, "instance": 0,
            "desired": Desired::Down, "state": State::Stopped, "record": {},
        });
        serde_json::from_value(text).unwrap()
    }

    fn named(table: &mut Table, name: &str) -> Vec<u32> {
        table.named(name).map(|process| process.id.0).collect()
    }

    #[test]
    fn a_process_is_found_by_the_name_that_it_has_now() {
        let mut table = Table::default();
        for (id, name) in [(0, "a"), (1, "b"), (2, "a")] {
            table.insert(ProcId(id), process(id, name));
        }
        assert_eq!((named(&mut table, "a"), named(&mut table, "b")), (vec![0, 2], vec![1]));
        assert_eq!(table.named("a").next_back().unwrap().id, ProcId(2));
        table.get_mut(&ProcId(2)).unwrap().app = Arc::new(App { name: "b".to_string(), ..App::default() });
        assert_eq!((named(&mut table, "a"), named(&mut table, "b")), (vec![0], vec![1, 2]));
        table.remove(&ProcId(1));
        table.insert(ProcId(0), process(0, "c"));
        assert_eq!((named(&mut table, "b"), named(&mut table, "c")), (vec![2], vec![0]));
        assert!(named(&mut table, "a").is_empty());
        let mut restored: Table = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!((named(&mut restored, "b"), named(&mut restored, "c")), (vec![2], vec![0]));
    }
}
