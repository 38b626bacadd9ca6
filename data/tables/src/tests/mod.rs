//! Tests of the tables as a whole; what needs no store is tested beside its code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commits;
mod damage;
mod durable;
mod faults;
mod foreign;
mod lists;
mod pruning;
mod sweep;

use std::sync::Arc;

use reckon_data::clock::{Clock, RandomNames, SystemClock};
use tempfile::TempDir;

use crate::{DeltaTables, Storage};

/// Tables in a folder of their own, which goes with the first value.
fn local() -> (TempDir, DeltaTables) {
    let folder = tempfile::tempdir().unwrap();
    let tables = again(&folder);
    (folder, tables)
}

/// The tables of a folder as another process would open them.
fn again(folder: &TempDir) -> DeltaTables {
    at(folder, Arc::new(SystemClock))
}

fn at(folder: &TempDir, clock: Arc<dyn Clock>) -> DeltaTables {
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    DeltaTables::new(storage, clock).unwrap()
}

const NAMES: RandomNames = RandomNames;
