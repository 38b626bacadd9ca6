//! Entities for tests: folders of machines over one store.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use reckon_data::clock::{ManualClock, RandomNames};

use super::{Entities, EntitiesParts, EntityInput, Rules};

/// A data directory, and folders of machines.
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Arc::new(InMemory::new()), clock: Arc::new(ManualClock::at(1)), dir }
    }

    pub(crate) fn folder(&self, machine: &str) -> PathBuf {
        self.dir.path().join(machine)
    }

    pub(crate) fn parts(&self, machine: &str) -> EntitiesParts {
        EntitiesParts {
            dir: self.folder(machine),
            store: Arc::clone(&self.store),
            rules: Rules { entity_id_bytes: 64, reserved_prefixes: vec!["_reckon/".to_owned()] },
            clock: self.clock.clone(),
            names: Arc::new(RandomNames),
        }
    }

    /// Those of the first machine.
    pub(crate) async fn start(&self) -> Arc<Entities> {
        Entities::start(self.parts("one")).await.unwrap()
    }
}

/// What a client says: a channel, and a title that names it.
pub(crate) fn input(channel: Option<&str>) -> EntityInput {
    let title = channel.map(|channel| format!("A Title of {channel}"));
    EntityInput { title, channel: channel.map(str::to_owned), ..EntityInput::default() }
}
